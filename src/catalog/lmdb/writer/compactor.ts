import { SingleFlight } from '../../../core/concurrency.ts';
import { fromSystemError } from '../../../core/errors.ts';
import { removalMemoryMs, segmentSizeBytes } from '../../../core/limits.ts';
import { syncFolder } from '../../../fs/folders.ts';
import { moveFile } from '../../../fs/copy-and-move.ts';
import { recordHeaderSizeBytes, type JournalRecord, type PlacedRecord } from '../../journal/record.ts';
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
import { isRetained, unlessRetained } from './retention.ts';
import { endOfIndexedSegment } from './sealed-segments.ts';

/**
 * The journal may take 1.5 times its live records, plus about one segment. Compaction begins earlier, so that the copies
 * that it writes stay within.
 */
const startFactor = 1.35;
const forgettingIntervalMs = 3_600_000;
/** Removals looked at in one step: about a millisecond. */
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
 * Keeps the journal within its bound: copies the live records of mostly dead segments to the end of the journal and
 * removes these segments.
 *
 * Invariant: a segment is removed only after, in steps of the sequence, all its records were looked at and the live ones
 * written again. A record is live if the index points to it: as an entry, as the position of a blob's bytes, as a removal
 * that is remembered, as a mark that still holds. A removal is remembered until its name is stored again, or until it is
 * old and no segment exists that may hold a put that it cancels. Each copy is made in the sequence, at a moment when it is
 * true, so replaying it at its later position gives the same state.
 */
export class Compactor {
  readonly #parts: CompactorParts;
  readonly #segmentSizeBytes: number;
  readonly #runs = new SingleFlight<void>();
  #stopped = false;
  #forgotMs = -Infinity;

  constructor(parts: CompactorParts) {
    this.#parts = parts;
    this.#segmentSizeBytes = parts.segmentSizeBytes ?? segmentSizeBytes;
  }

  /** Whether compaction pays. */
  due(): boolean {
    return !this.#stopped && this.#runs.running === undefined && this.#victim() !== undefined;
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

  /** Compacts until nothing is due; one run at a time. */
  run(): Promise<void> {
    return this.#runs.run(() => this.#compact());
  }

  stop(): void {
    this.#stopped = true;
  }

  /** Resolves when no run is under way; the caller of a run gets its failure. */
  async idle(): Promise<void> {
    await this.#runs.running?.catch(() => undefined);
  }

  async #compact(): Promise<void> {
    for (let victim = this.#victim(); victim !== undefined && !this.#stopped; victim = this.#victim()) {
      if (await isRetained(this.#parts.folder)) return;
      await this.#relocate(victim, undefined);
      if (this.#stopped || !(await this.#drop(victim))) return;
    }
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

  /** The sealed segment with the smallest live share, if the journal exceeds its bound or that share is zero. */
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
    // Damage ends the run: a segment that cannot be read to its end is never dropped.
    await cutSegment(folder, segment);
    const end = await endOfIndexedSegment(index, folder, segment);
    for await (const batch of scanSegment(folder, segment, { end, onDamage })) {
      for (const piece of piecesOf(batch)) {
        if (this.#stopped) return;
        await inSequence(async () => {
          const live = piece.flatMap((placed) => this.#liveParts(placed));
          if (live.length > 0) await this.#parts.commit(live);
        });
      }
    }
  }

  /** The live parts of a record, as a record to write again. */
  #liveParts({ record, segment, offset }: PlacedRecord): JournalRecord[] {
    const { index } = this.#parts;
    const isHere = (row: { segment: number; offset: number } | undefined): boolean =>
      row !== undefined && row.segment === segment && row.offset === offset;
    if (record.type === 'remove') {
      const removal = index.removal(record.name);
      return removal !== undefined && isHere(removal) ? [{ ...record, origin: removal.origin }] : [];
    }
    const blob = index.blob(record.digest);
    // A mark is kept while its blob exists, as another segment may hold an older mark.
    if (record.type === 'mark') return blob === undefined ? [] : [{ ...record, damaged: blob.damaged }];
    const carries = isHere(blob) && record.content.kind !== 'none';
    const damaged = blob?.damaged ?? false;
    if (record.type === 'put' && isHere(index.entry(record.name))) {
      return [carries ? { ...record, damaged } : { ...record, damaged, content: { kind: 'none' } }];
    }
    if (!carries) return [];
    const { timeMs, digest, encoding, logicalSize, storedSize, content } = record;
    return [{ type: 'blob', timeMs, digest, encoding, logicalSize, storedSize, content, damaged }];
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
