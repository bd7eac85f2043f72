import { stat } from 'node:fs/promises';
import { cannot, errnoOf, fromSystemError, type FiletrackerError } from '../../../core/errors.ts';
import { layoutOf, segmentPath } from '../../journal/segment-header.ts';
import { endOfSealedSegment } from '../../journal/segment.ts';
import type { IndexTables } from '../index/tables.ts';

/**
 * The end of a segment that is not the last. If compaction has removed the next one, which recorded the end, the sum of
 * the segment's records in the index gives it.
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

/** Whether the file of a segment exists and reaches its end. */
export async function isWholeSegment(folder: string, segment: number, end: number): Promise<boolean> {
  try {
    return (await stat(segmentPath(folder, segment))).size >= end;
  } catch (error) {
    if (errnoOf(error) === 'ENOENT') return false;
    throw fromSystemError(error, 'read a segment of the journal');
  }
}

/**
 * Checks that no segment before `last` with live records is missing.
 * @param found the segments that exist. @throws FiletrackerError `corrupt-store`.
 */
export function checkSegmentsThere(index: IndexTables, found: readonly number[], last: number): void {
  const existing = new Set(found);
  for (const { number, liveBytes } of index.segmentRows()) {
    if (number < last && liveBytes > 0 && !existing.has(number)) throw segmentLost(number, 'is gone');
  }
}

export function segmentLost(segment: number, state: 'is gone' | 'was cut short'): FiletrackerError {
  const text = `segment ${segment} ${state}; run filetracker-recover on the store`;
  return cannot('corrupt-store', 'copy the journal', text);
}
