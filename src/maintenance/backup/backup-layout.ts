import { rm, stat } from 'node:fs/promises';
import { join } from 'node:path';
import { cannot } from '../../core/errors.ts';
import { ofFileSystem } from '../../fs/folder-marks.ts';
import { writeFileDurably } from '../../fs/durable-file.ts';
import { makeFolderDurably, makeFolders, privateFolderMode } from '../../fs/folders.ts';
import { readSegmentHeader, segmentPath } from '../../catalog/journal/segment-header.ts';
import { listSegments } from '../../catalog/journal/segment.ts';
import { namesIn, readStateFile } from '../store-folders.ts';

// A backup is a store with the state of the last snapshot, and beside it what earlier snapshots need:
//
//   backup.json                   marks the folder as a backup, and names its store
//   journal/  blobs/              the store; `blobs/` holds the blobs of all snapshots
//   history/<time>/               the journal of each snapshot: segments, shared by hard links
//   history/<time>/snapshot.json  written last: a folder without it is an unfinished snapshot

export interface BackupState {
  readonly format: 1;
  /** The folder of the store at the last backup. */
  readonly source: string;
  /** Its identity; unknown if an early release made the backup, or if the store could not be given one. */
  readonly store?: string | undefined;
}

export interface JournalPlace {
  readonly segment: number;
  readonly offset: number;
}

export interface Snapshot {
  readonly format: 1;
  /** The time of the state, in milliseconds since 1970. */
  readonly timeMs: number;
  /** The end of the journal at that time. */
  readonly end: JournalPlace;
  readonly segments: readonly number[];
  /** The number of files and their size in bytes; snapshots of release 3.0 do not record them. */
  readonly entries?: number | undefined;
  readonly logicalBytes?: number | undefined;
}

/** A snapshot with the folder of its segments. */
export interface StoredSnapshot extends Snapshot {
  readonly folder: string;
}

export const backupStateName = 'backup.json';
/** Ends the name of a folder in the history with the journal of a server that served the backup. */
export const putAsideSuffix = '-changed';
export const snapshotFileName = 'snapshot.json';

export function historyFolder(target: string): string {
  return join(target, 'history');
}

/** `undefined` if the folder is not a backup. @throws FiletrackerError `corrupt-store` for a newer format. */
async function readBackupState(target: string): Promise<BackupState | undefined> {
  const state = (await readStateFile(join(target, backupStateName))) as
    Partial<BackupState> | null | undefined;
  if (state?.format !== 1 || typeof state.source !== 'string') return undefined;
  const store = typeof state.store === 'string' ? state.store : undefined;
  return { format: 1, source: state.source, store };
}

/**
 * The snapshots of a backup, as `listSnapshots`. @param action completes "Cannot …".
 * @throws FiletrackerError `not-found` if the folder is no backup, or has no snapshot.
 */
export async function requireBackup(target: string, action: string): Promise<StoredSnapshot[]> {
  if ((await readBackupState(target)) === undefined) throw cannot('not-found', action, 'it is not a backup');
  const snapshots = await listSnapshots(target);
  if (snapshots.length === 0) throw cannot('not-found', action, 'the backup has no snapshot');
  return snapshots;
}

export async function writeBackupState(target: string, state: BackupState): Promise<void> {
  await writeFileDurably(join(target, backupStateName), Buffer.from(`${JSON.stringify(state)}\n`));
}

/**
 * The finished snapshots of a backup, oldest first, ordered by their journals because a clock may have been wrong.
 * @throws FiletrackerError `corrupt-store` for a newer format.
 */
export async function listSnapshots(target: string): Promise<StoredSnapshot[]> {
  const snapshots: StoredSnapshot[] = [];
  for (const name of (await namesIn(historyFolder(target))) ?? []) {
    const folder = join(historyFolder(target), name);
    const snapshot = (await readStateFile(join(folder, snapshotFileName))) as Snapshot | null | undefined;
    if (snapshot?.format === 1) snapshots.push({ ...snapshot, folder });
  }
  return snapshots.sort(inOrderOfJournal);
}

/** The end of a journal never moves back; if it is the same, compaction may have removed segments, but adds none. */
function inOrderOfJournal(one: Snapshot, other: Snapshot): number {
  if (isBefore(one.end, other.end)) return -1;
  if (isBefore(other.end, one.end)) return 1;
  return other.segments.length - one.segments.length || one.timeMs - other.timeMs;
}

