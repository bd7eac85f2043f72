import { closeSync, createReadStream, fstatSync, openSync, readSync } from 'node:fs';
import type { BlobDescription } from '../../../core/blob.ts';
import type { Digest } from '../../../core/digest.ts';
import { fromSystemError, isFiletrackerError } from '../../../core/errors.ts';
import type { Chunks } from '../../../streams/chunks.ts';
import { ContentMeter } from '../../../streams/content-meter.ts';
import { gunzipChunks } from '../../../streams/gzip-decoder.ts';

/** A gzip member has at least a header of 10 bytes, an empty block of 2 and a trailer of 8 (RFC 1952). */
const gzipSizeMinBytes = 20;
/** Deflate packs at most 1,032 to 1, so that a smaller file cannot hold 4 GiB. Source: legacy.md. */
const exactBelowBytes = 4_160_000;
const sizeModulus = 2 ** 32;

/** A blob of the old store, as far as it was examined. */
export interface LegacyBlob extends Omit<BlobDescription, 'encoding'> {
  readonly path: string;
  /** Why it cannot be intact; `undefined` if nothing shows that yet. */
  readonly damage: string | undefined;
  /** Whether the logical size is certain, unless the digest turns out to be wrong. */
  readonly measured: boolean;
}

/**
 * Examines a blob: its header, and the size in its last four bytes. If four bytes may not hold the whole size, the blob is
 * decoded, and so verified, if `mayDecode` allows it.
 */
export async function lookAtLegacyBlob(
  path: string,
  digest: Digest,
  mayDecode: (storedSize: number) => boolean,
): Promise<LegacyBlob> {
  const { storedSize, magic, sizeInTrailer } = readEnds(path);
  const bad = (damage: string): LegacyBlob => ({
    digest,
    path,
    storedSize,
    logicalSize: sizeInTrailer,
    damage,
    measured: true,
  });
  if (storedSize < gzipSizeMinBytes) return bad('it is too short to be gzip');
  if (magic !== 0x8b1f) return bad('it is not gzip');
  const plain = { digest, path, storedSize, logicalSize: sizeInTrailer, damage: undefined };
  if (storedSize < exactBelowBytes) return { ...plain, measured: true };
  if (!mayDecode(storedSize)) {
    return { ...plain, logicalSize: likelySize(storedSize, sizeInTrailer), measured: false };
  }
  try {
    const meter = new ContentMeter();
    const source = createReadStream(path, { highWaterMark: 256 * 1024 }) as Chunks;
    for await (const piece of gunzipChunks(source, { sizeMaxBytes: Infinity })) meter.update(piece);
    const measure = meter.finish();
    if (measure.digest !== digest) return bad(`its content has the digest ${measure.digest}`);
    return { ...plain, logicalSize: measure.sizeBytes, measured: true };
  } catch (error) {
    if (isFiletrackerError(error, 'corrupt-encoding')) return bad(error.message);
    throw fromSystemError(error, 'read the old store');
  }
}

/** The smallest size that agrees with the trailer: compression does not make content larger, or only slightly. */
function likelySize(storedSize: number, sizeInTrailer: number): number {
  const least = storedSize * 0.99 - 1024;
  const turns = Math.max(0, Math.ceil((least - sizeInTrailer) / sizeModulus));
  return sizeInTrailer + turns * sizeModulus;
}

/** Synchronous, for the same reason as `readLegacyLink`. */
function readEnds(path: string): { storedSize: number; magic: number; sizeInTrailer: number } {
  let file: number | undefined;
  try {
    file = openSync(path, 'r');
    const { size } = fstatSync(file);
    const ends = Buffer.alloc(6);
    if (size >= gzipSizeMinBytes) {
      readSync(file, ends, 0, 2, 0);
      readSync(file, ends, 2, 4, size - 4);
    }
    return { storedSize: size, magic: ends.readUInt16LE(0), sizeInTrailer: ends.readUInt32LE(2) };
  } catch (error) {
    throw fromSystemError(error, 'read the old store');
  } finally {
    if (file !== undefined) closeSync(file);
  }
}
