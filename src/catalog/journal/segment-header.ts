import { randomBytes } from 'node:crypto';
import { open, type FileHandle } from 'node:fs/promises';
import { join } from 'node:path';
import { crc32 } from 'node:zlib';
import { errnoOf, fromSystemError } from '../../core/errors.ts';
import { newerFormat } from '../../core/release.ts';
import { recordHeaderSizeBytes, type RecordSeed } from './record.ts';

// A segment is a file of the journal, `<number>.log`: a header, then records one after the other. The number has ten
// digits, counts up and is never reused.
//
//   offset  size  field of the header
//        0     8  "FTJRNL02"; segments of format 1 have "FTJRNL01"
//        8     4  crc32 of the bytes from 12 to 64
//       12     4  number of the segment
//       16     6  time of its creation, milliseconds since 1970
//       22     6  end of the segment before it: bytes beyond it were never acknowledged
//       28     4  random: seeds the checksums of the records
//       32     2  random: is part of every record
//       34    38  zeros
//       72    80  guard: an intact record of format 1, of a type that no release knows
//      152        the first record
//
// In format 1 the bytes from 28 to 64 are zero, the first record follows at 64, and the number of the segment seeds the
// checksums.
//
// Release 3.0 does not know format 2: it takes such a segment for an empty one, and would write over it. The guard
// prevents that: a record that it can read, behind bytes that it cannot, is damage to it, and it does not start.
//
// Without the random numbers no record can be read. So the file `seeds` beside the segments repeats them: one line for
// each segment, with its number, the seed of the checksums, and the part of every record.

const fieldsSizeBytes = 64;
const guardOffset = 72;
/** In the format that is written. */
export const segmentHeaderSizeBytes = guardOffset + recordHeaderSizeBytes;
const magicForm = /^FTJRNL(\d\d)$/;
const knownFormats = [1, 2];
export const seedsFileName = 'seeds';

export interface NewSegment {
  readonly number: number;
  readonly createdMs: number;
  readonly previousEnd: number;
  readonly seed: RecordSeed;
}

export interface SegmentHeader extends NewSegment {
  readonly format: 1 | 2;
}

/** The values that are needed to read the records of a segment. */
export interface SegmentLayout {
  readonly format: 1 | 2;
  /** Offset of the first record. */
  readonly start: number;
  readonly seed: RecordSeed;
  /** False if neither the header nor `seeds` has the seed, so that format 1 is a guess. */
  readonly isKnown: boolean;
}

export function segmentFileName(number: number): string {
  return `${String(number).padStart(10, '0')}.log`;
}

export function segmentPath(folder: string, number: number): string {
  return join(folder, segmentFileName(number));
}

/** A secret seed. */
export function makeSeed(segment: number): RecordSeed {
  const random = randomBytes(6);
  return { segment, checksum: random.readUInt32LE(0), mark: random.readUInt16LE(4) };
}

/** The seed of a segment of format 1, which is no secret. */
function openSeed(segment: number): RecordSeed {
  return { segment, checksum: segment, mark: 0 };
}

export function encodeSegmentHeader({ number, createdMs, previousEnd, seed }: NewSegment): Buffer {
  const bytes = Buffer.alloc(segmentHeaderSizeBytes);
  bytes.write('FTJRNL02', 0, 'latin1');
  bytes.writeUInt32LE(number, 12);
  bytes.writeUIntLE(createdMs, 16, 6);
  bytes.writeUIntLE(previousEnd, 22, 6);
  bytes.writeUInt32LE(seed.checksum, 28);
  bytes.writeUInt16LE(seed.mark, 32);
  bytes.writeUInt32LE(crc32(bytes.subarray(12, fieldsSizeBytes)), 8);
  const guard = bytes.subarray(guardOffset);
  guard.writeUInt32LE(guard.length, 4);
  guard.writeUInt32LE(guardOffset, 12);
  guard.writeUInt32LE(crc32(guard.subarray(4), number), 0);
  return bytes;
}

