import type { FiletrackerError } from '../../core/errors.ts';
import type { JournalWriter } from '../journal/journal-writer.ts';
import { recordSizeBytes, type JournalRecord } from '../journal/record.ts';
import { listSegments } from '../journal/segment.ts';
import type { IndexDatabase } from './index-database.ts';
import { indexFailure, indexUnwritable } from './index-failures.ts';
import type { EmbeddedFolders } from './embedded-folders.ts';
import { rollForward } from './replay.ts';

/** What it took to make one group of changes. */
export interface CommitTimes {
  readonly changes: number;
  /** Writing to the journal until it is durable: one sync. */
  readonly journalMs: number;
  /** Showing the changes in the index. */
  readonly indexMs: number;
}

/** Between attempts to write the index after a failure. */
const catchUpPauseMs = 500;

export interface RecordCommitterParts {
  readonly index: IndexDatabase;
  readonly writer: JournalWriter;
  readonly folders: EmbeddedFolders;
  readonly onCommit: ((commit: CommitTimes) => void) | undefined;
  /** Told when the index may have taken records that `commit` has refused. */
  readonly onCaughtUp: () => void;
}

/**
 * Makes records durable in the journal and then shows them in the index. Runs inside the sequence of changes.
 *
 * Invariant: nothing is written to the journal while it holds records that the index has not taken: before that
 * the index is brought up to it.
 */
export class RecordCommitter {
  readonly #parts: RecordCommitterParts;
  #indexBehind = false;
  #nextCatchUpMs = 0;
  #catchUpFailure: FiletrackerError | undefined;

  constructor(parts: RecordCommitterParts) {
    this.#parts = parts;
  }

  /** Whether the journal holds records that the index could not take. */
  get indexBehind(): boolean {
    return this.#indexBehind;
  }

  /** Whether it is known what the journal holds: not so after a write that failed and may yet be found there. */
  get endIsCertain(): boolean {
    return !this.#indexBehind && this.#parts.writer.endIsCertain;
  }

  /** The segment being written. */
  get segment(): number {
    return this.#parts.writer.segment;
  }

  /** Makes records durable and shows them in the index. The only way into the journal; runs inside the sequence. */
  async commit(records: readonly JournalRecord[]): Promise<void> {
    await this.catchUp();
    const startMs = performance.now();
    const { positions, end } = await this.#parts.writer.append(records);
    if (records.length === 0) return;
    const durableMs = performance.now();
    const placed = records.map((record, at) => {
      const { segment, offset } = positions[at] ?? end;
      return { record, segment, offset, length: recordSizeBytes(record) };
    });
    try {
      this.#parts.index.apply(placed, end);
    } catch (error) {
      this.#indexBehind = true;
      this.#keepFailure(error);
      throw indexUnwritable(error);
    }
    const { length: changes } = records;
    this.#parts.onCommit?.({
      changes,
      journalMs: durableMs - startMs,
      indexMs: performance.now() - durableMs,
    });
  }

  /**
   * Sees to it that the index knows all that the journal holds, or may yet be found to hold. What the index does not
   * name then is named nowhere.
   */
  async settle(): Promise<void> {
    await this.catchUp();
    // An empty group begins a new segment, which cuts off what has failed and could not be taken back.
    if (!this.#parts.writer.endIsCertain) await this.#parts.writer.append([]);
  }

  /** Brings the index up to the journal after it could not be written; as at a start. */
  async catchUp(): Promise<void> {
    if (!this.#indexBehind) return;
    // Each failed write costs LMDB some of its soundness in this process (seen: its heap broken after some
    // hundred), so a disk that does not take the index is asked now and then only.
    if (performance.now() < this.#nextCatchUpMs) throw this.#catchUpFailure ?? indexUnwritable(undefined);
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

  /**
   * What changes are told until the index is tried again: nothing of them has been written, so the reason may be
   * told as it is.
   */
  #keepFailure(error: unknown): FiletrackerError {
    this.#nextCatchUpMs = performance.now() + catchUpPauseMs;
    this.#catchUpFailure = indexFailure(error, this.#parts.folders.catalog);
    return this.#catchUpFailure;
  }
}
