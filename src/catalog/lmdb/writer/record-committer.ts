import { join } from 'node:path';
import type { Digest } from '../../../core/digest.ts';
import { isFiletrackerError, type FiletrackerError } from '../../../core/errors.ts';
import { isFull } from '../../../fs/folders.ts';
import { SpaceReserve } from '../../../fs/space-reserve.ts';
import type { JournalWriter, WrittenGroup } from '../../journal/journal-writer.ts';
import { recordSizeBytes, type JournalRecord } from '../../journal/record.ts';
import { listSegments } from '../../journal/segment.ts';
import type { EmbeddedFolders, IndexDatabase } from '../index/database.ts';
import { diskFull, indexFailure, outcomeUnknown } from '../index/failures.ts';
import type { JournalLock } from './journal-lock.ts';
import { rollForward } from './replay.ts';

/** The cost of one group of changes. */
export interface CommitTimes {
  readonly changes: number;
  /** Writing to the journal until it is durable: one sync. */
  readonly journalMs: number;
  /** Applying the changes to the index. */
  readonly indexMs: number;
}

/**
 * Pause between attempts to write the index after a failure. Each failed write damages LMDB a little in this process (seen:
 * its heap broken after some hundred), so attempts are rare.
 */
const pauseMs = 500;

/** Maximum age of the knowledge whether the disk is full. */
const fullnessAgeMaxMs = 100;

/** Enough for thousands of removals, which use the same pages of the index repeatedly. */
const reserveSizeBytes = 1024 * 1024;

export interface RecordCommitterParts {
  readonly index: IndexDatabase;
  readonly writer: JournalWriter;
  readonly lock: JournalLock;
  readonly folders: EmbeddedFolders;
  readonly reserve: SpaceReserve;
  readonly onCommit: ((commit: CommitTimes) => void) | undefined;
}

/** Opens the disk space that is reserved for removals; before anything else is opened. */
export function openReserve(folders: EmbeddedFolders): Promise<SpaceReserve> {
  return SpaceReserve.open(join(folders.catalog, 'reserve'), reserveSizeBytes);
}

/**
 * Makes records durable in the journal and then applies them to the index. Runs inside the sequence of changes.
 *
 * Invariant: nothing is written to the journal while it holds records that the index lacks. Records that the index could
 * not take are overwritten in the journal before they are refused, so that a refused change is not made later. Only if it
 * is unknown what the index has taken they stay, and the index is brought up to them first.
 */
export class RecordCommitter {
  readonly #parts: RecordCommitterParts;
  #indexBehind = false;
  /** Until when the index is not written, and the error of changes meanwhile. */
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
   * Whether it is known what the journal holds. Not after a failed write that may still be in it, nor if another process
   * may write to it or another store has taken its place.
   */
  get endIsCertain(): boolean {
    const { writer, lock } = this.#parts;
    return !this.#indexBehind && writer.endIsCertain && lock.isInPlace;
  }

  /** The current segment. */
  get segment(): number {
    return this.#parts.writer.segment;
  }

  /** Fills the reserve again, in the background, if the disk has enough space. */
  keepReserve(): void {
    this.#parts.reserve.fill();
  }

  /** @throws FiletrackerError `no-space` if the disk is so full that its rest is for removals. */
  checkSpace(): void {
    const nowMs = performance.now();
    if (nowMs - this.#fullness.knownMs > fullnessAgeMaxMs) {
      this.#fullness = { full: isFull(this.#parts.folders.catalog), knownMs: nowMs };
    }
    if (this.#fullness.full) throw diskFull();
  }

  /**
   * Makes records durable and applies them to the index. The only way into the journal.
   * @throws FiletrackerError `unavailable` if it is unknown whether that was done; after other errors it was not.
   */
  async commit(records: readonly JournalRecord[]): Promise<void> {
    await this.catchUp();
    this.#checkPause();
    const { index, onCommit } = this.#parts;
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
      index.apply(placed, end);
    } catch (error) {
      throw await this.#takeBack(group, error);
    }
    this.keepReserve();
    const indexMs = performance.now() - durableMs;
    onCommit?.({ changes: records.length, journalMs: durableMs - startMs, indexMs });
  }

  async #append(records: readonly JournalRecord[]): Promise<WrittenGroup> {
    const { writer } = this.#parts;
    try {
      return await writer.append(records);
    } catch (error) {
      throw writer.endIsCertain ? error : outcomeUnknown(error);
    }
  }

  /** Undoes a group that the index could not take. Returns the error of its changes. */
  async #takeBack(group: WrittenGroup, error: unknown): Promise<FiletrackerError> {
    const failure = this.#beginPause(error);
    if (!this.#parts.index.isAsApplied) {
      this.#indexBehind = true;
      return outcomeUnknown(error);
    }
    return (await this.#parts.writer.takeBack(group)) ? failure : outcomeUnknown(error);
  }

  /** Commits removals; on a full disk with the reserved space. */
  commitRemovals(records: readonly JournalRecord[]): Promise<void> {
    return this.#withReserve(() => this.commit(records));
  }

  /** Forgets collected blobs; on a full disk with the reserved space. */
  forgetBlobs(digests: readonly Digest[]): Promise<void> {
    return this.#withReserve(() => {
      this.#checkPause();
      try {
        this.#parts.index.forgetBlobs(digests);
      } catch (error) {
        throw this.#beginPause(error);
      }
    });
  }

  /** Runs `change`, which changes nothing if it throws `no-space`, a second time with the reserved space. */
  async #withReserve(change: () => Promise<void> | void): Promise<void> {
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
   * Makes sure that the index has everything that the journal holds or may be found to hold: then what the index does not
   * name is named nowhere.
   */
  async settle(): Promise<void> {
    this.#parts.lock.check();
    await this.catchUp();
    // An empty group begins a new segment, which cuts off a failed group that could not be taken back.
    if (!this.#parts.writer.endIsCertain) await this.#parts.writer.append([]);
  }

  /** Checks, before a group of changes, that the store is still this process's. @throws as `JournalLock.check`. */
  checkInPlace(): void {
    this.#parts.lock.checkOften();
  }

  /** Brings the index up to the journal after a failed write, as at a start. */
  async catchUp(): Promise<void> {
    if (!this.#indexBehind) return;
    this.#checkPause();
    try {
      const { index, folders } = this.#parts;
      const segments = await listSegments(folders.journal);
      await rollForward(index, folders.journal, segments);
      this.#indexBehind = false;
    } catch (error) {
      throw this.#beginPause(error);
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

  /** Returns the error of all changes until the index is tried again. It is exact: nothing of them has been written. */
  #beginPause(error: unknown): FiletrackerError {
    const failure = indexFailure(error, this.#parts.folders.catalog);
    this.#pause = { endMs: performance.now() + pauseMs, failure };
    return failure;
  }
}
