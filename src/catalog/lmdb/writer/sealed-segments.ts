import { stat } from 'node:fs/promises';
import { errnoOf, FiletrackerError, fromSystemError } from '../../../core/errors.ts';
import { layoutOf, segmentPath } from '../../journal/segment-header.ts';
import { endOfSealedSegment } from '../../journal/segment.ts';
import type { IndexTables } from '../index/tables.ts';

/**
 * The end of a segment that is not the last. Where compaction has removed the one after it, which told the end, the index
 * does, as it knows the bytes of all records that were in it.
 */
export async function endOfIndexedSegment(
  index: IndexTables,
  folder: string,
  segment: number,
): Promise<number> {
  const { sizeBytes = 0 } = index.segmentRow(segment) ?? {};
  const { start } = await layoutOf(folder, segment);
  return Math.max(await endOfSealedSegment(folder, segment), start + sizeBytes);
}

/** Whether the file of a segment is there and reaches to its end. */
export async function isWholeSegment(folder: string, segment: number, end: number): Promise<boolean> {
  try {
    return (await stat(segmentPath(folder, segment))).size >= end;
  } catch (error) {
    if (errnoOf(error) === 'ENOENT') return false;
    throw fromSystemError(error, 'look at a segment of the journal');
  }
}

/**
 * Sees to it that no segment before `last` is gone that the index still needs something of.
 * @param there the segments that are there. @throws FiletrackerError `corrupt-store`.
 */
export function checkSegmentsThere(index: IndexTables, there: readonly number[], last: number): void {
  const found = new Set(there);
  for (const { number, liveBytes } of index.segmentRows()) {
    if (number < last && liveBytes > 0 && !found.has(number)) throw segmentLost(number, 'is gone');
  }
}

export function segmentLost(segment: number, state: 'is gone' | 'was cut short'): FiletrackerError {
  return new FiletrackerError(
    'corrupt-store',
    `Cannot copy the journal: segment ${segment} ${state}; run filetracker-recover on the store`,
  );
}
