import { access, constants, rm, stat } from 'node:fs/promises';
import { join, resolve } from 'node:path';
import { DiskBlobStore } from '../../blobs/disk/disk-blob-store.ts';
import type { FoundBlob } from '../../blobs/blob-store.ts';
import { endOfSealedSegment, listSegments, scanSegment } from '../../catalog/journal/segment.ts';
import { segmentPath } from '../../catalog/journal/segment-header.ts';
import { JournalLock } from '../../catalog/lmdb/writer/journal-lock.ts';
import { unlessRetained } from '../../catalog/lmdb/writer/retention.ts';
import { cannot } from '../../core/errors.ts';
import { removeFile } from '../../fs/durable-file.ts';
import { syncFolder } from '../../fs/folders.ts';
import { refuseNewerFormats } from '../folder-kind.ts';
import { Steps, type ProgressListener, type StepReport } from '../progress.ts';
import { namesIn, storeFolders, type StoreFolders } from '../store-folders.ts';
import { writingTo } from '../target-folder.ts';
import {
  damagedSnapshots,
  historyFolder,
  putAsideSuffix,
  removeUnfinished,
  requireBackup,
  snapshotFileName,
  type StoredSnapshot,
} from './backup-layout.ts';
import { DigestSieve } from './digest-sieve.ts';
import { applyKeepRules, hasRule, type KeepRules } from './keep-rules.ts';
import { segmentsOf } from './snapshot-segments.ts';

const blobsAtOnce = 256;

export interface PruneOptions {
  /** Reports what would be removed, and removes nothing. */
  readonly dryRun?: boolean | undefined;
  readonly listener?: ProgressListener | undefined;
  readonly signal?: AbortSignal | undefined;
}

export interface PruneReport {
  readonly backup: string;
  readonly dryRun: boolean;
  readonly steps: readonly StepReport[];
  /** Times of the snapshots, in milliseconds since 1970, oldest first. */
  readonly keptMs: readonly number[];
  readonly removedMs: readonly number[];
  /** Blobs in files of their own. */
  readonly blobs: { readonly kept: number; readonly removed: number; readonly removedBytes: number };
}

/**
 * Removes snapshots of a backup that no rule keeps, and the blobs that none of the others needs.
 *
 * Why nothing is lost that a kept snapshot needs: a blob stays if any record of any journal that is left names its digest,
 * whether or not that record is still valid. Nothing is removed before all of those journals were read without damage.
 * Snapshots are removed durably before blobs, and each loses `snapshot.json` first, so a prune that is killed leaves
 * whole snapshots, and remains that the next prune or backup removes.
 * @throws FiletrackerError `invalid-argument` without a rule, `not-found` if the folder is no backup, `store-locked` while
 * a backup or a server has it open, `unavailable` while a restore reads it, `corrupt-store` if a journal is damaged.
 */
export async function pruneBackup(
  backup: string,
  rules: KeepRules,
  options: PruneOptions = {},
): Promise<PruneReport> {
  const action = `prune the backup "${backup}"`;
  if (!hasRule(rules)) throw cannot('invalid-argument', action, 'no rule says what to keep; use --keep-…');
  await refuseNewerFormats(backup);
  await requireBackup(backup, action);
  const folders = storeFolders(resolve(backup));
  return writingTo(action, async () => {
    await using lock = await JournalLock.tryAcquire(folders.journal);
    if (lock === undefined) throw cannot('store-locked', action, 'a backup or a server has it open');
    const ended = await unlessRetained(folders.journal, async () => {
      // Read under the lock: a backup may have added one until now.
      const snapshots = await requireBackup(backup, action);
      const [damaged] = await damagedSnapshots(backup);
      if (damaged !== undefined) {
        const state = `"${damaged}" is damaged; remove the folder of that snapshot if you can do without it`;
        throw cannot('corrupt-store', action, state);
      }
      return new Pruning(folders, options).run(applyKeepRules(snapshots, rules), action);
    });
    if (ended === undefined)
      throw cannot('unavailable', action, 'a restore or a backup is reading it; try later');
    return ended.result;
  });
}

class Pruning {
  readonly #folders: StoreFolders;
  readonly #steps: Steps;
  readonly #dryRun: boolean;
  readonly #signal: AbortSignal | undefined;

  constructor(folders: StoreFolders, { dryRun = false, listener, signal }: PruneOptions) {
    this.#folders = folders;
    this.#steps = new Steps(listener);
    this.#dryRun = dryRun;
    this.#signal = signal;
  }

