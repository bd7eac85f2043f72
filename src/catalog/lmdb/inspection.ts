import { open, rm, stat } from 'node:fs/promises';
import { makeFolders, privateFolderMode } from '../../fs/folders.ts';
import type { BlobPlacer } from '../catalog.ts';
import type { RecordPosition } from '../journal/record.ts';
import { failToRead, isUnfinished, readSegmentHeader, segmentPath } from '../journal/segment-header.ts';
import { listSegments, type DamagedRange } from '../journal/segment.ts';
import { IndexDatabase } from './index/database.ts';
import { rollForward } from './writer/replay.ts';

const windowSizeBytes = 1024 * 1024;

/** The readable content of a journal. */
export interface JournalInspection {
  /** An index rebuilt from the journal alone; the caller closes it. */
  readonly index: IndexDatabase;
  readonly segments: readonly number[];
  /** The end of each segment. */
  readonly ends: ReadonlyMap<number, number>;
  readonly sizeBytes: number;
  readonly records: number;
  readonly damaged: readonly DamagedRange[];
  /** Segments with records and without an intact header. */
  readonly headless: readonly number[];
  /** Digests of blobs that entries name and no record carries. */
  readonly lost: readonly string[];
  readonly end: RecordPosition;
  /** Bytes after the end that are neither a record nor zeros: of a write that a crash cut short, or damage. */
  readonly tornBytes: number;
}

/**
 * Reads a whole journal, skipping damage, and builds an index from it in a scratch folder. Changes nothing else. Only for a
 * store that no process changes meanwhile.
 */
export async function inspectJournal(
  journalFolder: string,
  scratchFolder: string,
  options: {
    readonly placer: Pick<BlobPlacer, 'size'>;
    readonly onProgress?: ((doneBytes: number, totalBytes: number) => void) | undefined;
  },
): Promise<JournalInspection> {
  await rm(scratchFolder, { recursive: true, force: true });
  makeFolders(scratchFolder, privateFolderMode);
  const { segments, headless, sizeBytes } = await headersIn(journalFolder);
  const index = IndexDatabase.open(scratchFolder);
  try {
    let doneBytes = 0;
    const { records, damaged, ends, end } = await rollForward(index, journalFolder, segments, {
      salvage: true,
      readOnly: true,
      onProgress: (bytes) => options.onProgress?.((doneBytes += bytes), sizeBytes),
    });
    const lost = await index.settleRebuild(options.placer);
    const { segment, offset } = end;
    const tornBytes = segment === 0 ? 0 : await sizeOfTail(journalFolder, segment, offset);
    const found = { index, segments, ends, sizeBytes, records, damaged, headless, lost };
    return { ...found, end: { segment, offset }, tornBytes };
  } catch (error) {
    await index.close();
    throw error;
  }
}

async function headersIn(
  folder: string,
): Promise<{ segments: number[]; headless: number[]; sizeBytes: number }> {
  const segments: number[] = [];
  const headless: number[] = [];
  let sizeBytes = 0;
  const found = await listSegments(folder);
  for (const segment of found) {
    const { size } = await stat(segmentPath(folder, segment));
    const header = await readSegmentHeader(folder, segment);
    // A crash left the last segment without a header and without records.
    if (segment === found.at(-1) && (await isUnfinished(folder, segment))) continue;
    segments.push(segment);
    sizeBytes += size;
    if (header === undefined) headless.push(segment);
  }
  return { segments, headless, sizeBytes };
}

/** The distance from `offset` to the last byte that is not zero. */
async function sizeOfTail(folder: string, segment: number, offset: number): Promise<number> {
  await using file = await open(segmentPath(folder, segment), 'r');
  const window = Buffer.alloc(windowSizeBytes);
  let end = offset;
  for (let at = offset; ;) {
    const { bytesRead } = await file
      .read(window, 0, window.length, at)
      .catch((error: unknown) => failToRead(segment, error));
    if (bytesRead === 0) return end - offset;
    const last = window.subarray(0, bytesRead).findLastIndex((byte) => byte !== 0);
    if (last >= 0) end = at + last + 1;
    at += bytesRead;
  }
}
