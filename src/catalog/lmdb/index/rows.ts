import type { BlobDescription } from '../../../core/blob.ts';
import { digestFromBytes, type Digest } from '../../../core/digest.ts';
import type { FileName } from '../../../core/file-name.ts';
import type { FileVersion } from '../../../core/file-version.ts';
import { recordSizeMaxBytes, type RecordPosition } from '../../journal/record.ts';
import { damagedRow } from './failures.ts';

// The rows of the index, byte by byte. Numbers are little endian, except in keys, whose order requires big endian.
//
// The buffer that lmdb returns is often longer than the row: only its own `length` property marks the end of the row, and
// the methods of Buffer read past it. So every decoder checks `length`, reads at fixed offsets below it, and passes both
// bounds of a text. A value that is never written is damage of the index, which is then rebuilt from the journal: nothing
// of such a row is used.
//
// entries   key: the name, UTF-8
//   offset  size
//        0     6  version (signed)
//        6     4  segment of the record that stored it
//       10     4  offset of that record
//       14    32  digest
//
// blobs     key: the digest, 32 bytes
//        0     1  flags: bit 0 gzip; bits 1-2 where the bytes are: 0 lost, 1 in the journal, 2 in the blob store;
//                 bit 3 damaged; bits 4-6 `counted`, `alone`, and whether there is a `mark`
//        1     6  logical size
//        7     6  stored size
//       13     5  number of entries that refer to it
//       18     6  when the last of them was removed, milliseconds since 1970; zero if there are any
//       24     4  segment of the record with the bytes or their key
//       28     4  offset of that record
//       32     8  inline bytes: their offset and their crc32; blob store: segment and offset of the mark, or zeros
//       40     …  inline bytes: segment and offset of the mark, if there is one; blob store: the key
//
// removals       key: the name
//        0     6  version (signed)
//        6     6  time, milliseconds since 1970
//       12     4  segment of the record
//       16     4  offset of the record
//       20     4  origin
//
// unreferenced   key: since when, 6 bytes big endian, then the digest; no value
// segments       key: number, 4 bytes big endian; value: size of its records, and of those still needed, as doubles
// state          key: "totals"; value: the numbers of `totalsFields`, as doubles

export interface EntryRow extends RecordPosition {
  readonly version: FileVersion;
  readonly digest: Digest;
}

const entryRowSizeBytes = 46;
const entryDigestOffset = 14;

export function encodeEntryRow(row: EntryRow): Buffer {
  const bytes = Buffer.allocUnsafe(entryRowSizeBytes);
  bytes.writeIntLE(row.version, 0, 6);
  bytes.writeUInt32LE(row.segment, 6);
  bytes.writeUInt32LE(row.offset, 10);
  bytes.write(row.digest, entryDigestOffset, 'hex');
  return bytes;
}

export function decodeEntryRow(bytes: Buffer): EntryRow {
  return {
    version: versionOfEntryRow(bytes),
    segment: bytes.readUInt32LE(6),
    offset: bytes.readUInt32LE(10),
    digest: digestFromBytes(bytes, entryDigestOffset),
  };
}

export function versionOfEntryRow(bytes: Buffer): FileVersion {
  if (bytes.length !== entryRowSizeBytes) throw damagedRow('entry');
  return bytes.readIntLE(0, 6);
}

export type ContentPlace =
  /** The record that had it is gone: damage. */
  | { readonly kind: 'lost' }
  | { readonly kind: 'journal'; readonly bytesOffset: number; readonly crc: number }
  | { readonly kind: 'object'; readonly key: string };

/** The position is that of the record with the bytes or their key; zeros if they are lost. */
export interface BlobRow extends Omit<BlobDescription, 'digest'>, RecordPosition {
  readonly references: number;
  readonly unreferencedSinceMs: number;
  readonly damaged: boolean;
  readonly place: ContentPlace;
  /** Whether the live bytes of the segment include the key: false in a row of an older release. */
  readonly counted: boolean;
  /** Whether the record has no other live part, so that a copy of it is a record for the blob alone. */
  readonly alone: boolean;
  /** The mark record that last set `damaged`; `undefined` if the record of the bytes did. */
  readonly mark: RecordPosition | undefined;
}

