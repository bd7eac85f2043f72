import { copyFile, readdir, rename, rm, stat, truncate } from 'node:fs/promises';
import { join, resolve } from 'node:path';
import { DiskBlobStore } from '../../blobs/disk/disk-blob-store.ts';
import { readSegmentHeader, segmentPath } from '../../catalog/journal/segment-header.ts';
import { listSegments } from '../../catalog/journal/segment.ts';
import type { IndexDatabase } from '../../catalog/lmdb/index/database.ts';
import { JournalLock } from '../../catalog/lmdb/writer/journal-lock.ts';
import { LmdbReader } from '../../catalog/lmdb/index/lmdb-reader.ts';
import {
  checkSegmentsThere,
  endOfIndexedSegment,
  isWholeSegment,
  segmentLost,
} from '../../catalog/lmdb/writer/sealed-segments.ts';
import { systemClock, type Clock } from '../../core/clock.ts';
import { cannot, fromSystemError } from '../../core/errors.ts';
import { makeFolderDurably, privateFolderMode, syncFolder } from '../../fs/folders.ts';
import { linkOrCopy } from '../../fs/copy-and-move.ts';
import { syncFile } from '../../fs/durable-file.ts';
import {
  backupStateName,
  claimBackupTarget,
  historyFolder,
  isBefore,
  isSameSegment,
  isUnchanged,
  listSnapshots,
  makeSnapshotFolder,
  putAsideSuffix,
  removeUnfinished,
  writeBackupState,
  writeSnapshot,
  type BackupState,
  type JournalPlace,
  type Snapshot,
  type StoredSnapshot,
} from './backup-layout.ts';
import { BackupSource, isReadOnly } from './backup-source.ts';
import { copyDeletions } from '../../store/import/tombstones.ts';
import { findStore, refuseNewerFormats } from '../folder-kind.ts';
import { Steps, type ProgressListener, type StepReport } from '../progress.ts';
import { storeFolders, type StoreFolders } from '../store-folders.ts';
import { checkApart, writingTo } from '../target-folder.ts';
import { copyBlobs, type CopiedBlobs } from './copy-blobs.ts';
import { isContinuedBy } from './snapshot-segments.ts';
import { identityFileName, identityOf, readIdentity } from './store-identity.ts';

export interface BackupOptions {
  readonly listener?: ProgressListener | undefined;
  readonly clock?: Clock | undefined;
  readonly signal?: AbortSignal | undefined;
}

export interface BackupReport {
  readonly target: string;
  readonly timeMs: number;
  readonly steps: readonly StepReport[];
  readonly entries: number;
  readonly segments: number;
  readonly blobs: CopiedBlobs;
  /** The folder to which changes were moved that a server made in the backup itself. */
  readonly putAside: string | undefined;
  /** Whether store and backup are on one file system: then the backup's files are links to the store's, where possible. */
  readonly sharesDisk: boolean;
}

/**
 * Takes a snapshot of a store, which a server may change meanwhile, into a folder that is itself a store. What the folder
 * has from earlier backups is not copied again.
 *
 * Why the snapshot is consistent: `BackupSource` keeps every process from removing a segment or a blob until the backup
 * ends. The index gives the end E of the journal. Everything before E is durable and never changes, so the segments up to
 * E are the state at E, whenever they are copied. A blob that an entry at E names was placed before the entry's record
 * was written (invariant 5), so its file exists at E, and still exists when it is copied. Blobs that are placed meanwhile
 * may be copied or not; nothing at E names them.
 *
 * Why the target is a store at any instant: blobs are copied first; then the journal receives the new segments in
 * ascending order, so it is always a beginning of the source's; finally it loses those that the source has compacted
 * away, the oldest first, because a later one may hold the removal of what an older one stored.
 *
 * Why snapshots are not mixed: the source's journal must continue that of the last snapshot, which is checked first, so
 * a segment of one number is the same, or a beginning of it, in all snapshots.
 * @throws FiletrackerError `store-locked` while a server has the target open, `invalid-argument` for a target that holds
 * something else, or backups of another store or of a state that the store was reset from, `not-found`, `no-space` or
 * `read-only` of the target's disk, `unavailable` while a server rebuilds its catalog.
 */
