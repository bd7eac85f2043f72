import { fc } from '../../test/support/properties.ts';
import { describe, expect, it } from 'vitest';
import { maxVersion, minVersion } from '../core/file-version.ts';
import { formatDate, parseDate, readDate } from './dates.ts';

const second = 1_795_359_901; // Sun, 22 Nov 2026 15:05:01 GMT

describe('parseDate()', () => {
  it.each([
    'Sun, 22 Nov 2026 15:05:01 GMT',
    'Sun, 22 Nov 2026 15:05:01 -0000',
    'Sun, 22 Nov 2026 15:05:01 +0000',
    'Sun, 22 Nov 2026 15:05:01 UT',
    'Sun, 22 Nov 2026 15:05:01 utc',
    'Sun, 22 Nov 2026 15:05:01 Z',
    'Sun, 22 Nov 2026 15:05:01 CET', // no zone of mail: counts as UTC
    'Sun, 22 Nov 2026 15:05:01',
    'Sun, 22 Nov 2026 16:05:01 +0100',
    'Sun, 22 Nov 2026 16:05:01  0100', // the plus arrived as a blank
    'Sun, 22 Nov 2026 16:05:01 0100',
    'Sun, 22 Nov 2026 16:05:01+0100',
    'Sun, 22 Nov 2026 16:05:01 +01:00',
    'Sun, 22 Nov 2026 16:05:01 +100',
    'Sun, 22 Nov 2026 20:35:01 +0530',
    'Sun, 22 Nov 2026 10:05:01 -0500',
    'Sun, 22 Nov 2026 16:05:01 +0100 (CET)',
    'Sun, 22 Nov 2026 10:05:01 EST',
    'Sun, 22 Nov 2026 11:05:01 EDT',
    'Sun, 22 Nov 2026 09:05:01 CST',
    'Sun, 22 Nov 2026 10:05:01 CDT',
    'Sun, 22 Nov 2026 08:05:01 MST',
    'Sun, 22 Nov 2026 09:05:01 MDT',
    'Sun, 22 Nov 2026 07:05:01 PST',
    'Sun, 22 Nov 2026 08:05:01 pdt',
    'Sun, 22 Nov 2026 11:05:01 AST',
    'Sun, 22 Nov 2026 12:05:01 ADT',
    '22 Nov 2026 15:05:01 GMT',
    '  22  Nov  2026  15:05:01  GMT ',
    'Sun 22 Nov 2026 15:05:01 GMT',
    'Sun,22 Nov 2026 15:05:01 GMT',
    'Sunday, 22-Nov-26 15:05:01 GMT',
    'Sun Nov 22 15:05:01 2026',
    'Sun Nov 22 15:05:01 GMT 2026',
    'Nov 22, 2026 15:05:01 GMT',
    '22 november 2026 15:05:01 GMT',
    'Sun, 22 Nov 26 15:05:01 GMT',
    'Mon, 22 Nov 2026 15:05:01 GMT', // a wrong weekday is not looked at
    'Sun, 22 Nov 2026 15.05.01 GMT',
    'Sun, 22 Nov 2026 15:05:1 GMT',
  ])('reads %j', (text) => {
    expect(parseDate(text)).toBe(second);
  });

  it.each([
    ['Thu, 01 Jan 1970 00:00:00 GMT', 0],
    ['Wed, 31 Dec 1969 23:59:59 GMT', -1],
    ['Fri, 01 Jan 1904 00:00:00 -0000', -2_082_844_800],
    ['Fri, 31 Dec 9999 23:59:59 GMT', maxVersion],
    ['Mon, 01 Jan 0001 00:00:00 GMT', minVersion],
    ['Sat, 01 Jan 0050 00:00:00 GMT', -60_589_296_000],
    ['01 Jan 69 00:00:00 GMT', -31_536_000],
    ['01 Jan 68 00:00:00 GMT', 3_092_601_600],
    ['29 Feb 2024 00:00 GMT', 1_709_164_800],
    ['31 Dec 2016 23:59:60 GMT', 1_483_228_800],
  ])('reads %j as %d', (text, version) => {
    expect(parseDate(text)).toBe(version);
  });

  it.each([
    '',
    ' ',
    ',',
    'yesterday',
    '1700000000',
    '2026-11-22T15:05:01Z',
    'Sun, 32 Jan 2026 00:00:00 GMT',
    'Sun, 00 Jan 2026 00:00:00 GMT',
    'Sun, 29 Feb 2025 00:00:00 GMT',
    'Sun, 29 Feb 2100 00:00:00 GMT',
    'Sun, 31 Apr 2026 00:00:00 GMT',
    'Sun, 22 Nov 2026 25:00:00 GMT',
    'Sun, 22 Nov 2026 24:00:00 GMT',
    'Sun, 22 Nov 2026 15:60:00 GMT',
    'Sun, 22 Nov 2026 15:05:61 GMT',
    'Sun, 22 Nov 2026 15:05:01.5 GMT',
    'Sun, 22 Nov 2026 15 GMT',
    'Sun, 22 Nov 2026 -1:05:01 GMT',
    'Sun, 22 Foo 2026 15:05:01 GMT',
    'Sun, 22 Nov 0000 15:05:01 GMT',
    'Sun, 22 Nov 10000 15:05:01 GMT',
    'Fri, 31 Dec 9999 23:59:59 -0100',
    'Sun, 22 Nov 2026 15:05:01 +0160',
    'Sun, 22 Nov GMT',
    '22-Nov- 15:05 0100',
    'Sun, ２２ Nov 2026 15:05:01 GMT',
  ])('refuses %j', (text) => {
    expect(() => parseDate(text)).toThrow(expect.objectContaining({ code: 'invalid-version' }));
    expect(readDate(text)).toBeUndefined();
  });

  it('survives any text without a number that is no version', () => {
    fc.assert(
      fc.property(fc.string({ unit: 'binary' }), (text) => {
        const version = readDate(text);
        return version === undefined || (Number.isInteger(version) && version <= maxVersion);
      }),
    );
  });
});

describe('formatDate()', () => {
  it('writes IMF-fixdate', () => {
    expect(formatDate(second)).toBe('Sun, 22 Nov 2026 15:05:01 GMT');
    expect(formatDate(minVersion)).toBe('Mon, 01 Jan 0001 00:00:00 GMT');
  });

  it('is read back as the same version, by either reader', () => {
    fc.assert(
      fc.property(fc.integer({ min: minVersion, max: maxVersion }), (version) => {
        const text = formatDate(version);
        expect(text).toMatch(/^[A-Z][a-z]{2}, \d\d [A-Z][a-z]{2} \d{4} \d\d:\d\d:\d\d GMT$/);
        expect(parseDate(text)).toBe(version);
        expect(parseDate(text.replace(' GMT', ' UTC'))).toBe(version);
      }),
    );
  });
});
