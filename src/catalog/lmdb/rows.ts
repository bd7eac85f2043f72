import type { BlobDescription } from '../../core/blob-description.ts';
import { digestFromBytes, type Digest } from '../../core/digest.ts';
import type { FileVersion } from '../../core/file-version.ts';

// The values of the index, byte by byte. Numbers are little endian unless a key's order asks for big endian.
//
// entries   key: the name, UTF-8
//   offset  size
//        0     6  version (signed)
//        6     4  segment of the record that stored it
//       10     4  offset of that record
//       14    32  digest
//
// blobs     key: the digest, 32 bytes
//        0     1  flags: bit 0 gzip; bits 1-2 where the content is: 0 lost, 1 in the journal, 2 in the blob
//                 store; bit 3 damaged
//        1     6  logical size
//        7     6  stored size
//       13     5  number of entries that name it
//       18     6  since when no entry has, milliseconds since 1970; zero where one does
//       24     4  segment of the record that carries the content or its key
//       28     4  offset of that record
//       32     4  offset of the inline bytes, else zero
//       36     4  crc32 of the inline bytes, else zero
//       40     …  key of the blob store
//
// removals  key: the name; value: version (6, signed), time (6), segment (4) and offset (4) of the record, origin (4)
// unreferenced   key: since when, 6 bytes big endian, then the digest; no value
// segments       key: number, 4 bytes big endian; value: size of its records, and of those still needed, as doubles
// state          key: a word; value: see IndexTotals

export interface EntryRow {
  readonly version: FileVersion;
  readonly segment: number;
  readonly offset: number;
  readonly digest: Digest;
}

const entryRowSizeBytes = 46;
/** Where the digest stands in the row, for look-ups that need no string of it. */
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
    version: bytes.readIntLE(0, 6),
    segment: bytes.readUInt32LE(6),
    offset: bytes.readUInt32LE(10),
    digest: digestFromBytes(bytes, entryDigestOffset),
  };
}

export function versionOfEntryRow(bytes: Buffer): FileVersion {
  return bytes.readIntLE(0, 6);
}

export type ContentPlace =
  /** The record that carried it is not there any more: damage. */
  | { readonly kind: 'lost' }
  | { readonly kind: 'journal'; readonly bytesOffset: number; readonly crc: number }
  | { readonly kind: 'object'; readonly key: string };

export interface BlobRow extends Omit<BlobDescription, 'digest'> {
  readonly references: number;
  readonly unreferencedSinceMs: number;
  readonly damaged: boolean;
  /** The record that carries the content or its key; zeros where it is lost. */
  readonly segment: number;
  readonly offset: number;
  readonly place: ContentPlace;
}

const fixedSizeBytes = 40;
const placeCodes = { lost: 0, journal: 1, object: 2 } as const;

export function encodeBlobRow(row: BlobRow): Buffer {
  const { place } = row;
  const keySize = place.kind === 'object' ? place.key.length : 0;
  const bytes = Buffer.alloc(fixedSizeBytes + keySize);
  bytes[0] = (row.encoding === 'gzip' ? 1 : 0) | (placeCodes[place.kind] << 1) | (row.damaged ? 8 : 0);
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
  if (place.kind === 'object') bytes.write(place.key, fixedSizeBytes, 'latin1');
  return bytes;
}

function decodePlace(bytes: Buffer, flags: number): ContentPlace {
  switch ((flags >> 1) & 3) {
    case placeCodes.journal:
      return { kind: 'journal', bytesOffset: bytes.readUInt32LE(32), crc: bytes.readUInt32LE(36) };
    case placeCodes.object:
      return { kind: 'object', key: bytes.toString('latin1', fixedSizeBytes) };
    default:
      return { kind: 'lost' };
  }
}

export function decodeBlobRow(bytes: Buffer): BlobRow {
  const flags = bytes[0] ?? 0;
  const place = decodePlace(bytes, flags);
  return {
    encoding: (flags & 1) === 0 ? 'identity' : 'gzip',
    logicalSize: bytes.readUIntLE(1, 6),
    storedSize: bytes.readUIntLE(7, 6),
    references: bytes.readUIntLE(13, 5),
    unreferencedSinceMs: bytes.readUIntLE(18, 6),
    // What no record has brought is not there: a put of it must bring it, whatever has been said of it since.
    damaged: (flags & 8) !== 0 || place.kind === 'lost',
    segment: bytes.readUInt32LE(24),
    offset: bytes.readUInt32LE(28),
    place,
  };
}

