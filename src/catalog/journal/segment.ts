import { open, readdir, rm, stat, type FileHandle } from 'node:fs/promises';
import { FiletrackerError, errnoOf, fromSystemError } from '../../core/errors.ts';
import { syncFolder } from '../../fs/folders.ts';
import {
  checkRecord,
  decodeRecord,
  groupStartOf,
  lengthByHeader,
  recordSizeMaxBytes,
  type JournalRecord,
} from './record.ts';
import {
  failToRead,
  readLayout,
  readSegmentHeader,
  segmentHeaderSizeBytes,
  segmentPath,
  type SegmentLayout,
} from './segment-header.ts';

const windowSizeBytes = 4 * 1024 * 1024;

/**
 * More than any record of format 1 takes. Sound records that follow each other for longer than this do not all lie in
 * the content of one record.
 */
const enclosedSizeMaxBytes = 18 * 1024;

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
  /** Where to begin; after the header by default. Must be the start of a record. */
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
    const layout = await readLayout(folder, file, number);
    const begin = options.from ?? layout.start;
    let at = begin;
    while (at < limit) {
      const window = await readWindow(file, number, at, limit);
      const { records, consumed } = decodeWindow(window, at, layout, at + window.length >= limit);
      if (records.length > 0) yield records;
      at += consumed;
      if (consumed > 0) continue;
      const { wasDurable, next } = await lookBeyond(file, layout, { at, limit, sealed });
      // Records follow a header that is durable. With the header lost, what cannot be read is no torn write.
      const isUnreadable = !layout.isKnown && at === begin && size > segmentHeaderSizeBytes;
      if (!wasDurable && !sealed && !isUnreadable) return at;
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
  { seed }: SegmentLayout,
  last: boolean,
): { records: ScannedRecord[]; consumed: number } {
  const records: ScannedRecord[] = [];
  let position = 0;
  // A record that reaches beyond the window is left for the next one, which begins with it.
  const stop = last ? window.length : window.length - recordSizeMaxBytes;
  while (position < stop) {
    const length = checkRecord(window, position, seed);
    if (length === 0) break;
    const record = decodeRecord(window, position);
    if (record !== undefined) records.push({ offset: at + position, length, record });
    position += length;
  }
  return { records, consumed: position };
}

/**
 * Looks for sound records behind the unsound one at `at`, until it is known where reading goes on and whether what is at
 * `at` was durable: because `sealed` says so, or because a group began after it.
 */
async function lookBeyond(
  file: FileHandle,
  layout: SegmentLayout,
  bounds: { readonly at: number; readonly limit: number; readonly sealed: boolean },
): Promise<Beyond> {
  const beyond = new Beyond(layout, bounds);
  for (let position = bounds.at; position < bounds.limit && !beyond.isKnown;) {
    const window = await readWindow(file, layout.seed.segment, position, bounds.limit);
    const isLast = position + window.length >= bounds.limit;
    const stop = isLast ? window.length : window.length - recordSizeMaxBytes;
    let inner = 0;
    while (inner + 8 <= stop && !beyond.isKnown) inner += beyond.step(window, inner, position + inner);
    position += inner;
    if (isLast) break;
  }
  return beyond;
}

/**
 * What lies behind an unsound record, as far as it was looked at.
 *
 * Records are looked for at the ends of records that tell their length, sound or not; behind one that does not tell it,
 * everywhere, so that a part of its content may be taken for a record. In format 2 that does no harm: who stores a
 * content can't know the seed. In format 1 everybody knows it; so nothing that is found like this is read, until sound records
 * have followed each other for so long that they can't all lie in one content.
 */
class Beyond {
  readonly #layout: SegmentLayout;
  readonly #at: number;
  /** Whether the looking is at the end of a record. */
  #isAtEnd = true;
  #chainStart: number | undefined;
  /** Whether what is unsound had been durable. */
  wasDurable: boolean;
  /** Where reading goes on; undefined where nothing more can be read. */
  next: number | undefined;

  constructor(layout: SegmentLayout, { at, sealed }: { readonly at: number; readonly sealed: boolean }) {
    this.#layout = layout;
    this.#at = at;
    this.wasDurable = sealed;
  }

  get isKnown(): boolean {
    return this.wasDurable && this.next !== undefined;
  }

  /** Looks at one position of the segment, which is `inner` in the window; gives how far it is to the next one. */
  step(window: Buffer, inner: number, position: number): number {
    // Zeros, by far the most of what follows a torn write, are passed over without a checksum.
    const isZero = window.readUInt32LE(inner + 4) === 0;
    const length = isZero || position === this.#at ? 0 : checkRecord(window, inner, this.#layout.seed);
    if (length === 0) {
      this.#chainStart = undefined;
      const told = this.#isAtEnd && !isZero ? lengthByHeader(window, inner) : 0;
      this.#isAtEnd = told > 0;
      return told || 8;
    }
    this.#chainStart ??= position;
    const isGenuine =
      this.#layout.format === 2 || this.#isAtEnd || position - this.#chainStart >= enclosedSizeMaxBytes;
    if (isGenuine) this.next ??= position;
    if (groupStartOf(window, inner) > this.#at) this.wasDurable = true;
    return length;
  }
}
