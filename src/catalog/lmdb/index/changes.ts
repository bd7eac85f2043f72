import { crc32 } from 'node:zlib';
import { digestToBytes, type Digest } from '../../../core/digest.ts';
import type { FileName } from '../../../core/file-name.ts';
import {
  inlineOffset,
  type JournalRecord,
  type PlacedRecord,
  type RecordPosition,
} from '../../journal/record.ts';
import { liveBytesOfBlob, liveBytesOfMark, liveBytesOfName } from './live-bytes.ts';
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
  type EntryRow,
  type IndexTotals,
} from './rows.ts';

type PutRecord = Extract<JournalRecord, { type: 'put' }>;
type RemoveRecord = Extract<JournalRecord, { type: 'remove' }>;
type MarkRecord = Extract<JournalRecord, { type: 'mark' }>;
type BlobRecord = Extract<JournalRecord, { type: 'put' | 'blob' }>;

const noValue = Buffer.alloc(0);
const knownDirectoriesMax = 8192;

/**
 * Applies records of the journal to the rows of the index; the only place that knows how. Every method runs inside a
 * transaction of LMDB.
 *
 * Invariant: between two transactions the totals are those of the rows, and no change of a segment's sums is pending. A
 * transaction that changes rows ends with `writeSums`, one that fails with `discard`.
 */
export class IndexChanges {
  readonly #tables: IndexTables;
  #knownTotals: IndexTotals | undefined;
  readonly #segmentChanges = new Map<number, { size: number; live: number }>();
  /** Directories in which a file was stored and none was removed since: they are no files. */
  readonly #directories = new Set<string>();

  constructor(tables: IndexTables) {
    this.#tables = tables;
  }

  /** The totals after the transactions so far and the one under way. */
  get totals(): Readonly<IndexTotals> {
    return this.#totals;
  }

  /** Whether a directory ("/a") is known to hold a file. */
  isKnownDirectory(path: string): boolean {
    return this.#directories.has(path);
  }

  /** Continues from what the tables hold, which another process may have changed. */
  startOver(): void {
    this.discard(this.#tables.readTotals());
  }

  get #totals(): IndexTotals {
    return (this.#knownTotals ??= this.#tables.readTotals());
  }

  /** Sets the sum that an index of an older release lacks. */
  complete(uniqueLogicalBytes: number): void {
    this.#totals.uniqueLogicalBytes = uniqueLogicalBytes;
  }

  /** Sets the end of the journal that the rows reflect. */
  reach({ segment, offset }: RecordPosition): void {
    this.#totals.segment = segment;
    this.#totals.offset = offset;
  }

  /** Writes the totals and the sums of the segments; the last step of a transaction. */
  writeSums(): void {
    this.#writeSegmentChanges();
    this.#tables.state.putSync(totalsKey, encodeTotals(this.#totals));
  }

  /** Restores the totals of before a transaction that failed. */
  discard(totalsBefore: IndexTotals): void {
    this.#knownTotals = totalsBefore;
    this.#segmentChanges.clear();
    this.#directories.clear();
  }

  apply(placed: PlacedRecord): void {
    const { record, segment, length } = placed;
    this.#account(segment, length, 0);
    switch (record.type) {
      case 'put': {
        const isKnown = this.#applyBlob(record, placed, 1);
        this.#pointTo(record, placed, isKnown);
        break;
      }
      case 'blob':
        this.#applyBlob(record, placed, 0);
        break;
      case 'remove':
        this.#removeEntry(record, placed);
        break;
      case 'mark':
        this.#applyMark(record, placed);
        break;
    }
  }

  putBlob(digest: Digest, row: BlobRow): void {
    this.#tables.blobs.putSync(digestToBytes(digest), encodeBlobRow(row));
  }

  dropBlob(digest: Digest, row: BlobRow): void {
    this.#tables.blobs.removeSync(digestToBytes(digest));
    this.#totals.blobs -= 1;
    this.#totals.storedBytes -= row.storedSize;
    this.#countUnique(-row.logicalSize);
    if (row.references === 0) this.#dropUnreferenced(digest, row.unreferencedSinceMs);
    this.#accountBlob(row, -1);
  }

  forgetRemoval(key: Buffer): void {
    const bytes = this.#tables.removals.getBinaryFast(key);
    if (bytes === undefined) return;
    const { segment } = this.#tables.decode(decodeRemovalRow, bytes);
    this.#account(segment, 0, -liveBytesOfName(key));
    this.#tables.removals.removeSync(key);
  }

  /**
   * Stores the blob of a record; returns whether it was known. A new blob is written once, with its first reference, not
   * first as an unreferenced one: four writes less.
   */
  #applyBlob(record: BlobRecord, placed: PlacedRecord, references: 0 | 1): boolean {
    const known = this.#tables.blob(record.digest);
    if (known === undefined) this.#addBlob(record, placed, references);
    else if (record.content.kind !== 'none') this.#replaceContent(record, placed, known);
    return known !== undefined;
  }

