import { open, rm, stat } from 'node:fs/promises';
import { makeFolders, privateFolderMode } from '../../fs/folders.ts';
import type { BlobPlacer } from '../catalog.ts';
import { failToRead, isUnfinished, readSegmentHeader, segmentPath } from '../journal/segment-header.ts';
import { listSegments, type DamagedRange } from '../journal/segment.ts';
import { IndexDatabase } from './index/database.ts';
import { rollForward } from './writer/replay.ts';

const windowSizeBytes = 1024 * 1024;

/** What a journal holds, as far as it can be read. */
export interface JournalInspection {
  /** An index made from the journal alone; whoever asked closes it. */
  readonly index: IndexDatabase;
  readonly segments: readonly number[];
  /** Where each segment ends. */
  readonly ends: ReadonlyMap<number, number>;
  readonly sizeBytes: number;
  readonly records: number;
  readonly damaged: readonly DamagedRange[];
  /** Segments whose header is no sound one though records follow it. */
  readonly headless: readonly number[];
  /** Digests of blobs that entries name and no record carries. */
  readonly lost: readonly string[];
  readonly end: { readonly segment: number; readonly offset: number };
  /** Bytes after the end that are neither a record nor zeros: of a write that a crash cut short, or damage. */
  readonly tornBytes: number;
}

/**
 * Reads a whole journal, past whatever is damaged, and makes an index from it in a folder of its own. Changes
 * nothing else. Run it only while no process changes the store.
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
  const found = await listSegments(journalFolder);
  const { segments, headless, sizeBytes } = await headersOf(journalFolder, found);
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
    return {
      index,
      segments,
      ends,
      sizeBytes,
      records,
      damaged,
      headless,
      lost,
      end: { segment, offset },
      tornBytes,
    };
  } catch (error) {
    await index.close();
    throw error;
  }
}

async function headersOf(
  folder: string,
  found: readonly number[],
): Promise<{ segments: number[]; headless: number[]; sizeBytes: number }> {
  const segments: number[] = [];
  const headless: number[] = [];
  let sizeBytes = 0;
  for (const segment of found) {
    const { size } = await stat(segmentPath(folder, segment));
    const sound = (await readSegmentHeader(folder, segment)) !== undefined;
    // The last segment without a header and without records is one that a crash kept from being begun.
    if (segment === found.at(-1) && (await isUnfinished(folder, segment))) continue;
    segments.push(segment);
    sizeBytes += size;
    if (!sound) headless.push(segment);
  }
  return { segments, headless, sizeBytes };
}

/** How far the bytes after `offset` reach that are not zeros. */
async function sizeOfTail(folder: string, segment: number, offset: number): Promise<number> {
  const file = await open(segmentPath(folder, segment), 'r');
  try {
    const window = Buffer.alloc(windowSizeBytes);
    let last = offset;
    for (let at = offset; ;) {
      const { bytesRead } = await file
        .read(window, 0, window.length, at)
        .catch((error: unknown) => failToRead(segment, error));
      if (bytesRead === 0) return last - offset;
      const filled = window.subarray(0, bytesRead);
      for (let position = filled.length - 1; position >= 0; position -= 1) {
        if (filled[position] === 0) continue;
        last = at + position + 1;
        break;
      }
      at += bytesRead;
    }
  } finally {
    await file.close();
  }
}
