import { open, readdir, rm, stat, type FileHandle } from 'node:fs/promises';
import { join } from 'node:path';
import { crc32 } from 'node:zlib';
import { FiletrackerError, errnoOf, fromSystemError } from '../../core/errors.ts';
import { syncFolder } from '../../fs/folders.ts';
import { checkRecord, decodeRecord, groupStartOf, recordSizeMaxBytes, type JournalRecord } from './record.ts';

// A segment is a file of the journal: a header, then records one after the other. `<number>.log`, the number
// of ten digits, counted up and never used twice.
//
//   offset  size  field of the header
//        0     8  "FTJRNL01"
//        8     4  crc32 of the bytes from 12 to 64
//       12     4  number of the segment
//       16     6  time of its creation, milliseconds since 1970
//       22     6  end of the segment before it: what lies beyond there was never acknowledged
//       28    36  zeros

export const segmentHeaderSizeBytes = 64;
const magic = 'FTJRNL01';
const windowSizeBytes = 4 * 1024 * 1024;

export interface SegmentHeader {
  readonly number: number;
  readonly createdMs: number;
  readonly previousEnd: number;
}

export function segmentFileName(number: number): string {
  return `${String(number).padStart(10, '0')}.log`;
}

export function segmentPath(folder: string, number: number): string {
  return join(folder, segmentFileName(number));
}

export function encodeSegmentHeader(header: SegmentHeader): Buffer {
  const bytes = Buffer.alloc(segmentHeaderSizeBytes);
  bytes.write(magic, 0, 'latin1');
  bytes.writeUInt32LE(header.number, 12);
  bytes.writeUIntLE(header.createdMs, 16, 6);
  bytes.writeUIntLE(header.previousEnd, 22, 6);
  bytes.writeUInt32LE(crc32(bytes.subarray(12)), 8);
  return bytes;
}

/** Undefined where the bytes are no sound header. */
function decodeSegmentHeader(bytes: Buffer): SegmentHeader | undefined {
  if (bytes.length < segmentHeaderSizeBytes || bytes.toString('latin1', 0, 8) !== magic) return undefined;
  const checked = bytes.subarray(12, segmentHeaderSizeBytes);
  if (crc32(checked) !== bytes.readUInt32LE(8)) return undefined;
  return {
    number: bytes.readUInt32LE(12),
    createdMs: bytes.readUIntLE(16, 6),
    previousEnd: bytes.readUIntLE(22, 6),
  };
}

/** The numbers of all segments in a journal folder, ascending; empty where there is no folder. */
export async function listSegments(folder: string): Promise<number[]> {
  try {
    const names = await readdir(folder);
    return names
      .filter((name) => /^\d{10}\.log$/.test(name))
      .map((name) => Number(name.slice(0, 10)))
      .sort((one, other) => one - other);
  } catch (error) {
    if (errnoOf(error) === 'ENOENT') return [];
    throw fromSystemError(error, 'list the journal');
  }
}

/** The header of a segment, or undefined where it is damaged or was never finished. */
export async function readSegmentHeader(folder: string, number: number): Promise<SegmentHeader | undefined> {
  const file = await open(segmentPath(folder, number), 'r');
  try {
    const bytes = Buffer.alloc(segmentHeaderSizeBytes);
    const { bytesRead } = await file
      .read(bytes, 0, segmentHeaderSizeBytes, 0)
      .catch((error: unknown) => failToRead(number, error));
    // Its second half is zeros, so that the first half alone would pass the checksum.
    const header = bytesRead === segmentHeaderSizeBytes ? decodeSegmentHeader(bytes) : undefined;
    return header?.number === number ? header : undefined;
  } finally {
    await file.close();
  }
}

/** The end of a segment as the header of the next one tells it; undefined where there is none, or no sound one. */
export async function endToldByNext(folder: string, number: number): Promise<number | undefined> {
  const next = await readSegmentHeader(folder, number + 1).catch((error: unknown) => {
    if (errnoOf(error) === 'ENOENT') return undefined;
    throw error;
  });
  return next?.previousEnd;
}

/**
 * The end of a segment that is not the last: what the next one tells, even if the file has become shorter than that.
 * Once compaction has removed the next one nothing in the journal tells it, and it is where the file ends.
 */
export async function endOfSealedSegment(folder: string, number: number): Promise<number> {
  return (await endToldByNext(folder, number)) ?? (await stat(segmentPath(folder, number))).size;
}

/**
 * Cuts a segment at the end that the header of the next one names: what lies beyond, of a write that failed,
 * must never be read. Does nothing where there is no next segment.
 */
export async function cutSegment(folder: string, number: number): Promise<void> {
  const end = await endToldByNext(folder, number);
  if (end === undefined) return;
  const file = await open(segmentPath(folder, number), 'r+');
  try {
    if ((await file.stat()).size <= end) return;
    await file.truncate(end);
    await file.sync();
  } finally {
    await file.close();
  }
}

/** The same, for a segment that compaction may have removed. */
export async function cutSegmentIfThere(folder: string, number: number): Promise<void> {
  await cutSegment(folder, number).catch((error: unknown) => {
    if (errnoOf(error) !== 'ENOENT') throw error;
  });
}

/**
 * Removes a segment, durably. The one before it is cut first, as the end of it is told nowhere else. Idempotent.
 * Were it not durable, power loss might bring back a segment with a put after a younger one with its removal,
 * dropped later, is gone for good.
 */
export async function removeSegment(folder: string, number: number): Promise<void> {
  await cutSegmentIfThere(folder, number - 1);
  await rm(segmentPath(folder, number), { force: true });
  await syncFolder(folder);
}

