import type { BlobStore } from '../blobs/blob-store.ts';
import type { BlobRecord } from '../catalog/catalog.ts';
import type { Digest } from '../core/digest.ts';
import type { Encoding } from '../core/blob.ts';
import { isFiletrackerError } from '../core/errors.ts';
import type { Chunks } from '../streams/chunks.ts';
import { ContentMeter } from '../streams/content-meter.ts';
import { gunzipChunks } from '../streams/gzip-decoder.ts';

/** What reading a blob from end to end has shown. */
export type BlobVerdict =
  /** The content is what its digest says; the sizes are as measured. */
  | { readonly kind: 'sound'; readonly logicalSize: number; readonly storedSize: number }
  | { readonly kind: 'missing' }
  | { readonly kind: 'damaged'; readonly reason: string };

export interface CheckOptions {
  readonly signal?: AbortSignal | undefined;
  /** Awaited with the size of each piece that was read: slows reading down to a rate. */
  readonly onBytes?: ((bytes: number) => Promise<void> | void) | undefined;
}

/**
 * Reads a blob of the catalog from end to end and holds it against its digest. Memory does not depend on its size.
 * @throws FiletrackerError of the disk, `aborted`.
 */
export async function checkBlob(
  record: BlobRecord,
  blobs: Pick<BlobStore, 'open'>,
  options: CheckOptions = {},
): Promise<BlobVerdict> {
  const { location, digest, encoding } = record;
  if (location.kind === 'object') return checkStoredBytes(location.key, { digest, encoding }, blobs, options);
  try {
    const bytes = await location.read();
    if (bytes === undefined) return { kind: 'missing' };
    await options.onBytes?.(bytes.length);
    return await measure([bytes], { digest, encoding });
  } catch (error) {
    return verdictOf(error);
  }
}

/** The same for bytes of the blob store that the catalog may not know. */
export async function checkStoredBytes(
  key: string,
  claim: { readonly digest: Digest; readonly encoding: Encoding },
  blobs: Pick<BlobStore, 'open'>,
  options: CheckOptions = {},
): Promise<BlobVerdict> {
  try {
    const stream = await blobs.open(key, { signal: options.signal });
    if (stream === undefined) return { kind: 'missing' };
    return await measure(counted(stream as Chunks, options), claim);
  } catch (error) {
    return verdictOf(error);
  }
}

function verdictOf(error: unknown): BlobVerdict {
  if (isFiletrackerError(error, 'corrupt-encoding') || isFiletrackerError(error, 'damaged-blob')) {
    return { kind: 'damaged', reason: error.message };
  }
  throw error;
}

async function* counted(source: Chunks, options: CheckOptions): AsyncGenerator<Uint8Array> {
  for await (const chunk of source) {
    yield chunk;
    await options.onBytes?.(chunk.length);
  }
}

async function measure(
  source: Chunks | Iterable<Uint8Array>,
  claim: { readonly digest: Digest; readonly encoding: Encoding },
): Promise<BlobVerdict> {
  const meter = new ContentMeter();
  let storedSize = 0;
  async function* stored(): AsyncGenerator<Uint8Array> {
    for await (const chunk of source) {
      storedSize += chunk.length;
      yield chunk;
    }
  }
  const content = claim.encoding === 'gzip' ? gunzipChunks(stored(), { sizeMaxBytes: Infinity }) : stored();
  for await (const chunk of content) meter.update(chunk);
  const { digest, sizeBytes } = meter.finish();
  if (digest === claim.digest) return { kind: 'sound', logicalSize: sizeBytes, storedSize };
  return { kind: 'damaged', reason: `its content has the digest ${digest}` };
}
