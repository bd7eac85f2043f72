import type { BlobStore, FoundBlob } from '../blobs/blob-store.ts';
import type { Catalog } from '../catalog/catalog.ts';

/**
 * Counts what lies in the blob store and no blob of the catalog names. Most of it was placed, or about to be removed, when
 * a process died. But a catalog that was made anew from a journal of which a part is gone knows nothing of the
 * files that were recorded there, and their contents look the same: so whoever serves the store leaves them where they
 * are, and only tells of them. Contents that the catalog calls damaged are not counted: recovery may mend them with
 * what is there.
 * @param beforeMs only what was written before: what is just coming in has no name yet.
 */
export async function countStrays(
  catalog: Catalog,
  blobs: BlobStore,
  options: { readonly beforeMs: number; readonly signal?: AbortSignal | undefined },
): Promise<number> {
  let strays = 0;
  for await (const found of blobs.list(options.signal === undefined ? {} : { signal: options.signal })) {
    if (found.modifiedMs < options.beforeMs && (await isStray(catalog, found))) strays += 1;
  }
  return strays;
}

async function isStray(catalog: Catalog, { digest, key }: FoundBlob): Promise<boolean> {
  // Where a key does not tell the content, only recovery can compare.
  if (digest === undefined) return false;
  const record = await catalog.findBlob(digest);
  if (record === undefined) return true;
  if (record.damaged) return false;
  return record.location.kind !== 'object' || record.location.key !== key;
}
