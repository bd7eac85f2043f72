import { describe, expect, it } from 'vitest';
import { parseDurationMs, parseSizeBytes } from './quantities.ts';

const refused = expect.objectContaining({ code: 'invalid-argument' });

describe('parseDurationMs()', () => {
  it.each([
    ['0', 0],
    ['90s', 90_000],
    ['1h30m', 5_400_000],
    ['2d', 172_800_000],
    ['0.5s', 500],
  ])('reads %j as %d ms', (text, durationMs) => {
    expect(parseDurationMs(text)).toBe(durationMs);
  });

  it.each(['', '5', '1x', 's', '1h 30m', '-1s', '1h30', '1M'])('refuses %j', (text) => {
    expect(() => parseDurationMs(text)).toThrow(refused);
  });
});

describe('parseSizeBytes()', () => {
  it.each([
    ['0', 0],
    ['5', 5],
    ['1B', 1],
    ['10G', 10 * 1024 ** 3],
    ['10GB', 10 * 1024 ** 3],
    ['10GiB', 10 * 1024 ** 3],
    ['10gib', 10 * 1024 ** 3],
    ['1.5KiB', 1536],
    ['1GiB512MB', 1_610_612_736],
    ['1G512M', 1_610_612_736],
    ['2k', 2048],
    ['1T', 1_099_511_627_776],
  ])('reads %j as %d bytes', (text, sizeBytes) => {
    expect(parseSizeBytes(text)).toBe(sizeBytes);
  });

  it.each(['', '1x', 'G', '1G 1M', '-1K', '1G5', '1iB', '1GBB', '1GiBB', '9'.repeat(400), '99999999T'])(
    'refuses %j',
    (text) => {
      expect(() => parseSizeBytes(text)).toThrow(refused);
    },
  );
});
