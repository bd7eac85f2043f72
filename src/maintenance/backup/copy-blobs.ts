import { join } from 'node:path';
import type { DiskBlobStore } from '../../blobs/disk/disk-blob-store.ts';
import type { BlobRecord, CatalogReader } from '../../catalog/catalog.ts';
import type { Digest } from '../../core/digest.ts';
import { inBatches } from '../../streams/side-by-side.ts';

const blobsAtOnce = 256;
const pageBlobs = 16_384;

export interface CopiedBlobs {
  /** Blobs that have a file of their own. */
  readonly blobs: number;
  readonly bytes: number;
  /** Those of them that the target did not have yet. */
  readonly added: number;
  readonly addedBytes: number;
  /** Blobs that entries name and whose file is gone. */
  readonly missing: readonly Digest[];
  /** Blobs that the disk cannot read. */
  readonly unreadable: readonly Digest[];
}

/**
 * Links or copies the file of each blob of a catalog to another blob store. Blobs that the disk cannot read are reported
 * and left out: the next copy includes them, if they can be read then.
 */
export async function copyBlobs(
  reader: CatalogReader,
  blobsFolder: string,
  target: DiskBlobStore,
  options: { readonly advance?: (done: number) => void; readonly signal?: AbortSignal | undefined } = {},
): Promise<CopiedBlobs> {
  const sums = { blobs: 0, bytes: 0, added: 0, addedBytes: 0 };
  const missing: Digest[] = [];
  const unreadable = new Set<Digest>();
  for await (const blobs of batchesOf(reader)) {
    options.signal?.throwIfAborted();
    const sizes = await Promise.all(blobs.map(({ key }) => target.size(key)));
    const wanted = blobs.filter(({ storedSize }, at) => sizes[at] !== storedSize);
    const keys = await target.adopt(
      wanted.map(({ digest, encoding, key }) => {
        return { digest, encoding, path: join(blobsFolder, key.slice(0, 2), key) };
      }),
      (digest) => unreadable.add(digest),
    );
    for (const [at, { digest, references, storedSize }] of wanted.entries()) {
      if (keys[at] !== undefined) {
        sums.added += 1;
        sums.addedBytes += storedSize;
      } else if (references > 0 && !unreadable.has(digest)) missing.push(digest);
    }
    sums.blobs += blobs.length;
    for (const { storedSize } of blobs) sums.bytes += storedSize;
    options.advance?.(sums.blobs);
  }
  return { ...sums, missing, unreadable: [...unreadable] };
}

type BlobFile = BlobRecord & { readonly key: string };

/**
 * Blobs with a file of their own, in batches. Each page is read from a snapshot of its own: one that is held for hours
 * keeps LMDB from reusing old pages.
 */
async function* batchesOf(reader: CatalogReader): AsyncGenerator<readonly BlobFile[], void, void> {
  let after: Digest | undefined;
  for (;;) {
    const page: BlobFile[] = [];
    let seen = 0;
    for await (const batch of reader.listBlobs(after && { after })) {
      seen += batch.length;
      after = batch.at(-1)?.digest ?? after;
      for (const blob of batch) {
        if (blob.location.kind === 'object') page.push({ ...blob, key: blob.location.key });
      }
      if (seen >= pageBlobs) break;
    }
    yield* inBatches(page, blobsAtOnce);
    if (seen < pageBlobs) return;
  }
}
