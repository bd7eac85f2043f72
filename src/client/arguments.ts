// Checks of arguments, which may come from programs without types.
import { cannot } from '../core/errors.ts';

/** @throws FiletrackerError `invalid-argument` for anything but a path. */
export function requirePath(path: unknown): void {
  if (typeof path === 'string' && path !== '' && !path.includes('\0')) return;
  const shown = typeof path === 'string' ? JSON.stringify(path) : kindOf(path);
  throw cannot('invalid-argument', `use ${shown} as a path`, 'it must be text without NUL');
}

/** The kind of a value, for messages. */
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
    const shown = typeof value === 'number' || typeof value === 'string' ? `"${value}"` : kindOf(value);
    const state = `it must be a whole number, from ${min} on`;
    throw cannot('invalid-argument', `use ${shown} as ${name}`, state);
  }
}
