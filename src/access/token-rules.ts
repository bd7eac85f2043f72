import type { Clock } from '../core/clock.ts';
import { FiletrackerError } from '../core/errors.ts';
import { parseFileName, withoutTrailingSlashes } from '../core/file-name.ts';
import { rights, type Right } from './access.ts';
import { makeSecret, type Token } from './token.ts';
import type { NewToken } from './token-source.ts';

const nameForm = /^[A-Za-z0-9][\w.-]{0,63}$/;

function refuse(state: string): never {
  throw new FiletrackerError('invalid-argument', `Cannot add the token: ${state}`);
}

/** Reads `read,write`. @throws FiletrackerError `invalid-argument`. */
export function parseRights(text: string): readonly Right[] {
  const words = [...new Set(text.split(',').map((word) => word.trim()))];
  return words.map((word) => {
    const right = rights.find((known) => known === word);
    return right ?? refuse(`"${word}" is no right; they are ${rights.join(', ')}`);
  });
}

function checkNewToken(token: NewToken): NewToken {
  if (!nameForm.test(token.name)) refuse('its name must be of letters, digits, ".", "_" and "-", at most 64');
  if (token.prefixes.length === 0) refuse('give the names that it is for with --prefix, "/" for all');
  if (token.rights.length === 0) refuse('give its rights with --rights');
  const prefixes = token.prefixes.map((prefix) => {
    const trimmed = withoutTrailingSlashes(prefix);
    return trimmed === '' && prefix !== '' ? '/' : parseFileName(trimmed);
  });
  if (token.rights.includes('list') && !token.rights.includes('read')) {
    refuse('the right "list" needs "read", because a list shows only what may be read');
  }
  if (token.rights.includes('admin') && !prefixes.includes('/'))
    refuse('the right "admin" needs the prefix "/"');
  return { ...token, prefixes };
}

/** Makes the token that is asked for, and its text. @throws FiletrackerError `invalid-argument`. */
export function makeToken(wanted: NewToken, clock: Clock): { readonly text: string; readonly token: Token } {
  const { expiresAtMs, ...rest } = checkNewToken(wanted);
  const { text, id, secretHash } = makeSecret();
  const token: Token = { ...rest, id, secretHash, createdAtMs: clock.nowMs() };
  return { text, token: expiresAtMs === undefined ? token : { ...token, expiresAtMs } };
}

/** @throws FiletrackerError `invalid-argument` where one of `tokens` has the name. */
export function checkNameIsNew(name: string, tokens: readonly Token[]): void {
  if (tokens.some((token) => token.name === name)) refuse(`there is one named "${name}" already`);
}

export function noSuchToken(name: string): FiletrackerError {
  return new FiletrackerError('not-found', `Cannot remove the token "${name}": there is none of this name`);
}

/** Whether what was kept is a token, in every part of it. */
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