const fixedSizeBytes = 40;
/** Longer than any key of a blob store; guards against a damaged row. */
const keySizeMaxBytes = 255;
const placeCodes = { lost: 0, journal: 1, object: 2 } as const;
const blobFlags = { gzip: 1, damaged: 8, counted: 16, alone: 32, marked: 64, all: 127 } as const;
const markSizeBytes = 8;

export function encodeBlobRow(row: BlobRow): Buffer {
  const { place, mark } = row;
  const inlineMarkSize = mark === undefined ? 0 : markSizeBytes;
  const restSize = place.kind === 'object' ? place.key.length : inlineMarkSize;
  const bytes = Buffer.alloc(fixedSizeBytes + restSize);
  bytes[0] =
    (row.encoding === 'gzip' ? blobFlags.gzip : 0) |
    (placeCodes[place.kind] << 1) |
    (row.damaged ? blobFlags.damaged : 0) |
    (row.counted ? blobFlags.counted : 0) |
    (row.alone ? blobFlags.alone : 0) |
    (mark === undefined ? 0 : blobFlags.marked);
  bytes.writeUIntLE(row.logicalSize, 1, 6);
  bytes.writeUIntLE(row.storedSize, 7, 6);
  bytes.writeUIntLE(row.references, 13, 5);
  bytes.writeUIntLE(row.unreferencedSinceMs, 18, 6);
  bytes.writeUInt32LE(row.segment, 24);
  bytes.writeUInt32LE(row.offset, 28);
  if (place.kind === 'journal') {
    bytes.writeUInt32LE(place.bytesOffset, 32);
    bytes.writeUInt32LE(place.crc, 36);
  }
  if (mark !== undefined) {
    bytes.writeUInt32LE(mark.segment, markOffset(place.kind));
    bytes.writeUInt32LE(mark.offset, markOffset(place.kind) + 4);
  }
  if (place.kind === 'object') bytes.write(place.key, fixedSizeBytes, 'latin1');
  return bytes;
}

/** A mark is where release 3.0, which may still run during a restart, reads nothing. */
function markOffset(kind: ContentPlace['kind']): number {
  return kind === 'object' ? fixedSizeBytes - markSizeBytes : fixedSizeBytes;
}

function decodePlace(bytes: Buffer, flags: number): ContentPlace {
  const { length } = bytes;
  const code = (flags >> 1) & 3;
  if (code === placeCodes.object) return { kind: 'object', key: decodeKey(bytes) };
  const markSize = (flags & blobFlags.marked) === 0 ? 0 : markSizeBytes;
  if (length !== fixedSizeBytes + markSize) throw damagedRow('blob');
  switch (code) {
    case placeCodes.journal:
      return { kind: 'journal', bytesOffset: bytes.readUInt32LE(32), crc: bytes.readUInt32LE(36) };
    case placeCodes.lost:
      return { kind: 'lost' };
    default:
      throw damagedRow('blob');
  }
}

/** A key of the blob store: printable ASCII, up to the end of the row. */
function decodeKey(bytes: Buffer): string {
  const { length } = bytes;
  if (length <= fixedSizeBytes || length > fixedSizeBytes + keySizeMaxBytes) throw damagedRow('blob');
  for (let at = fixedSizeBytes; at < length; at += 1) {
    const byte = bytes[at] ?? 0;
    if (byte <= 0x20 || byte >= 0x7f) throw damagedRow('blob');
  }
  return bytes.toString('latin1', fixedSizeBytes, length);
}

