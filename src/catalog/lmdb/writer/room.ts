import { QuotaBook, type CatalogLimits } from '../../quotas.ts';
import type { LmdbReader } from '../index/lmdb-reader.ts';

/** How much more may be taken in. */
export interface Room {
  readonly storedBytesMax: number | undefined;
  readonly quotas: QuotaBook;
}

/** What may still be taken in, by a count of what is there. */
export async function roomOf(
  limits: CatalogLimits | undefined,
  reader: LmdbReader,
): Promise<Room | undefined> {
  if (limits === undefined) return undefined;
  const quotas = new QuotaBook(limits.quotas);
  // One pass for all, as quotas may lie in each other.
  if (limits.quotas.length > 0) {
    for await (const batch of reader.listEntries('/')) {
      for (const { name, logicalSize } of batch) quotas.add({ name, files: 1, logicalBytes: logicalSize });
    }
  }
  return { storedBytesMax: limits.storedBytesMax, quotas };
}
