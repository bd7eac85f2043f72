import { access, constants, rename, rm, stat } from 'node:fs/promises';
import { join } from 'node:path';
import type { Digest } from '../../../core/digest.ts';
import { cannot, errnoOf, type FiletrackerError } from '../../../core/errors.ts';
import { makeFolders, privateFolderMode, syncFolder } from '../../../fs/folders.ts';
import { syncFile } from '../../../fs/durable-file.ts';
import type { BlobPlacer } from '../../catalog.ts';
import type { JournalEnd } from '../../journal/journal-writer.ts';
import { isUnfinished, layoutOf, readSegmentHeader, segmentPath } from '../../journal/segment-header.ts';
import {
  cutSegment,
  listSegments,
  recordedEnd,
  removeSegment,
  scanSegment,
  type DamagedRange,
} from '../../journal/segment.ts';
import { IndexDatabase, type EmbeddedFolders } from '../index/database.ts';
import { indexDataFileName, indexFileNames, trustOfIndex, writeIndexState } from '../index/state.ts';

/** What bringing the index up to the journal found and did. */
export interface ReplayReport {
  /** Whether the index was rebuilt from the whole journal. */
  readonly rebuilt: boolean;
  /** The number of records applied. */
  readonly records: number;
  /** Digests of blobs that entries name and no record carries. */
  readonly lost: readonly Digest[];
  readonly damaged: readonly DamagedRange[];
}

export interface ReplayOptions {
  /** The index, if this process has it open already for reading. It is not rebuilt, and stays the caller's on failure. */
  readonly index?: IndexDatabase | undefined;
  /** Ignore the existing index. */
  readonly rebuild?: boolean | undefined;
  /** Skip damage in the journal and report it, instead of failing. */
  readonly salvage?: boolean | undefined;
}

export interface ReplayedIndex {
  readonly index: IndexDatabase;
  readonly end: JournalEnd;
  readonly report: ReplayReport;
}

/**
 * Opens the index and brings it up to the end of the journal: rolls it forward if it can be trusted, else rebuilds it. Run
 * by the process that holds the lock of the store.
 * @throws FiletrackerError `corrupt-store` if the journal is damaged and `salvage` is not set.
 */
export async function replayJournal(
  folders: EmbeddedFolders,
  options: ReplayOptions & { readonly placer: Pick<BlobPlacer, 'size'> },
): Promise<ReplayedIndex> {
  makeFolders(folders.catalog, privateFolderMode);
  // A folder without access would look like one without an index.
  await access(folders.catalog, constants.R_OK | constants.W_OK | constants.X_OK);
  const trust = await trustOfIndex(folders.catalog);
  const found = await listSegments(folders.journal);
  // Checked before any change: a store of a newer release is left as it is.
  for (const segment of found.slice(-1)) await readSegmentHeader(folders.journal, segment);
  const rebuilt = options.rebuild === true || trust === 'none';
  if (rebuilt) {
    if (options.index !== undefined) throw openIndexReplaced();
    await putIndexAside(folders.catalog);
  }
  const index = options.index ?? (await IndexDatabase.openShared(folders));
  index.takeOver();
  try {
    const finished = await dropUnfinishedSegment(folders.journal, found);
    const segments = rebuilt ? finished : await removeForgottenSegments(folders.journal, finished, index);
    const replay = await rollForward(index, folders.journal, segments, { salvage: options.salvage });
    const lost = rebuilt ? await index.settleRebuild(options.placer) : [];
    await writeIndexState(folders.catalog, false);
    index.completeTotals();
    await rm(join(folders.catalog, asideFileName), { force: true });
    const { records, damaged, end } = replay;
    return { index, end, report: { rebuilt, records, lost, damaged } };
  } catch (error) {
    if (options.index === undefined) await index.close();
    if (rebuilt) await restoreIndex(folders.catalog);
    throw error;
  }
}

/** The old data file during a rebuild: if that fails, recovery may learn from it. */
const asideFileName = 'before-rebuild.mdb';

