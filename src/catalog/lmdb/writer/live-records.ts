import type { JournalRecord, PlacedRecord, RecordPosition } from '../../journal/record.ts';
import type { BlobRow } from '../index/rows.ts';
import type { IndexTables } from '../index/tables.ts';

/**
 * The live parts of a record, as a record to write again. What it takes is what the rows account for: see
 * `index/live-bytes.ts`.
 */
export function livePartsOf(index: IndexTables, placed: PlacedRecord): JournalRecord[] {
  const { record } = placed;
  const isHere = (row: RecordPosition | undefined): boolean =>
    row !== undefined && row.segment === placed.segment && row.offset === placed.offset;
  if (record.type === 'remove') {
    const removal = index.removal(record.name);
    return removal !== undefined && isHere(removal) ? [{ ...record, origin: removal.origin }] : [];
  }
  const blob = index.blob(record.digest);
  if (record.type === 'mark') {
    return blob !== undefined && isLiveMark(blob, placed) ? [{ ...record, damaged: blob.damaged }] : [];
  }
  const carries = isHere(blob) && record.content.kind !== 'none';
  const damaged = blob?.damaged ?? false;
  if (record.type === 'put' && isHere(index.entry(record.name))) {
    return [carries ? { ...record, damaged } : { ...record, damaged, content: { kind: 'none' } }];
  }
  if (!carries) return [];
  const { timeMs, digest, encoding, logicalSize, storedSize, content } = record;
  return [{ type: 'blob', timeMs, digest, encoding, logicalSize, storedSize, content, damaged }];
}

/**
 * Whether a mark must be kept while its blob exists: it is the last one, and no later record has the blob's bytes, which
 * says itself whether they are damaged. A row of an older release does not have its last mark, so any mark is kept, which
 * becomes the last.
 */
function isLiveMark({ place, segment, offset, mark }: BlobRow, placed: RecordPosition): boolean {
  const isLater = placed.segment > segment || (placed.segment === segment && placed.offset > offset);
  if (place.kind === 'lost' || !isLater) return false;
  return mark === undefined || (mark.segment === placed.segment && mark.offset === placed.offset);
}
