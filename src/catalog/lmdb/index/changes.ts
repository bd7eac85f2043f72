import { crc32 } from 'node:zlib';
import { digestToBytes, type Digest } from '../../../core/digest.ts';
import { inlineOffset, recordHeaderSizeBytes, type JournalRecord } from '../../journal/record.ts';
import type { IndexTables } from './tables.ts';
import {
  decodeEntryRow,
  decodeRemovalRow,
  decodeSegmentRow,
  encodeBlobRow,
  encodeEntryRow,
  encodeRemovalRow,
  encodeSegmentRow,
  encodeTotals,
  segmentKey,
  totalsKey,
  unreferencedKey,
  type BlobRow,
  type ContentPlace,
  type IndexTotals,
} from './rows.ts';

/** A record with the place it was written to. */
export interface PlacedRecord {
  readonly record: JournalRecord;
  readonly segment: number;
  readonly offset: number;
  readonly length: number;
}

const noValue = Buffer.alloc(0);

/**
 * The one place that knows how a record of the journal changes the rows of the index. Every method runs inside a transaction of LMDB.
 *
 * Invariant: between two transactions the totals are those of the rows, and nothing waits to be counted for a
 * segment. A transaction that changes rows ends with `writeSums`, one that fails with `discard`.
 */
export class IndexChanges {
  readonly #tables: IndexTables;
  #knownTotals: IndexTotals | undefined;
  readonly #segmentChanges = new Map<number, { size: number; live: number }>();

  constructor(tables: IndexTables) {
    this.#tables = tables;
  }

  /** What the transactions so far, and the one under way, have come to. */
  get totals(): Readonly<IndexTotals> {
    return this.#totals;
  }

  /** Goes on from what the tables hold. */
  startOver(): void {
    this.#knownTotals = this.#tables.readTotals();
  }

  get #totals(): IndexTotals {
    return (this.#knownTotals ??= this.#tables.readTotals());
  }

  /** Takes the sum that an index of an older release does not have; counted over all its rows. */
  complete(uniqueLogicalBytes: number): void {
    this.#totals.uniqueLogicalBytes = uniqueLogicalBytes;
  }

  /** The end of the journal that the rows stand for now. */
  reach(end: { readonly segment: number; readonly offset: number }): void {
    this.#totals.segment = end.segment;
    this.#totals.offset = end.offset;
  }

  /** The last step of a transaction: writes what was counted on its way. */
  writeSums(): void {
    this.#writeSegmentChanges();
    this.#tables.state.putSync(totalsKey, encodeTotals(this.#totals));
  }

  /** Counts as before a transaction that failed. */
  discard(totalsBefore: IndexTotals): void {
    this.#knownTotals = totalsBefore;
    this.#segmentChanges.clear();
  }

  apply(placed: PlacedRecord): void {
    const { record, segment, length } = placed;
    this.#account(segment, length, 0);
    switch (record.type) {
      case 'put':
        this.#applyPut(record, placed);
        break;
      case 'blob': {
        const known = this.#tables.blob(record.digest);
        if (known === undefined) this.#addBlob(record, placed, 0);
        else this.#takeContent(record, placed, known);
        break;
      }
      case 'remove':
        this.#removeEntry(record, placed);
        break;
      case 'mark': {
        const row = this.#tables.blob(record.digest);
        if (row) this.putBlob(record.digest, { ...row, damaged: record.damaged });
        break;
      }
    }
  }

  putBlob(digest: Digest, row: BlobRow): void {
    this.#tables.blobs.putSync(digestToBytes(digest), encodeBlobRow(row));
  }

  dropBlob(digest: Digest, row: BlobRow): void {
    this.#tables.blobs.removeSync(digestToBytes(digest));
    this.#totals.blobs -= 1;
    this.#totals.storedBytes -= row.storedSize;
    this.#countContent(-row.logicalSize);
    if (row.references === 0) {
      this.#tables.unreferenced.removeSync(unreferencedKey(row.unreferencedSinceMs, digest));
      this.#totals.unreferencedBlobs -= 1;
    }
    if (row.place.kind === 'journal') this.#account(row.segment, 0, -row.storedSize);
  }

