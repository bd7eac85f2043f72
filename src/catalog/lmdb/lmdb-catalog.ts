import { dirname } from 'node:path';
import { systemClock, type Clock } from '../../core/clock.ts';
import type { Digest } from '../../core/digest.ts';
import { fromSystemError } from '../../core/errors.ts';
import { makeFolderDurably, privateFolderMode, syncFolder } from '../../fs/folders.ts';
import type { SpaceReserve } from '../../fs/space-reserve.ts';
import type {
  BlobPin,
  BlobPlacer,
  BlobRecord,
  Catalog,
  Entry,
  PlacedBlob,
  PutChange,
  PutOutcome,
  RemoveChange,
  RemoveOutcome,
} from '../catalog.ts';
import { conflictingName, corrects } from '../decisions.ts';
import { JournalWriter } from '../journal/journal-writer.ts';
import type { JournalRecord } from '../journal/record.ts';
import { Capacity, type CatalogLimits, type QuotaUsage } from '../quotas.ts';
import { recordOfRemoval, type IndexedRemoval } from './index/comparison.ts';
import type { EmbeddedFolders } from './index/database.ts';
import { DamagedIndexError } from './index/failures.ts';
import { LmdbReader } from './index/lmdb-reader.ts';
import { ChangeSequence } from './writer/change-sequence.ts';
import { Compactor } from './writer/compactor.ts';
import { lockJournal, type JournalLock } from './writer/journal-lock.ts';
import { openReserve, RecordCommitter, type CommitTimes } from './writer/record-committer.ts';
import {
  closeIndex,
  replayJournal,
  type ReplayedIndex,
  type ReplayOptions,
  type ReplayReport,
} from './writer/replay.ts';
import { unlessRetained } from './writer/retention.ts';

/** Removals that recovery restores in one group. */
const restoredAtOnce = 256;

export interface LmdbCatalogOptions extends ReplayOptions {
  readonly folders: EmbeddedFolders;
  readonly placer: BlobPlacer;
  /** The lock of the journal, if the caller has it already; the catalog releases it. */
  readonly lock?: JournalLock | undefined;
  readonly clock?: Clock | undefined;
  /** Receives failures of background work. */
  readonly onBackgroundError?: ((error: unknown) => void) | undefined;
  /** By default only the disk limits the catalog. */
  readonly limits?: CatalogLimits | undefined;
  /** Called for every group of changes that took effect. */
  readonly onCommit?: ((commit: CommitTimes) => void) | undefined;
  /** For tests. */
  readonly segmentSizeBytes?: number | undefined;
}

interface CatalogParts extends Opened {
  readonly lock: JournalLock;
  readonly reserve: SpaceReserve;
  readonly writer: JournalWriter;
}

/**
 * The embedded catalog: a journal that stores all changes, and LMDB as its index. One process opens it (a lock ensures
 * that); others read through `LmdbReader`.
 *
 * Invariant 5, a blob that an entry names exists: changes form one sequence (`ChangeSequence`). Inside a step a put looks
 * whether its blob is in the index, places the staged bytes if not, then writes the journal, then the index. Collection is
 * a step of the same sequence: it forgets blobs without references and pins, and removes their bytes before the next step
 * begins. So between a put's look-up and its entry no blob can go, and no removal can hit bytes that a later put placed
 * under the same digest. Nor does a step collect while the journal holds, or may be found to hold, what the index lacks.
 * After a crash the journal holds an entry only if its bytes were durable before: they were placed and synced first, or
 * they are in the very record. Collection forgets before it removes: a crash in between leaves orphans, never an entry
 * without bytes.
 *
 * Invariants 1 and 3: a change resolves after the journal is durable and the index shows it; the index never shows what is
 * not durable.
 */
export class LmdbCatalog extends LmdbReader implements Catalog {
  /** What opening found. */
  readonly replay: ReplayReport;
  readonly #folders: EmbeddedFolders;
  readonly #writer: JournalWriter;
  readonly #placer: BlobPlacer;
  readonly #clock: Clock;
  readonly #lock: JournalLock;
  readonly #committer: RecordCommitter;
  readonly #sequence: ChangeSequence;
  readonly #compactor: Compactor;
  readonly #capacity: Capacity | undefined;
  readonly #onBackgroundError: (error: unknown) => void;
  readonly #pins = new BlobPins();
  #closed: Promise<void> | undefined;