export async function backupStore(
  folder: string,
  target: string,
  options: BackupOptions = {},
): Promise<BackupReport> {
  const source = await findStore(folder);
  await checkApart(folder, target, 'back up');
  const store = await ((await isReadOnly(source.root)) ? readIdentity : identityOf)(source.root);
  await using opened = await BackupSource.open(source, options.signal);
  return await writingTo(`back up to "${target}"`, async () => {
    await refuseNewerFormats(target);
    const wanted = { format: 1, source: source.root, store } as const;
    const state = await claimBackupTarget(target, wanted, source.journal);
    const goal = storeFolders(resolve(target));
    await makeFolderDurably(goal.journal, privateFolderMode);
    await using lock = await JournalLock.tryAcquire(goal.journal);
    if (lock === undefined) throw cannot('store-locked', `back up to "${target}"`, 'a server has it open');
    await removeUnfinished(target);
    return await new Backup(source, goal, options).run(folder, state, opened);
  });
}

/** Files that describe one folder alone: a backup that is served becomes a store of its own. */
const notTaken: ReadonlySet<string> = new Set([backupStateName, identityFileName]);

class Backup {
  readonly #source: StoreFolders;
  readonly #goal: StoreFolders;
  readonly #options: BackupOptions;
  readonly #steps: Steps;

  constructor(source: StoreFolders, goal: StoreFolders, options: BackupOptions) {
    this.#source = source;
    this.#goal = goal;
    this.#options = options;
    this.#steps = new Steps(options.listener);
  }

