import { access, constants, rename, rm, stat } from 'node:fs/promises';
import { join } from 'node:path';
import type { Digest } from '../../../core/digest.ts';
import { errnoOf, FiletrackerError } from '../../../core/errors.ts';
import { makeFolders, privateFolderMode, syncFolder } from '../../../fs/folders.ts';
import { syncFile } from '../../../fs/durable-file.ts';
import {
  cutSegment,
  endToldByNext,
  listSegments,
  removeSegment,
  scanSegment,
  type DamagedRange,
} from '../../journal/segment.ts';
import { isUnfinished, layoutOf, readSegmentHeader, segmentPath } from '../../journal/segment-header.ts';
import type { JournalEnd } from '../../journal/journal-writer.ts';
import { IndexDatabase } from '../index/database.ts';
import { indexDataFileName, indexFileNames, trustOfIndex, writeIndexState } from '../index/state.ts';
import type { BlobPlacer } from '../../catalog.ts';
import type { EmbeddedFolders } from '../embedded-folders.ts';

/** What was found and done while the index was brought up to the journal. */
export interface ReplayReport {
  /** Whether the index was made anew from the whole journal. */
  readonly rebuilt: boolean;
  /** Records applied. */
  readonly records: number;
  /** Digests of blobs that entries name and no record carries. */
  readonly lost: readonly Digest[];
  readonly damaged: readonly DamagedRange[];
}

export interface ReplayOptions {
  /** The index, where this process has it open already to read. It is taken as it is, and stays the caller's on failure. */
  readonly index?: IndexDatabase | undefined;
  /** Take nothing over from the index that is there. */
  readonly rebuild?: boolean | undefined;
  /** Skip damage in the journal and report it, in the place of refusing. */
  readonly salvage?: boolean | undefined;
}

export interface ReplayedIndex {
  readonly index: IndexDatabase;
  readonly end: JournalEnd;
  readonly report: ReplayReport;
}

/**
 * Opens the index and brings it up to the end of the journal: rolls it forward where it can be trusted, else
 * rebuilds it. Run by the one process that holds the lock of the store.
 * @throws FiletrackerError `corrupt-store` where the journal is damaged and may not be salvaged.
 */
export async function replayJournal(
  folders: EmbeddedFolders,
  options: ReplayOptions & { readonly placer: Pick<BlobPlacer, 'size'> },
): Promise<ReplayedIndex> {
  makeFolders(folders.catalog, privateFolderMode);
  // A folder that is closed to this user would pass for one without an index.
  await access(folders.catalog, constants.R_OK | constants.W_OK | constants.X_OK);
  const found = await trustOfIndex(folders.catalog);
  const segmentsThere = await listSegments(folders.journal);
  // Before anything is changed: what a newer release has written is left as it is.
  for (const segment of segmentsThere.slice(-1)) await readSegmentHeader(folders.journal, segment);
  const trust = options.rebuild ? 'none' : found;
  if (trust === 'none') {
    if (options.index !== undefined) refuseOpenIndex();
    await putIndexAside(folders.catalog);
  }
  const index = options.index ?? (await IndexDatabase.openShared(folders));
  index.takeOver();
  try {
    const there = await dropUnfinishedSegment(folders.journal, segmentsThere);
    const segments = trust === 'none' ? there : await removeForgottenSegments(folders.journal, there, index);
    const replay = await rollForward(index, folders.journal, segments, { salvage: options.salvage });
    const lost = trust === 'none' ? await index.settleRebuild(options.placer) : [];
    await writeIndexState(folders.catalog, false);
    index.completeTotals();
    await rm(join(folders.catalog, asideFileName), { force: true });
    const { records, damaged, end } = replay;
    return { index, end, report: { rebuilt: trust === 'none', records, lost, damaged } };
  } catch (error) {
    if (options.index === undefined) await index.close();
    if (trust === 'none') await bringIndexBack(folders.catalog);
    throw error;
  }
}

/** The data file of the index before, while a new one is made: if that fails, recovery may learn from it. */
const asideFileName = 'before-rebuild.mdb';

async function putIndexAside(folder: string): Promise<void> {
  const aside = join(folder, asideFileName);
  // One that is there already is from a rebuild that was cut short, and knows more than what that has made.
  if ((await stat(aside).catch(() => undefined)) === undefined) {
    await rename(join(folder, indexDataFileName), aside).catch((error: unknown) => {
      if (errnoOf(error) !== 'ENOENT') throw error;
    });
  }
  for (const name of indexFileNames) await rm(join(folder, name), { force: true });
  // A state that power loss brings back would vouch for an index it has not seen.
  await syncFolder(folder);
}

