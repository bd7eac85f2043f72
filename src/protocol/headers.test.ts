import { fc } from '../../test/support/properties.ts';
import { describe, expect, it } from 'vitest';
import { digestOf } from '../core/digest.ts';
import { parseClaims, parseSize } from './content-claims.ts';
import { acceptedEncodings, parseContentEncoding } from './content-encoding.ts';
import { digestOfEtag, etagOf, matchHolds, namedEncoding, parseEntityTags } from './etags.ts';
import { parsePrecondition } from './preconditions.ts';
import { namesType, parseWeightedList } from './quality.ts';
import {
  formatContentRange,
  formatUnsatisfiedRange,
  ifRangeHolds,
  parseContentRange,
  parseRange,
} from './ranges.ts';

const digest = digestOf(Buffer.from('content'));
const other = digestOf(Buffer.from('other'));

describe('parseWeightedList()', () => {
  it('reads tokens and weights', () => {
    expect(parseWeightedList(' GZIP ; q=0.5 , br;q=1.000,, x;level=1;Q=0')).toEqual([
      { token: 'gzip', quality: 0.5 },
      { token: 'br', quality: 1 },
      { token: 'x', quality: 0 },
    ]);
  });

  it('takes a weight that cannot be read for "not wanted"', () => {
    for (const quality of ['2', '-1', 'x', '', '0.1234', '1.1']) {
      expect(parseWeightedList(`a;q=${quality}`)).toEqual([{ token: 'a', quality: 0 }]);
    }
  });

  it('tells whether a type is asked for by name', () => {
    expect(namesType('text/html, application/JSON;q=0.1', ['application/json'])).toBe(true);
    for (const header of [undefined, '*/*', 'application/*', 'application/json;q=0', 'text/plain']) {
      expect(namesType(header, ['application/json'])).toBe(false);
    }
  });
});

describe('acceptedEncodings()', () => {
  it.each([
    [undefined, false, true],
    ['', false, true],
    ['gzip', true, true],
    ['x-gzip', true, true],
    ['GZIP', true, true],
    ['gzip, deflate, br', true, true],
    ['deflate, br', false, true],
    ['identity', false, true],
    ['*', true, true],
    ['gzip;q=0', false, true],
    ['gzip;q=0, *', false, true],
    ['gzip;q=0.001', true, true],
    ['gzip;q=0.5, identity', false, true],
    ['gzip;q=0.5, identity;q=0.5', true, true],
    ['gzip, identity;q=0', true, false],
    ['gzip, *;q=0', true, false],
    ['*;q=0', false, false],
    ['identity;q=0', false, false],
    ['*;q=0, identity;q=0.1', false, true],
    ['br;q=1.0, gzip;q=0.8, *;q=0.1', true, true],
  ])('reads %j: gzip %s, identity %s', (header, gzip, identity) => {
    expect(acceptedEncodings(header)).toEqual({ gzip, identity });
    expect(acceptedEncodings(header)).toEqual({ gzip, identity });
  });
});

describe('parseContentEncoding()', () => {
  it('reads gzip and identity in any letter case', () => {
    for (const header of ['gzip', 'GZip', ' x-gzip ']) expect(parseContentEncoding(header)).toBe('gzip');
    for (const header of [undefined, '', 'identity', 'Identity']) {
      expect(parseContentEncoding(header)).toBe('identity');
    }
  });

  it('refuses all else', () => {
    for (const header of ['br', 'deflate', 'gzip, gzip', 'gzip, identity', 'zstd', 'gzip;q=1']) {
      expect(() => parseContentEncoding(header)).toThrow(
        expect.objectContaining({ code: 'unsupported-encoding' }),
      );
    }
  });
});