async function putIndexAside(folder: string): Promise<void> {
  const aside = join(folder, asideFileName);
  // An existing one is from an interrupted rebuild, and knows more than the file that the rebuild has made.
  if ((await stat(aside).catch(() => undefined)) === undefined) {
    await renameIfThere(join(folder, indexDataFileName), aside);
  }
  for (const name of indexFileNames) await rm(join(folder, name), { force: true });
  // A state file that power loss restores would vouch for an index that it does not describe.
  await syncFolder(folder);
}

async function restoreIndex(folder: string): Promise<void> {
  await renameIfThere(join(folder, asideFileName), join(folder, indexDataFileName));
}

async function renameIfThere(from: string, to: string): Promise<void> {
  await rename(from, to).catch((error: unknown) => {
    if (errnoOf(error) !== 'ENOENT') throw error;
  });
}

function openIndexReplaced(): FiletrackerError {
  const state = 'its index was removed or replaced while the store was in use';
  return cannot('corrupt-store', 'take over the catalog', state);
}

/** Closes the index so that the next start can trust it. */
export async function closeIndex(index: IndexDatabase, folder: string): Promise<void> {
  await index.close();
  await syncFile(join(folder, indexDataFileName));
  await writeIndexState(folder, true);
}

export interface RollForwardOptions {
  readonly salvage?: boolean | undefined;
  /** Do not change the journal; for an inspection. */
  readonly readOnly?: boolean | undefined;
  /** Called with the number of bytes of the journal read since the last call. */
  readonly onProgress?: ((bytes: number) => void) | undefined;
}

export interface RolledForward {
  readonly records: number;
  readonly damaged: readonly DamagedRange[];
  /** The end of each segment that was read. */
  readonly ends: ReadonlyMap<number, number>;
  readonly end: JournalEnd;
}

/**
 * Applies the records of the journal that the index lacks.
 * @throws FiletrackerError `corrupt-store` for damage, and if the journal ends before the index does.
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
  if (position.segment > last) throw journalTooShort();
  let records = 0;
  const ends = new Map<number, number>();
  for (const segment of segments) {
    if (segment < position.segment) continue;
    const isReached = segment === position.segment;
    const from = isReached ? position.offset : (await layoutOf(folder, segment)).start;
    const isLast = segment === last;
    if (!isLast && options.readOnly !== true) await cutSegment(folder, segment);
    if (isReached && (await stat(segmentPath(folder, segment))).size < from) throw journalTooShort();
    const end = isLast ? undefined : await recordedEnd(folder, segment);
    const scan = scanSegment(folder, segment, { from, end, sealed: !isLast, onDamage });
    try {
      let next = await scan.next();
      for (; !next.done; next = await scan.next()) {
        const batch = next.value;
        const tail = batch.at(-1);
        index.apply(batch, { segment, offset: (tail?.offset ?? from) + (tail?.length ?? 0) });
        records += batch.length;
        options.onProgress?.(batch.reduce((sum, { length }) => sum + length, 0));
      }
      ends.set(segment, next.value);
    } finally {
      // If the index cannot be written, the scan is unfinished and has a file open.
      await scan.return(0);
    }
  }
  const offset = ends.get(last) ?? 0;
  const size = last === 0 ? 0 : (await stat(segmentPath(folder, last))).size;
  // After a salvage the writer begins a new segment, so that the damaged one can be moved away.
  const clean = size === offset && !options.salvage;
  return { records, damaged, ends, end: { segment: last, offset, clean } };
}

function journalTooShort(): FiletrackerError {
  const state = 'the journal is older than the index; run filetracker-recover on the store';
  return cannot('corrupt-store', 'open the catalog', state);
}

/** Removes the last segment if a crash left it without an intact header and without records; returns the others. */
async function dropUnfinishedSegment(folder: string, segments: number[]): Promise<number[]> {
  const last = segments.at(-1);
  if (last === undefined || !(await isUnfinished(folder, last))) return segments;
  await rm(segmentPath(folder, last));
  return segments.slice(0, -1);
}

/**
 * Compaction forgets a segment and then removes its file; a crash in between leaves the file. Returns the segments that
 * stay.
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