async function bringIndexBack(folder: string): Promise<void> {
  await rename(join(folder, asideFileName), join(folder, indexDataFileName)).catch((error: unknown) => {
    if (errnoOf(error) !== 'ENOENT') throw error;
  });
}

function refuseOpenIndex(): never {
  throw new FiletrackerError(
    'corrupt-store',
    'Cannot take over the catalog: its index was removed or replaced while the store was in use',
  );
}

/** Closes the index so that the next start may take it as it is. */
export async function closeIndex(index: IndexDatabase, folder: string): Promise<void> {
  await index.close();
  await syncFile(join(folder, indexDataFileName));
  await writeIndexState(folder, true);
}

export interface RollForwardOptions {
  readonly salvage?: boolean | undefined;
  /** Change nothing in the journal: for an inspection of it. */
  readonly readOnly?: boolean | undefined;
  /** Told how many bytes of the journal were read since it was told last. */
  readonly onProgress?: ((bytes: number) => void) | undefined;
}

export interface RolledForward {
  readonly records: number;
  readonly damaged: readonly DamagedRange[];
  /** Where each segment that was read ends. */
  readonly ends: ReadonlyMap<number, number>;
  readonly end: JournalEnd;
}

/**
 * Applies what the journal holds beyond the index.
 * @throws FiletrackerError `corrupt-store` for damage, and where the journal ends before the index does.
 */
export async function rollForward(
  index: IndexDatabase,
  folder: string,
  segments: readonly number[],
  options: RollForwardOptions = {},
): Promise<RolledForward> {
  const position = index.readTotals();
  const last = segments.at(-1) ?? 0;
  const damaged: DamagedRange[] = [];
  const onDamage = options.salvage ? (range: DamagedRange) => damaged.push(range) : undefined;
  if (position.segment > last) refuseShortJournal();
  let records = 0;
  const ends = new Map<number, number>();
  for (const segment of segments) {
    if (segment < position.segment) continue;
    const isReached = segment === position.segment;
    const from = isReached ? position.offset : (await layoutOf(folder, segment)).start;
    const isLast = segment === last;
    if (!isLast && options.readOnly !== true) await cutSegment(folder, segment);
    if (isReached && (await stat(segmentPath(folder, segment))).size < from) refuseShortJournal();
    const end = isLast ? undefined : await endToldByNext(folder, segment);
    const scan = scanSegment(folder, segment, { from, end, sealed: !isLast, onDamage });
    try {
      let next = await scan.next();
      for (; !next.done; next = await scan.next()) {
        const batch = next.value.map(({ record, offset, length }) => ({ record, segment, offset, length }));
        const tail = batch.at(-1);
        index.apply(batch, { segment, offset: (tail?.offset ?? from) + (tail?.length ?? 0) });
        records += batch.length;
        options.onProgress?.(batch.reduce((sum, { length }) => sum + length, 0));
      }
      ends.set(segment, next.value);
    } finally {
      // Where the index cannot be written the scan is left in its midst, and has a file open.
      await scan.return(0);
    }
  }
  const offset = ends.get(last) ?? 0;
  const size = last === 0 ? 0 : (await stat(segmentPath(folder, last))).size;
  // After a salvage writing begins in a segment of its own, so that the damaged one can be taken away.
  const clean = size === offset && !options.salvage;
  return { records, damaged, ends, end: { segment: last, offset, clean } };
}

function refuseShortJournal(): never {
  throw new FiletrackerError(
    'corrupt-store',
    'Cannot open the catalog: the journal ends before what the index holds; run filetracker-recover on the store',
  );
}

/** A crash while a segment was begun leaves one without a sound header and without records. */
async function dropUnfinishedSegment(folder: string, segments: number[]): Promise<number[]> {
  const last = segments.at(-1);
  if (last === undefined || !(await isUnfinished(folder, last))) return segments;
  await rm(segmentPath(folder, last));
  return segments.slice(0, -1);
}

/**
 * Compaction forgets a segment and then removes its file; a crash in between leaves the file. Gives the segments
 * that stay.
 */
async function removeForgottenSegments(
  folder: string,
  segments: readonly number[],
  index: IndexDatabase,
): Promise<number[]> {
  const position = index.readTotals();
  const kept: number[] = [];
  for (const segment of segments) {
    if (segment >= position.segment || index.segmentRow(segment) !== undefined) kept.push(segment);
    else await removeSegment(folder, segment);
  }
  return kept;
}
