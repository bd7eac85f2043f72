import { describe, expect, it } from 'vitest';
import type { Right } from './access.ts';
import { makeSecret, type Token } from './token.ts';
import { TokenBook, TokenPrincipal } from './token-book.ts';

function tokenOf(prefixes: readonly string[], rights: readonly Right[], more: Partial<Token> = {}): Token {
  return {
    name: 'judge',
    id: 'AAAAAAAA',
    secretHash: '0'.repeat(64),
    prefixes,
    rights,
    createdAtMs: 0,
    ...more,
  };
}

describe('TokenPrincipal', () => {
  it('covers a prefix by whole components', () => {
    const principal = new TokenPrincipal(tokenOf(['/p'], ['read', 'list']));
    expect(principal.may('read', '/p')).toBe(true);
    expect(principal.may('read', '/p/a/b')).toBe(true);
    expect(principal.may('list', '/p/')).toBe(true);
    expect(principal.may('read', '/pq')).toBe(false);
    expect(principal.may('read', '/')).toBe(false);
    expect(principal.may('write', '/p/a')).toBe(false);
  });

  it('is unrestricted only with every right to every file', () => {
    const unrestricted = (prefixes: string[], rights: Right[]): boolean =>
      new TokenPrincipal(tokenOf(prefixes, rights)).unrestricted;
    expect(unrestricted(['/'], ['read', 'write', 'delete', 'list'])).toBe(true);
    expect(unrestricted(['/'], ['read', 'write', 'list'])).toBe(false);
    expect(unrestricted(['/p'], ['read', 'write', 'delete', 'list', 'admin'])).toBe(false);
  });

  it('lists a directory of its own whole, and of one above only its parts, outermost, in order', () => {
    const principal = new TokenPrincipal(tokenOf(['/b', '/a/x', '/b/c', '/a-'], ['read', 'list']));
    expect(principal.listable('/')).toEqual(['/a-/', '/a/x/', '/b/']);
    expect(principal.listable('/a/')).toEqual(['/a/x/']);
    expect(principal.listable('/b/c/')).toEqual(['/b/c/']);
    expect(principal.listable('/c/')).toEqual([]);
    expect(new TokenPrincipal(tokenOf(['/b'], ['read'])).listable('/b/')).toEqual([]);
  });
});

describe('TokenBook.holderOf()', () => {
  it('knows a token by its text and by nothing near it', () => {
    const { text, id, secretHash } = makeSecret();
    const book = new TokenBook([tokenOf(['/'], ['read'], { id, secretHash })]);
    expect(book.holderOf(text)?.name).toBe('judge');
    expect(book.holderOf(`${text.slice(0, -1)}${text.endsWith('A') ? 'B' : 'A'}`)).toBeUndefined();
    expect(book.holderOf(text.slice(0, -1))).toBeUndefined();
    expect(book.holderOf(`${text}A`)).toBeUndefined();
    expect(book.holderOf('')).toBeUndefined();
    expect(book.holderOf(makeSecret().text)).toBeUndefined();
  });

  it('does not take a hash of zeros for an unknown token', () => {
    const book = new TokenBook([tokenOf(['/'], ['read'])]);
    expect(book.holderOf(`ft_AAAAAAAA${'A'.repeat(43)}`)).toBeUndefined();
  });
});