/** Of a whole row, without decoding the rest. */
export function logicalSizeOfBlobRow(bytes: Buffer): number {
  return bytes.readUIntLE(1, 6);
}

export function unreferencedKey(sinceMs: number, digest: Digest): Buffer {
  const key = Buffer.allocUnsafe(38);
  key.writeUIntBE(sinceMs, 0, 6);
  key.write(digest, 6, 'hex');
  return key;
}

export function segmentKey(number: number): Buffer {
  const key = Buffer.allocUnsafe(4);
  key.writeUInt32BE(number, 0);
  return key;
}

/** A removal that is remembered, and the record that tells of it. */
export interface RemovalRow {
  readonly version: FileVersion;
  readonly timeMs: number;
  readonly segment: number;
  readonly offset: number;
  /** The segment in which it was first recorded: older ones may hold puts that it ended. */
  readonly origin: number;
}

export function encodeRemovalRow(row: RemovalRow): Buffer {
  const bytes = Buffer.allocUnsafe(24);
  bytes.writeIntLE(row.version, 0, 6);
  bytes.writeUIntLE(row.timeMs, 6, 6);
  bytes.writeUInt32LE(row.segment, 12);
  bytes.writeUInt32LE(row.offset, 16);
  bytes.writeUInt32LE(row.origin, 20);
  return bytes;
}

export function decodeRemovalRow(bytes: Buffer): RemovalRow {
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

export function encodeSegmentRow(row: SegmentRow): Buffer {
  const bytes = Buffer.allocUnsafe(16);
  bytes.writeDoubleLE(row.sizeBytes, 0);
  bytes.writeDoubleLE(row.liveBytes, 8);
  return bytes;
}

export function decodeSegmentRow(bytes: Buffer): SegmentRow {
  return { sizeBytes: bytes.readDoubleLE(0), liveBytes: bytes.readDoubleLE(8) };
}

/** What the index has taken in, and its sums; written with every group. */
export interface IndexTotals {
  /** The journal up to here is in the index. */
  segment: number;
  offset: number;
  entries: number;
  blobs: number;
  logicalBytes: number;
  storedBytes: number;
  unreferencedBlobs: number;
  /** Logical bytes of all blobs; undefined in an index of an older release that has not been counted yet. */
  uniqueLogicalBytes: number | undefined;
}

export const totalsKey = Buffer.from('totals');

export function encodeTotals(totals: IndexTotals): Buffer {
  const { uniqueLogicalBytes } = totals;
  const bytes = Buffer.allocUnsafe(uniqueLogicalBytes === undefined ? 56 : 64);
  bytes.writeDoubleLE(totals.segment, 0);
  bytes.writeDoubleLE(totals.offset, 8);
  bytes.writeDoubleLE(totals.entries, 16);
  bytes.writeDoubleLE(totals.blobs, 24);
  bytes.writeDoubleLE(totals.logicalBytes, 32);
  bytes.writeDoubleLE(totals.storedBytes, 40);
  bytes.writeDoubleLE(totals.unreferencedBlobs, 48);
  if (uniqueLogicalBytes !== undefined) bytes.writeDoubleLE(uniqueLogicalBytes, 56);
  return bytes;
}

export function decodeTotals(bytes: Buffer | undefined): IndexTotals {
  const at = (offset: number): number => bytes?.readDoubleLE(offset) ?? 0;
  return {
    segment: at(0),
    offset: at(8),
    entries: at(16),
    blobs: at(24),
    logicalBytes: at(32),
    storedBytes: at(40),
    unreferencedBlobs: at(48),
    // Releases before this sum wrote 56 bytes, and do so again where one of them changes the index.
    uniqueLogicalBytes: bytes?.length === 56 ? undefined : at(56),
  };
}
