import { FiletrackerError } from './errors.ts';

const durationUnitsMs: Readonly<Record<string, number>> = { s: 1000, m: 60_000, h: 3_600_000, d: 86_400_000 };
const sizeUnits: Readonly<Record<string, number>> = {
  B: 1,
  K: 1024,
  M: 1024 ** 2,
  G: 1024 ** 3,
  T: 1024 ** 4,
};

/** Sums a chain such as `1h30m` or `1G512M`; undefined where a part is not a number and a unit. */
function sumChain(text: string, units: Readonly<Record<string, number>>): number | undefined {
  // Sticky: each part begins where the last one ended, so that no digit is looked at from many beginnings.
  const parts = text.match(/\d+(?:\.\d+)?[A-Za-z]/gy);
  if (parts === null || parts.join('') !== text) return undefined;
  let sum = 0;
  for (const part of parts) {
    const unit = units[part.slice(-1)];
    if (unit === undefined) return undefined;
    sum += Number(part.slice(0, -1)) * unit;
  }
  return Math.round(sum);
}

/**
 * Reads a length of time, `1h30m`; units s, m, h, d; a bare `0` needs none. In milliseconds.
 * @throws FiletrackerError `invalid-argument`.
 */
export function parseDurationMs(text: string): number {
  const sum = text === '0' ? 0 : sumChain(text, durationUnitsMs);
  if (sum !== undefined) return sum;
  throw new FiletrackerError(
    'invalid-argument',
    `Cannot use "${text}" as a length of time: write it as 90s, 10m, 1h30m or 2d`,
  );
}

/** Digits of a plain number of bytes: more than any disk has. */
const plainBytes = /^\d{1,15}$/;

/**
 * Reads a size in bytes, `1048576`, or with units, `10G`, `10GB`, `10GiB` or `1G512M`, which all are of 1,024: units B, K,
 * M, G, T, in either case. The form of every size that a program of ours takes.
 * @throws FiletrackerError `invalid-argument`.
 */
export function parseSizeBytes(text: string): number {
  const bytes = plainBytes.test(text)
    ? Number(text)
    : sumChain(text.toUpperCase().replaceAll(/(?<=[KMGT])I?B/g, ''), sizeUnits);
  if (bytes !== undefined && Number.isSafeInteger(bytes)) return bytes;
  throw new FiletrackerError(
    'invalid-argument',
    `Cannot use "${text}" as a size: write it as 1048576, 500M, 10GiB or 1G512M`,
  );
}