export function decodeBlobRow(bytes: Buffer): BlobRow {
  if (bytes.length < fixedSizeBytes) throw damagedRow('blob');
  const flags = bytes[0] ?? 0;
  if (flags > blobFlags.all) throw damagedRow('blob');
  const place = decodePlace(bytes, flags);
  const row: BlobRow = {
    encoding: (flags & blobFlags.gzip) === 0 ? 'identity' : 'gzip',
    logicalSize: bytes.readUIntLE(1, 6),
    storedSize: bytes.readUIntLE(7, 6),
    references: bytes.readUIntLE(13, 5),
    unreferencedSinceMs: bytes.readUIntLE(18, 6),
    // A lost blob is damaged whatever its mark says: a put of it must bring the content.
    damaged: (flags & blobFlags.damaged) !== 0 || place.kind === 'lost',
    segment: bytes.readUInt32LE(24),
    offset: bytes.readUInt32LE(28),
    place,
    counted: (flags & blobFlags.counted) !== 0,
    alone: (flags & blobFlags.alone) !== 0,
    mark: (flags & blobFlags.marked) === 0 ? undefined : decodeMark(bytes, place.kind),
  };
  if (!isPossible(row)) throw damagedRow('blob');
  return row;
}

function decodeMark(bytes: Buffer, kind: ContentPlace['kind']): RecordPosition {
  const at = markOffset(kind);
  return { segment: bytes.readUInt32LE(at), offset: bytes.readUInt32LE(at + 4) };
}

/** Whether the fields of a row agree with each other. */
function isPossible({ place, segment, offset, storedSize, counted, alone, mark }: BlobRow): boolean {
  if (place.kind === 'lost') return !counted && !alone && mark === undefined;
  if (segment === 0 || mark?.segment === 0 || (alone && !counted)) return false;
  if (place.kind === 'object') return true;
  // Inline bytes are inside their record.
  return place.bytesOffset > offset && place.bytesOffset - offset + storedSize <= recordSizeMaxBytes;
}

export function logicalSizeOfBlobRow(bytes: Buffer): number {
  if (bytes.length < fixedSizeBytes) throw damagedRow('blob');
  return bytes.readUIntLE(1, 6);
}

const digestSizeBytes = 32;

/** The digest that is the key of a blob's row. */
export function decodeDigestKey(key: Buffer): Digest {
  if (key.length !== digestSizeBytes) throw damagedRow('blob');
  return digestFromBytes(key);
}

const slash = 0x2f;

/** The name that is the key of an entry or a removal. */
export function decodeNameKey(key: Buffer): FileName {
  if (key[0] !== slash) throw damagedRow('entry');
  return key.toString('utf8', 0, key.length) as FileName;
}

const unreferencedKeySizeBytes = 38;

export function unreferencedKey(sinceMs: number, digest: Digest): Buffer {
  const key = Buffer.allocUnsafe(unreferencedKeySizeBytes);
  key.writeUIntBE(sinceMs, 0, 6);
  key.write(digest, 6, 'hex');
  return key;
}

export function decodeUnreferencedKey(key: Buffer): { sinceMs: number; digest: Digest } {
  if (key.length !== unreferencedKeySizeBytes) throw damagedRow('unreferenced');
  return { sinceMs: key.readUIntBE(0, 6), digest: digestFromBytes(key, 6) };
}

const segmentKeySizeBytes = 4;

export function segmentKey(number: number): Buffer {
  const key = Buffer.allocUnsafe(segmentKeySizeBytes);
  key.writeUInt32BE(number, 0);
  return key;
}

export function decodeSegmentKey(key: Buffer): number {
  if (key.length !== segmentKeySizeBytes) throw damagedRow('segment');
  return key.readUInt32BE(0);
}

export interface RemovalRow extends RecordPosition {
  readonly version: FileVersion;
  readonly timeMs: number;
  /** The segment in which it was first recorded: older ones may hold puts that it cancels. */
  readonly origin: number;
}

const removalRowSizeBytes = 24;

