import { parseDigest, type Digest } from '../core/digest.ts';
import { cannot } from '../core/errors.ts';

/** Headers about the content before compression; lower case, as Node reports them. */
export const digestHeader = 'sha256-checksum';
export const logicalSizeHeader = 'logical-size';
/**
 * In the response to a PUT with `Retry-Age`: `true` if the version in Last-Modified was removed, so that nothing is
 * stored.
 */
export const removedHeader = 'removed';
/** In a PUT that repeats an earlier one: seconds since that was first sent. */
export const retryAgeHeader = 'retry-age';

/** Reads a size in bytes from a header. @throws FiletrackerError `invalid-argument`. */
export function parseSize(header: string, text: string): number {
  const size = /^\d{1,16}$/.test(text) ? Number(text) : Infinity;
  if (Number.isSafeInteger(size)) return size;
  throw cannot('invalid-argument', `read the header ${header}`, 'it must be a size in bytes, a whole number');
}

/** Seconds with at most three decimals; ten digits are 300 years. */
const secondsForm = /^\d{1,10}(?:\.\d{1,3})?$/;

/**
 * Milliseconds since a PUT was first sent; `undefined` for a first try. @throws FiletrackerError `invalid-argument`.
 */
export function parseRetryAge(text: string | undefined): number | undefined {
  if (text === undefined) return undefined;
  if (secondsForm.test(text.trim())) return Math.round(Number(text) * 1000);
  throw cannot(
    'invalid-argument',
    'read the header Retry-Age',
    'it must be a number of seconds, such as "1.250"',
  );
}

export function formatRetryAge(ageMs: number): string {
  return (Math.max(0, Math.floor(ageMs)) / 1000).toFixed(3);
}

/**
 * The claims of an upload's headers about its content, checked for form only. @throws FiletrackerError
 * `invalid-digest`, `invalid-argument`.
 */
export function parseClaims(
  digest: string | undefined,
  logicalSize: string | undefined,
): { digest: Digest | undefined; logicalSize: number | undefined } {
  return {
    digest: digest === undefined ? undefined : parseDigest(digest.trim()),
    logicalSize: logicalSize === undefined ? undefined : parseSize('Logical-Size', logicalSize.trim()),
  };
}
