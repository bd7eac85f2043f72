import { resolve } from 'node:path';
import { restoreTokens } from '../../access/token-files.ts';
import { DiskBlobStore } from '../../blobs/disk/disk-blob-store.ts';
import { JournalWriter } from '../../catalog/journal/journal-writer.ts';
import type { JournalRecord } from '../../catalog/journal/record.ts';
import { scanSegment, type DamagedRange } from '../../catalog/journal/segment.ts';
import { LmdbCatalog } from '../../catalog/lmdb/lmdb-catalog.ts';
import { systemClock } from '../../core/clock.ts';
import { cannot } from '../../core/errors.ts';
import { parseDurationMs } from '../../core/quantities.ts';
import { makeFolderDurably, privateFolderMode } from '../../fs/folders.ts';
import { copyDeletions } from '../../store/import/tombstones.ts';
import { refuseNewerFormats } from '../folder-kind.ts';
import { Steps, type ProgressListener, type StepReport } from '../progress.ts';
import { storeFolders, type StoreFolders } from '../store-folders.ts';
import { checkApart, writingTo } from '../target-folder.ts';
import { listSnapshots, requireBackup, type StoredSnapshot } from './backup-layout.ts';
import { copyBlobs, type CopiedBlobs } from './copy-blobs.ts';
import { RestoreTarget } from './restore-target.ts';
import { retainBackup } from './retained-backup.ts';
import { segmentsOf, type SegmentPart } from './snapshot-segments.ts';

export interface RestoreOptions {
  /** The time of the state, in milliseconds since 1970; that of the last snapshot unless given. */
  readonly atMs?: number | undefined;
  readonly listener?: ProgressListener | undefined;
  readonly signal?: AbortSignal | undefined;
}

export interface RestoreReport {
  readonly store: string;
  readonly steps: readonly StepReport[];
  readonly entries: number;
  readonly blobs: CopiedBlobs;
  /** How the result may differ from the exact state at that time; empty if it is exact. */
  readonly gaps: readonly string[];
  /** What the backup itself has lost of its journal: the changes recorded there are missing. */
  readonly damage: readonly string[];
}

/** A segment to read, and which of its records. */
interface Source extends SegmentPart {
  /** Offset of the first record; the first of the segment unless given. */
  readonly from?: number | undefined;
  /** Only records up to `atMs`; the snapshot that has them was taken at `takenMs`. All of them unless given. */
  readonly upTo?: { readonly atMs: number; readonly takenMs: number } | undefined;
}

/** What to read, and what to report; the lists grow while the journal is read. */
interface Plan {
  readonly sources: readonly Source[];
  readonly gaps: string[];
  readonly damage: string[];
}

/** How much later than a snapshot, by their clocks, a change may be that is in it. */
const clockToleranceMs = 1000;
const clockGap =
  'A clock was set back: changes at about that time may be missing, or newer ones included; ' +
  'the times of snapshots are exact nevertheless';

/**
 * Restores a store from a backup, to the state of its last snapshot, or of any earlier time.
 *
 * A snapshot is restored up to the end of its journal, whatever the clocks said. For a time between two snapshots the
 * journals of both are read: the earlier one entirely, as it holds the state at its time, and from the rest of the later
 * one the changes up to that time, by the clock of the process that made them. Changes that compaction dropped in between,
 * because they were overwritten by then, can be missing; `gaps` reports that, and a clock that was seen to be wrong.
 * @throws FiletrackerError `not-found` if there is no backup, or none that covers the time; `invalid-argument` if the
 * folder of the new store is not empty, unless a killed restore has left it.
 */
export async function restoreStore(
  backup: string,
  folder: string,
  options: RestoreOptions = {},
): Promise<RestoreReport> {
  await refuseNewerFormats(backup);
  const action = `restore from "${backup}"`;
  const snapshots = await requireBackup(backup, action);
  await checkApart(backup, folder, 'restore');
  const plan = await planFor(snapshots, options.atMs);
  // Later than the plan, which refuses a backup of a newer release, in which nothing may be written.
  await using _retained = await retainBackup(backup, options.signal);
  const left = new Set((await listSnapshots(backup)).map((snapshot) => snapshot.folder));
  if (snapshots.some((snapshot) => !left.has(snapshot.folder)))
    throw cannot('unavailable', action, 'its snapshots were pruned meanwhile; run the restore again');
  return await writingTo(`restore to "${folder}"`, async () => {
    const goal = storeFolders(resolve(folder));
    await using target = await RestoreTarget.claim(goal.root);
    const report = await fill(goal, backup, plan, options);
    await target.finish();
    return report;
  });
}