  forgetRemoval(key: Buffer): void {
    const bytes = this.#tables.removals.getBinaryFast(key);
    if (bytes === undefined) return;
    this.#account(
      this.#tables.decode(decodeRemovalRow, bytes).segment,
      0,
      -(recordHeaderSizeBytes + key.length),
    );
    this.#tables.removals.removeSync(key);
  }

  #applyPut(record: Extract<JournalRecord, { type: 'put' }>, placed: PlacedRecord): void {
    const known = this.#tables.blob(record.digest);
    // A new blob is written once, with its first reference, not as one that waits for it: four writes less.
    if (known === undefined) this.#addBlob(record, placed, 1);
    else this.#takeContent(record, placed, known);
    this.#pointTo(record, placed, known !== undefined);
  }

  #addBlob(
    record: Extract<JournalRecord, { type: 'put' | 'blob' }>,
    placed: PlacedRecord,
    references: 0 | 1,
  ): void {
    const { digest, encoding, logicalSize, storedSize, damaged, timeMs } = record;
    const place = placeOf(record, placed);
    const lost = place.kind === 'lost';
    this.#totals.blobs += 1;
    this.#totals.storedBytes += storedSize;
    this.#countContent(logicalSize);
    if (references === 0) {
      this.#totals.unreferencedBlobs += 1;
      this.#tables.unreferenced.putSync(unreferencedKey(timeMs, digest), noValue);
    } else {
      this.#totals.logicalBytes += logicalSize;
    }
    if (place.kind === 'journal') this.#account(placed.segment, 0, storedSize);
    this.putBlob(digest, {
      encoding,
      logicalSize,
      storedSize,
      references,
      unreferencedSinceMs: references === 0 ? timeMs : 0,
      damaged,
      segment: lost ? 0 : placed.segment,
      offset: lost ? 0 : placed.offset,
      place,
    });
  }

  /** Makes a record's content that of its blob; a record without content leaves a blob that is known as it is. */
  #takeContent(
    record: Extract<JournalRecord, { type: 'put' | 'blob' }>,
    placed: PlacedRecord,
    known: BlobRow,
  ): void {
    if (record.content.kind === 'none') return;
    const { segment, offset } = placed;
    const { digest, encoding, logicalSize, storedSize, damaged } = record;
    const place = placeOf(record, placed);
    if (known.place.kind === 'journal') this.#account(known.segment, 0, -known.storedSize);
    if (place.kind === 'journal') this.#account(segment, 0, storedSize);
    this.#totals.storedBytes += storedSize - known.storedSize;
    this.#countContent(logicalSize - known.logicalSize);
    this.#totals.logicalBytes += (logicalSize - known.logicalSize) * known.references;
    this.putBlob(digest, { ...known, encoding, logicalSize, storedSize, damaged, segment, offset, place });
  }

  /** `counts`: whether the blob's row still has to be given this reference. */
  #pointTo(record: Extract<JournalRecord, { type: 'put' }>, placed: PlacedRecord, counts: boolean): void {
    const key = Buffer.from(record.name);
    const bytes = this.#tables.entries.getBinaryFast(key);
    const before = bytes && this.#tables.decode(decodeEntryRow, bytes);
    const { version, digest, timeMs } = record;
    const { segment, offset } = placed;
    this.#tables.entries.putSync(key, encodeEntryRow({ version, segment, offset, digest }));
    this.#account(segment, 0, recordHeaderSizeBytes + key.length);
    if (before) this.#account(before.segment, 0, -(recordHeaderSizeBytes + key.length));
    else {
      this.#totals.entries += 1;
      this.forgetRemoval(key);
    }
    if (before?.digest === digest) return;
    if (counts) this.#addReference(digest);
    if (before) this.#dropReference(before.digest, timeMs);
  }

  #removeEntry(record: Extract<JournalRecord, { type: 'remove' }>, placed: PlacedRecord): void {
    const { name, version, timeMs } = record;
    const { segment, offset } = placed;
    const key = Buffer.from(name);
    this.forgetRemoval(key);
    const origin = record.origin ?? segment;
    this.#tables.removals.putSync(key, encodeRemovalRow({ version, timeMs, segment, offset, origin }));
    this.#account(segment, 0, recordHeaderSizeBytes + key.length);
    const bytes = this.#tables.entries.getBinaryFast(key);
    if (bytes === undefined) return;
    const before = this.#tables.decode(decodeEntryRow, bytes);
    this.#tables.entries.removeSync(key);
    this.#totals.entries -= 1;
    this.#account(before.segment, 0, -(recordHeaderSizeBytes + key.length));
    this.#dropReference(before.digest, timeMs);
  }

  #addReference(digest: Digest): void {
    const row = this.#tables.blob(digest);
    if (row === undefined) return;
    if (row.references === 0) {
      this.#tables.unreferenced.removeSync(unreferencedKey(row.unreferencedSinceMs, digest));
      this.#totals.unreferencedBlobs -= 1;
    }
    this.#totals.logicalBytes += row.logicalSize;
    this.putBlob(digest, { ...row, references: row.references + 1, unreferencedSinceMs: 0 });
  }

  #dropReference(digest: Digest, timeMs: number): void {
    const row = this.#tables.blob(digest);
    if (row === undefined) return;
    const references = row.references - 1;
    this.#totals.logicalBytes -= row.logicalSize;
    if (references === 0) {
      this.#tables.unreferenced.putSync(unreferencedKey(timeMs, digest), noValue);
      this.#totals.unreferencedBlobs += 1;
    }
    this.putBlob(digest, { ...row, references, unreferencedSinceMs: references === 0 ? timeMs : 0 });
  }

  #countContent(logicalBytes: number): void {
    if (this.#totals.uniqueLogicalBytes !== undefined) this.#totals.uniqueLogicalBytes += logicalBytes;
  }

  #account(segment: number, size: number, live: number): void {
    if (segment === 0) return;
    const change = this.#segmentChanges.get(segment);
    if (change === undefined) this.#segmentChanges.set(segment, { size, live });
    else {
      change.size += size;
      change.live += live;
    }
  }

  #writeSegmentChanges(): void {
    for (const [segment, change] of this.#segmentChanges) {
      const key = segmentKey(segment);
      const bytes = this.#tables.segments.getBinaryFast(key);
      // Nothing is counted for a segment that is gone: a rebuild may know entries whose segment was lost.
      if (bytes === undefined && change.size === 0) continue;
      const row = bytes ? this.#tables.decode(decodeSegmentRow, bytes) : { sizeBytes: 0, liveBytes: 0 };
      this.#tables.segments.putSync(
        key,
        encodeSegmentRow({
          sizeBytes: row.sizeBytes + change.size,
          liveBytes: row.liveBytes + change.live,
        }),
      );
    }
    this.#segmentChanges.clear();
  }
}

function placeOf(
  record: Extract<JournalRecord, { type: 'put' | 'blob' }>,
  placed: PlacedRecord,
): ContentPlace {
  const { content } = record;
  switch (content.kind) {
    case 'inline': {
      const nameSize = record.type === 'put' ? Buffer.byteLength(record.name) : 0;
      const bytesOffset = placed.offset + inlineOffset(nameSize);
      return { kind: 'journal', bytesOffset, crc: crc32(content.bytes) };
    }
    case 'object':
      return content;
    case 'none':
      return { kind: 'lost' };
  }
}
