import { describe, expect, it } from 'vitest';
import { parseFileName } from '../core/file-name.ts';
import {
  formatListQuery,
  formatVersionQuery,
  parseListQuery,
  queryValue,
  queryVersion,
  requiredVersion,
} from './query.ts';

describe('queryValue()', () => {
  it.each([
    ['a=1', 'a', '1'],
    ['b=2&a=1', 'a', '1'],
    ['a=1&a=2', 'a', '1'],
    ['a=', 'a', ''],
    ['a', 'a', ''],
    ['a&b=1', 'a', ''],
    ['a=b=c', 'a', 'b=c'],
    ['a=b+c%2Bd%20e', 'a', 'b c+d e'],
    ['%61=1', 'a', '1'],
    ['&&a=%C5%BC', 'a', 'ż'],
  ])('finds in %j the value of %j', (query, key, value) => {
    expect(queryValue(query, key)).toBe(value);
  });

  it.each([
    ['', 'a'],
    ['aa=1', 'a'],
    ['b=a=1', 'a'],
    ['&', 'a'],
  ])('finds nothing in %j', (query, key) => {
    expect(queryValue(query, key)).toBeUndefined();
  });

  it.each(['a=%', 'a=%zz', 'a=%FF', '%FF=1'])('refuses %j', (query) => {
    expect(() => queryValue(query, 'a')).toThrow(expect.objectContaining({ code: 'invalid-argument' }));
  });
});

describe('the version of a request', () => {
  const version = 1_795_359_901;

  it('is read with a plus that arrived as one, as a blank, or encoded', () => {
    for (const sign of ['+', '%20', '%2B', '+%2B']) {
      expect(queryVersion(`last_modified=Sun,+22+Nov+2026+16:05:01+${sign}0100`)).toBe(version);
    }
  });

  it('is what the client wrote', () => {
    for (const value of [version, -1, 0, 253_402_300_799]) {
      expect(requiredVersion(formatVersionQuery(value))).toBe(value);
    }
  });

  it('is refused where it is missing or no date', () => {
    for (const query of ['', 'last_modified=', 'last_modified=now', 'Last_Modified=Sun,+22+Nov+2026']) {
      expect(() => requiredVersion(query)).toThrow(expect.objectContaining({ code: 'invalid-version' }));
    }
    expect(queryVersion('')).toBeUndefined();
  });
});

describe('parseListQuery()', () => {
  it('takes an empty date for none', () => {
    expect(parseListQuery('last_modified=', '/').upTo).toBeUndefined();
    expect(parseListQuery('last_modified&limit=1', '/')).toMatchObject({ upTo: undefined, limit: 1 });
    expect(() => parseListQuery('last_modified=+', '/')).toThrow(/as a date/);
  });

  it('reads a name relative to the directory, or whole', () => {
    expect(parseListQuery('after=b%2Fc', '/a/').after).toBe('/a/b/c');
    expect(parseListQuery('after=%2Fa%2Fb', '/a/').after).toBe('/a/b');
  });

  it.each(['limit=0', 'limit=-1', 'limit=1.5', 'limit=', 'limit=1e3', 'limit=9999999999999999'])(
    'refuses %j',
    (query) => {
      expect(() => parseListQuery(query, '/')).toThrow(expect.objectContaining({ code: 'invalid-argument' }));
    },
  );

  it('refuses what cannot be a name', () => {
    for (const after of ['', '..', 'a%00', 'a//b']) {
      expect(() => parseListQuery(`after=${after}`, '/')).toThrow(
        expect.objectContaining({ code: 'invalid-name' }),
      );
    }
  });

  it('reads what the client wrote', () => {
    const list = { upTo: -5, limit: 10, after: parseFileName('/a/ż &=+') };
    expect(parseListQuery(formatListQuery(list), '/a/')).toEqual(list);
    expect(formatListQuery({})).toBe('');
    expect(parseListQuery('', '/')).toEqual({});
  });
});