export function isBefore(one: JournalPlace, other: JournalPlace): boolean {
  return one.segment < other.segment || (one.segment === other.segment && one.offset < other.offset);
}

export async function writeSnapshot(folder: string, snapshot: Snapshot): Promise<void> {
  await writeFileDurably(join(folder, snapshotFileName), Buffer.from(`${JSON.stringify(snapshot)}\n`));
}

/** Makes the folder of a snapshot in the history. */
export async function makeSnapshotFolder(target: string, timeMs: number): Promise<string> {
  const stamp = new Date(timeMs).toISOString().replaceAll(':', '');
  const folder = join(historyFolder(target), stamp);
  makeFolders(folder, privateFolderMode);
  return folder;
}

/** The files `snapshot.json` that are damaged. Each is written in one step, so an unfinished snapshot has none. */
export async function damagedSnapshots(target: string): Promise<string[]> {
  const damaged: string[] = [];
  for (const name of (await namesIn(historyFolder(target))) ?? []) {
    const path = join(historyFolder(target), name, snapshotFileName);
    const snapshot = (await readStateFile(path)) as Partial<Snapshot> | null | undefined;
    if (snapshot !== undefined && snapshot?.format !== 1) damaged.push(path);
  }
  return damaged;
}

/** Removes what killed backups have left behind; not a snapshot whose `snapshot.json` is damaged. */
export async function removeUnfinished(target: string): Promise<void> {
  for (const name of (await namesIn(historyFolder(target))) ?? []) {
    const folder = join(historyFolder(target), name);
    const isUnfinished = (await readStateFile(join(folder, snapshotFileName))) === undefined;
    if (isUnfinished && !name.endsWith(putAsideSuffix)) await rm(folder, { recursive: true });
  }
  for (const name of (await namesIn(target)) ?? []) {
    if (isBegunState(name)) await rm(join(target, name), { force: true });
  }
}

/**
 * Checks that a folder may hold backups of a store: it has some already, or it is empty, or it does not exist. The state
 * file is written before anything else, so the next backup accepts a target whose backup was killed at any write.
 * @param journal of the store.
 * @returns the state to write after the backup.
 * @throws FiletrackerError `invalid-argument`.
 */
export async function claimBackupTarget(
  target: string,
  state: BackupState,
  journal: string,
): Promise<BackupState> {
  const before = await readBackupState(target);
  if (before !== undefined) {
    if (await isOfStore(target, before, state, journal))
      return { ...state, store: state.store ?? before.store };
    const found = `it holds the backups of another store, which was in "${before.source}"`;
    throw cannot(
      'invalid-argument',
      `back up "${state.source}" to "${target}"`,
      `${found}; choose a folder of its own`,
    );
  }
  const names = ((await namesIn(target)) ?? []).filter(
    (name) => !isBegunState(name) && !ofFileSystem.has(name),
  );
  if (names.length > 0) {
    const found = 'it holds something other than a backup; choose an empty folder';
    throw cannot('invalid-argument', `back up to "${target}"`, found);
  }
  await makeFolderDurably(target, privateFolderMode);
  await writeBackupState(target, state);
  return state;
}

/** Whether a backup is one of this store: by the identity, or if either is unknown, by the folder or the journal. */
async function isOfStore(
  target: string,
  before: BackupState,
  now: BackupState,
  journal: string,
): Promise<boolean> {
  if (before.store !== undefined && now.store !== undefined) return before.store === now.store;
  if (before.source === now.source) return true;
  const last = (await listSnapshots(target)).at(-1);
  if (last === undefined) return false;
  for (const segment of await listSegments(journal)) {
    if (last.segments.includes(segment) && (await isSameSegment(last.folder, journal, segment))) return true;
  }
  return false;
}

/** Whether two folders hold the same segment, or a beginning of it: no two segments have the same header. */
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

/** Whether a backup that was killed while it wrote its state left this file. */
function isBegunState(name: string): boolean {
  return name.startsWith(`${backupStateName}.`) && name.endsWith('.temporary');
}

/** Whether a backup's own journal is still that of its last snapshot: no server has changed the backup since. */
export async function isUnchanged(journal: string, last: StoredSnapshot): Promise<boolean> {
  const names = ((await namesIn(journal)) ?? []).filter((name) => name.endsWith('.log'));
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