export interface ScannedRecord {
  readonly offset: number;
  readonly length: number;
  readonly record: JournalRecord;
}

/** Bytes of a segment that hold no sound record though they were durable once. */
export interface DamagedRange {
  readonly segment: number;
  readonly start: number;
  readonly end: number;
}

export interface ScanOptions {
  /** Where to begin; the end of the header by default. Must be the start of a record. */
  readonly from?: number | undefined;
  /** The end, if it is known: all before it was durable once. */
  readonly end?: number | undefined;
  /** Whether another segment follows, so that no write was cut short here; so if `end` is given. */
  readonly sealed?: boolean | undefined;
  /** Called for each damaged range that is skipped; without it damage is an error. */
  readonly onDamage?: ((range: DamagedRange) => void) | undefined;
}

/**
 * Reads the records of a segment in order, in batches of what lies in a window of 4 MiB; inline bytes are
 * views that are valid until the next batch. Returns the offset at which the sound records end.
 *
 * In the last segment the first unsound record ends it, being a torn write, unless a record follows whose
 * group began after it: then what is unsound had been durable, and is damage.
 * @throws FiletrackerError `corrupt-store` for damage, unless `onDamage` takes it.
 */
export async function* scanSegment(
  folder: string,
  number: number,
  options: ScanOptions = {},
): AsyncGenerator<ScannedRecord[], number, void> {
  const file = await open(segmentPath(folder, number), 'r').catch((error: unknown) =>
    failToRead(number, error),
  );
  try {
    const { size } = await file.stat();
    const limit = Math.min(size, options.end ?? size);
    const sealed = options.sealed ?? options.end !== undefined;
    let at = options.from ?? segmentHeaderSizeBytes;
    while (at < limit) {
      const window = await readWindow(file, number, at, limit);
      const { records, consumed } = decodeWindow(window, at, number, at + window.length >= limit);
      if (records.length > 0) yield records;
      at += consumed;
      if (consumed > 0) continue;
      const next = await findNextRecord(file, number, at, limit, sealed);
      if (next === undefined && !sealed) return at;
      // A segment that was not cut when it was closed goes on with the zeros that it was filled with ahead.
      if (next === undefined && options.end === undefined && (await isZero(file, number, at, limit)))
        return at;
      const range = { segment: number, start: at, end: next ?? options.end ?? limit };
      reportDamage(range, options.onDamage);
      at = range.end;
    }
    // The file is shorter than the segment was.
    if (options.end !== undefined && at < options.end) {
      reportDamage({ segment: number, start: at, end: options.end }, options.onDamage);
      at = options.end;
    }
    return at;
  } finally {
    await file.close();
  }
}

function reportDamage(range: DamagedRange, onDamage: ScanOptions['onDamage']): void {
  if (onDamage !== undefined) {
    onDamage(range);
    return;
  }
  const where = `segment ${range.segment}, bytes ${range.start} to ${range.end}`;
  throw new FiletrackerError(
    'corrupt-store',
    `Cannot read the journal: ${where} are damaged; run filetracker-recover on the store`,
  );
}

/** Tells which segment the disk does not give: its bytes may be right, so that this is not taken for damage. */
export function failToRead(number: number, error: unknown): never {
  throw fromSystemError(error, `read journal/${segmentFileName(number)}`);
}

async function readWindow(file: FileHandle, number: number, at: number, limit: number): Promise<Buffer> {
  const bytes = Buffer.allocUnsafe(Math.min(windowSizeBytes, limit - at));
  let filled = 0;
  while (filled < bytes.length) {
    const { bytesRead } = await file
      .read(bytes, filled, bytes.length - filled, at + filled)
      .catch((error: unknown) => failToRead(number, error));
    if (bytesRead === 0) break;
    filled += bytesRead;
  }
  return bytes.subarray(0, filled);
}

async function isZero(file: FileHandle, number: number, start: number, end: number): Promise<boolean> {
  for (let at = start; at < end; at += windowSizeBytes) {
    const window = await readWindow(file, number, at, end);
    if (window.some((byte) => byte !== 0)) return false;
  }
  return true;
}

function decodeWindow(
  window: Buffer,
  at: number,
  segment: number,
  last: boolean,
): { records: ScannedRecord[]; consumed: number } {
  const records: ScannedRecord[] = [];
  let position = 0;
  // A record that reaches beyond the window is left for the next one, which begins with it.
  const stop = last ? window.length : window.length - recordSizeMaxBytes;
  while (position < stop) {
    const length = checkRecord(window, position, segment);
    if (length === 0) break;
    const record = decodeRecord(window, position);
    if (record !== undefined) records.push({ offset: at + position, length, record });
    position += length;
  }
  return { records, consumed: position };
}

/**
 * The next sound record after the unsound one at `at`, if what lies at `at` was durable once: because `sealed`
 * says so, or because a group began after it.
 */
async function findNextRecord(
  file: FileHandle,
  segment: number,
  at: number,
  limit: number,
  sealed: boolean,
): Promise<number | undefined> {
  let first: number | undefined;
  for (let start = at + 8; start < limit; start += windowSizeBytes - recordSizeMaxBytes) {
    const window = await readWindow(file, segment, start, limit);
    for (let position = 0; position + 8 <= window.length; position += 8) {
      // Zeros, by far the most of what follows a torn write, are passed over without a checksum.
      if (window.readUInt32LE(position + 4) === 0) continue;
      if (checkRecord(window, position, segment) === 0) continue;
      first ??= start + position;
      if (sealed || groupStartOf(window, position) > at) return first;
    }
    if (start + window.length >= limit) break;
  }
  return undefined;
}
