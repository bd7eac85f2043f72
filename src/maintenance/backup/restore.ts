import { resolve } from 'node:path';
import { DiskBlobStore } from '../../blobs/disk/disk-blob-store.ts';
import { JournalWriter } from '../../catalog/journal/journal-writer.ts';
import type { JournalRecord } from '../../catalog/journal/record.ts';
import { scanSegment, type DamagedRange } from '../../catalog/journal/segment.ts';
import { LmdbCatalog } from '../../catalog/lmdb/lmdb-catalog.ts';
import { systemClock } from '../../core/clock.ts';
import { FiletrackerError } from '../../core/errors.ts';
import { makeFolderDurably, privateFolderMode } from '../../fs/folders.ts';
import { checkApart } from './apart.ts';
import { listSnapshots, readBackupState, type StoredSnapshot } from './backup-layout.ts';
import { copyBlobs, type CopiedBlobs } from '../migration/copy-blobs.ts';
import { Steps, type ProgressListener, type StepReport } from '../progress.ts';
import { refuseNewerFormats } from '../newer-formats.ts';
import { copyDeletions } from '../../store/import/tombstones.ts';
import { RestoreTarget } from './restore-target.ts';
import { segmentsOf, type SegmentPart } from './snapshot-segments.ts';
import { storeFolders, type StoreFolders } from './store-folders.ts';
import { writingTo } from './target-disk.ts';
import { restoreTokens } from '../../access/token-files.ts';

export interface RestoreOptions {
  /** The state at this time, in milliseconds since 1970; that of the last snapshot unless given. */
  readonly atMs?: number | undefined;
  readonly listener?: ProgressListener | undefined;
  readonly signal?: AbortSignal | undefined;
}

export interface RestoreReport {
  readonly store: string;
  readonly steps: readonly StepReport[];
  readonly entries: number;
  readonly blobs: CopiedBlobs;
  /** What stands between this and the exact state at that time; empty if nothing does. */
  readonly gaps: readonly string[];
  /** What the backup itself has lost of its journal: what was recorded there is missing. */
  readonly damage: readonly string[];
}

/** A segment to be read: from which folder, from where to where, and whether its records are held against the time. */
interface Source extends SegmentPart {
  /** The beginning of a record; the first one unless given. */
  readonly from?: number | undefined;
  /** Which records are wanted, and when the snapshot was taken that has them; all of them unless given. */
  readonly upTo?: { readonly atMs: number; readonly takenMs: number } | undefined;
}

/** What is to be told of a restore; both grow while the journal is read. */
interface Findings {
  readonly gaps: string[];
  readonly damage: string[];
}

/** How much later than a snapshot, by their clocks, a change may be that is in it. */
const clockToleranceMs = 1000;
const clockGap =
  'A clock was set back: what was changed at about that time may be missing, or be newer than that; ' +
  'the times of snapshots are exact all the same';

/**
 * Makes a store anew from a backup, as it was at its last snapshot, or at any time before.
 *
 * A snapshot is restored by the end of its journal, whatever the clocks said. For a time between two snapshots the
 * journals of both are read: the earlier one whole, as it holds all that was true at its time, and of what the later one
 * has beyond it the changes up to that time, by the clock of who made them. What compaction dropped in between, because
 * it was overwritten by then, can be missing; that is told in `gaps`, as is a clock that was seen to have been wrong.
 * @throws FiletrackerError `not-found` where there is no backup, or none that reaches the time;
 * `invalid-argument` where the folder of the new store is not empty, unless a restore that was killed has left it.
 */
export async function restoreStore(
  backup: string,
  folder: string,
  options: RestoreOptions = {},
): Promise<RestoreReport> {
  await refuseNewerFormats(backup);
  if ((await readBackupState(backup)) === undefined) {
    throw new FiletrackerError('not-found', `Cannot restore from "${backup}": it is no backup`);
  }
  await checkApart(backup, folder, 'restore');
  const snapshots = await listSnapshots(backup);
  const damage: string[] = [];
  const { sources, gaps } = await sourcesFor(snapshots, options.atMs, damage);
  return writingTo(`restore to "${folder}"`, async () => {
    const goal = storeFolders(resolve(folder));
    await using target = await RestoreTarget.claim(goal.root);
    const report = await fill(goal, backup, { sources, gaps, damage }, options);
    await target.finish();
    return report;
  });
}

async function fill(
  goal: StoreFolders,
  backup: string,
  parts: { readonly sources: readonly Source[] } & Findings,
  options: RestoreOptions,
): Promise<RestoreReport> {
  const { sources, gaps, damage } = parts;
  const steps = new Steps(options.listener);
  await makeFolderDurably(goal.journal, privateFolderMode);
  await restoreTokens(backup, goal.root);
  await copyDeletions([backup], goal.root);
  await steps.run('journal', 'Restoring the journal', async (advance) => {
    const records = await writeJournal(goal.journal, sources, options, { advance, gaps, damage });
    return { counts: { records }, result: undefined };
  });
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
    const copied = await steps.run('blobs', 'Linking or copying the blobs', async (advance) => {
      const { signal } = options;
      const result = await copyBlobs(catalog, kept.blobs, blobs, { advance, signal });
      const { blobs: count, missing, unreadable } = result;
      for (const digest of [...missing, ...unreadable]) await catalog.markDamaged(digest, true);
      return { counts: { blobs: count, missing: missing.length, unreadable: unreadable.length }, result };
    });
    const { entries } = await catalog.stats();
    return { store: goal.root, steps: steps.reports, entries, blobs: copied, gaps, damage };
  } finally {
    await catalog.close();
    await keptBlobs.close();
    await blobs.close();
  }
}

