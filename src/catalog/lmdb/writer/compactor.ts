import { SingleFlight } from '../../../core/concurrency.ts';
import { fromSystemError } from '../../../core/errors.ts';
import { removalMemoryMs, segmentSizeBytes } from '../../../core/limits.ts';
import { syncFolder } from '../../../fs/folders.ts';
import { moveFile } from '../../../fs/copy-and-move.ts';
import {
  recordHeaderSizeBytes,
  recordSizeBytes,
  type JournalRecord,
  type PlacedRecord,
} from '../../journal/record.ts';
import { segmentPath } from '../../journal/segment-header.ts';
import {
  cutSegment,
  cutSegmentIfThere,
  listSegments,
  removeSegment,
  scanSegment,
  type DamagedRange,
} from '../../journal/segment.ts';
import type { IndexDatabase } from '../index/database.ts';
import { livePartsOf } from './live-records.ts';
import { isRetained, unlessRetained } from './retention.ts';
import { endOfIndexedSegment } from './sealed-segments.ts';

/**
 * The journal may take 1.5 times its live records, plus about one segment. Compaction begins earlier, so that the copies
 * that it writes stay within.
 */
const startFactor = 1.35;
/**
 * The part of the removed bytes that a run of compaction may have copied without a pause after it. A victim has at most
 * 1 / `startFactor` of live bytes, and padding adds less than a tenth. So the journal becomes smaller with every run that
 * no pause follows: even with wrong sums compaction ends.
 */
const copiedShareMax = 0.9;
const forgettingIntervalMs = 3_600_000;
/** Removals looked at in one step: about a millisecond. */
const removalsAtOnce = 1000;
const relocatedAtOnceBytes = 512 * 1024;

interface Victim {
  readonly number: number;
  readonly sizeBytes: number;
  readonly share: number;
}

export interface CompactorParts {
  readonly folder: string;
  readonly index: IndexDatabase;
  readonly activeSegment: () => number;
  readonly segmentSizeBytes?: number | undefined;
  /** Runs a step in the catalog's sequence. */
  readonly inSequence: <Result>(step: () => Promise<Result>) => Promise<Result>;
  /** Writes records to the journal and the index; inside a step. */
  readonly commit: (records: readonly JournalRecord[]) => Promise<void>;
}

/**
 * Keeps the journal within its bound: copies the live records of mostly dead segments to the end of the journal and
 * removes these segments.
 *
 * Invariant: a segment is removed only after, in steps of the sequence, all its records were looked at and the live ones
 * written again. A record is live if the index points to it: as an entry, as the position of a blob's bytes, as a removal
 * that is remembered, as the last mark of a blob. A removal is remembered until its name is stored again, or until it is
 * old and no segment exists that may hold a put that it cancels. Each copy is made in the sequence, at a moment when it is
 * true, so replaying it at its later position gives the same state.
 *
 * A run takes each segment once, and only segments that existed when it began.
 */
export class Compactor {
  readonly #parts: CompactorParts;
  readonly #segmentSizeBytes: number;
  readonly #runs = new SingleFlight<void>();
  #stopped = false;
  #forgotMs = -Infinity;
  /** The dead bytes of the journal at which compaction may run again after a run that did not pay. */
  #resumeAtDeadBytes = 0;

  constructor(parts: CompactorParts) {
    this.#parts = parts;
    this.#segmentSizeBytes = parts.segmentSizeBytes ?? segmentSizeBytes;
  }

  /** Whether compaction pays. */
  due(): boolean {
    return this.#runs.running === undefined && this.#pays();
  }

  #pays(): boolean {
    if (this.#stopped) return false;
    const { deadBytes, victim } = this.#survey(this.#parts.activeSegment());
    return victim !== undefined && deadBytes >= this.#resumeAtDeadBytes;
  }

