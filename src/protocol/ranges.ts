import type { Digest } from '../core/digest.ts';
import { etagOf } from './etags.ts';
import { readDate } from './dates.ts';
import type { FileVersion } from '../core/file-version.ts';

/** A range of bytes; both ends inclusive. */
export type RequestedRange =
  | { readonly kind: 'whole' }
  | { readonly kind: 'part'; readonly first: number; readonly last: number }
  | { readonly kind: 'unsatisfiable' };

const whole: RequestedRange = { kind: 'whole' };
const unsatisfiable: RequestedRange = { kind: 'unsatisfiable' };
const digits = /^\d*$/;

/** The two ends of one range of bytes, as written; `undefined` for anything else. */
function endsOf(header: string): readonly [from: string, to: string] | undefined {
  const equals = header.indexOf('=');
  const dash = header.indexOf('-', equals);
  if (equals === -1 || dash === -1 || header.slice(0, equals).trim().toLowerCase() !== 'bytes')
    return undefined;
  const from = header.slice(equals + 1, dash).trim();
  const to = header.slice(dash + 1).trim();
  return digits.test(from) && digits.test(to) ? [from, to] : undefined;
}

/**
 * Reads a Range header for content of `size` bytes. Several ranges, other units and malformed headers select the
 * whole content, which RFC 9110 (14.2) allows.
 */
export function parseRange(header: string, size: number): RequestedRange {
  const ends = endsOf(header);
  if (ends === undefined) return whole;
  const [from, to] = ends;
  if (from === '') {
    if (to === '') return whole;
    const length = Number(to);
    if (length === 0) return unsatisfiable;
    // The last bytes of an empty content are no range that a 206 could express.
    return size === 0 ? whole : { kind: 'part', first: Math.max(0, size - length), last: size - 1 };
  }
  const first = Number(from);
  const last = to === '' ? Infinity : Number(to);
  if (last < first) return whole;
  return first >= size ? unsatisfiable : { kind: 'part', first, last: Math.min(last, size - 1) };
}

/**
 * Whether If-Range names the current identity form, so that a part of it fits the client's. A date must equal the
 * version (RFC 9110, 13.1.5).
 */
export function ifRangeHolds(header: string, digest: Digest, version: FileVersion): boolean {
  const text = header.trim();
  return text.endsWith('"') ? text === etagOf(digest, 'identity') : readDate(text) === version;
}

/** Content-Range of a 206. */
export function formatContentRange(first: number, last: number, size: number): string {
  return `bytes ${first}-${last}/${size}`;
}

/** Content-Range of a 416. */
export function formatUnsatisfiedRange(size: number): string {
  return `bytes */${size}`;
}

/** Reads Content-Range of a 206, on the client's side; `undefined` if it is malformed. */
export function parseContentRange(header: string): { first: number; last: number; size: number } | undefined {
  const parts = /^bytes (\d{1,15})-(\d{1,15})\/(\d{1,15})$/.exec(header.trim());
  if (parts === null) return undefined;
  const [first, last, size] = [Number(parts[1]), Number(parts[2]), Number(parts[3])];
  return first <= last && last < size ? { first, last, size } : undefined;
}
