import { copyFile, mkdtemp, rm, symlink, truncate } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { DiskBlobStore } from '../../blobs/disk/disk-blob-store.ts';
import { segmentPath } from '../../catalog/journal/segment-header.ts';
import { LmdbReader } from '../../catalog/lmdb/index/lmdb-reader.ts';
import { inspectJournal } from '../../catalog/lmdb/inspection.ts';
import { mediumErrnoOf } from '../../core/errors.ts';
import type { FoundBlob } from '../../blobs/blob-store.ts';
import { makeFolders, privateFolderMode } from '../../fs/folders.ts';
import { checkStoredBytes } from '../../store/integrity.ts';
import { sideBySide } from '../../streams/side-by-side.ts';
import { refuseNewerFormats } from '../folder-kind.ts';
import { FirstItems, Steps, type ProgressListener, type StepReport } from '../progress.ts';
import { checkSize } from '../recovery/blob-checks.ts';
import { storeFolders } from '../store-folders.ts';
import { requireBackup, type StoredSnapshot } from './backup-layout.ts';
import { retainBackup } from './retained-backup.ts';
import { segmentsOf } from './snapshot-segments.ts';

const blobsAtOnce = 4;

export interface CheckBackupOptions {
  /** Reads every blob and compares its digest. */
  readonly full?: boolean | undefined;
  readonly listener?: ProgressListener | undefined;
  readonly signal?: AbortSignal | undefined;
}

export interface CheckedSnapshot {
  readonly timeMs: number;
  readonly entries: number;
  /** Blobs in files of their own that the snapshot needs. */
  readonly blobs: number;
  /** Parts of its journal that are damaged or gone. */
  readonly damage: readonly string[];
  /** Blobs that it needs and that are missing or have another size; at most the first of them. */
  readonly badBlobs: readonly string[];
  readonly badBlobsCount: number;
}

export interface CheckBackupReport {
  readonly backup: string;
  readonly intact: boolean;
  readonly steps: readonly StepReport[];
  readonly snapshots: readonly CheckedSnapshot[];
  /** Blobs whose bytes were read and do not match their digest, or that the disk cannot read. Empty unless `full`. */
  readonly damagedBlobs: readonly string[];
}

/**
 * Checks every snapshot of a backup: that its journal can be read to its end, and that each blob that it needs is there in
 * its size; with `full`, that every blob has its digest. Changes nothing in the backup; needs space for an index of one
 * snapshot in the folder for temporary files.
 * @throws FiletrackerError `not-found` if the folder is no backup, or has no snapshot.
 */
export async function checkBackup(
  backup: string,
  options: CheckBackupOptions = {},
): Promise<CheckBackupReport> {
  await refuseNewerFormats(backup);
  const found = await requireBackup(backup, `check the backup "${backup}"`);
  const steps = new Steps(options.listener);
  await using _retained = await retainBackup(backup, options.signal);
  await using blobs = await openBlobs(resolve(backup));
  const snapshots: CheckedSnapshot[] = [];
  for (const snapshot of found) {
    options.signal?.throwIfAborted();
    const title = `Checking the snapshot of ${new Date(snapshot.timeMs).toISOString()}`;
    const check = (advance: (done: number, total?: number) => void): Promise<CheckedSnapshot> =>
      checkSnapshot(snapshot, blobs.store, advance);
    const countsOf = ({ entries, damage, badBlobsCount, blobs: needed }: CheckedSnapshot) => {
      return { files: entries, blobs: needed, damaged: damage.length + badBlobsCount };
    };
    snapshots.push(await steps.run('snapshot', title, check, countsOf));
  }
  const damagedBlobs =
    options.full === true
      ? await steps.run(
          'blobs',
          'Reading every blob',
          (advance) => readBlobs(blobs.store, advance, options.signal),
          (damaged) => ({ damaged: damaged.length }),
        )
      : [];
  const intact =
    damagedBlobs.length === 0 && snapshots.every((one) => one.damage.length + one.badBlobsCount === 0);
  return { backup: resolve(backup), intact, steps: steps.reports, snapshots, damagedBlobs };
}

