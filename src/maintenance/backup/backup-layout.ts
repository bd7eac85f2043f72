import { readdir, readFile, rm, stat } from 'node:fs/promises';
import { basename, join } from 'node:path';
import { errnoOf, FiletrackerError, fromSystemError } from '../../core/errors.ts';
import { ofFileSystem } from '../../fs/folder-marks.ts';
import { checkStoredFormat } from '../../core/release.ts';
import { writeFileDurably } from '../../fs/durable-file.ts';
import { makeFolderDurably, makeFolders, privateFolderMode } from '../../fs/folders.ts';
import { readSegmentHeader, segmentPath } from '../../catalog/journal/segment-header.ts';
import { listSegments } from '../../catalog/journal/segment.ts';

// A backup is a store, of the last snapshot, and beside it what earlier snapshots need:
//
//   backup.json                 says that this folder is a backup, and of which store
//   journal/  blobs/            the store; `blobs/` holds what any of the snapshots names
//   history/<time>/             the journal of each snapshot: segments, shared by hard links
//   history/<time>/snapshot.json  written last: a folder without it is one that was not finished

export interface BackupState {
  readonly format: 1;
  /** Where the store lay at the last backup. */
  readonly source: string;
  /** Its identity; not known where an early release made the backup, or of a store that could not be given one. */
  readonly store?: string | undefined;
}

export interface Snapshot {
  readonly format: 1;
  /** The state of the store at this time. */
  readonly timeMs: number;
  /** The end of the journal at that time. */
  readonly end: { readonly segment: number; readonly offset: number };
  readonly segments: readonly number[];
}

/** A snapshot with the folder of its segments. */
export interface StoredSnapshot extends Snapshot {
  readonly folder: string;
}

export const backupStateName = 'backup.json';
/** Ends the name of a folder with the journal that a server made of a backup. */
export const putAsideSuffix = '-changed';
const snapshotFileName = 'snapshot.json';

export function historyFolder(target: string): string {
  return join(target, 'history');
}

/** Undefined where the folder is no backup. @throws FiletrackerError `corrupt-store` for a newer format. */
export async function readBackupState(target: string): Promise<BackupState | undefined> {
  const state = (await readJson(join(target, backupStateName))) as Partial<BackupState> | undefined;
  if (state?.format !== 1 || typeof state.source !== 'string') return undefined;
  return {
    format: 1,
    source: state.source,
    store: typeof state.store === 'string' ? state.store : undefined,
  };
}

export async function writeBackupState(target: string, state: BackupState): Promise<void> {
  await writeFileDurably(join(target, backupStateName), Buffer.from(`${JSON.stringify(state)}\n`));
}

/**
 * The finished snapshots of a backup, oldest first, by their journals: a clock may have been wrong.
 * @throws FiletrackerError `corrupt-store` for a newer format.
 */
export async function listSnapshots(target: string): Promise<StoredSnapshot[]> {
  const snapshots: StoredSnapshot[] = [];
  for (const name of await folderNames(historyFolder(target))) {
    const folder = join(historyFolder(target), name);
    const snapshot = (await readJson(join(folder, snapshotFileName))) as Snapshot | undefined;
    if (snapshot?.format === 1) snapshots.push({ ...snapshot, folder });
  }
  return snapshots.sort(inOrderOfJournal);
}

/** The end of a journal never goes back; where it stayed, compaction may have taken segments away, and adds none. */
function inOrderOfJournal(one: Snapshot, other: Snapshot): number {
  if (isBefore(one.end, other.end)) return -1;
  if (isBefore(other.end, one.end)) return 1;
  return other.segments.length - one.segments.length || one.timeMs - other.timeMs;
}

export function isBefore(one: Snapshot['end'], other: Snapshot['end']): boolean {
  return one.segment < other.segment || (one.segment === other.segment && one.offset < other.offset);
}

export async function writeSnapshot(folder: string, snapshot: Snapshot): Promise<void> {
  await writeFileDurably(join(folder, snapshotFileName), Buffer.from(`${JSON.stringify(snapshot)}\n`));
}

/** Where the next snapshot goes. */
export async function makeSnapshotFolder(target: string, timeMs: number): Promise<string> {
  const stamp = new Date(timeMs).toISOString().replaceAll(':', '');
  const folder = join(historyFolder(target), stamp);
  makeFolders(folder, privateFolderMode);
  return folder;
}

