import { createHash, randomBytes } from 'node:crypto';
import type { Clock } from '../core/clock.ts';
import { cannot, type FiletrackerError } from '../core/errors.ts';
import { parseFileName, withoutTrailingSlashes } from '../core/file-name.ts';
import { rights, type Right } from './access.ts';

// A token's text is `ft_`, an id of 8 characters, and a secret of 43: 256 random bits. Its plain SHA-256 is stored. A
// slow, salted hash (scrypt, argon2) protects passwords, of which people choose few; 256 random bits cannot be guessed
// however fast the hash is, and every request would pay for a slow one.

export const tokenPrefix = 'ft_';
export const tokenIdLength = 8;
const secretSizeBytes = 32;
const nameForm = /^[A-Za-z0-9][\w.-]{0,63}$/;

/** A token as it is stored. */
export interface Token {
  readonly name: string;
  /** The part of the text that is not secret. */
  readonly id: string;
  /** SHA-256 of the whole text, hex. */
  readonly secretHash: string;
  /** Names and directories without a trailing slash; "/" is everything. */
  readonly prefixes: readonly string[];
  readonly rights: readonly Right[];
  readonly createdAtMs: number;
  readonly expiresAtMs?: number | undefined;
}

/** A token to be made. */
export type NewToken = Pick<Token, 'name' | 'prefixes' | 'rights' | 'expiresAtMs'>;

function invalid(state: string): FiletrackerError {
  return cannot('invalid-argument', 'add the token', state);
}

/** Reads `read,write`. @throws FiletrackerError `invalid-argument`. */
export function parseRights(text: string): readonly Right[] {
  const words = [...new Set(text.split(',').map((word) => word.trim()))];
  return words.map((word) => {
    const right = rights.find((known) => known === word);
    if (right === undefined) throw invalid(`"${word}" is not a right; use ${rights.join(', ')}`);
    return right;
  });
}

function checkNewToken(token: NewToken): NewToken {
  if (!nameForm.test(token.name)) {
    throw invalid('its name must be of letters, digits, ".", "_" and "-", at most 64');
  }
  if (token.prefixes.length === 0) throw invalid('it has no names; set them with --prefix, "/" for all');
  if (token.rights.length === 0) throw invalid('it has no rights; set them with --rights');
  const prefixes = token.prefixes.map((prefix) => {
    const trimmed = withoutTrailingSlashes(prefix);
    return trimmed === '' && prefix !== '' ? '/' : parseFileName(trimmed);
  });
  if (token.rights.includes('list') && !token.rights.includes('read')) {
    throw invalid('the right "list" needs "read", because a list shows only what may be read');
  }
  if (token.rights.includes('admin') && !prefixes.includes('/')) {
    throw invalid('the right "admin" needs the prefix "/"');
  }
  return { ...token, prefixes };
}

export function hashOfToken(text: string): Buffer {
  return createHash('sha256').update(text).digest();
}

/** A new token's text, which is shown once, and the parts that are stored. */
export function makeSecret(): { readonly text: string; readonly id: string; readonly secretHash: string } {
  const id = randomBytes(6).toString('base64url');
  const text = `${tokenPrefix}${id}${randomBytes(secretSizeBytes).toString('base64url')}`;
  return { text, id, secretHash: hashOfToken(text).toString('hex') };
}

/** Makes a token and its text. @throws FiletrackerError `invalid-argument`. */
export function makeToken(wanted: NewToken, clock: Clock): { readonly text: string; readonly token: Token } {
  const { expiresAtMs, ...rest } = checkNewToken(wanted);
  const { text, id, secretHash } = makeSecret();
  const token: Token = { ...rest, id, secretHash, createdAtMs: clock.nowMs() };
  return { text, token: expiresAtMs === undefined ? token : { ...token, expiresAtMs } };
}

/** @throws FiletrackerError `invalid-argument` if one of `tokens` has the name. */
export function checkNameIsNew(name: string, tokens: readonly Token[]): void {
  if (tokens.some((token) => token.name === name)) throw invalid(`the name "${name}" is taken; use another`);
}

export function noSuchToken(name: string): FiletrackerError {
  return cannot('not-found', `remove the token "${name}"`, 'no token has this name');
}

/** Checks every part of a stored token. */
export function isToken(value: unknown): value is Token {
  const token = value as Partial<Record<keyof Token, unknown>> | null;
  return (
    typeof token === 'object' &&
    token !== null &&
    typeof token.name === 'string' &&
    typeof token.id === 'string' &&
    typeof token.secretHash === 'string' &&
    /^[0-9a-f]{64}$/.test(token.secretHash) &&
    Array.isArray(token.prefixes) &&
    token.prefixes.every((prefix) => typeof prefix === 'string' && prefix.startsWith('/')) &&
    Array.isArray(token.rights) &&
    token.rights.every((right) => rights.includes(right as Right)) &&
    typeof token.createdAtMs === 'number' &&
    (token.expiresAtMs === undefined || typeof token.expiresAtMs === 'number')
  );
}
