import { open, stat } from 'node:fs/promises';
import { checkRecord, recordSizeMaxBytes } from '../../catalog/journal/record.ts';
import { layoutOf, readSegmentHeader, segmentPath } from '../../catalog/journal/segment-header.ts';
import { endOfSealedSegment, listSegments } from '../../catalog/journal/segment.ts';
import { isWholeSegment } from '../../catalog/lmdb/writer/sealed-segments.ts';
import { isSameSegment, type StoredSnapshot } from './backup-layout.ts';

/** A segment in a folder, and where to stop reading it. */
export interface SegmentPart {
  readonly folder: string;
  readonly segment: number;
  readonly end: number;
}

/** The existing segments of a snapshot; those that are gone are added to `damage`. Reading them shows further damage. */
export async function segmentsOf(snapshot: StoredSnapshot, damage: string[]): Promise<SegmentPart[]> {
  const { folder, segments, end } = snapshot;
  const parts: SegmentPart[] = [];
  for (const segment of segments) {
    const isThere = await isWholeSegment(folder, segment, 0);
    // Refuses a segment of a newer format.
    if (isThere) await readSegmentHeader(folder, segment);
    if (!isThere) damage.push(`Segment ${segment} of the backup is gone`);
    else if (segment === end.segment) parts.push({ folder, segment, end: end.offset });
    // What follows the end in the next header was never acknowledged.
    else parts.push({ folder, segment, end: await endOfSealedSegment(folder, segment) });
  }
  return parts;
}

/**
 * Whether a journal continues the one of a snapshot. It does not if the store was reset to an earlier state: other records
 * then follow at the places of those that the snapshot has. Segments that compaction has removed meanwhile are not
 * compared.
 */
export async function isContinuedBy(snapshot: StoredSnapshot, journal: string): Promise<boolean> {
  const there = await listSegments(journal);
  const { segments, end } = snapshot;
  if ((there.at(-1) ?? 0) < end.segment) return false;
  // No number is used twice: what is older than the snapshot, and not in it, is of an earlier state.
  if (there.some((segment) => segment < end.segment && !segments.includes(segment))) return false;
  for (const held of await segmentsOf(snapshot, [])) {
    if (!there.includes(held.segment)) continue;
    const now = await partOf(journal, held.segment, there);
    // A segment that was cut short since proves nothing.
    if (!(await isWhole(held)) || !(await isWhole(now))) continue;
    if (!(await isContinued(held, now, held.segment < end.segment))) return false;
  }
  return true;
}

async function partOf(folder: string, segment: number, there: readonly number[]): Promise<SegmentPart> {
  const isLast = segment === there.at(-1);
  const { size } = await stat(segmentPath(folder, segment));
  return { folder, segment, end: isLast ? size : await endOfSealedSegment(folder, segment) };
}

function isWhole({ folder, segment, end }: SegmentPart): Promise<boolean> {
  return isWholeSegment(folder, segment, end);
}

/**
 * Whether the records held of a segment are the first ones it has now; if it was `sealed`, all of them. Compares the header
 * and the last record of both: a record holds its place, the time of its change and the change, so no two that were
 * written separately are equal.
 */
async function isContinued(held: SegmentPart, now: SegmentPart, sealed: boolean): Promise<boolean> {
  if (!(await isSameSegment(held.folder, now.folder, held.segment))) return false;
  const common = Math.min(held.end, now.end);
  const [mine, other] = await Promise.all([bytesAround(held, common), bytesAround(now, common)]);
  if (!mine.before.equals(other.before)) return false;
  // Preallocated space may follow, or may have been cut off since.
  const { seed } = await layoutOf(held.folder, held.segment);
  const isNoRecord = (bytes: Buffer): boolean => checkRecord(bytes, 0, seed) === 0;
  return isNoRecord(mine.after) && (!sealed || isNoRecord(other.after));
}

/** The bytes directly before and after an offset, each as long as a record may be. */
async function bytesAround(part: SegmentPart, offset: number): Promise<{ before: Buffer; after: Buffer }> {
  const layout = await layoutOf(part.folder, part.segment);
  const start = Math.max(layout.start, offset - recordSizeMaxBytes);
  const bytes = Buffer.alloc(Math.max(0, Math.min(part.end, offset + recordSizeMaxBytes) - start));
  const file = await open(segmentPath(part.folder, part.segment), 'r');
  try {
    const { bytesRead } = await file.read(bytes, 0, bytes.length, start);
    const read = bytes.subarray(0, bytesRead);
    return { before: read.subarray(0, offset - start), after: read.subarray(offset - start) };
  } finally {
    await file.close();
  }
}
