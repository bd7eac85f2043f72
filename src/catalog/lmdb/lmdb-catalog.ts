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
import type { CatalogLimits, QuotaUsage } from '../quotas.ts';
import { BlobPins } from './writer/blob-pins.ts';
import { ChangeSequence } from './writer/change-sequence.ts';
import { Compactor } from './writer/compactor.ts';
import { recordOfRemoval, type IndexedRemoval } from './index/comparison.ts';
import type { IndexDatabase } from './index/database.ts';
import { DamagedIndexError } from './index/failures.ts';
import { lockJournal, type JournalLock } from './writer/journal-lock.ts';
import type { EmbeddedFolders } from './embedded-folders.ts';
import { LmdbReader } from './index/lmdb-reader.ts';
import { openReserve, RecordCommitter, type CommitTimes } from './writer/record-committer.ts';
import {
  closeIndex,
  replayJournal,
  type ReplayedIndex,
  type ReplayOptions,
  type ReplayReport,
} from './writer/replay.ts';
import { unlessRetained } from './writer/retention.ts';
import { roomOf, type Room } from './writer/room.ts';

/** Removals that recovery makes in one group. */
const restoredAtOnce = 256;

export interface LmdbCatalogOptions extends ReplayOptions {
  readonly folders: EmbeddedFolders;
  readonly placer: BlobPlacer;
  /** The lock of the journal, where the caller has taken it already; it becomes the catalog's. */
  readonly lock?: JournalLock | undefined;
  readonly clock?: Clock | undefined;
  /** Told of failures that no caller waits for. */
  readonly onBackgroundError?: ((error: unknown) => void) | undefined;
  /** How much may be taken in; without it as much as the disk takes. */
  readonly limits?: CatalogLimits | undefined;
  /** Told of every group of changes that took effect. */
  readonly onCommit?: ((commit: CommitTimes) => void) | undefined;
  /** Called once if a damaged row is met in the index, which is rebuilt at its next opening. */
  readonly onDamagedIndex?: ((error: DamagedIndexError) => void) | undefined;
  /** For tests. */
  readonly segmentSizeBytes?: number | undefined;
}

/**
 * The embedded catalog: a journal that is the store of all changes, and LMDB as its index. One process opens
 * it (a lock sees to that); others read through `LmdbReader`.
 *
 * Invariant 5, a blob that an entry names exists: changes form one sequence (`ChangeSequence`). Inside a step a
 * put looks whether its blob is in the index, places the staged bytes if not, then writes the journal, then
 * the index. Collection is a step of the same sequence: it forgets blobs that the index counts at zero and
 * that nobody pins, and removes their bytes before the next step begins. So between a put's look and its entry
 * no blob can go, and no removal can hit bytes that a later put placed under the same digest. Nor does a step
 * collect while the journal holds, or may be found to hold, what the index has not taken. After a crash
 * the journal holds an entry only if its bytes were durable before: they were placed and synced first, or
 * they are in the very record. Collection forgets before it removes: a crash in between leaves stray bytes,
 * never an entry without them.
 *
 * Invariants 1 and 3: an outcome is told after the journal is durable and the index shows the change; the
 * index never shows what is not durable.
 */
export class LmdbCatalog extends LmdbReader implements Catalog {
  /** What opening found. */
  readonly replay: ReplayReport;
  readonly #index: IndexDatabase;
  readonly #folders: EmbeddedFolders;
  readonly #writer: JournalWriter;
  readonly #placer: BlobPlacer;
  readonly #clock: Clock;
  readonly #lock: JournalLock;
  readonly #committer: RecordCommitter;
  readonly #sequence: ChangeSequence;
  readonly #compactor: Compactor;
  readonly #room: Room | undefined;
  readonly #onBackgroundError: (error: unknown) => void;
  readonly #directories = new Set<string>();
  readonly #pins = new BlobPins();
  #closed: Promise<void> | undefined;