/** Removes what backups have left behind that were killed. */
export async function removeUnfinished(target: string): Promise<void> {
  const finished = new Set((await listSnapshots(target)).map(({ folder }) => folder));
  for (const name of await folderNames(historyFolder(target))) {
    const folder = join(historyFolder(target), name);
    if (!finished.has(folder) && !name.endsWith(putAsideSuffix)) await rm(folder, { recursive: true });
  }
  for (const name of await folderNames(target)) {
    if (isBegunState(name)) await rm(join(target, name), { force: true });
  }
}

/**
 * Sees to it that a folder may take a backup: it is one of the same store, or it is empty, or it is not there. What
 * it is to be is written before anything else, so that a backup killed at any write leaves a target that the next
 * one takes. Gives what it is to be after the backup.
 * @param journal of the store.
 * @throws FiletrackerError `invalid-argument`.
 */
export async function claimBackupTarget(
  target: string,
  state: BackupState,
  journal: string,
): Promise<BackupState> {
  const before = await readBackupState(target);
  if (before !== undefined) {
    if (await isOfStore(target, before, { ...state, journal }))
      return { ...state, store: state.store ?? before.store };
    throw new FiletrackerError(
      'invalid-argument',
      `Cannot back up "${state.source}" to "${target}": it holds the backups of another store, which lay in ` +
        `"${before.source}"; choose a folder of its own`,
    );
  }
  const names = (await folderNames(target)).filter((name) => !isBegunState(name) && !ofFileSystem.has(name));
  if (names.length > 0) {
    throw new FiletrackerError(
      'invalid-argument',
      `Cannot back up to "${target}": it holds something that is no backup; choose an empty folder`,
    );
  }
  await makeFolderDurably(target, privateFolderMode);
  await writeBackupState(target, state);
  return state;
}

/** Whether a backup is one of this store. Where one does not tell, it is believed by the place, or by the journal. */
async function isOfStore(
  target: string,
  before: BackupState,
  now: BackupState & { readonly journal: string },
): Promise<boolean> {
  if (before.store !== undefined && now.store !== undefined) return before.store === now.store;
  if (before.source === now.source) return true;
  const last = (await listSnapshots(target)).at(-1);
  if (last === undefined) return false;
  const shared = new Set(await listSegments(now.journal));
  for (const segment of last.segments.filter((segment) => shared.has(segment))) {
    if (await isSameSegment(last.folder, now.journal, segment)) return true;
  }
  return false;
}

/** Whether two folders hold the same segment, or a beginning of it: its header was never written twice alike. */
export async function isSameSegment(one: string, other: string, segment: number): Promise<boolean> {
  const [left, right] = await Promise.all([
    readSegmentHeader(one, segment),
    readSegmentHeader(other, segment),
  ]);
  if (left === undefined || right === undefined) return false;
  const { createdMs, previousEnd, seed } = left;
  const isOfSameTime = createdMs === right.createdMs && previousEnd === right.previousEnd;
  return isOfSameTime && seed.checksum === right.seed.checksum && seed.mark === right.seed.mark;
}

/** What a backup has left that was killed before it had said what it is. */
function isBegunState(name: string): boolean {
  return name.startsWith(`${backupStateName}.`) && name.endsWith('.temporary');
}

/** Whether a backup's own journal is still that of its last snapshot, not that of a server that went on from it. */
export async function isUnchanged(journal: string, last: StoredSnapshot): Promise<boolean> {
  const names = (await folderNames(journal)).filter((name) => name.endsWith('.log'));
  if (names.length !== last.segments.length) return false;
  for (const segment of last.segments) {
    const [mine, kept] = await Promise.all([
      stat(segmentPath(journal, segment)).catch(() => undefined),
      stat(segmentPath(last.folder, segment)),
    ]);
    // The last one is a copy, the others share their bytes with the history.
    const same = segment === last.end.segment ? mine?.size === last.end.offset : mine?.ino === kept.ino;
    if (!same) return false;
  }
  return true;
}

export async function folderNames(folder: string): Promise<string[]> {
  try {
    return (await readdir(folder)).sort();
  } catch (error) {
    if (errnoOf(error) === 'ENOENT') return [];
    throw fromSystemError(error, `read "${folder}"`);
  }
}

async function readJson(path: string): Promise<unknown> {
  try {
    const content: unknown = JSON.parse(await readFile(path, 'utf8'));
    checkStoredFormat(basename(path), content, [1]);
    return content;
  } catch (error) {
    if (errnoOf(error) === 'ENOENT' || errnoOf(error) === 'ENOTDIR' || error instanceof SyntaxError) {
      return undefined;
    }
    throw fromSystemError(error, `read "${path}"`);
  }
}