async function fill(
  goal: StoreFolders,
  backup: string,
  plan: Plan,
  { listener, signal }: RestoreOptions,
): Promise<RestoreReport> {
  const steps = new Steps(listener);
  await makeFolderDurably(goal.journal, privateFolderMode);
  await restoreTokens(backup, goal.root);
  await copyDeletions([backup], goal.root);
  await steps.run(
    'journal',
    'Restoring the journal',
    (advance) => writeJournal(goal.journal, plan, advance, signal),
    (records) => ({ records }),
  );
  const blobs = await DiskBlobStore.open(goal.root);
  const kept = storeFolders(resolve(backup));
  const keptBlobs = await DiskBlobStore.open(kept.root, { readOnly: true });
  const catalog = await LmdbCatalog.open({
    folders: goal,
    placer: {
      place: (placements) => blobs.place(placements),
      remove: (keys) => blobs.remove(keys),
      size: (key) => keptBlobs.size(key),
    },
  });
  try {
    const copied = await steps.run(
      'blobs',
      'Linking or copying the blobs',
      async (advance) => {
        const result = await copyBlobs(catalog, kept.blobs, blobs, { advance, signal });
        for (const digest of [...result.missing, ...result.unreadable])
          await catalog.markDamaged(digest, true);
        return result;
      },
      (result) => ({
        blobs: result.blobs,
        missing: result.missing.length,
        unreadable: result.unreadable.length,
      }),
    );
    const { entries } = await catalog.stats();
    const { gaps, damage } = plan;
    return { store: goal.root, steps: steps.reports, entries, blobs: copied, gaps, damage };
  } finally {
    await catalog.close();
    await keptBlobs.close();
    await blobs.close();
  }
}

/** The segments that make up the state at a time, which is that of the last snapshot unless given. */
async function planFor(snapshots: readonly StoredSnapshot[], atMs: number | undefined): Promise<Plan> {
  const damage: string[] = [];
  const last = snapshots.at(-1);
  if (last === undefined) throw cannot('not-found', 'restore', 'the backup has no snapshot');
  const exact = atMs === undefined ? last : snapshots.findLast(({ timeMs }) => timeMs === atMs);
  if (atMs === undefined || exact !== undefined) {
    return { sources: await segmentsOf(exact ?? last, damage), gaps: [], damage };
  }
  const dated = withoutThoseAhead(snapshots);
  const later = dated.find(({ timeMs }) => timeMs > atMs);
  if (later === undefined) {
    const state = `the last snapshot is of ${new Date(last.timeMs).toISOString()}; restore that one, without --at`;
    throw cannot('not-found', 'restore the state of that time', state);
  }
  const earlier = dated.findLast(({ timeMs }) => timeMs < atMs);
  const { sources, gaps } = await sourcesBetween(earlier, later, atMs, damage);
  return { sources, gaps: dated.length < snapshots.length ? [clockGap, ...gaps] : gaps, damage };
}

/** Leaves out snapshots that are dated later than one taken after them, because a clock was ahead. */
function withoutThoseAhead(snapshots: readonly StoredSnapshot[]): readonly StoredSnapshot[] {
  let nextMs = Number.POSITIVE_INFINITY;
  const dated: StoredSnapshot[] = [];
  for (const snapshot of snapshots.toReversed()) {
    if (snapshot.timeMs > nextMs) continue;
    nextMs = snapshot.timeMs;
    dated.unshift(snapshot);
  }
  return dated;
}

