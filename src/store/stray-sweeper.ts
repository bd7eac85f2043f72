import type { BlobStore, FoundBlob } from '../blobs/blob-store.ts';
import type { Catalog } from '../catalog/catalog.ts';
import type { Digest } from '../core/digest.ts';

const batchBlobs = 256;

/**
 * Removes what lies in the blob store and no blob of the catalog names: bytes that were placed when a process
 * died, or whose removal did not survive a loss of power. It only proposes; `Catalog.removeStrays` decides inside
 * the catalog's sequence, so that it never takes what a put is about to name. Bytes of content that the catalog
 * calls damaged stay: they may be what recovery mends it with. Gives the number of blobs removed.
 * @param beforeMs only what was written before; spares look-ups for what is just coming in, no more than that.
 */
export async function sweepStrays(
  catalog: Catalog,
  blobs: BlobStore,
  options: { readonly beforeMs: number; readonly signal?: AbortSignal | undefined },
): Promise<number> {
  let removed = 0;
  let batch: { digest: Digest; key: string }[] = [];
  const flush = async (): Promise<void> => {
    if (batch.length > 0) removed += (await catalog.removeStrays(batch)).length;
    batch = [];
  };
  for await (const found of blobs.list(options.signal === undefined ? {} : { signal: options.signal })) {
    if (found.modifiedMs >= options.beforeMs || !(await isStray(catalog, found))) continue;
    if (found.digest === undefined) continue;
    batch.push({ digest: found.digest, key: found.key });
    if (batch.length >= batchBlobs) await flush();
  }
  await flush();
  return removed;
}

async function isStray(catalog: Catalog, { digest, key }: FoundBlob): Promise<boolean> {
  if (digest === undefined) return false;
  const record = await catalog.findBlob(digest);
  if (record === undefined) return true;
  if (record.damaged) return false;
  return record.location.kind !== 'object' || record.location.key !== key;
}
