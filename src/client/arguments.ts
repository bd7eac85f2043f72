// Checks of what callers pass, who may be programs without types.
import { FiletrackerError } from '../core/errors.ts';
import { checkVersion } from '../core/file-version.ts';
import type { FileVersion } from '../core/file-version.ts';

/** @throws FiletrackerError `invalid-argument` for what is no path. */
export function requirePath(path: unknown): void {
  if (typeof path === 'string' && path !== '' && !path.includes('\0')) return;
  const shown = typeof path === 'string' ? JSON.stringify(path) : kindOf(path);
  throw new FiletrackerError(
    'invalid-argument',
    `Cannot use ${shown} as a path: it must be text without NUL`,
  );
}

/** @throws FiletrackerError `invalid-version`. */
export function cutoffOf({ cutoff }: { readonly cutoff?: FileVersion | undefined }): FileVersion | undefined {
  return cutoff === undefined ? undefined : checkVersion(cutoff);
}

function shownValue(value: unknown): string {
  return typeof value === 'number' || typeof value === 'string' ? `"${value}"` : kindOf(value);
}

/** What kind of thing a caller gave, for messages. */
export function kindOf(value: unknown): string {
  return value === null ? 'null' : typeof value;
}

export function isCount(value: unknown, min: number): boolean {
  return typeof value === 'number' && Number.isSafeInteger(value) && value >= min;
}

/** Requires whole numbers from `min` on, or undefined. @throws FiletrackerError `invalid-argument`. */
export function requireCounts(values: Readonly<Record<string, unknown>>, min: number): void {
  for (const [name, value] of Object.entries(values)) {
    if (value === undefined || isCount(value, min)) continue;
    throw new FiletrackerError(
      'invalid-argument',
      `Cannot use ${shownValue(value)} as ${name}: it must be a whole number, from ${min} on`,
    );
  }
}
