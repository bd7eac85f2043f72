import { createHash, randomBytes, timingSafeEqual } from 'node:crypto';
import type { Principal, Right } from './access.ts';

// The text of a token is `ft_`, 8 characters that name it, and 43 that are the secret: 256 random bits.
// What is kept of it is its plain SHA-256. A slow, salted hash (scrypt, argon2) protects passwords because
// people choose few of them; a guess at 256 random bits does not become feasible by being fast, and a slow
// hash would have to run with every request, for anyone who sends one.

const prefixText = 'ft_';
const idLength = 8;
const secretSizeBytes = 32;
const tokenForm = /^ft_[\w-]{51}$/;

/** A token as it is kept. */
export interface Token {
  readonly name: string;
  /** The part of the text that is no secret. */
  readonly id: string;
  /** SHA-256 of the whole text, hex. */
  readonly secretHash: string;
  /** Names and directories without a slash at the end; "/" is everything. */
  readonly prefixes: readonly string[];
  readonly rights: readonly Right[];
  readonly createdAtMs: number;
  readonly expiresAtMs?: number | undefined;
}

/** A new token's text, shown once, and what is kept of it. */
export function makeSecret(): { readonly text: string; readonly id: string; readonly secretHash: string } {
  const id = randomBytes(6).toString('base64url');
  const text = `${prefixText}${id}${randomBytes(secretSizeBytes).toString('base64url')}`;
  return { text, id, secretHash: hashOf(text).toString('hex') };
}

function hashOf(text: string): Buffer {
  return createHash('sha256').update(text).digest();
}

/** What one token allows. */
export class TokenPrincipal implements Principal {
  readonly name: string;
  readonly unrestricted: boolean;
  readonly expiresAtMs: number;
  readonly #rights: ReadonlySet<Right>;
  readonly #everything: boolean;
  readonly #prefixes: readonly string[];
  /** The prefixes with a slash at the end, as directories; none below another; sorted. */
  readonly #directories: readonly string[];

  constructor(token: Token) {
    this.name = token.name;
    this.expiresAtMs = token.expiresAtMs ?? Number.POSITIVE_INFINITY;
    this.#rights = new Set(token.rights);
    this.#everything = token.prefixes.includes('/');
    this.#prefixes = token.prefixes;
    this.#directories = outermost(token.prefixes.map((prefix) => (prefix === '/' ? '/' : `${prefix}/`)));
    this.unrestricted =
      this.#everything &&
      ['read', 'write', 'delete', 'list'].every((right) => this.#rights.has(right as Right));
  }

  may(right: Right, path: string): boolean {
    return this.#rights.has(right) && (this.#everything || this.#covers(path));
  }

  listable(directory: string): readonly string[] {
    if (!this.#rights.has('list')) return [];
    if (this.#everything || this.#covers(directory)) return [directory];
    return this.#directories.filter((below) => below.startsWith(directory));
  }

  #covers(path: string): boolean {
    for (const directory of this.#directories) if (path.startsWith(directory)) return true;
    return this.#prefixes.includes(path);
  }
}

/** Those that are below no other, in byte order, as names are listed. */
function outermost(directories: readonly string[]): string[] {
  const kept: string[] = [];
  const texts = [...new Set(directories)].map((text) => Buffer.from(text));
  const sorted = texts.toSorted((one, other) => Buffer.compare(one, other));
  for (const directory of sorted.map(String)) {
    // In byte order all that is below a directory follows it before anything else.
    const above = kept.at(-1);
    if (above === undefined || !directory.startsWith(above)) kept.push(directory);
  }
  return kept;
}

interface KnownToken {
  readonly hash: Buffer;
  readonly principal: TokenPrincipal;
}

/** Compared with where no token has the id, so that this takes as long as a wrong secret does. */
const noHash = Buffer.alloc(32);

/** The tokens of a store at one moment, ready to be asked. */
export class TokenBook {
  readonly size: number;
  /** Whether the tokens that there were can't be found: nobody can be told from anybody then. */
  readonly lost: boolean;
  /** Whether nothing is known of them yet: who comes now must come again. */
  readonly unread: boolean;
  readonly #byId = new Map<string, KnownToken>();
  readonly #byName = new Map<string, TokenPrincipal>();

  constructor(tokens: readonly Token[], state: { readonly lost?: boolean; readonly unread?: boolean } = {}) {
    this.size = tokens.length;
    this.lost = state.lost ?? false;
    this.unread = state.unread ?? false;
    for (const token of tokens) {
      const principal = new TokenPrincipal(token);
      this.#byId.set(token.id, { hash: Buffer.from(token.secretHash, 'hex'), principal });
      this.#byName.set(token.name, principal);
    }
  }

  /** Whose text this is. The hash of what was sent is compared, all of it, whatever it is. */
  holderOf(text: string): TokenPrincipal | undefined {
    const wellFormed = tokenForm.test(text);
    const id = wellFormed ? text.slice(prefixText.length, prefixText.length + idLength) : '';
    const known = this.#byId.get(id);
    const equal = timingSafeEqual(hashOf(text), known?.hash ?? noHash);
    return equal && wellFormed ? known?.principal : undefined;
  }

  named(name: string): TokenPrincipal | undefined {
    return this.#byName.get(name);
  }
}