describe('entity tags', () => {
  it('are read from a list, with weak ones, commas and blanks inside', () => {
    expect(parseEntityTags(' "a" ,W/"b", "c,d" ,')).toEqual([
      { weak: false, value: 'a' },
      { weak: true, value: 'b' },
      { weak: false, value: 'c,d' },
    ]);
    expect(parseEntityTags(' * ')).toBe('*');
    for (const header of ['', 'a', '"a', '"a" "b"', 'w/"a"', ',', '*, "a"']) {
      expect(parseEntityTags(header)).toBeUndefined();
    }
  });

  it('carry the digest there and back', () => {
    expect(digestOfEtag(etagOf(digest, 'identity'))).toBe(digest);
    expect(digestOfEtag(etagOf(digest, 'gzip'))).toBe(digest);
    for (const header of [undefined, '*', '"x"', digest, `"${digest}-br"`, `"${digest.slice(1)}"`]) {
      expect(digestOfEtag(header)).toBeUndefined();
    }
  });

  it('match If-None-Match weakly, in either encoding, and tell which was named', () => {
    expect(namedEncoding(etagOf(digest, 'gzip'), digest, 'gzip')).toBe('gzip');
    expect(namedEncoding(etagOf(digest, 'gzip'), digest, 'identity')).toBe('gzip');
    expect(namedEncoding(`"x", W/${etagOf(digest, 'identity')}`, digest, 'gzip')).toBe('identity');
    expect(namedEncoding('*', digest, 'gzip')).toBe('gzip');
    expect(namedEncoding(etagOf(other, 'gzip'), digest, 'gzip')).toBeUndefined();
    expect(namedEncoding(digest, digest, 'gzip')).toBeUndefined();
  });

  it('match If-Match strongly', () => {
    expect(matchHolds(`"x", ${etagOf(digest, 'gzip')}`, digest)).toBe(true);
    expect(matchHolds('*', digest)).toBe(true);
    expect(matchHolds(`W/${etagOf(digest, 'gzip')}`, digest)).toBe(false);
    expect(matchHolds(etagOf(other, 'gzip'), digest)).toBe(false);
    expect(matchHolds('x', digest)).toBe(false);
  });

  it('survive any header', () => {
    fc.assert(
      fc.property(fc.string(), (header) => {
        fc.pre(header.trim() !== '*');
        expect(namedEncoding(header, digest, 'gzip')).toBeUndefined();
      }),
    );
    fc.assert(
      fc.property(fc.array(fc.stringMatching(/^[!#-~]{0,9}$/), { minLength: 1 }), (values) => {
        expect(parseEntityTags(values.map((value) => `"${value}"`).join(', '))).toEqual(
          values.map((value) => ({ weak: false, value })),
        );
      }),
    );
  });
});

describe('parsePrecondition()', () => {
  const date = 'Sun, 22 Nov 2026 15:05:01 GMT';

  it('reads create-only, compare-and-set and a date', () => {
    expect(parsePrecondition({})).toBeUndefined();
    expect(parsePrecondition({ 'if-modified-since': date })).toBeUndefined();
    expect(parsePrecondition({ 'if-none-match': '*' })).toEqual({ kind: 'absent' });
    expect(parsePrecondition({ 'if-match': '*' })).toEqual({ kind: 'match', digests: undefined });
    const tags = `${etagOf(digest, 'gzip')}, W/${etagOf(other, 'gzip')}, "unknown"`;
    expect(parsePrecondition({ 'if-match': tags })).toEqual({ kind: 'match', digests: [digest] });
    expect(parsePrecondition({ 'if-unmodified-since': date })).toEqual({
      kind: 'unmodified-since',
      version: 1_795_359_901,
    });
  });

  it('goes by the tag where there is a date too', () => {
    const both = { 'if-unmodified-since': date };
    expect(parsePrecondition({ ...both, 'if-none-match': '*' })).toEqual({ kind: 'absent' });
    expect(parsePrecondition({ ...both, 'if-match': '*' })).toEqual({ kind: 'match', digests: undefined });
  });

  it.each([
    { 'if-match': 'abc' },
    { 'if-match': '' },
    { 'if-none-match': '"abc"' },
    { 'if-match': '"abc"', 'if-none-match': '*' },
    { 'if-unmodified-since': 'yesterday' },
    { 'if-unmodified-since': '' },
  ])('refuses what it cannot keep: %o', (headers) => {
    expect(() => parsePrecondition(headers)).toThrow(expect.objectContaining({ code: 'invalid-argument' }));
  });
});

describe('parseRange()', () => {
  it.each([
    ['bytes=0-9', 100, 0, 9],
    ['bytes=0-', 100, 0, 99],
    ['bytes=99-', 100, 99, 99],
    ['bytes=50-1000', 100, 50, 99],
    ['bytes=-1', 100, 99, 99],
    ['bytes=-1000', 100, 0, 99],
    ['BYTES = 5 - 6', 100, 5, 6],
    ['bytes=0-99999999999999999999999', 100, 0, 99],
  ])('reads %j of %d bytes', (header, size, first, last) => {
    expect(parseRange(header, size)).toEqual({ kind: 'part', first, last });
  });

  it.each([
    ['bytes=0-1,5-6', 100],
    ['bytes=', 100],
    ['bytes=-', 100],
    ['bytes=5-4', 100],
    ['bytes=a-b', 100],
    ['items=0-5', 100],
    ['0-5', 100],
    ['', 100],
    ['bytes=-5', 0],
  ])('takes %j of %d bytes for the whole', (header, size) => {
    expect(parseRange(header, size)).toEqual({ kind: 'whole' });
  });

  it.each([
    ['bytes=100-', 100],
    ['bytes=100-200', 100],
    ['bytes=0-0', 0],
    ['bytes=-0', 100],
  ])('cannot satisfy %j of %d bytes', (header, size) => {
    expect(parseRange(header, size)).toEqual({ kind: 'unsatisfiable' });
  });

  it('never goes beyond the content', () => {
    fc.assert(
      fc.property(fc.option(fc.nat()), fc.option(fc.nat()), fc.nat(), (from, to, size) => {
        const range = parseRange(`bytes=${from ?? ''}-${to ?? ''}`, size);
        if (range.kind !== 'part') return;
        expect(range.first).toBeGreaterThanOrEqual(0);
        expect(range.last).toBeGreaterThanOrEqual(range.first);
        expect(range.last).toBeLessThan(size);
      }),
    );
  });

  it('is sent as Content-Range', () => {
    expect(formatUnsatisfiedRange(7)).toBe('bytes */7');
    expect(parseContentRange(formatContentRange(1, 2, 3))).toEqual({ first: 1, last: 2, size: 3 });
    for (const header of ['', 'bytes */7', 'bytes 2-1/3', 'bytes 0-3/3', 'items 0-1/3']) {
      expect(parseContentRange(header)).toBeUndefined();
    }
  });
});

describe('ifRangeHolds()', () => {
  it('compares tags strongly, and dates exactly', () => {
    expect(ifRangeHolds(etagOf(digest, 'identity'), digest, 0)).toBe(true);
    expect(ifRangeHolds('Thu, 01 Jan 1970 00:00:00 GMT', digest, 0)).toBe(true);
    expect(ifRangeHolds(`W/${etagOf(digest, 'identity')}`, digest, 0)).toBe(false);
    expect(ifRangeHolds(etagOf(digest, 'gzip'), digest, 0)).toBe(false);
    expect(ifRangeHolds(etagOf(other, 'identity'), digest, 0)).toBe(false);
    expect(ifRangeHolds('Thu, 01 Jan 1970 00:00:00 GMT', digest, 1)).toBe(false);
    expect(ifRangeHolds('', digest, 0)).toBe(false);
  });
});

describe('parseClaims()', () => {
  it('reads digest and size', () => {
    expect(parseClaims(undefined, undefined)).toEqual({ digest: undefined, logicalSize: undefined });
    expect(parseClaims(` ${digest.toUpperCase()} `, ' 12 ')).toEqual({ digest, logicalSize: 12 });
  });

  it('refuses what is not of the form', () => {
    for (const text of ['', '../../x', digest.slice(1), `${digest}0`, 'g'.repeat(64)]) {
      expect(() => parseClaims(text, undefined)).toThrow(expect.objectContaining({ code: 'invalid-digest' }));
    }
    for (const text of ['', '-1', '1.5', '0x10', '99999999999999999', '9007199254740993']) {
      expect(() => parseSize('Logical-Size', text)).toThrow(
        expect.objectContaining({ code: 'invalid-argument' }),
      );
    }
  });
});