/** `undefined` if the bytes are no intact header. @throws FiletrackerError `corrupt-store` for a newer format. */
function decodeSegmentHeader(bytes: Buffer, number: number): SegmentHeader | undefined {
  if (bytes.length < fieldsSizeBytes) return undefined;
  const format = Number(magicForm.exec(bytes.toString('latin1', 0, 8))?.[1] ?? 0);
  if (format > 2) throw newerFormat(`journal/${segmentFileName(number)}`, format, knownFormats);
  if (format !== 1 && format !== 2) return undefined;
  if (crc32(bytes.subarray(12, fieldsSizeBytes)) !== bytes.readUInt32LE(8)) return undefined;
  if (bytes.readUInt32LE(12) !== number) return undefined;
  const seed = { segment: number, checksum: bytes.readUInt32LE(28), mark: bytes.readUInt16LE(32) };
  return {
    format,
    number,
    createdMs: bytes.readUIntLE(16, 6),
    previousEnd: bytes.readUIntLE(22, 6),
    seed: format === 1 ? openSeed(number) : seed,
  };
}

async function readBytes(file: FileHandle, number: number, start: number, end: number): Promise<Buffer> {
  const bytes = Buffer.alloc(end - start);
  const { bytesRead } = await file
    .read(bytes, 0, bytes.length, start)
    .catch((error: unknown) => failToRead(number, error));
  return bytes.subarray(0, bytesRead);
}

async function readHeaderOf(file: FileHandle, number: number): Promise<SegmentHeader | undefined> {
  return decodeSegmentHeader(await readBytes(file, number, 0, fieldsSizeBytes), number);
}

/**
 * The header of a segment, or `undefined` if it is damaged or was never finished.
 * @throws FiletrackerError `corrupt-store` for a newer format.
 */
export async function readSegmentHeader(folder: string, number: number): Promise<SegmentHeader | undefined> {
  await using file = await open(segmentPath(folder, number), 'r');
  return await readHeaderOf(file, number);
}

/** The layout of an open segment. If its header is damaged, the seed is in `seeds`; if not there, it is read as format 1. */
export async function readLayout(folder: string, file: FileHandle, number: number): Promise<SegmentLayout> {
  const header = await readHeaderOf(file, number);
  const seed = header === undefined ? await readSeed(folder, number) : header.seed;
  if (header?.format === 1 || seed === undefined) {
    return { format: 1, start: fieldsSizeBytes, seed: openSeed(number), isKnown: header !== undefined };
  }
  return { format: 2, start: segmentHeaderSizeBytes, seed, isKnown: true };
}

/** The layout of a segment that is not open. */
export async function layoutOf(folder: string, number: number): Promise<SegmentLayout> {
  await using file = await open(segmentPath(folder, number), 'r');
  return await readLayout(folder, file, number);
}

/** Whether a crash left a segment without a whole header, and so without a record. */
export async function isUnfinished(folder: string, number: number): Promise<boolean> {
  await using file = await open(segmentPath(folder, number), 'r');
  const { size } = await file.stat();
  if (size > segmentHeaderSizeBytes) return false;
  const header = await readHeaderOf(file, number);
  if (header !== undefined) return header.format === 2 && size < segmentHeaderSizeBytes;
  // A record of format 1 begins here with its checksum and its length.
  return (await readBytes(file, number, fieldsSizeBytes, guardOffset)).every((byte) => byte === 0);
}

/** Appends the seed of a new segment to `seeds`, durably. */
export async function noteSeed(folder: string, { segment, checksum, mark }: RecordSeed): Promise<void> {
  const file = await open(join(folder, seedsFileName), 'a');
  try {
    // A crash may have cut the line before short, so this one starts with a line break.
    await file.write(`\n${segment} ${checksum} ${mark}\n`);
    await file.datasync();
  } finally {
    await file.close();
  }
}

async function readSeed(folder: string, segment: number): Promise<RecordSeed | undefined> {
  const file = await open(join(folder, seedsFileName), 'r').catch((error: unknown) => {
    if (errnoOf(error) === 'ENOENT') return undefined;
    throw fromSystemError(error, `read journal/${seedsFileName}`);
  });
  if (file === undefined) return undefined;
  let seed: RecordSeed | undefined;
  // This closes the file. A segment that could not be created at first is in it twice.
  for await (const line of file.readLines({ encoding: 'latin1' })) {
    const [, number, checksum, mark] = /^(\d{1,10}) (\d{1,10}) (\d{1,5})$/.exec(line) ?? [];
    if (Number(number) === segment) seed = { segment, checksum: Number(checksum), mark: Number(mark) };
  }
  return seed;
}

/** The bytes that the disk does not return may be intact, so this is not damage. */
export function failToRead(number: number, error: unknown): never {
  throw fromSystemError(error, `read journal/${segmentFileName(number)}`);
}