  async run(root: string, state: BackupState, opened: BackupSource): Promise<BackupReport> {
    const { index } = opened;
    const { clock = systemClock } = this.#options;
    const reader = new LmdbReader(index, this.#source);
    try {
      // The time is read before the end, so what was acknowledged until then is in the snapshot.
      const timeMs = clock.nowMs();
      const { segment, offset, entries, logicalBytes } = index.readTotals();
      const end = { segment, offset };
      const earlier = await listSnapshots(this.#goal.root);
      await this.#checkContinues(earlier.at(-1), end);
      const blobs = await this.#takeBlobs(reader);
      const snapshot = await this.#takeJournal(opened, { timeMs, end, entries, logicalBytes }, earlier);
      const putAside = await this.#showJournal(snapshot, earlier.at(-1));
      await this.#takeLooseFiles(root);
      await writeBackupState(this.#goal.root, state);
      const { segments } = snapshot;
      const steps = this.#steps.reports;
      const sharesDisk = await isOnOneDisk(this.#source.root, this.#goal.root);
      const target = this.#goal.root;
      return { target, timeMs, steps, entries, segments: segments.length, blobs, putAside, sharesDisk };
    } finally {
      await reader.close();
    }
  }

  /** Keeps two histories out of one backup: only its number tells a segment from another. */
  async #checkContinues(before: StoredSnapshot | undefined, end: JournalPlace): Promise<void> {
    if (before === undefined) return;
    const action = `back up "${this.#source.root}" to "${this.#goal.root}"`;
    if (!(await isContinuedBy(before, this.#source.journal))) {
      const state =
        'the journal of the store does not continue the one in the backup: the store was reset to an earlier state, or ' +
        'has lost the end of its journal; choose a new folder, and keep this one as long as you need what it holds';
      throw cannot('invalid-argument', action, state);
    }
    // A server that starts rebuilds its index, which shows only the beginning of the journal until then.
    const state = 'its catalog is behind the journal; try again when the server has started';
    if (isBefore(end, before.end)) throw cannot('unavailable', action, state);
  }

  #takeBlobs(reader: LmdbReader): Promise<CopiedBlobs> {
    const copy = async (advance: (done: number) => void): Promise<CopiedBlobs> => {
      const target = await DiskBlobStore.open(this.#goal.root);
      const { signal } = this.#options;
      const copied = await copyBlobs(reader, this.#source.blobs, target, { advance, signal });
      await target.close();
      return copied;
    };
    return this.#steps.run('blobs', 'Linking or copying the blobs', copy, ({ blobs, added, ...bad }) => ({
      blobs,
      new: added,
      missing: bad.missing.length,
      unreadable: bad.unreadable.length,
    }));
  }

  /** Copies the segments of the snapshot to its folder in the history. */
  #takeJournal(
    opened: BackupSource,
    state: Omit<Snapshot, 'format' | 'segments'>,
    earlier: readonly StoredSnapshot[],
  ): Promise<StoredSnapshot> {
    const { index } = opened;
    const { timeMs, end } = state;
    const { journal } = this.#source;
    const take = async (advance: (done: number, total: number) => void): Promise<StoredSnapshot> => {
      const before = earlier.at(-1);
      const folder = await makeSnapshotFolder(this.#goal.root, timeMs);
      const segments = (await listSegments(journal)).filter((segment) => segment <= end.segment);
      checkSegmentsThere(index, segments, end.segment);
      for (const [at, segment] of segments.entries()) {
        this.#options.signal?.throwIfAborted();
        // Refuses a segment of a newer format.
        await readSegmentHeader(journal, segment);
        const path = segmentPath(folder, segment);
        if (segment === end.segment) await this.#takeLast(end, path);
        else await this.#takeSealed(index, segment, path, before);
        advance(at + 1, segments.length);
      }
      await syncFolder(folder);
      opened.check();
      const snapshot = { format: 1, ...state, segments } as const;
      await writeSnapshot(folder, snapshot);
      await syncFolder(historyFolder(this.#goal.root));
      if (before !== undefined) {
        const { segment } = before.end;
        for (const other of earlier.filter(({ segments: theirs }) => theirs.includes(segment))) {
          await shareSegment(segment, other, { ...snapshot, folder });
        }
      }
      return { ...snapshot, folder };
    };
    return this.#steps.run('journal', 'Copying the journal', take, ({ segments }) => ({
      segments: segments.length,
    }));
  }

  async #takeLast({ segment, offset }: JournalPlace, path: string): Promise<void> {
    const { journal } = this.#source;
    if (!(await isWholeSegment(journal, segment, offset))) throw segmentLost(segment, 'was cut short');
    await copyUpTo(segmentPath(journal, segment), path, offset);
  }

  /**
   * A sealed segment never changes, except that bytes after its end may be cut off: the snapshot before may have it.
   * @throws FiletrackerError `corrupt-store` if neither is complete: a copy would look intact.
   */
  async #takeSealed(
    index: IndexDatabase,
    segment: number,
    path: string,
    before: StoredSnapshot | undefined,
  ): Promise<void> {
    const { journal } = this.#source;
    const known = before !== undefined && before.segments.includes(segment) && segment < before.end.segment;
    const end = await endOfIndexedSegment(index, journal, segment);
    for (const folder of known ? await keptFirst(before.folder, journal, segment) : [journal]) {
      if (!(await isWholeSegment(folder, segment, end))) continue;
      await linkOrCopy(segmentPath(folder, segment), path, `${path}.temporary`);
      return;
    }
    throw segmentLost(segment, 'was cut short');
  }