  private constructor(
    options: LmdbCatalogOptions,
    parts: {
      index: IndexDatabase;
      writer: JournalWriter;
      lock: JournalLock;
      reserve: SpaceReserve;
      replay: ReplayReport;
      clock: Clock;
      room: Room | undefined;
    },
  ) {
    const { index, writer, lock, reserve, clock, room } = parts;
    const { folders, placer, onCommit, segmentSizeBytes } = options;
    super(index, folders, clock);
    this.replay = parts.replay;
    this.#index = index;
    this.#writer = writer;
    this.#lock = lock;
    this.#folders = folders;
    this.#placer = placer;
    this.#clock = clock;
    this.#room = room;
    this.#onBackgroundError = options.onBackgroundError ?? (() => undefined);
    this.#committer = new RecordCommitter({
      index,
      writer,
      lock,
      folders,
      reserve,
      onCommit,
      onCaughtUp: () => this.#directories.clear(),
    });
    this.#sequence = new ChangeSequence({
      index,
      placer,
      committer: this.#committer,
      clock,
      room,
      directories: this.#directories,
      onBackgroundError: this.#onBackgroundError,
      onNewSegment: () => this.#compactInBackground(),
    });
    this.#compactor = new Compactor({
      folder: folders.journal,
      index,
      activeSegment: () => writer.segment,
      segmentSizeBytes,
      inSequence: (step) => this.#sequence.run(step),
      commit: (records) => this.#committer.commit(records),
    });
  }

  /**
   * Opens the catalog for changing; makes it where there is none. Rolls the index forward, or rebuilds it.
   * @throws FiletrackerError `store-locked` where another process has it open, `corrupt-store` where the journal
   * is damaged.
   */
  static async open(options: LmdbCatalogOptions): Promise<LmdbCatalog> {
    const { folders, clock = systemClock } = options;
    let { lock } = options;
    let index: IndexDatabase | undefined;
    try {
      await makeFolderDurably(folders.journal, privateFolderMode);
      // A process that was killed may have made the folder and not have synced its name.
      await syncFolder(dirname(folders.journal));
      const held = lock ?? (await lockJournal(folders.journal));
      lock = held;
      const reserve = await openReserve(folders);
      const { replayed, room } = await openIndex(options);
      ({ index } = replayed);
      const { segmentSizeBytes } = options;
      const writer = await JournalWriter.open(folders.journal, replayed.end, {
        clock,
        segmentSizeBytes,
        check: () => held.check(),
      });
      const catalog = new LmdbCatalog(options, {
        index,
        writer,
        lock,
        reserve,
        replay: replayed.report,
        clock,
        room,
      });
      index.onDamage = options.onDamagedIndex;
      catalog.#committer.keepReserve();
      catalog.#compactInBackground();
      return catalog;
    } catch (error) {
      if (index !== options.index) await index?.close();
      // Also one that was given: as long as this process held it and did not lead, none could.
      await lock?.release();
      throw fromSystemError(error, 'open the catalog');
    }
  }

  // Not `async`, as is `remove`: the promise is made once, here.
  put(change: PutChange): Promise<PutOutcome> {
    return new Promise((resolve, reject) => this.#sequence.enqueue({ kind: 'put', change, resolve, reject }));
  }

  remove(change: RemoveChange): Promise<RemoveOutcome> {
    return new Promise((resolve, reject) =>
      this.#sequence.enqueue({ kind: 'remove', change, resolve, reject }),
    );
  }

  async collect(digests: readonly Digest[], beforeMs: number): Promise<readonly BlobRecord[]> {
    // While a backup reads the store nothing goes.
    const collect = async (): Promise<BlobRecord[]> => {
      const records: BlobRecord[] = [];
      for (const digest of digests) {
        const row = this.#index.blob(digest);
        if (!row || row.references > 0 || row.unreferencedSinceMs >= beforeMs) continue;
        if (!this.#pins.has(digest)) records.push(this.recordOf(digest, row));
      }
      await this.#committer.forgetBlobs(records.map((record) => record.digest));
      await this.#placer.remove(
        records.flatMap(({ location }) => (location.kind === 'object' ? [location.key] : [])),
      );
      return records;
    };
    const done = await this.#sequence.run(() => unlessRetained(this.#folders.journal, collect));
    this.#compactInBackground();
    return done?.result ?? [];
  }

  // A pin needs no place in the sequence: looking and pinning happen in one turn, as do looking and forgetting.
  async pin(digest: Digest): Promise<BlobPin | undefined> {
    this.#sequence.checkOpen();
    const blob = await this.findBlob(digest);
    const row = this.#index.blob(digest);
    if (blob === undefined || row === undefined || row.damaged) return undefined;
    return this.#pins.hold(blob);
  }

  async markDamaged(digest: Digest, damaged: boolean): Promise<void> {
    await this.#sequence.run(async () => {
      const row = this.#index.blob(digest);
      if (row === undefined || row.damaged === damaged) return;
      await this.#committer.commit([{ type: 'mark', timeMs: this.#clock.nowMs(), digest, damaged }]);
    });
  }

  async addBlobs(blobs: readonly PlacedBlob[]): Promise<void> {
    await this.#sequence.run(async () => {
      const timeMs = this.#clock.nowMs();
      const records = blobs.flatMap((blob): JournalRecord[] => {
        const { key, damaged = false, digest, encoding, logicalSize, storedSize } = blob;
        const row = this.#index.blob(digest);
        if (row !== undefined && !corrects(blob, { ...row, location: row.place })) return [];
        const content = { kind: 'object', key } as const;
        return [{ type: 'blob', timeMs, digest, encoding, logicalSize, storedSize, content, damaged }];
      });
      await this.#committer.commit(records);
    });
  }

  /**
   * Takes a segment out of the journal into a file elsewhere on the same file system, after what can be read
   * and is live in it was written again; for recovery. Not the segment being written.
   */
  async retireSegment(segment: number, movedTo: string): Promise<void> {
    await this.#compactor.retire(segment, movedTo);
  }

  /**
   * Enters a name whose content is lost, as damaged, so that it is told from a name that never was; for
   * recovery. A name that is there stays as it is, as does the tree.
   */
  async addLostEntry(entry: Entry): Promise<boolean> {
    return this.#sequence.run(async () => {
      const { name, version, digest, encoding, logicalSize, storedSize } = entry;
      const conflict = conflictingName(
        name,
        (ancestor) => this.#index.entry(ancestor) !== undefined,
        (directory) => this.#index.firstBelow(directory),
      );
      if (this.#index.entry(name) !== undefined || conflict !== undefined) return false;
      const known = this.#index.blob(digest) !== undefined;
      const blob = { digest, encoding, logicalSize, storedSize, content: { kind: 'none' } as const };
      const timeMs = this.#clock.nowMs();
      await this.#committer.commit([{ type: 'put', timeMs, name, version, ...blob, damaged: !known }]);
      this.#directories.clear();
      return true;
    });
  }

  /** Makes removals that the journal has lost once more, as they were; for recovery. */
  async restoreRemovals(removals: readonly IndexedRemoval[]): Promise<void> {
    for (let at = 0; at < removals.length; at += restoredAtOnce) {
      const records = removals.slice(at, at + restoredAtOnce).map(recordOfRemoval);
      await this.#sequence.run(() => this.#committer.commit(records));
    }
    this.#directories.clear();
  }

  /** What lies below the prefixes of quotas now. */
  get quotaUsages(): readonly QuotaUsage[] {
    return this.#room?.quotas.usages ?? [];
  }

  /** Compacts the journal until it is within its bound; for tests and maintenance, as it happens by itself. */
  async compact(): Promise<void> {
    await this.#compactor.run();
  }

  /** To be called when another process has met a damaged row. */
  giveUpIndex(): void {
    this.#index.noteDamage(new DamagedIndexError('another process has met a damaged row of its index'));
  }

  /** To be called when another process that read this catalog has ended. */
  forgetDeadReaders(): void {
    this.#index.forgetDeadReaders();
  }

  async probe(): Promise<void> {
    // An empty group begins a new segment where the last write has failed: it shows whether writing works again.
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
      if (this.#committer.indexBehind || this.#index.isDamaged) await this.#index.close();
      else await closeIndex(this.#index, this.#folders.catalog);
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
      // What is given up because the catalog closes is done after the next start.
      if (this.#closed === undefined) this.#onBackgroundError(error);
    });
  }
}

/** Brings the index up to the journal. If a damaged row is met on the way, it is rebuilt at once. */
async function openIndex(
  options: LmdbCatalogOptions,
): Promise<{ replayed: ReplayedIndex; room: Room | undefined }> {
  const { folders, limits } = options;
  const open = async (rebuild: boolean | undefined): ReturnType<typeof openIndex> => {
    const replayed = await replayJournal(folders, { ...options, rebuild });
    const { index } = replayed;
    try {
      return { replayed, room: await roomOf(limits, new LmdbReader(index, folders)) };
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
