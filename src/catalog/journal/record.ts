import { crc32 } from 'node:zlib';
import type { BlobDescription } from '../../core/blob.ts';
import { digestFromBytes, type Digest } from '../../core/digest.ts';
import type { FileName } from '../../core/file-name.ts';
import type { FileVersion } from '../../core/file-version.ts';

// The form of a record on disk. All numbers are little endian.
//
//   offset  size  field
//        0     4  crc32 of the bytes from 4 to the end, seeded by a number of the segment: see `RecordSeed`
//        4     4  length of the whole record: a multiple of 8
//        8     1  type: 1 put, 2 removal, 3 blob (without a name), 4 mark (damaged or intact)
//        9     1  flags: bit 0 the blob is gzip; bits 1-2 where its bytes are: 0 not stated, 1 in this record,
//                 2 in the blob store; bit 3 the blob is damaged
//       10     2  length of the name
//       12     4  offset in the segment at which the group of this record begins: everything before it was
//                 durable when the group was written, so a bad record before it is damage, not a torn write
//       16     6  version (signed)
//       22     6  time of the change, milliseconds since 1970
//       28     6  logical size
//       34     6  stored size
//       40     2  length of the key
//       42     2  mark of the segment: see `RecordSeed`
//       44     4  origin: the segment in which a removal was first recorded; else zero
//       48    32  digest (zero in removals)
//       80     …  name, key of the blob store, stored bytes (if they are in this record), zeros up to the length

export const recordHeaderSizeBytes = 80;
/** Longer than any record; guards against a damaged length. */
export const recordSizeMaxBytes = 64 * 1024;

export type RecordContent =
  | { readonly kind: 'none' }
  | { readonly kind: 'inline'; readonly bytes: Buffer }
  | { readonly kind: 'object'; readonly key: string };

interface BlobFields extends BlobDescription {
  readonly content: RecordContent;
  readonly damaged: boolean;
}

export type JournalRecord = { readonly timeMs: number } & (
  | ({ readonly type: 'put'; readonly name: FileName; readonly version: FileVersion } & BlobFields)
  | {
      readonly type: 'remove';
      readonly name: FileName;
      readonly version: FileVersion;
      /** `undefined`: the segment that the record is written to. */
      readonly origin: number | undefined;
    }
  | ({ readonly type: 'blob' } & BlobFields)
  | { readonly type: 'mark'; readonly digest: Digest; readonly damaged: boolean }
);

const typeCodes = { put: 1, remove: 2, blob: 3, mark: 4 } as const;
const gzipFlag = 1;
const damagedFlag = 8;
const contentShift = 1;
const contentMask = 3;
const contentCodes = { none: 0, inline: 1, object: 2 } as const;

/**
 * What the records of one segment have in common. Both numbers are secrets of the segment, so that a file cannot be
 * crafted whose content passes for a record. In segments of format 1 they are known: the segment's number, and zero.
 */
export interface RecordSeed {
  readonly segment: number;
  /** Starts the checksums. */
  readonly checksum: number;
  /** Is part of every record. */
  readonly mark: number;
}

/** A position in the journal: of a record, or of the end. */
export interface RecordPosition {
  readonly segment: number;
  readonly offset: number;
}

export interface PlacedRecord extends RecordPosition {
  readonly record: JournalRecord;
  readonly length: number;
}

function variableSize(record: JournalRecord): number {
  let size = 'name' in record ? Buffer.byteLength(record.name) : 0;
  if ('content' in record) {
    if (record.content.kind === 'inline') size += record.content.bytes.length;
    if (record.content.kind === 'object') size += record.content.key.length;
  }
  return size;
}

export function recordSizeBytes(record: JournalRecord): number {
  return (recordHeaderSizeBytes + variableSize(record) + 7) & ~7;
}

function flagsOf(record: JournalRecord): number {
  if (record.type === 'remove') return 0;
  const damaged = record.damaged ? damagedFlag : 0;
  if (record.type === 'mark') return damaged;
  const gzip = record.encoding === 'gzip' ? gzipFlag : 0;
  return gzip | damaged | (contentCodes[record.content.kind] << contentShift);
}

/**
 * Writes a record into `target` at `at`; its group begins at offset `groupStart` of the segment.
 * @returns the number of bytes written.
 */
