import { timingSafeEqual } from 'node:crypto';
import type { Principal, Right } from './access.ts';
import { hashOfToken, tokenIdLength, tokenPrefix, type Token } from './token.ts';

const tokenForm = /^ft_[\w-]{51}$/;

/** The holder of one token. */
export class TokenPrincipal implements Principal {
  readonly name: string;
  readonly unrestricted: boolean;
  readonly expiresAtMs: number;
  readonly #rights: ReadonlySet<Right>;
  readonly #everything: boolean;
  readonly #prefixes: readonly string[];
  /** The prefixes as directories, with a trailing slash; sorted, none below another. */
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

/** The directories that are below no other, in byte order, as names are listed. */
function outermost(directories: readonly string[]): string[] {
  const kept: string[] = [];
  const texts = [...new Set(directories)].map((text) => Buffer.from(text));
  const sorted = texts.toSorted((one, other) => Buffer.compare(one, other));
  for (const directory of sorted.map(String)) {
    // In byte order everything below a directory follows it directly.
    const above = kept.at(-1);
    if (above === undefined || !directory.startsWith(above)) kept.push(directory);
  }
  return kept;
}

interface KnownToken {
  readonly hash: Buffer;
  readonly principal: TokenPrincipal;
}

/** Compared if no token has the id, so that an unknown id takes as long as a wrong secret. */
const noHash = Buffer.alloc(32);

/** The tokens of a store at one moment, indexed. */
export class TokenBook {
  readonly size: number;
  /** Whether the store had tokens that are missing now; no client can be identified. */
  readonly lost: boolean;
  /** Whether the tokens have not been read yet; clients must retry. */
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

  /** The holder of a token's text. The whole hash is compared, also of malformed texts. */
  holderOf(text: string): TokenPrincipal | undefined {
    const wellFormed = tokenForm.test(text);
    const id = wellFormed ? text.slice(tokenPrefix.length, tokenPrefix.length + tokenIdLength) : '';
    const known = this.#byId.get(id);
    const equal = timingSafeEqual(hashOfToken(text), known?.hash ?? noHash);
    return equal && wellFormed ? known?.principal : undefined;
  }

  named(name: string): TokenPrincipal | undefined {
    return this.#byName.get(name);
  }
}