async function openBlobs(root: string): Promise<AsyncDisposable & { readonly store: DiskBlobStore }> {
  const store = await DiskBlobStore.open(root, { readOnly: true });
  return { store, [Symbol.asyncDispose]: () => store.close() };
}

async function checkSnapshot(
  snapshot: StoredSnapshot,
  blobs: DiskBlobStore,
  advance: (done: number, total?: number) => void,
): Promise<CheckedSnapshot> {
  const scratch = await mkdtemp(join(tmpdir(), 'filetracker-check-'));
  try {
    const folders = storeFolders(scratch);
    const damage: string[] = [];
    await layOut(snapshot, folders.journal, damage);
    const inspection = await inspectJournal(folders.journal, folders.catalog, {
      placer: blobs,
      onProgress: advance,
    });
    const { index, damaged, headless, lost } = inspection;
    for (const { segment, start, end } of damaged)
      damage.push(`Segment ${segment} is damaged: bytes ${start} to ${end}`);
    for (const segment of headless) damage.push(`Segment ${segment} has lost its header`);
    const { end } = inspection;
    if (damage.length === 0 && (end.segment !== snapshot.end.segment || end.offset !== snapshot.end.offset))
      damage.push(`The journal ends early, at byte ${end.offset} of segment ${end.segment}`);
    const bad = new FirstItems<string>();
    for (const digest of lost) bad.add(`${digest}: no record has it`);
    const reader = new LmdbReader(index, folders);
    try {
      const needed = await checkSizes(reader, blobs, bad);
      const { entries } = index.totals;
      const { timeMs } = snapshot;
      return { timeMs, entries, blobs: needed, damage, badBlobs: bad.items, badBlobsCount: bad.count };
    } finally {
      await reader.close();
      await index.close();
    }
  } finally {
    await rm(scratch, { recursive: true, force: true });
  }
}

/** Lays out the journal of a snapshot, by links; its last segment, which later snapshots may continue, as a copy. */
async function layOut(snapshot: StoredSnapshot, journal: string, damage: string[]): Promise<void> {
  makeFolders(journal, privateFolderMode);
  for (const { folder, segment, end } of await segmentsOf(snapshot, damage)) {
    const [from, to] = [segmentPath(folder, segment), segmentPath(journal, segment)];
    if (segment !== snapshot.end.segment) await symlink(resolve(from), to);
    else {
      await copyFile(from, to);
      await truncate(to, end);
    }
  }
}

async function checkSizes(
  reader: LmdbReader,
  blobs: DiskBlobStore,
  bad: FirstItems<string>,
): Promise<number> {
  let needed = 0;
  for await (const batch of reader.listBlobs()) {
    for (const record of batch) {
      if (record.references === 0 || record.location.kind !== 'object') continue;
      needed += 1;
      const verdict = await checkSize(record, blobs);
      if (verdict.kind === 'missing') bad.add(`${record.digest}: its file is missing`);
      else if (verdict.kind === 'damaged') bad.add(`${record.digest}: ${verdict.reason}`);
    }
  }
  return needed;
}

async function readBlobs(
  blobs: DiskBlobStore,
  advance: (done: number) => void,
  signal: AbortSignal | undefined,
): Promise<readonly string[]> {
  const damaged: string[] = [];
  let done = 0;
  const check = async ({ key, digest, encoding }: FoundBlob): Promise<void> => {
    if (digest === undefined || encoding === undefined) return;
    try {
      const verdict = await checkStoredBytes(key, { digest, encoding }, blobs, { signal });
      if (verdict.kind === 'damaged') damaged.push(`${digest}: ${verdict.reason}`);
    } catch (error) {
      const errno = mediumErrnoOf(error);
      if (errno === undefined) throw error;
      damaged.push(`${digest}: the disk cannot read it (${errno})`);
    }
    done += 1;
    advance(done);
  };
  await sideBySide(blobs.list(signal === undefined ? {} : { signal }), blobsAtOnce, check);
  return damaged;
}
