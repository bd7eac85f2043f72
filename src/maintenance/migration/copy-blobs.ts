import { join } from 'node:path';
import type { DiskBlobStore } from '../../blobs/disk/disk-blob-store.ts';
import type { BlobRecord, CatalogReader } from '../../catalog/catalog.ts';
import type { Digest } from '../../core/digest.ts';

const blobsAtOnce = 256;
const pageBlobs = 16_384;

export interface CopiedBlobs {
  /** Blobs that have a file of their own. */
  readonly blobs: number;
  readonly bytes: number;
  /** Those of them that were not there yet. */
  readonly added: number;
  readonly addedBytes: number;
  /** Digests of blobs that names refer to and whose file is gone. */
  readonly missing: readonly Digest[];
  /** Digests of blobs that the disk does not give. */
  readonly unreadable: readonly Digest[];
}

/**
 * Links or copies the file of each blob that a catalog knows into another blob store. What the disk does not give is told
 * of, and the rest goes on: the next copy takes it, if it can be read then.
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
  for await (const records of batchesOf(reader)) {
    options.signal?.throwIfAborted();
    const there = await Promise.all(records.map((record) => target.size(keyOf(record))));
    const wanted = records.filter((record, at) => there[at] !== record.storedSize);
    const keys = await target.adopt(
      wanted.map((record) => {
        const { digest, encoding } = record;
        return { digest, encoding, path: join(blobsFolder, keyOf(record).slice(0, 2), keyOf(record)) };
      }),
      (digest) => unreadable.add(digest),
    );
    for (const [at, record] of wanted.entries()) {
      if (keys[at] === undefined) {
        if (record.references > 0 && !unreadable.has(record.digest)) missing.push(record.digest);
        continue;
      }
      sums.added += 1;
      sums.addedBytes += record.storedSize;
    }
    sums.blobs += records.length;
    for (const { storedSize } of records) sums.bytes += storedSize;
    options.advance?.(sums.blobs);
  }
  return { ...sums, missing, unreadable: [...unreadable] };
}

function keyOf(record: BlobRecord): string {
  return record.location.kind === 'object' ? record.location.key : '';
}

/**
 * Blobs with a file of their own, in batches. Each page is read from a snapshot of its own, because one that is
 * held for hours keeps LMDB from using old pages again.
 */
async function* batchesOf(reader: CatalogReader): AsyncGenerator<readonly BlobRecord[], void, void> {
  let after: Digest | undefined;
  for (;;) {
    const page: BlobRecord[] = [];
    let seen = 0;
    for await (const batch of reader.listBlobs(after === undefined ? {} : { after })) {
      seen += batch.length;
      after = batch.at(-1)?.digest ?? after;
      page.push(...batch.filter(({ location }) => location.kind === 'object'));
      if (seen >= pageBlobs) break;
    }
    for (let at = 0; at < page.length; at += blobsAtOnce) yield page.slice(at, at + blobsAtOnce);
    if (seen < pageBlobs) return;
  }
}
