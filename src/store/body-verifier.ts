import { digestOf } from '../core/digest.ts';
import type { Encoding } from '../core/blob.ts';
import { FiletrackerError, isFiletrackerError, type ErrorCode } from '../core/errors.ts';
import type { Chunks, GatheredBytes } from '../streams/chunks.ts';
import { boundedChunks, ContentMeter, type ContentMeasure } from '../streams/content-meter.ts';
import { gunzipAtOnce, gunzipChunks, type DecodingBounds } from '../streams/gzip-decoder.ts';
import type { ContentClaims } from './file-store.ts';

// What a body really holds, and whether that is what its sender says (invariant 2).

/** Room for headers, trailers and what does not compress, in a gzip body of the largest file. */
const encodedExcessBytes = 1024 * 1024;

/**
 * Digest and logical size of a body in memory. Small ones are measured at once, others as they are decoded
 * off the main thread; the decoded bytes are not kept.
 * @throws FiletrackerError `corrupt-encoding`, `too-large`, `size-mismatch`.
 */
export function measureBytes(
  body: GatheredBytes,
  encoding: Encoding,
  bounds: DecodingBounds,
  claims: ContentClaims,
): ContentMeasure | Promise<ContentMeasure> {
  if (encoding === 'identity') return measurePieces(body.pieces, bounds.sizeMaxBytes);
  const bytes = body.join();
  const content = gunzipAtOnce(bytes, bounds);
  if (content === undefined) {
    return measureChunks(checkedContent(gunzipChunks([bytes], bounds), claims, bounds.sizeMaxBytes));
  }
  return measurePieces([content], bounds.sizeMaxBytes);
}

function measurePieces(pieces: readonly Uint8Array[], sizeMaxBytes: number): ContentMeasure {
  const sizeBytes = pieces.reduce((sum, piece) => sum + piece.length, 0);
  if (sizeBytes > sizeMaxBytes) throw tooLarge(sizeMaxBytes);
  const [only] = pieces;
  // In one call it takes half of the time for small contents.
  if (pieces.length === 1 && only !== undefined) return { digest: digestOf(only), sizeBytes };
  const meter = new ContentMeter();
  for (const piece of pieces) meter.update(piece);
  return meter.finish();
}

/** Digest and logical size of a content that passes. */
export async function measureChunks(content: Chunks): Promise<ContentMeasure> {
  const meter = new ContentMeter();
  for await (const chunk of content) meter.update(chunk);
  return meter.finish();
}

/**
 * Holds a body against the size that was announced for it and the largest that is taken, as it passes. The
 * encoded size is bounded by itself: members that unpack to nothing could follow one another for ever.
 */
export function checkedBody(
  source: Chunks,
  announcedSize: number | undefined,
  fileSizeMaxBytes: number,
): Chunks {
  const encodedMaxBytes = fileSizeMaxBytes + encodedExcessBytes;
  return boundedChunks(source, {
    sizeMaxBytes: announcedSize ?? encodedMaxBytes,
    excess: () =>
      announcedSize === undefined ? tooLarge(fileSizeMaxBytes) : moreThanAnnounced(announcedSize),
    sizeMinBytes: announcedSize,
    shortage: (sizeBytes) => truncated(sizeBytes, announcedSize ?? 0),
  });
}

/** Refuses, from what is announced, a body that is too large in any case. */
export function checkAnnounced(
  announcedSize: number | undefined,
  encoding: Encoding,
  claims: ContentClaims,
  fileSizeMaxBytes: number,
): void {
  const bodyMaxBytes = encoding === 'gzip' ? fileSizeMaxBytes + encodedExcessBytes : fileSizeMaxBytes;
  if ((announcedSize ?? 0) > bodyMaxBytes || (claims.logicalSize ?? 0) > fileSizeMaxBytes) {
    throw tooLarge(fileSizeMaxBytes);
  }
}

/** Fails as soon as a content is larger than it may be, or than it is claimed to be. */
export function checkedContent(source: Chunks, claims: ContentClaims, fileSizeMaxBytes: number): Chunks {
  const claimed = claims.logicalSize;
  if (claimed === undefined || claimed > fileSizeMaxBytes) {
    return boundedChunks(source, {
      sizeMaxBytes: fileSizeMaxBytes,
      excess: () => tooLarge(fileSizeMaxBytes),
    });
  }
  return boundedChunks(source, { sizeMaxBytes: claimed, excess: () => sizeMismatch(claimed, undefined) });
}

/** @throws FiletrackerError `digest-mismatch`, `size-mismatch`. */
export function checkClaims(claims: ContentClaims, measure: ContentMeasure): void {
  if (claims.logicalSize !== undefined && claims.logicalSize !== measure.sizeBytes) {
    throw sizeMismatch(claims.logicalSize, measure.sizeBytes);
  }
  if (claims.digest !== undefined && claims.digest !== measure.digest) {
    throw new FiletrackerError(
      'digest-mismatch',
      `Cannot store the file: its SHA-256 is "${measure.digest}", but "${claims.digest}" was claimed`,
      { details: { expected: claims.digest, actual: measure.digest } },
    );
  }
}

function tooLarge(sizeMaxBytes: number): FiletrackerError {
  return new FiletrackerError('too-large', `Cannot store the file: it is larger than ${sizeMaxBytes} bytes`, {
    details: { expected: sizeMaxBytes },
  });
}

export function sizeMismatch(claimed: number, actual: number | undefined): FiletrackerError {
  const state = actual === undefined ? 'it is larger' : `it has ${actual} bytes`;
  return new FiletrackerError(
    'size-mismatch',
    `Cannot store the file: ${state}, but ${claimed} were claimed`,
    {
      details: { expected: claimed, ...(actual === undefined ? {} : { actual }) },
    },
  );
}

/** The error of a body in memory that has not the size that was announced. */
export function checkWhole(sizeBytes: number, announcedSize: number | undefined): void {
  if (announcedSize === undefined || sizeBytes === announcedSize) return;
  throw sizeBytes < announcedSize ? truncated(sizeBytes, announcedSize) : moreThanAnnounced(announcedSize);
}

function truncated(sizeBytes: number, announcedSize: number): FiletrackerError {
  const text = `Cannot read the body: it ended after ${sizeBytes} of ${announcedSize} bytes`;
  return new FiletrackerError('truncated-body', text, {
    details: { expected: announcedSize, actual: sizeBytes },
  });
}

function moreThanAnnounced(announcedSize: number): FiletrackerError {
  const text = `Cannot read the body: it goes on after the ${announcedSize} bytes that were announced`;
  return new FiletrackerError('size-mismatch', text, { details: { expected: announcedSize } });
}

const badContentCodes: ReadonlySet<ErrorCode> = new Set([
  'damaged-blob',
  'digest-mismatch',
  'size-mismatch',
  'corrupt-encoding',
  'truncated-body',
]);

/** Whether copying a file failed because its content is bad at the source: another try would fail too. */
export function isBadContent(error: unknown): boolean {
  return isFiletrackerError(error) && badContentCodes.has(error.code);
}
