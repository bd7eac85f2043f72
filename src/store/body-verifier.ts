import { setImmediate as nextTurn } from 'node:timers/promises';
import { digestOf } from '../core/digest.ts';
import type { Encoding } from '../core/blob.ts';
import { FiletrackerError, isFiletrackerError, type ErrorCode } from '../core/errors.ts';
import { chunkSizeBytes } from '../core/limits.ts';
import type { Chunks, GatheredBytes } from '../streams/chunks.ts';
import { boundedChunks, ContentMeter, type ContentMeasure } from '../streams/content-meter.ts';
import { freeNow } from '../streams/freed-memory.ts';
import {
  gunzipAtOnce,
  gunzipChunks,
  gunzipToSize,
  trailingSize,
  type DecodingBounds,
} from '../streams/gzip-decoder.ts';
import type { ContentClaims } from './file-store.ts';
import type { MemoryBudget } from '../core/memory-budget.ts';

// Measures bodies and compares them with what the client claims (invariant 2).

/** Bytes that a gzip body of the largest file may have more than the file: headers, trailers, stored blocks. */
const encodedExcessBytes = 1024 * 1024;

/** What a body in memory is checked against, and the memory for that. */
export interface MeasureOptions {
  readonly encoding: Encoding;
  readonly claims: ContentClaims;
  readonly bounds: DecodingBounds;
  readonly memory: { readonly budget: MemoryBudget; readonly decodedMaxBytes: number };
}

/**
 * Digest and logical size of a body in memory. A large gzip body is decoded off the main thread; the decoded bytes are not
 * kept.
 * @throws FiletrackerError `corrupt-encoding`, `too-large`, `size-mismatch`.
 */
export function measureBytes(
  body: GatheredBytes,
  options: MeasureOptions,
): ContentMeasure | Promise<ContentMeasure> {
  const { encoding, bounds } = options;
  if (encoding === 'identity') return measurePieces(body.pieces, bounds.sizeMaxBytes);
  const bytes = body.join();
  const content = gunzipAtOnce(bytes, bounds);
  return content === undefined ? measureGzip(bytes, options) : measurePieces([content], bounds.sizeMaxBytes);
}

/**
 * Decodes in one call what unpacks to the claimed size, or without a claim to the size in its trailer. Whatever does not is
 * decoded in pieces, from its beginning, which finds the error of it.
 */
async function measureGzip(
  bytes: Buffer,
  { claims, bounds, memory: { budget, decodedMaxBytes } }: MeasureOptions,
): Promise<ContentMeasure> {
  const expectedBytes = claims.logicalSize ?? trailingSize(bytes);
  if (expectedBytes <= decodedMaxBytes && budget.tryTake(expectedBytes)) {
    try {
      const content = await gunzipToSize(bytes, expectedBytes, bounds);
      if (content !== undefined) {
        const measure = await measureInTurns(content);
        // Below this size it may be a part of memory that others use (`Buffer.poolSize`).
        if (content.length >= chunkSizeBytes) freeNow(new Uint8Array(content.buffer));
        return measure;
      }
    } finally {
      budget.giveBack(expectedBytes);
    }
  }
  return measureChunks(checkedContent(gunzipChunks([bytes], bounds), claims, bounds.sizeMaxBytes));
}

/** Bytes digested without a turn for others: 0.6 ms. */
const digestedAtOnceBytes = 1024 * 1024;

async function measureInTurns(content: Buffer): Promise<ContentMeasure> {
  if (content.length <= digestedAtOnceBytes) return { digest: digestOf(content), sizeBytes: content.length };
  const meter = new ContentMeter();
  for (let start = 0; start < content.length; start += digestedAtOnceBytes) {
    if (start > 0) await nextTurn();
    meter.update(content.subarray(start, start + digestedAtOnceBytes));
  }
  return meter.finish();
}

function measurePieces(pieces: readonly Uint8Array[], sizeMaxBytes: number): ContentMeasure {
  const sizeBytes = pieces.reduce((sum, piece) => sum + piece.length, 0);
  if (sizeBytes > sizeMaxBytes) throw tooLarge(sizeMaxBytes);
  const [only] = pieces;
  // One call takes half the time for small contents.
  if (pieces.length === 1 && only !== undefined) return { digest: digestOf(only), sizeBytes };
  const meter = new ContentMeter();
  for (const piece of pieces) meter.update(piece);
  return meter.finish();
}

/** `onDone` receives each piece when it is digested. */
export async function measureChunks(
  content: Chunks,
  onDone?: (piece: Uint8Array) => void,
): Promise<ContentMeasure> {
  const meter = new ContentMeter();
  for await (const chunk of content) {
    meter.update(chunk);
    onDone?.(chunk);
  }
  return meter.finish();
}

/**
 * Checks the announced and the largest size of a body as it passes. The encoded size has a bound of its own: empty gzip
 * members could follow one another forever.
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

/** @throws FiletrackerError `too-large` if what is announced is. */
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

/** Fails as soon as the content is larger than allowed or claimed. */
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

/** @throws FiletrackerError if a body in memory does not have the announced size. */
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
  const text = `Cannot read the body: it is longer than the ${announcedSize} bytes that were announced`;
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
