import { join } from 'node:path';
import type { Digest } from '../../../core/digest.ts';
import { isFiletrackerError, type FiletrackerError } from '../../../core/errors.ts';
import { isFull } from '../../../fs/folders.ts';
import { SpaceReserve } from '../../../fs/space-reserve.ts';
import type { JournalWriter, WrittenGroup } from '../../journal/journal-writer.ts';
import { recordSizeBytes, type JournalRecord } from '../../journal/record.ts';
import { listSegments } from '../../journal/segment.ts';
import type { IndexDatabase } from '../index/database.ts';
import { diskFull, indexFailure, outcomeUnknown } from '../index/failures.ts';
import type { EmbeddedFolders } from '../embedded-folders.ts';
import type { JournalLock } from './journal-lock.ts';
import { rollForward } from './replay.ts';

/** What it took to make one group of changes. */
export interface CommitTimes {
  readonly changes: number;
  /** Writing to the journal until it is durable: one sync. */
  readonly journalMs: number;
  /** Showing the changes in the index. */
  readonly indexMs: number;
}

/**
 * Between attempts to write the index after a failure. Each failed write costs LMDB some of its soundness in this process
 * (seen: its heap broken after some hundred), so a disk that does not take the index is asked now and then only.
 */
const pauseMs = 500;

/** How old the answer may be to whether the disk is full. */
const fullnessAgeMaxMs = 100;

/** Enough for removals by the thousand, which use the same pages of the index again and again. */
const reserveSizeBytes = 1024 * 1024;

export interface RecordCommitterParts {
  readonly index: IndexDatabase;
  readonly writer: JournalWriter;
  readonly lock: JournalLock;
  readonly folders: EmbeddedFolders;
  readonly reserve: SpaceReserve;
  readonly onCommit: ((commit: CommitTimes) => void) | undefined;
  /** Told when the index may have taken records that `commit` has refused. */
  readonly onCaughtUp: () => void;
}

/** The space on the disk of a store that is kept for what makes room. To be opened before anything else is. */
export function openReserve(folders: EmbeddedFolders): Promise<SpaceReserve> {
  return SpaceReserve.open(join(folders.catalog, 'reserve'), reserveSizeBytes);
}

/**
 * Makes records durable in the journal and then shows them in the index. Runs inside the sequence of changes.
 *
 * Invariant: nothing is written to the journal while it holds records that the index has not taken. Those that the
 * index could not take are wiped out of the journal again before they are refused, so that what was refused is not made
 * later. Only where it is in doubt what the index has taken they stay, and it is brought up to them first.
 */
export class RecordCommitter {
  readonly #parts: RecordCommitterParts;
  #indexBehind = false;
  /** Until when the index is not written to, and what changes are told meanwhile. */
  #pause: { readonly endMs: number; readonly failure: FiletrackerError } | undefined;
  #fullness = { full: false, knownMs: Number.NEGATIVE_INFINITY };

  constructor(parts: RecordCommitterParts) {
    this.#parts = parts;
  }

  /** Whether the journal holds records that the index could not take. */
  get indexBehind(): boolean {
    return this.#indexBehind;
  }

  /**
   * Whether it is known what the journal holds: not so after a write that failed and may yet be found there, nor where
   * another process may write to it, or another store stands in the place of this one.
   */
  get endIsCertain(): boolean {
    const { writer, lock } = this.#parts;
    return !this.#indexBehind && writer.endIsCertain && lock.isInPlace;
  }

  /** The segment being written. */
  get segment(): number {
    return this.#parts.writer.segment;
  }

  /** Keeps space for what makes room, where it is not kept yet and there is enough of it; in the background. */
  keepReserve(): void {
    this.#parts.reserve.fill();
  }

