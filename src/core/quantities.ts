import { cannot } from './errors.ts';

const durationUnitsMs: Readonly<Record<string, number>> = { s: 1000, m: 60_000, h: 3_600_000, d: 86_400_000 };
const sizeUnits: Readonly<Record<string, number>> = {
  B: 1,
  K: 1024,
  M: 1024 ** 2,
  G: 1024 ** 3,
  T: 1024 ** 4,
};

/** Sums a chain such as `1h30m` or `1G512M`; `undefined` if a part is not a number with a unit. */
function sumChain(text: string, units: Readonly<Record<string, number>>): number | undefined {
  // Sticky: each part begins at the end of the last one, so that no digit is scanned twice.
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
 * Reads a duration, `1h30m`, in milliseconds; units s, m, h, d; a bare `0` needs none. @throws FiletrackerError
 * `invalid-argument`.
 */
export function parseDurationMs(text: string): number {
  const sum = text === '0' ? 0 : sumChain(text, durationUnitsMs);
  if (sum !== undefined) return sum;
  throw cannot('invalid-argument', `use "${text}" as a length of time`, 'write it as 90s, 10m, 1h30m or 2d');
}

/** Digits of a plain number of bytes: more than any disk needs. */
const plainBytes = /^\d{1,15}$/;

/**
 * Reads a size in bytes, `1048576`, or with units of 1,024 (B, K, M, G, T, in either case): `10G`, `10GB`, `10GiB` or
 * `1G512M`. All programs use this form. @throws FiletrackerError `invalid-argument`.
 */
export function parseSizeBytes(text: string): number {
  const bytes = plainBytes.test(text)
    ? Number(text)
    : sumChain(text.toUpperCase().replaceAll(/(?<=[KMGT])I?B/g, ''), sizeUnits);
  if (bytes !== undefined && Number.isSafeInteger(bytes)) return bytes;
  throw cannot('invalid-argument', `use "${text}" as a size`, 'write it as 1048576, 500M, 10GiB or 1G512M');
}

const shownUnits = ['B', 'KiB', 'MiB', 'GiB', 'TiB'];

/** A size for people: `1.4 GiB`. */
export function formatSize(sizeBytes: number): string {
  const power = Math.min(shownUnits.length - 1, Math.floor(Math.log2(Math.max(1, sizeBytes)) / 10));
  const value = sizeBytes / 1024 ** power;
  return `${power === 0 || value >= 100 ? Math.round(value) : value.toFixed(1)} ${shownUnits[power]}`;
}