  private constructor(options: LmdbCatalogOptions, parts: CatalogParts) {
    const { folders, placer, onCommit, segmentSizeBytes, clock = systemClock } = options;
    const { replayed, writer, lock, reserve, capacity } = parts;
    const { index } = replayed;
    super(index, folders, clock);
    this.replay = replayed.report;
    this.#writer = writer;
    this.#lock = lock;
    this.#folders = folders;
    this.#placer = placer;
    this.#clock = clock;
    this.#capacity = capacity;
    this.#onBackgroundError = options.onBackgroundError ?? (() => undefined);
    const committer = new RecordCommitter({ index, writer, lock, folders, reserve, onCommit });
    this.#committer = committer;
    this.#sequence = new ChangeSequence({
      index,
      placer,
      committer,
      clock,
      capacity,
      onBackgroundError: this.#onBackgroundError,
      onNewSegment: () => this.#compactInBackground(),
    });
    this.#compactor = new Compactor({
      folder: folders.journal,
      index,
      activeSegment: () => writer.segment,
      segmentSizeBytes,
      inSequence: (step) => this.#sequence.run(step),
      commit: (records) => committer.commit(records),
    });
  }

  /**
   * Opens the catalog for changes, or creates it. Rolls the index forward, or rebuilds it.
   * @throws FiletrackerError `store-locked` if another process has it open, `corrupt-store` if the journal is damaged.
   */
  static async open(options: LmdbCatalogOptions): Promise<LmdbCatalog> {
    const { folders, segmentSizeBytes, clock = systemClock } = options;
    let { lock, index } = options;
    try {
      await makeFolderDurably(folders.journal, privateFolderMode);
      // A process that was killed may have made the folder without syncing its name.
      await syncFolder(dirname(folders.journal));
      const held = lock ?? (await lockJournal(folders.journal));
      lock = held;
      const reserve = await openReserve(folders);
      const opened = await openIndex(options);
      const { replayed } = opened;
      ({ index } = replayed);
      const check = (): void => held.check();
      const writerOptions = { clock, segmentSizeBytes, check };
      const writer = await JournalWriter.open(folders.journal, replayed.end, writerOptions);
      const catalog = new LmdbCatalog(options, { ...opened, lock, reserve, writer });
      catalog.#committer.keepReserve();
      catalog.#compactInBackground();
      return catalog;
    } catch (error) {
      if (index !== options.index) await index?.close();
      // The caller's lock too: while this process held it and did not lead, no other could.
      await lock?.release();
      throw fromSystemError(error, 'open the catalog');
    }
  }

  // Not `async`, as is `remove`: the promise is created once, here.
  put(change: PutChange): Promise<PutOutcome> {
    return new Promise((resolve, reject) => this.#sequence.enqueue({ kind: 'put', change, resolve, reject }));
  }

  remove(change: RemoveChange): Promise<RemoveOutcome> {
    return new Promise((resolve, reject) =>
      this.#sequence.enqueue({ kind: 'remove', change, resolve, reject }),
    );
  }

  async collect(digests: readonly Digest[], beforeMs: number): Promise<readonly BlobRecord[]> {
    const collect = async (): Promise<BlobRecord[]> => {
      const records: BlobRecord[] = [];
      for (const digest of digests) {
        const row = this.index.blob(digest);
        if (!row || row.references > 0 || row.unreferencedSinceMs >= beforeMs) continue;
        if (!this.#pins.has(digest)) records.push(this.recordOf(digest, row));
      }
      await this.#committer.forgetBlobs(records.map((record) => record.digest));
      await this.#placer.remove(
        records.flatMap(({ location }) => (location.kind === 'object' ? [location.key] : [])),
      );
      return records;
    };
    // A backup that reads the store keeps everything.
    const done = await this.#sequence.run(() => unlessRetained(this.#folders.journal, collect));
    this.#compactInBackground();
    return done?.result ?? [];
  }

  // A pin needs no place in the sequence: looking and pinning happen in one turn, as do looking and forgetting.
  async pin(digest: Digest): Promise<BlobPin | undefined> {
    this.#sequence.checkOpen();
    const blob = await this.findBlob(digest);
    const row = this.index.blob(digest);
    if (blob === undefined || row === undefined || row.damaged) return undefined;
    return this.#pins.hold(blob);
  }

  async markDamaged(digest: Digest, damaged: boolean): Promise<void> {
    await this.#sequence.run(async () => {
      const row = this.index.blob(digest);
      if (row === undefined || row.damaged === damaged) return;
      await this.#committer.commit([{ type: 'mark', timeMs: this.#clock.nowMs(), digest, damaged }]);
    });
  }

  async addBlobs(blobs: readonly PlacedBlob[]): Promise<void> {
    await this.#sequence.run(async () => {
      const timeMs = this.#clock.nowMs();
      const records = blobs.flatMap((blob): JournalRecord[] => {
        const { key, damaged = false, digest, encoding, logicalSize, storedSize } = blob;
        const row = this.index.blob(digest);
        if (row !== undefined && !corrects(blob, { ...row, location: row.place })) return [];
        const content = { kind: 'object', key } as const;
        return [{ type: 'blob', timeMs, digest, encoding, logicalSize, storedSize, content, damaged }];
      });
      await this.#committer.commit(records);
    });
  }

  /**
   * Moves a segment out of the journal to a path on the same file system, after its readable live records were written
   * again; for recovery. Not the current segment.
   */
  async retireSegment(segment: number, movedTo: string): Promise<void> {
    await this.#compactor.retire(segment, movedTo);
  }

  /**
   * Adds an entry whose content is lost, as damaged, so that it differs from a name that never existed; for recovery. An
   * existing entry stays, as does the tree. Returns whether it was added.
   */
  async addLostEntry(entry: Entry): Promise<boolean> {
    return this.#sequence.run(async () => {
      const { name, version, digest, encoding, logicalSize, storedSize } = entry;
      const conflict = conflictingName(
        name,
        (ancestor) => this.index.entry(ancestor) !== undefined,
        (directory) => this.index.firstBelow(directory),
      );
      if (this.index.entry(name) !== undefined || conflict !== undefined) return false;
      const damaged = this.index.blob(digest) === undefined;
      const blob = { digest, encoding, logicalSize, storedSize, content: { kind: 'none' } as const };
      const timeMs = this.#clock.nowMs();
      await this.#committer.commit([{ type: 'put', timeMs, name, version, ...blob, damaged }]);
      return true;
    });
  }

  /** Repeats removals that the journal has lost; for recovery. */
  async restoreRemovals(removals: readonly IndexedRemoval[]): Promise<void> {
    for (let at = 0; at < removals.length; at += restoredAtOnce) {
      const records = removals.slice(at, at + restoredAtOnce).map(recordOfRemoval);
      await this.#sequence.run(() => this.#committer.commit(records));
    }
  }

  /** What is stored below the prefixes of the quotas now. */
  get quotaUsages(): readonly QuotaUsage[] {
    return this.#capacity?.usages ?? [];
  }

  /** Compacts the journal until it is within its bound, which also happens in the background. */
  async compact(): Promise<void> {
    await this.#compactor.run();
  }

  /** Gives up the index after another process has read a damaged row. */
  giveUpIndex(): void {
    this.index.noteDamage(new DamagedIndexError('another process has read a damaged row of its index'));
  }

  async probe(): Promise<void> {
    // After a failed write an empty group begins a new segment, which shows whether writing works again.
    await this.#sequence.run(() => this.#committer.commit([]));
  }

  override close(): Promise<void> {
    this.#closed ??= this.#finish();
    return this.#closed;
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }

  async #finish(): Promise<void> {
    this.#compactor.stop();
    this.#sequence.end();
    await this.#sequence.idle();
    await this.#compactor.idle();
    await this.#sequence.idle();
    await this.#committer.idle();
    await super.close();
    try {
      await this.#writer.close();
      if (this.#committer.indexBehind || this.index.isDamaged) await this.index.close();
      else await closeIndex(this.index, this.#folders.catalog);
    } finally {
      await this.#lock.release();
    }
  }

  #compactInBackground(): void {
    const work = async (): Promise<void> => {
      await this.#compactor.forgetRemovals(this.#clock.nowMs());
      if (this.#compactor.due()) await this.#compactor.run();
    };
    work().catch((error: unknown) => {
      // Work that closing interrupts is done after the next start.
      if (this.#closed === undefined) this.#onBackgroundError(error);
    });
  }
}

/** The blobs that must not be collected, with the number of their pins. */
class BlobPins {
  readonly #counts = new Map<Digest, number>();

  has(digest: Digest): boolean {
    return this.#counts.has(digest);
  }

  hold(blob: BlobRecord): BlobPin {
    const { digest } = blob;
    this.#counts.set(digest, (this.#counts.get(digest) ?? 0) + 1);
    let held = true;
    const release = async (): Promise<void> => {
      if (!held) return;
      held = false;
      const left = (this.#counts.get(digest) ?? 1) - 1;
      if (left === 0) this.#counts.delete(digest);
      else this.#counts.set(digest, left);
    };
    return { blob, release };
  }
}

interface Opened {
  readonly replayed: ReplayedIndex;
  readonly capacity: Capacity | undefined;
}

/** Brings the index up to the journal. If that reads a damaged row, the index is rebuilt at once. */
async function openIndex(options: LmdbCatalogOptions): Promise<Opened> {
  const { folders, limits } = options;
  const open = async (rebuild: boolean | undefined): Promise<Opened> => {
    const replayed = await replayJournal(folders, { ...options, rebuild });
    const { index } = replayed;
    try {
      return { replayed, capacity: limits && (await Capacity.of(limits, new LmdbReader(index, folders))) };
    } catch (error) {
      if (index !== options.index) await index.close();
      throw error;
    }
  };
  try {
    return await open(options.rebuild);
  } catch (error) {
    if (!(error instanceof DamagedIndexError) || options.index !== undefined) throw error;
    return await open(true);
  }
}