export function encodeRecord(
  record: JournalRecord,
  target: Buffer,
  at: number,
  seed: RecordSeed,
  groupStart: number,
): number {
  const length = recordSizeBytes(record);
  target.fill(0, at, at + recordHeaderSizeBytes);
  target.fill(0, at + length - 8, at + length);
  target.writeUInt32LE(length, at + 4);
  target[at + 8] = typeCodes[record.type];
  target[at + 9] = flagsOf(record);
  target.writeUInt32LE(groupStart, at + 12);
  target.writeUIntLE(record.timeMs, at + 22, 6);
  target.writeUInt16LE(seed.mark, at + 42);
  let end = at + recordHeaderSizeBytes;
  if ('name' in record) {
    const nameSize = target.write(record.name, end, 'utf8');
    target.writeUInt16LE(nameSize, at + 10);
    target.writeIntLE(record.version, at + 16, 6);
    end += nameSize;
  }
  if (record.type === 'remove') {
    target.writeUInt32LE(record.origin ?? seed.segment, at + 44);
  } else {
    target.write(record.digest, at + 48, 'hex');
  }
  if ('content' in record) {
    target.writeUIntLE(record.logicalSize, at + 28, 6);
    target.writeUIntLE(record.storedSize, at + 34, 6);
    if (record.content.kind === 'object') {
      target.writeUInt16LE(target.write(record.content.key, end, 'latin1'), at + 40);
    }
    if (record.content.kind === 'inline') record.content.bytes.copy(target, end);
  }
  target.writeUInt32LE(crc32(target.subarray(at + 4, at + length), seed.checksum), at);
  return length;
}

/** The length of the intact record of the segment at `at`, or 0 if there is none. */
export function checkRecord(source: Buffer, at: number, seed: RecordSeed): number {
  if (at + recordHeaderSizeBytes > source.length) return 0;
  const length = source.readUInt32LE(at + 4);
  if (length < recordHeaderSizeBytes || length > recordSizeMaxBytes || length % 8 !== 0) return 0;
  if (at + length > source.length || source.readUInt16LE(at + 42) !== seed.mark) return 0;
  return crc32(source.subarray(at + 4, at + length), seed.checksum) === source.readUInt32LE(at) ? length : 0;
}

/** The length of a bad record at `at` whose header seems intact: its parts add up to its length. Otherwise 0. */
export function lengthByHeader(source: Buffer, at: number): number {
  if (at + recordHeaderSizeBytes > source.length) return 0;
  const length = source.readUInt32LE(at + 4);
  const type = source[at + 8] ?? 0;
  if (type < typeCodes.put || type > typeCodes.mark || length > recordSizeMaxBytes) return 0;
  const kind = ((source[at + 9] ?? 0) >> contentShift) & contentMask;
  let size = recordHeaderSizeBytes + source.readUInt16LE(at + 10);
  if (kind === contentCodes.object) size += source.readUInt16LE(at + 40);
  if (kind === contentCodes.inline) size += Math.min(source.readUIntLE(at + 34, 6), recordSizeMaxBytes);
  return ((size + 7) & ~7) === length ? length : 0;
}

/** Offset in the segment at which the group of the record at `at` begins. */
export function groupStartOf(source: Buffer, at: number): number {
  return source.readUInt32LE(at + 12);
}

/** Offset of the inline bytes from the start of their record. */
export function inlineOffset(nameSizeBytes: number): number {
  return recordHeaderSizeBytes + nameSizeBytes;
}

function decodeContent(source: Buffer, at: number, flags: number, storedSize: number): RecordContent {
  const start = at + recordHeaderSizeBytes + source.readUInt16LE(at + 10);
  switch ((flags >> contentShift) & contentMask) {
    case contentCodes.inline:
      return { kind: 'inline', bytes: source.subarray(start, start + storedSize) };
    case contentCodes.object:
      return { kind: 'object', key: source.toString('latin1', start, start + source.readUInt16LE(at + 40)) };
    default:
      return { kind: 'none' };
  }
}

/**
 * Reads the record at `at`, which has passed `checkRecord`. Inline bytes are a view of `source`.
 * @returns `undefined` for a type that this release does not know.
 */
export function decodeRecord(source: Buffer, at: number): JournalRecord | undefined {
  const type = source[at + 8];
  const flags = source[at + 9] ?? 0;
  const nameStart = at + recordHeaderSizeBytes;
  const nameOf = (): FileName =>
    source.toString('utf8', nameStart, nameStart + source.readUInt16LE(at + 10)) as FileName;
  const timeMs = source.readUIntLE(at + 22, 6);
  const version = source.readIntLE(at + 16, 6);
  const damaged = (flags & damagedFlag) !== 0;
  if (type === typeCodes.remove) {
    return { type: 'remove', timeMs, name: nameOf(), version, origin: source.readUInt32LE(at + 44) };
  }
  const digest = digestFromBytes(source, at + 48);
  if (type === typeCodes.mark) return { type: 'mark', timeMs, digest, damaged };
  const storedSize = source.readUIntLE(at + 34, 6);
  const blob: BlobFields = {
    digest,
    encoding: (flags & gzipFlag) === 0 ? 'identity' : 'gzip',
    logicalSize: source.readUIntLE(at + 28, 6),
    storedSize,
    content: decodeContent(source, at, flags, storedSize),
    damaged,
  };
  if (type === typeCodes.blob) return { type: 'blob', timeMs, ...blob };
  if (type === typeCodes.put) return { type: 'put', timeMs, name: nameOf(), version, ...blob };
  return undefined;
}