/** Which segments make up the state at a time, which is that of the last snapshot unless given. */
async function sourcesFor(
  snapshots: readonly StoredSnapshot[],
  atMs: number | undefined,
  damage: string[],
): Promise<{ sources: readonly Source[]; gaps: string[] }> {
  const last = snapshots.at(-1);
  if (last === undefined)
    throw new FiletrackerError('not-found', 'Cannot restore: the backup has no snapshot');
  if (atMs === undefined) return { sources: await segmentsOf(last, damage), gaps: [] };
  const exact = snapshots.findLast(({ timeMs }) => timeMs === atMs);
  if (exact !== undefined) return { sources: await segmentsOf(exact, damage), gaps: [] };
  const dated = withoutThoseAhead(snapshots);
  const later = dated.find(({ timeMs }) => timeMs > atMs);
  if (later === undefined) {
    const reach = new Date(last.timeMs).toISOString();
    throw new FiletrackerError(
      'not-found',
      `Cannot restore the state of that time: the last snapshot is of ${reach}; restore that one, without --at`,
    );
  }
  const before = dated.findLast(({ timeMs }) => timeMs < atMs);
  const { sources, gaps } = await sourcesBetween(before, later, atMs, damage);
  return { sources, gaps: dated.length < snapshots.length ? [clockGap, ...gaps] : gaps };
}

/** The snapshots that are not dated later than one that was taken after them, as a clock that is ahead has it. */
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
    // The last segment of the earlier one was being written: the later one has more of it.
    .map((source) => ({ ...source, from: source.segment === end.segment ? end.offset : undefined, upTo }));
  if (earlier === undefined) await checkReach(after, atMs);
  const before = earlier === undefined ? [] : await segmentsOf(earlier, damage);
  return { sources: [...before, ...after], gaps: gapsBetween(end.segment, later.end.segment, after) };
}

/** A time before all that the backup knows of is taken for a mistake, and not for the wish for an empty store. */
async function checkReach(sources: readonly Source[], atMs: number): Promise<void> {
  let oldestMs = Number.POSITIVE_INFINITY;
  for (const { folder, segment, end } of sources) {
    for await (const batch of scanSegment(folder, segment, { end, onDamage: () => undefined })) {
      for (const { record } of batch) oldestMs = Math.min(oldestMs, record.timeMs);
      if (oldestMs <= atMs) return;
    }
  }
  if (oldestMs === Number.POSITIVE_INFINITY) return;
  throw new FiletrackerError(
    'not-found',
    `Cannot restore the state of that time: the backup knows nothing from before ${new Date(oldestMs).toISOString()}`,
  );
}

function gapsBetween(first: number, last: number, sources: readonly Source[]): string[] {
  const there = new Set(sources.map(({ segment }) => segment));
  const missing: number[] = [];
  for (let segment = Math.max(first, 1); segment <= last; segment += 1)
    if (!there.has(segment)) missing.push(segment);
  if (missing.length === 0) return [];
  return [
    `${missing.length} segments of the journal were compacted away before a backup kept them: files that were ` +
      'overwritten or removed soon after that time may be missing',
  ];
}

async function writeJournal(
  journal: string,
  sources: readonly Source[],
  options: Pick<RestoreOptions, 'signal'>,
  parts: Findings & { readonly advance: (done: number, total: number) => void },
): Promise<number> {
  const writer = await JournalWriter.open(
    journal,
    { segment: 0, offset: 0, clean: false },
    { clock: systemClock },
  );
  const onDamage = ({ segment, start, end }: DamagedRange): void => {
    parts.damage.push(`Segment ${segment} of the backup is damaged or cut short: bytes ${start} to ${end}`);
  };
  let records = 0;
  let aheadMs = 0;
  try {
    for (const [at, { folder, segment, from, end, upTo }] of sources.entries()) {
      for await (const batch of scanSegment(folder, segment, { from, end, onDamage })) {
        options.signal?.throwIfAborted();
        const wanted: JournalRecord[] = [];
        for (const { record } of batch) {
          if (upTo === undefined || record.timeMs <= upTo.atMs) wanted.push(renewed(record));
          if (upTo !== undefined) aheadMs = Math.max(aheadMs, record.timeMs - upTo.takenMs);
        }
        if (wanted.length > 0) await writer.append(wanted);
        records += wanted.length;
      }
      parts.advance(at + 1, sources.length);
    }
  } finally {
    await writer.close();
  }
  if (aheadMs > clockToleranceMs && !parts.gaps.includes(clockGap)) parts.gaps.push(clockGap);
  return records;
}

/** A removal names the segment in which it was recorded first; in the new journal that is the one it is written to. */
function renewed(record: JournalRecord): JournalRecord {
  return record.type === 'remove' ? { ...record, origin: undefined } : record;
}

/** Reads a time for `--at`: ISO 8601, or seconds since 1970. @throws FiletrackerError `invalid-argument`. */
export function parseTimeMs(text: string): number {
  const ms = /^\d{1,12}$/.test(text) ? Number(text) * 1000 : Date.parse(text);
  if (Number.isFinite(ms)) return ms;
  throw new FiletrackerError(
    'invalid-argument',
    `Cannot use --at "${text}": give a time such as 2026-11-23T10:00:00Z, or seconds since 1970`,
  );
}
