import type { BlobStore, FoundBlob } from '../blobs/blob-store.ts';
import type { BlobRecord, Catalog } from '../catalog/catalog.ts';
import type { Digest } from '../core/digest.ts';
import type { Encoding } from '../core/blob.ts';
import { isFiletrackerError } from '../core/errors.ts';
import type { Chunks } from '../streams/chunks.ts';
import { ContentMeter } from '../streams/content-meter.ts';
import { gunzipChunks } from '../streams/gzip-decoder.ts';

/** What reading a blob from end to end has shown. */
export type BlobVerdict =
  /** The content matches its digest; the sizes are as measured. */
  | { readonly kind: 'intact'; readonly logicalSize: number; readonly storedSize: number }
  | { readonly kind: 'missing' }
  | { readonly kind: 'damaged'; readonly reason: string };

export interface CheckOptions {
  readonly signal?: AbortSignal | undefined;
  /** Awaited with the size of each piece that was read, to bound the rate. */
  readonly onBytes?: ((bytes: number) => Promise<void> | void) | undefined;
}

/** What a blob must be. */
type BlobClaim = Pick<BlobRecord, 'digest' | 'encoding'>;

/**
 * Reads a blob of the catalog from end to end and compares its digest. Memory does not depend on its size.
 * @throws FiletrackerError of the disk, `aborted`.
 */
export async function checkBlob(
  record: BlobRecord,
  blobs: Pick<BlobStore, 'open'>,
  options: CheckOptions = {},
): Promise<BlobVerdict> {
  const { location } = record;
  if (location.kind === 'object') return checkStoredBytes(location.key, record, blobs, options);
  return verdictOf(
    record,
    async () => {
      const bytes = await location.read();
      return bytes && [bytes];
    },
    options,
  );
}

/** The same for bytes of the blob store that the catalog may not know. */
export async function checkStoredBytes(
  key: string,
  claim: { readonly digest: Digest; readonly encoding: Encoding },
  blobs: Pick<BlobStore, 'open'>,
  options: CheckOptions = {},
): Promise<BlobVerdict> {
  return verdictOf(claim, () => blobs.open(key, { signal: options.signal }), options);
}

async function verdictOf(
  claim: BlobClaim,
  open: () => Promise<Chunks | readonly Uint8Array[] | undefined>,
  { onBytes }: CheckOptions,
): Promise<BlobVerdict> {
  const meter = new ContentMeter();
  let storedSize = 0;
  async function* counted(source: Chunks | readonly Uint8Array[]): AsyncGenerator<Uint8Array> {
    for await (const chunk of source) {
      storedSize += chunk.length;
      yield chunk;
      await onBytes?.(chunk.length);
    }
  }
  try {
    const source = await open();
    if (source === undefined) return { kind: 'missing' };
    const stored = counted(source);
    const content = claim.encoding === 'gzip' ? gunzipChunks(stored, { sizeMaxBytes: Infinity }) : stored;
    for await (const chunk of content) meter.update(chunk);
  } catch (error) {
    if (!isFiletrackerError(error, 'corrupt-encoding') && !isFiletrackerError(error, 'damaged-blob'))
      throw error;
    return { kind: 'damaged', reason: error.message };
  }
  const { digest, sizeBytes } = meter.finish();
  if (digest === claim.digest) return { kind: 'intact', logicalSize: sizeBytes, storedSize };
  return { kind: 'damaged', reason: `its content has the digest ${digest}` };
}

/**
 * Counts the orphans of a blob store. Most were placed, or about to be removed, when a process died. But a catalog that
 * was rebuilt from a journal with a lost part does not know the blobs that were recorded in that part, and they look the
 * same. So a server leaves orphans alone and only reports them. Blobs that the catalog calls damaged are not counted:
 * recovery may repair them with what is there.
 * @param beforeMs counts only blobs written before: an upload that is being committed has no name yet.
 */
export async function countOrphans(
  catalog: Catalog,
  blobs: BlobStore,
  options: { readonly beforeMs: number; readonly signal?: AbortSignal | undefined },
): Promise<number> {
  let orphans = 0;
  for await (const found of blobs.list(options.signal === undefined ? {} : { signal: options.signal })) {
    if (found.modifiedMs < options.beforeMs && (await isOrphan(catalog, found))) orphans += 1;
  }
  return orphans;
}

async function isOrphan(catalog: Catalog, { digest, key }: FoundBlob): Promise<boolean> {
  // If the key does not name the content, only recovery can compare.
  if (digest === undefined) return false;
  const record = await catalog.findBlob(digest);
  if (record === undefined) return true;
  if (record.damaged) return false;
  return record.location.kind !== 'object' || record.location.key !== key;
}