  /** @throws FiletrackerError `no-space` where the disk is too full to take anything in; what makes room needs what is left. */
  checkRoom(): void {
    const nowMs = performance.now();
    if (nowMs - this.#fullness.knownMs > fullnessAgeMaxMs) {
      this.#fullness = { full: isFull(this.#parts.folders.catalog), knownMs: nowMs };
    }
    if (this.#fullness.full) throw diskFull();
  }

  /**
   * Makes records durable and shows them in the index. The only way into the journal; runs inside the sequence.
   * @throws FiletrackerError `unavailable` where it is not known whether that was done, which it is not after other errors.
   */
  async commit(records: readonly JournalRecord[]): Promise<void> {
    await this.catchUp();
    this.#checkPause();
    const startMs = performance.now();
    const group = await this.#append(records);
    if (records.length === 0) return;
    const { positions, end } = group;
    const durableMs = performance.now();
    const placed = records.map((record, at) => {
      const { segment, offset } = positions[at] ?? end;
      return { record, segment, offset, length: recordSizeBytes(record) };
    });
    try {
      this.#parts.index.apply(placed, end);
    } catch (error) {
      throw await this.#takeBack(group, error);
    }
    this.keepReserve();
    const { length: changes } = records;
    this.#parts.onCommit?.({
      changes,
      journalMs: durableMs - startMs,
      indexMs: performance.now() - durableMs,
    });
  }

  async #append(records: readonly JournalRecord[]): Promise<WrittenGroup> {
    const { writer } = this.#parts;
    try {
      return await writer.append(records);
    } catch (error) {
      throw writer.endIsCertain ? error : outcomeUnknown(error);
    }
  }

  /** Undoes what the index could not take. Gives what its senders are told. */
  async #takeBack(group: WrittenGroup, error: unknown): Promise<FiletrackerError> {
    const failure = this.#keepFailure(error);
    if (!this.#parts.index.isAsApplied) {
      this.#indexBehind = true;
      return outcomeUnknown(error);
    }
    return (await this.#parts.writer.takeBack(group)) ? failure : outcomeUnknown(error);
  }

  /** The same of records that make room: on a full disk with the space that is kept for them. */
  commitRemovals(records: readonly JournalRecord[]): Promise<void> {
    return this.#makingRoom(() => this.commit(records));
  }

  /** Forgets collected blobs; on a full disk likewise. */
  forgetBlobs(digests: readonly Digest[]): Promise<void> {
    return this.#makingRoom(() => {
      this.#checkPause();
      try {
        this.#parts.index.forgetBlobs(digests);
      } catch (error) {
        throw this.#keepFailure(error);
      }
    });
  }

  /** Gives `change`, which has changed nothing where it says that the disk is full, a second try with more space. */
  async #makingRoom(change: () => Promise<void> | void): Promise<void> {
    try {
      await change();
      return;
    } catch (error) {
      if (!isFiletrackerError(error, 'no-space') || !this.#parts.reserve.release()) throw error;
    }
    this.#pause = undefined;
    await change();
  }

  /**
   * Sees to it that the index knows all that the journal holds, or may yet be found to hold. What the index does not
   * name then is named nowhere.
   */
  async settle(): Promise<void> {
    this.#parts.lock.check();
    await this.catchUp();
    // An empty group begins a new segment, which cuts off what has failed and could not be taken back.
    if (!this.#parts.writer.endIsCertain) await this.#parts.writer.append([]);
  }

  /** Sees to it that the store is still this process's, before a group of changes. @throws as `JournalLock.check`. */
  checkInPlace(): void {
    this.#parts.lock.checkOften();
  }

  /** Brings the index up to the journal after it could not be written; as at a start. */
  async catchUp(): Promise<void> {
    if (!this.#indexBehind) return;
    this.#checkPause();
    try {
      const { index, folders } = this.#parts;
      const segments = await listSegments(folders.journal);
      await rollForward(index, folders.journal, segments);
      this.#parts.onCaughtUp();
      this.#indexBehind = false;
    } catch (error) {
      throw this.#keepFailure(error);
    }
  }

  /** Resolves when nothing is being written beside the sequence. */
  async idle(): Promise<void> {
    await this.#parts.reserve.idle();
  }

  #checkPause(): void {
    if (this.#pause === undefined) return;
    if (performance.now() < this.#pause.endMs) throw this.#pause.failure;
    this.#pause = undefined;
  }

  /**
   * What changes are told until the index is tried again: nothing of them has been written, so the reason may be
   * told as it is.
   */
  #keepFailure(error: unknown): FiletrackerError {
    const failure = indexFailure(error, this.#parts.folders.catalog);
    this.#pause = { endMs: performance.now() + pauseMs, failure };
    return failure;
  }
}