  /** Makes the journal of the backup that of the snapshot. @returns where a changed one was moved. */
  async #showJournal(
    snapshot: StoredSnapshot,
    before: StoredSnapshot | undefined,
  ): Promise<string | undefined> {
    const { journal, catalog } = this.#goal;
    const there = await listSegments(journal);
    const changed = before !== undefined && there.length > 0 && !(await isUnchanged(journal, before));
    const putAside = changed ? await this.#putAside(there) : undefined;
    // The index is rebuilt when the backup is served: a copy would have to be taken in one instant.
    await rm(catalog, { recursive: true, force: true });
    for (const segment of snapshot.segments) {
      const { end, folder } = snapshot;
      // A server that serves the backup appends to the last one, so it is a copy.
      const sizeBytes = segment === end.segment ? end.offset : undefined;
      await replace(segmentPath(journal, segment), segmentPath(folder, segment), sizeBytes);
    }
    await syncFolder(journal);
    const wanted = new Set(snapshot.segments);
    for (const segment of there)
      if (!wanted.has(segment)) await rm(segmentPath(journal, segment), { force: true });
    await syncFolder(journal);
    return putAside;
  }

  async #putAside(segments: readonly number[]): Promise<string> {
    const folder = await makeSnapshotFolder(
      this.#goal.root,
      (this.#options.clock ?? systemClock).nowMs() + 1,
    );
    const aside = `${folder}${putAsideSuffix}`;
    await rename(folder, aside);
    for (const segment of segments) {
      const path = segmentPath(aside, segment);
      await linkOrCopy(segmentPath(this.#goal.journal, segment), path, `${path}.temporary`);
    }
    return aside;
  }

  /**
   * Copies the files directly in the folder of the store, such as tokens, and the deletions that were recorded beside the
   * journal before they were carried out: all that the snapshot contains are read after it.
   */
  async #takeLooseFiles(root: string): Promise<void> {
    const folders = [...new Set([resolve(root), this.#source.root])];
    await copyDeletions(folders, this.#goal.root);
    for (const folder of folders) {
      for (const item of await readdir(folder, { withFileTypes: true })) {
        if (!item.isFile() || !item.name.endsWith('.json') || notTaken.has(item.name)) continue;
        const temporary = join(this.#goal.root, `.${item.name}.temporary`);
        await copyFile(join(folder, item.name), temporary);
        await syncFile(temporary);
        await rename(temporary, join(this.#goal.root, item.name));
      }
    }
  }
}

async function isOnOneDisk(one: string, other: string): Promise<boolean> {
  const [left, right] = await Promise.all([stat(one), stat(other)]);
  return left.dev === right.dev;
}

/**
 * The last segment of a snapshot is a beginning of the same segment in later ones, and snapshot.json holds its end: one
 * copy is enough for all.
 */
async function shareSegment(
  segment: number,
  before: StoredSnapshot,
  snapshot: StoredSnapshot,
): Promise<void> {
  const { end, segments, folder } = snapshot;
  const needed = segment === before.end.segment ? before.end.offset : Infinity;
  const reaches = segments.includes(segment) && (segment < end.segment || needed <= end.offset);
  if (!reaches || !(await isSameSegment(before.folder, folder, segment))) return;
  await replace(segmentPath(before.folder, segment), segmentPath(folder, segment));
}

/** Prefers the segment in the snapshot before, unless the journal's own has other bytes after its end by now. */
async function keptFirst(kept: string, journal: string, segment: number): Promise<readonly string[]> {
  const sizes = await Promise.all(
    [kept, journal].map(async (folder) => (await stat(segmentPath(folder, segment))).size),
  );
  return sizes[0] === sizes[1] ? [kept, journal] : [journal, kept];
}

/** Replaces a file by a link to a source, or if a size is given, by a copy of that size. */
async function replace(path: string, source: string, sizeBytes?: number): Promise<void> {
  const temporary = `${path}.temporary`;
  await rm(temporary, { force: true });
  if (sizeBytes === undefined) await linkOrCopy(source, temporary, `${temporary}2`);
  else await copyUpTo(source, temporary, sizeBytes);
  await rename(temporary, path);
  // If both are names of the same file already, a rename leaves both.
  await rm(temporary, { force: true });
}

async function copyUpTo(source: string, target: string, sizeBytes: number): Promise<void> {
  try {
    await rm(target, { force: true });
    await copyFile(source, target);
    await truncate(target, sizeBytes);
    await syncFile(target);
  } catch (error) {
    throw fromSystemError(error, 'copy the journal');
  }
}