  #addBlob(record: BlobRecord, placed: PlacedRecord, references: 0 | 1): void {
    const { digest, encoding, logicalSize, storedSize, damaged, timeMs } = record;
    const place = placeOf(record, placed);
    const isLost = place.kind === 'lost';
    this.#totals.blobs += 1;
    this.#totals.storedBytes += storedSize;
    this.#countUnique(logicalSize);
    if (references === 0) this.#addUnreferenced(digest, timeMs);
    else this.#totals.logicalBytes += logicalSize;
    const row: BlobRow = {
      encoding,
      logicalSize,
      storedSize,
      references,
      unreferencedSinceMs: references === 0 ? timeMs : 0,
      damaged,
      segment: isLost ? 0 : placed.segment,
      offset: isLost ? 0 : placed.offset,
      place,
      counted: !isLost,
      alone: !isLost && record.type === 'blob',
      mark: undefined,
    };
    this.#accountBlob(row, 1);
    this.putBlob(digest, row);
  }

  #replaceContent(record: BlobRecord, placed: PlacedRecord, known: BlobRow): void {
    const { segment, offset } = placed;
    const { digest, encoding, logicalSize, storedSize, damaged } = record;
    const place = placeOf(record, placed);
    this.#totals.storedBytes += storedSize - known.storedSize;
    this.#countUnique(logicalSize - known.logicalSize);
    this.#totals.logicalBytes += (logicalSize - known.logicalSize) * known.references;
    const described = { ...known, encoding, logicalSize, storedSize, damaged, segment, offset, place };
    const alone = record.type === 'blob';
    this.#changeBlob(digest, known, { ...described, counted: true, alone, mark: undefined });
  }

  #applyMark({ digest, damaged }: MarkRecord, { segment, offset }: PlacedRecord): void {
    const row = this.#tables.blob(digest);
    if (row === undefined) return;
    // A lost blob is damaged whatever its marks say, so it needs none.
    const mark = row.place.kind === 'lost' ? undefined : { segment, offset };
    this.#changeBlob(digest, row, { ...row, damaged, mark });
  }

  /** `counts`: whether this reference must still be added to the blob's row. */
  #pointTo(record: PutRecord, placed: PlacedRecord, counts: boolean): void {
    const { name, version, digest, timeMs } = record;
    const { segment, offset } = placed;
    const key = Buffer.from(name);
    const before = this.#entryAt(key);
    this.#tables.entries.putSync(key, encodeEntryRow({ version, segment, offset, digest }));
    this.#account(segment, 0, liveBytesOfName(key));
    if (before) this.#account(before.segment, 0, -liveBytesOfName(key));
    else {
      this.#totals.entries += 1;
      this.forgetRemoval(key);
      this.#rememberDirectory(name);
    }
    if (before?.digest === digest) {
      this.#leaveBlob(before);
      return;
    }
    if (counts) this.#addReference(digest);
    if (before) this.#dropReference(before, timeMs);
  }

  #removeEntry(record: RemoveRecord, placed: PlacedRecord): void {
    const { name, version, timeMs } = record;
    const { segment, offset } = placed;
    const key = Buffer.from(name);
    this.#directories.delete(parentOf(name));
    this.forgetRemoval(key);
    const origin = record.origin ?? segment;
    this.#tables.removals.putSync(key, encodeRemovalRow({ version, timeMs, segment, offset, origin }));
    this.#account(segment, 0, liveBytesOfName(key));
    const before = this.#entryAt(key);
    if (before === undefined) return;
    this.#tables.entries.removeSync(key);
    this.#totals.entries -= 1;
    this.#account(before.segment, 0, -liveBytesOfName(key));
    this.#dropReference(before, timeMs);
  }

  #entryAt(key: Buffer) {
    const bytes = this.#tables.entries.getBinaryFast(key);
    return bytes && this.#tables.decode(decodeEntryRow, bytes);
  }

  #addReference(digest: Digest): void {
    const row = this.#tables.blob(digest);
    if (row === undefined) return;
    if (row.references === 0) this.#dropUnreferenced(digest, row.unreferencedSinceMs);
    this.#totals.logicalBytes += row.logicalSize;
    this.putBlob(digest, { ...row, references: row.references + 1, unreferencedSinceMs: 0 });
  }

  /** Takes away the reference of an entry that is gone. */
  #dropReference(entry: EntryRow, timeMs: number): void {
    const { digest } = entry;
    const row = this.#tables.blob(digest);
    if (row === undefined) return;
    const references = row.references - 1;
    this.#totals.logicalBytes -= row.logicalSize;
    if (references === 0) this.#addUnreferenced(digest, timeMs);
    const unreferencedSinceMs = references === 0 ? timeMs : 0;
    this.#changeBlob(digest, row, { ...withoutEntry(row, entry), references, unreferencedSinceMs });
  }

  /** Notes that an entry has moved to another record, while its reference to the blob stays. */
  #leaveBlob(entry: EntryRow): void {
    const row = this.#tables.blob(entry.digest);
    if (row === undefined) return;
    const left = withoutEntry(row, entry);
    if (left !== row) this.#changeBlob(entry.digest, row, left);
  }

  #changeBlob(digest: Digest, before: BlobRow, after: BlobRow): void {
    this.#accountBlob(before, -1);
    this.#accountBlob(after, 1);
    this.putBlob(digest, after);
  }

  #accountBlob(row: BlobRow, sign: 1 | -1): void {
    this.#account(row.segment, 0, sign * liveBytesOfBlob(row));
    if (row.mark !== undefined) this.#account(row.mark.segment, 0, sign * liveBytesOfMark);
  }

  #addUnreferenced(digest: Digest, sinceMs: number): void {
    this.#tables.unreferenced.putSync(unreferencedKey(sinceMs, digest), noValue);
    this.#totals.unreferencedBlobs += 1;
  }

  #dropUnreferenced(digest: Digest, sinceMs: number): void {
    this.#tables.unreferenced.removeSync(unreferencedKey(sinceMs, digest));
    this.#totals.unreferencedBlobs -= 1;
  }

  #countUnique(logicalBytes: number): void {
    if (this.#totals.uniqueLogicalBytes !== undefined) this.#totals.uniqueLogicalBytes += logicalBytes;
  }

  #rememberDirectory(name: FileName): void {
    if (this.#directories.size >= knownDirectoriesMax) this.#directories.clear();
    this.#directories.add(parentOf(name));
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
      // A segment that is gone gets no row: a rebuild may know entries whose segment was lost.
      if (bytes === undefined && change.size === 0) continue;
      const row = bytes ? this.#tables.decode(decodeSegmentRow, bytes) : { sizeBytes: 0, liveBytes: 0 };
      const sizeBytes = row.sizeBytes + change.size;
      const liveBytes = row.liveBytes + change.live;
      this.#tables.segments.putSync(key, encodeSegmentRow({ sizeBytes, liveBytes }));
    }
    this.#segmentChanges.clear();
  }
}

/** The row of a blob after an entry has left its record, if that is the record of the blob's bytes. */
function withoutEntry(row: BlobRow, entry: RecordPosition): BlobRow {
  const wasThere = row.segment === entry.segment && row.offset === entry.offset;
  return wasThere ? { ...row, counted: true, alone: true } : row;
}

/** "/a" for "/a/b"; empty for "/b". */
function parentOf(name: FileName): string {
  return name.slice(0, name.lastIndexOf('/'));
}

function placeOf(record: BlobRecord, placed: PlacedRecord): ContentPlace {
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