  async run({ kept, removed }: ReturnType<typeof applyKeepRules>, action: string): Promise<PruneReport> {
    const needed = await this.#steps.run(
      'journal',
      'Reading the journals of the snapshots to keep',
      (advance) => this.#digestsIn(kept, action, advance),
      ({ segments }) => ({ segments }),
    );
    if (!this.#dryRun) await this.#removeSnapshots(removed);
    const blobs = await this.#steps.run(
      'blobs',
      this.#dryRun ? 'Counting the blobs' : 'Removing blobs that no snapshot needs',
      (advance) => this.#sweepBlobs(needed.digests, advance),
      (counts) => ({ kept: counts.kept, removed: counts.removed }),
    );
    return {
      backup: this.#folders.root,
      dryRun: this.#dryRun,
      steps: this.#steps.reports,
      keptMs: kept.map(({ timeMs }) => timeMs),
      removedMs: removed.map(({ timeMs }) => timeMs),
      blobs,
    };
  }

  /** The digests in every journal that stays: of the snapshots, of the backup itself, and of changes made in it. */
  async #digestsIn(
    kept: readonly StoredSnapshot[],
    action: string,
    advance: (done: number, total: number) => void,
  ): Promise<{ digests: DigestSieve; segments: number }> {
    const damage: string[] = [];
    const parts: JournalPart[] = [];
    for (const snapshot of kept) parts.push(...(await segmentsOf(snapshot, damage)));
    for (const folder of await this.#otherJournals()) parts.push(...(await partsOf(folder)));
    const distinct = await withoutLinks(parts);
    const digests = new DigestSieve();
    for (const [at, { folder, segment, end }] of distinct.entries()) {
      const onDamage = (): void => void damage.push(`Segment ${segment} is damaged`);
      for await (const batch of scanSegment(folder, segment, { end, onDamage })) {
        this.#signal?.throwIfAborted();
        for (const { record } of batch) if (record.type !== 'remove') digests.add(record.digest);
      }
      advance(at + 1, distinct.length);
    }
    const [first] = damage;
    if (first === undefined) return { digests, segments: distinct.length };
    const remedy = 'nothing was removed; see "filetracker-server backup check"';
    throw cannot(
      'corrupt-store',
      action,
      `${first.toLowerCase()}, so it is unknown which blobs it needs; ${remedy}`,
    );
  }

  async #otherJournals(): Promise<readonly string[]> {
    const history = historyFolder(this.#folders.root);
    const aside = ((await namesIn(history)) ?? []).filter((name) => name.endsWith(putAsideSuffix));
    return [this.#folders.journal, ...aside.map((name) => join(history, name))];
  }

  async #removeSnapshots(removed: readonly StoredSnapshot[]): Promise<void> {
    // A folder that cannot be removed would be left without its snapshot.json.
    for (const folder of [historyFolder(this.#folders.root), ...removed.map((snapshot) => snapshot.folder)])
      await access(folder, constants.W_OK);
    for (const { folder } of removed) {
      this.#signal?.throwIfAborted();
      await removeFile(join(folder, snapshotFileName));
      await syncFolder(folder);
      await rm(folder, { recursive: true, force: true });
    }
    await removeUnfinished(this.#folders.root);
    // Power loss must not bring a snapshot back when its blobs are gone.
    await syncFolder(historyFolder(this.#folders.root));
  }

  async #sweepBlobs(needed: DigestSieve, advance: (done: number) => void): Promise<PruneReport['blobs']> {
    const counts = { kept: 0, removed: 0, removedBytes: 0 };
    const blobs = await DiskBlobStore.open(this.#folders.root, { readOnly: true });
    let unneeded: FoundBlob[] = [];
    const removeThem = async (): Promise<void> => {
      if (!this.#dryRun) await blobs.remove(unneeded.map(({ key }) => key));
      unneeded = [];
    };
    for await (const blob of blobs.list(this.#signal === undefined ? {} : { signal: this.#signal })) {
      if (blob.digest === undefined || needed.has(blob.digest)) counts.kept += 1;
      else {
        counts.removed += 1;
        counts.removedBytes += blob.storedSize;
        unneeded.push(blob);
      }
      if (unneeded.length >= blobsAtOnce) await removeThem();
      advance(counts.kept + counts.removed);
    }
    await removeThem();
    return counts;
  }
}

interface JournalPart {
  readonly folder: string;
  readonly segment: number;
  /** `undefined` for the last segment of a journal, which may end in a torn write. */
  readonly end?: number | undefined;
}

async function partsOf(folder: string): Promise<JournalPart[]> {
  const segments = await listSegments(folder);
  const last = segments.at(-1);
  return Promise.all(
    segments.map(async (segment) =>
      segment === last
        ? { folder, segment }
        : { folder, segment, end: await endOfSealedSegment(folder, segment) },
    ),
  );
}

/**
 * Snapshots share most segments by hard links. Each file is read once, up to the largest known end of its parts. A part
 * without an end is read by itself, because damage at its end would pass for a torn write.
 */
async function withoutLinks(parts: readonly JournalPart[]): Promise<JournalPart[]> {
  const longest = new Map<string, JournalPart>();
  for (const part of parts) {
    const { dev, ino } = await stat(segmentPath(part.folder, part.segment), { bigint: true });
    const key = [dev, ino, part.segment, part.end === undefined].join();
    const other = longest.get(key);
    if (other === undefined || (part.end ?? 0) > (other.end ?? 0)) longest.set(key, part);
  }
  return [...longest.values()];
}
