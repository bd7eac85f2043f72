import { fromSystemError } from '../../../core/errors.ts';
import { removalMemoryMs, segmentSizeBytes } from '../../../core/limits.ts';
import { syncFolder } from '../../../fs/folders.ts';
import { moveFile } from '../../../fs/copy-and-move.ts';
import { recordHeaderSizeBytes, type JournalRecord } from '../../journal/record.ts';
import {
  cutSegment,
  cutSegmentIfThere,
  listSegments,
  removeSegment,
  scanSegment,
  type DamagedRange,
  type ScannedRecord,
} from '../../journal/segment.ts';
import { segmentPath } from '../../journal/segment-header.ts';
import type { IndexDatabase } from '../index/database.ts';
import { isRetained, unlessRetained } from './retention.ts';
import { endOfIndexedSegment } from './sealed-segments.ts';

/**
 * The journal may take 1.5 times what is live in it, plus about one segment. Compaction begins earlier than that, so
 * that the copies it writes stay within.
 */
const startFactor = 1.35;
const forgettingIntervalMs = 3_600_000;
/** Looked at in one step: about a millisecond. */
const removalsAtOnce = 1000;
const relocatedAtOnceBytes = 512 * 1024;

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
 * Keeps the journal within its bound: copies what is live in mostly dead segments to the end of the journal and
 * removes these.
 *
 * Invariant: a segment is removed only after, in one step of the sequence each, all its records were looked at
 * and the live ones written again. A record is live if the index points to it: as an entry, as the carrier of a
 * content, as a removal that is remembered, as a mark that still holds. A removal is remembered until its name
 * is stored again, or until it is old and no segment is there any more that may hold a put which it ended. Because each copy is
 * made in the sequence, at a moment when it says what is true, replaying it later in the journal than where
 * it first stood gives the same state.
 */
export class Compactor {
  readonly #parts: CompactorParts;
  readonly #segmentSizeBytes: number;
  #running: Promise<void> | undefined;
  #stopped = false;
  #forgotMs = -Infinity;

  constructor(parts: CompactorParts) {
    this.#parts = parts;
    this.#segmentSizeBytes = parts.segmentSizeBytes ?? segmentSizeBytes;
  }

  /** Whether there is work that is worth doing. */
  due(): boolean {
    return !this.#stopped && this.#running === undefined && this.#victim() !== undefined;
  }

  /** Forgets removals that need not be remembered any more, at most once an hour. */
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

  /** Compacts until nothing is due; one run at a time. */
  run(): Promise<void> {
    this.#running ??= this.#runAll().finally(() => {
      this.#running = undefined;
    });
    return this.#running;
  }

  stop(): void {
    this.#stopped = true;
  }

  /** Resolves when no run is under way; a failed run has told its caller. */
  async idle(): Promise<void> {
    await this.#running?.catch(() => undefined);
  }

  async #runAll(): Promise<void> {
    for (let victim = this.#victim(); victim !== undefined && !this.#stopped; victim = this.#victim()) {
      if (await isRetained(this.#parts.folder)) return;
      await this.#relocate(victim, undefined);
      if (this.#stopped || !(await this.#drop(victim))) return;
    }
  }

  /** Relocates what can be read and is live in a segment, damaged or not, and moves its file away. */
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

  /** The sealed segment with the smallest live part, if the journal is over its bound or that part is nothing. */
  #victim(): number | undefined {
    const active = this.#parts.activeSegment();
    let total = 0;
    let live = 0;
    let victim: { number: number; share: number } | undefined;
    for (const row of this.#parts.index.segmentRows()) {
      total += row.sizeBytes;
      live += row.liveBytes;
      if (row.number >= active) continue;
      const share = row.liveBytes / Math.max(row.sizeBytes, 1);
      if (victim === undefined || share < victim.share) victim = { number: row.number, share };
    }
    if (victim === undefined) return undefined;
    const over = total > startFactor * live + this.#segmentSizeBytes / 2 && victim.share < 1 / startFactor;
    return over || victim.share === 0 ? victim.number : undefined;
  }

  async #relocate(segment: number, onDamage: ((range: DamagedRange) => void) | undefined): Promise<void> {
    const { folder, index, inSequence } = this.#parts;
    // Damage in it ends the run: a segment that cannot be read to its end is never dropped.
    await cutSegment(folder, segment);
    const end = await endOfIndexedSegment(index, folder, segment);
    const scan = scanSegment(folder, segment, { end, onDamage });
    for await (const batch of scan) {
      for (const piece of piecesOf(batch)) {
        if (this.#stopped) return;
        await inSequence(async () => {
          const live = piece.flatMap((scanned) => this.#liveParts(scanned, segment));
          if (live.length > 0) await this.#parts.commit(live);
        });
      }
    }
  }

  /** What of a record is still needed, as a record to write again. */
  #liveParts(scanned: ScannedRecord, segment: number): JournalRecord[] {
    const { record, offset } = scanned;
    const { index } = this.#parts;
    if (record.type === 'remove') {
      const removal = index.removal(record.name);
      const remembered = removal !== undefined && removal.segment === segment && removal.offset === offset;
      return remembered ? [{ ...record, origin: removal.origin }] : [];
    }
    const blob = index.blob(record.digest);
    // A mark is kept while its blob is there, as an older mark may stand in another segment.
    if (record.type === 'mark') return blob === undefined ? [] : [{ ...record, damaged: blob.damaged }];
    const carries =
      blob !== undefined &&
      blob.segment === segment &&
      blob.offset === offset &&
      record.content.kind !== 'none';
    const entry = record.type === 'put' ? index.entry(record.name) : undefined;
    const named = entry !== undefined && entry.segment === segment && entry.offset === offset;
    const damaged = blob?.damaged ?? false;
    if (record.type === 'put' && named) {
      return [carries ? { ...record, damaged } : { ...record, damaged, content: { kind: 'none' } }];
    }
    if (!carries) return [];
    const { timeMs, digest, encoding, logicalSize, storedSize, content } = record;
    return [{ type: 'blob', timeMs, digest, encoding, logicalSize, storedSize, content, damaged }];
  }

  /** False where a backup keeps the segment; what was relocated from it is dead in it by now. */
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

/** Splits records into pieces that one step relocates, so that other changes get their turn in between. */
function* piecesOf(records: readonly ScannedRecord[]): Iterable<readonly ScannedRecord[]> {
  let piece: ScannedRecord[] = [];
  let size = 0;
  for (const scanned of records) {
    piece.push(scanned);
    size += Math.max(scanned.length, recordHeaderSizeBytes);
    if (size < relocatedAtOnceBytes) continue;
    yield piece;
    piece = [];
    size = 0;
  }
  if (piece.length > 0) yield piece;
}