export function encodeRemovalRow(row: RemovalRow): Buffer {
  const bytes = Buffer.allocUnsafe(removalRowSizeBytes);
  bytes.writeIntLE(row.version, 0, 6);
  bytes.writeUIntLE(row.timeMs, 6, 6);
  bytes.writeUInt32LE(row.segment, 12);
  bytes.writeUInt32LE(row.offset, 16);
  bytes.writeUInt32LE(row.origin, 20);
  return bytes;
}

export function decodeRemovalRow(bytes: Buffer): RemovalRow {
  if (bytes.length !== removalRowSizeBytes) throw damagedRow('removal');
  return {
    version: bytes.readIntLE(0, 6),
    timeMs: bytes.readUIntLE(6, 6),
    segment: bytes.readUInt32LE(12),
    offset: bytes.readUInt32LE(16),
    origin: bytes.readUInt32LE(20),
  };
}

export interface SegmentRow {
  readonly sizeBytes: number;
  readonly liveBytes: number;
}

const segmentRowSizeBytes = 16;

export function encodeSegmentRow(row: SegmentRow): Buffer {
  const bytes = Buffer.allocUnsafe(segmentRowSizeBytes);
  bytes.writeDoubleLE(row.sizeBytes, 0);
  bytes.writeDoubleLE(row.liveBytes, 8);
  return bytes;
}

export function decodeSegmentRow(bytes: Buffer): SegmentRow {
  if (bytes.length !== segmentRowSizeBytes) throw damagedRow('segment');
  const row = { sizeBytes: bytes.readDoubleLE(0), liveBytes: bytes.readDoubleLE(8) };
  const isWhole = Number.isSafeInteger(row.sizeBytes) && Number.isSafeInteger(row.liveBytes);
  if (!isWhole) throw damagedRow('segment');
  return row;
}

/** The numbers of the totals, in their order in the row. */
const totalsFields = [
  'segment',
  'offset',
  'entries',
  'blobs',
  'logicalBytes',
  'storedBytes',
  'unreferencedBlobs',
  'uniqueLogicalBytes',
] as const;

/** The end of the journal that is in the index, and the sums of the rows; written with every group. */
export type IndexTotals = Record<Exclude<(typeof totalsFields)[number], 'uniqueLogicalBytes'>, number> & {
  /** Logical bytes of all blobs; `undefined` in an index of an older release until they are counted. */
  uniqueLogicalBytes: number | undefined;
};

export const totalsKey = Buffer.from('totals');

/** Releases before `uniqueLogicalBytes` write the shorter form, also into an index that had the longer one. */
const totalsSizeBytes = { old: 56, current: 64 } as const;

export function encodeTotals(totals: IndexTotals): Buffer {
  const { old, current } = totalsSizeBytes;
  const bytes = Buffer.allocUnsafe(totals.uniqueLogicalBytes === undefined ? old : current);
  for (let at = 0; at < bytes.length; at += 8) {
    const field = totalsFields[at / 8];
    if (field !== undefined) bytes.writeDoubleLE(totals[field] ?? 0, at);
  }
  return bytes;
}

/** The totals of a row; all zero for `undefined`, an index without any record. */
export function decodeTotals(bytes: Buffer | undefined): IndexTotals {
  const { old, current } = totalsSizeBytes;
  if (bytes !== undefined && bytes.length !== old && bytes.length !== current) throw damagedRow('totals');
  const at = (offset: number): number => {
    const sum = bytes?.readDoubleLE(offset) ?? 0;
    if (!Number.isSafeInteger(sum)) throw damagedRow('totals');
    return sum;
  };
  return {
    segment: at(0),
    offset: at(8),
    entries: at(16),
    blobs: at(24),
    logicalBytes: at(32),
    storedBytes: at(40),
    unreferencedBlobs: at(48),
    uniqueLogicalBytes: bytes?.length === old ? undefined : at(old),
  };
}
