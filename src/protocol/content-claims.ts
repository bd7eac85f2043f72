import { parseDigest, type Digest } from '../core/digest.ts';
import { FiletrackerError } from '../core/errors.ts';

/** Headers that speak of the content before compression; lower case, as Node gives them. */
export const digestHeader = 'sha256-checksum';
export const logicalSizeHeader = 'logical-size';
/** In the answer to a PUT: `true` where the version in Last-Modified was removed, and nothing is stored. */
export const removedHeader = 'removed';

/**
 * Reads a size in bytes from a header.
 * @throws FiletrackerError `invalid-argument` for what is no whole number.
 */
export function parseSize(header: string, text: string): number {
  const size = /^\d{1,16}$/.test(text) ? Number(text) : Infinity;
  if (Number.isSafeInteger(size)) return size;
  throw new FiletrackerError(
    'invalid-argument',
    `Cannot read the header ${header}: it must be a size in bytes, a whole number`,
  );
}

/**
 * What the headers of an upload claim of the content; checked for form only.
 * @throws FiletrackerError `invalid-digest`, `invalid-argument`.
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
