import { expect } from 'vitest';
import { IndexDatabase, type EmbeddedFolders } from '../../src/catalog/lmdb/index/database.ts';
import { livePartsOf } from '../../src/catalog/lmdb/writer/live-records.ts';
import { recordHeaderSizeBytes, type JournalRecord } from '../../src/catalog/journal/record.ts';
import { scanSegment } from '../../src/catalog/journal/segment.ts';

/** What a record takes without the bytes that pad it. */
function sizeWithoutPadding(record: JournalRecord): number {
  let size = recordHeaderSizeBytes;
  if ('name' in record) size += Buffer.byteLength(record.name);
  if ('content' in record && record.content.kind === 'inline') size += record.content.bytes.length;
  if ('content' in record && record.content.kind === 'object') size += record.content.key.length;
  return size;
}

/** Checks that the index of a closed catalog knows of each segment what a copy of it would take. */
export async function checkLiveBytes(folders: EmbeddedFolders): Promise<void> {
  const index = IndexDatabase.open(folders.catalog, { readOnly: true });
  try {
    for (const { number, liveBytes, sizeBytes } of index.segmentRows()) {
      let copied = 0;
      let read = 0;
      for await (const batch of scanSegment(folders.journal, number)) {
        for (const placed of batch) {
          read += placed.length;
          for (const live of livePartsOf(index, placed)) copied += sizeWithoutPadding(live);
        }
      }
      expect({ number, liveBytes, sizeBytes }).toEqual({ number, liveBytes: copied, sizeBytes: read });
    }
  } finally {
    await index.close();
  }
}
