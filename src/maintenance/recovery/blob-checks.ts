import type { BlobStore } from '../../blobs/blob-store.ts';
import type { BlobRecord, CatalogReader } from '../../catalog/catalog.ts';
import { mediumErrnoOf } from '../../core/errors.ts';
import type { BlobVerdict } from '../../store/integrity.ts';
import { flattened, sideBySide } from '../../streams/side-by-side.ts';

export interface BlobChecks {
  /** How many blobs are checked side by side. */
  readonly atOnce: number;
  readonly check: (record: BlobRecord) => Promise<void>;
  /** The disk cannot read this blob, which may be intact. */
  readonly onUnreadable: (record: BlobRecord, errno: string) => void;
  /** Called with the number of blobs checked so far. */
  readonly advance: (checked: number) => void;
  readonly signal?: AbortSignal | undefined;
}

/** Checks every blob of a catalog. @returns how many there are. */
export async function checkBlobs(catalog: CatalogReader, checks: BlobChecks): Promise<number> {
  const { atOnce, check, onUnreadable, advance, signal } = checks;
  let checked = 0;
  await sideBySide(flattened(catalog.listBlobs(signal && { signal })), atOnce, async (record) => {
    try {
      await check(record);
    } catch (error) {
      const errno = mediumErrnoOf(error);
      if (errno === undefined) throw error;
      onUnreadable(record, errno);
    }
    advance((checked += 1));
  });
  return checked;
}

/** Checks that a blob exists in its size, without reading it. */
export async function checkSize(record: BlobRecord, blobs: Pick<BlobStore, 'size'>): Promise<BlobVerdict> {
  const { location, storedSize, logicalSize } = record;
  const size = location.kind === 'object' ? await blobs.size(location.key) : storedSize;
  if (size === undefined) return { kind: 'missing' };
  if (size === storedSize) return { kind: 'intact', storedSize, logicalSize };
  return { kind: 'damaged', reason: `its file has ${size} bytes, not ${storedSize}` };
}