  /** Forgets removals that need not be remembered, at most once an hour. */
  async forgetRemovals(nowMs: number): Promise<void> {
    if (nowMs - this.#forgotMs < forgettingIntervalMs) return;
    this.#forgotMs = nowMs;
    const { folder, index, inSequence } = this.#parts;
    const [oldest = 0] = await listSegments(folder);
    let after: Buffer | undefined;
    do {
      const from = after;
      after = await inSequence(async () => {
        return index.forgetRemovals(nowMs - removalMemoryMs, oldest, removalsAtOnce, from);
      });
    } while (after !== undefined && !this.#stopped);
  }

  /** Compacts until the journal is within its bound. */
  run(): Promise<void> {
    return this.#runs.run(async () => {
      // Changes beside a run may have made a segment due that did not exist when it began.
      while ((await this.#compact()) && this.#pays());
    });
  }

  stop(): void {
    this.#stopped = true;
  }

  /** Resolves when no run is under way; the caller of a run gets its failure. */
  async idle(): Promise<void> {
    await this.#runs.running?.catch(() => undefined);
  }

  /** One run: false if it was interrupted. */
  async #compact(): Promise<boolean> {
    const last = this.#parts.activeSegment();
    let copiedBytes = 0;
    let freedBytes = 0;
    for (;;) {
      const { victim } = this.#survey(last);
      if (victim === undefined) break;
      if (this.#stopped || (await isRetained(this.#parts.folder))) return false;
      copiedBytes += await this.#relocate(victim.number, undefined);
      if (this.#stopped || !(await this.#drop(victim.number))) return false;
      freedBytes += victim.sizeBytes;
    }
    const pays = copiedBytes <= copiedShareMax * freedBytes;
    this.#resumeAtDeadBytes = pays ? 0 : this.#survey(last).deadBytes + this.#segmentSizeBytes / 2;
    return true;
  }

  /** Relocates the readable live records of a segment, damaged or not, and moves its file away. */
  async retire(segment: number, movedTo: string): Promise<void> {
    const { folder, index, inSequence } = this.#parts;
    await this.#relocate(segment, () => undefined);
    await inSequence(async () => {
      index.forgetSegment(segment);
      await cutSegmentIfThere(folder, segment - 1);
      try {
        await moveFile(segmentPath(folder, segment), movedTo);
      } catch (error) {
        throw fromSystemError(error, 'move a damaged segment of the journal');
      }
      await syncFolder(folder);
    });
  }

  /**
   * The dead bytes of the journal, and its sealed segment up to `last` with the smallest live share if the journal exceeds its
   * bound or that share is zero.
   */
  #survey(last: number): { deadBytes: number; victim: Victim | undefined } {
    const active = this.#parts.activeSegment();
    let totalBytes = 0;
    let live = 0;
    let victim: Victim | undefined;
    for (const { number, sizeBytes, liveBytes } of this.#parts.index.segmentRows()) {
      totalBytes += sizeBytes;
      live += liveBytes;
      if (number >= active || number > last) continue;
      const share = liveBytes / Math.max(sizeBytes, 1);
      if (victim === undefined || share < victim.share) victim = { number, sizeBytes, share };
    }
    const isOver = totalBytes > startFactor * live + this.#segmentSizeBytes / 2;
    const pays = victim !== undefined && (victim.share === 0 || (isOver && victim.share < 1 / startFactor));
    return { deadBytes: totalBytes - live, victim: pays ? victim : undefined };
  }

  /** Writes the live records of a segment again; returns the bytes that they take. */
  async #relocate(segment: number, onDamage: ((range: DamagedRange) => void) | undefined): Promise<number> {
    const { folder, index, inSequence } = this.#parts;
    let copiedBytes = 0;
    // Damage ends the run: a segment that cannot be read to its end is never dropped.
    await cutSegment(folder, segment);
    const end = await endOfIndexedSegment(index, folder, segment);
    for await (const batch of scanSegment(folder, segment, { end, onDamage })) {
      for (const piece of piecesOf(batch)) {
        if (this.#stopped) return copiedBytes;
        await inSequence(async () => {
          const live = piece.flatMap((placed) => livePartsOf(index, placed));
          if (live.length > 0) await this.#parts.commit(live);
          for (const record of live) copiedBytes += recordSizeBytes(record);
        });
      }
    }
    return copiedBytes;
  }

  /** False if a backup keeps the segment; its relocated records are dead by now. */
  async #drop(segment: number): Promise<boolean> {
    const { folder, index, inSequence } = this.#parts;
    const dropped = await inSequence(() =>
      unlessRetained(folder, async () => {
        index.forgetSegment(segment);
        await removeSegment(folder, segment);
      }),
    );
    return dropped !== undefined;
  }
}

/** Splits records into pieces that one step relocates, so that other changes run in between. */
function* piecesOf(records: readonly PlacedRecord[]): Iterable<readonly PlacedRecord[]> {
  let piece: PlacedRecord[] = [];
  let size = 0;
  for (const placed of records) {
    piece.push(placed);
    size += Math.max(placed.length, recordHeaderSizeBytes);
    if (size < relocatedAtOnceBytes) continue;
    yield piece;
    piece = [];
    size = 0;
  }
  if (piece.length > 0) yield piece;
}