/** The segments for a time between two snapshots, or before the first one. */
async function sourcesBetween(
  earlier: StoredSnapshot | undefined,
  later: StoredSnapshot,
  atMs: number,
  damage: string[],
): Promise<{ sources: readonly Source[]; gaps: string[] }> {
  const end = earlier?.end ?? { segment: 1, offset: undefined };
  const upTo = { atMs, takenMs: later.timeMs };
  const wanted = later.segments.filter((segment) => segment >= end.segment);
  const after = (await segmentsOf({ ...later, segments: wanted }, damage))
    // The last segment of the earlier one was incomplete: the later one has more of it.
    .map((source) => ({ ...source, from: source.segment === end.segment ? end.offset : undefined, upTo }));
  if (earlier === undefined) await checkReach(after, atMs);
  const before = earlier === undefined ? [] : await segmentsOf(earlier, damage);
  return { sources: [...before, ...after], gaps: gapsBetween(end.segment, later.end.segment, after) };
}

/** A time before everything in the backup is a mistake, not a request for an empty store. */
async function checkReach(sources: readonly Source[], atMs: number): Promise<void> {
  let oldestMs = Number.POSITIVE_INFINITY;
  for (const { folder, segment, end } of sources) {
    for await (const batch of scanSegment(folder, segment, { end, onDamage: () => undefined })) {
      for (const { record } of batch) oldestMs = Math.min(oldestMs, record.timeMs);
      if (oldestMs <= atMs) return;
    }
  }
  if (oldestMs === Number.POSITIVE_INFINITY) return;
  const state = `the backup has nothing from before ${new Date(oldestMs).toISOString()}`;
  throw cannot('not-found', 'restore the state of that time', state);
}

function gapsBetween(first: number, last: number, sources: readonly Source[]): string[] {
  const there = new Set(sources.map(({ segment }) => segment));
  const missing: number[] = [];
  for (let segment = Math.max(first, 1); segment <= last; segment += 1)
    if (!there.has(segment)) missing.push(segment);
  if (missing.length === 0) return [];
  return [
    `${missing.length} segments of the journal were compacted away before they were backed up: files that were ` +
      'overwritten or removed soon after that time may be missing',
  ];
}

/** @returns how many records it wrote. */
async function writeJournal(
  journal: string,
  { sources, gaps, damage }: Plan,
  advance: (done: number, total: number) => void,
  signal: AbortSignal | undefined,
): Promise<number> {
  const start = { segment: 0, offset: 0, clean: false };
  const writer = await JournalWriter.open(journal, start, { clock: systemClock });
  const onDamage = ({ segment, start: from, end }: DamagedRange): void => {
    damage.push(`Segment ${segment} of the backup is damaged or cut short: bytes ${from} to ${end}`);
  };
  let records = 0;
  let aheadMs = 0;
  try {
    for (const [at, { folder, segment, from, end, upTo }] of sources.entries()) {
      for await (const batch of scanSegment(folder, segment, { from, end, onDamage })) {
        signal?.throwIfAborted();
        const wanted: JournalRecord[] = [];
        for (const { record } of batch) {
          if (upTo === undefined || record.timeMs <= upTo.atMs) wanted.push(renewed(record));
          if (upTo !== undefined) aheadMs = Math.max(aheadMs, record.timeMs - upTo.takenMs);
        }
        if (wanted.length > 0) await writer.append(wanted);
        records += wanted.length;
      }
      advance(at + 1, sources.length);
    }
  } finally {
    await writer.close();
  }
  if (aheadMs > clockToleranceMs && !gaps.includes(clockGap)) gaps.push(clockGap);
  return records;
}

/** A removal names the segment that first recorded it; in the new journal that is the segment it is written to. */
function renewed(record: JournalRecord): JournalRecord {
  return record.type === 'remove' ? { ...record, origin: undefined } : record;
}

/**
 * Reads a time for `--at`: ISO 8601, seconds since 1970, or a length of time before now (`2h`).
 * @throws FiletrackerError `invalid-argument`.
 */
export function parseTimeMs(text: string, nowMs: number): number {
  if (/^[\d.]+[smhd]/.test(text)) return nowMs - parseDurationMs(text);
  const ms = /^\d{1,12}$/.test(text) ? Number(text) * 1000 : Date.parse(text);
  if (Number.isFinite(ms)) return ms;
  const state = 'it must be a time such as 2026-11-23T10:00:00Z, seconds since 1970, or 2h for two hours ago';
  throw cannot('invalid-argument', `use --at "${text}"`, state);
}
