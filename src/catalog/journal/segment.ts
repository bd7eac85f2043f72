import { open, rm, stat, type FileHandle } from 'node:fs/promises';
import { cannot, errnoOf } from '../../core/errors.ts';
import { namesIn, syncFolder } from '../../fs/folders.ts';
import {
  checkRecord,
  decodeRecord,
  groupStartOf,
  lengthByHeader,
  recordSizeMaxBytes,
  type PlacedRecord,
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

/** More than any record of format 1 takes: a longer run of intact records is not inside the content of one record. */
const enclosedSizeMaxBytes = 18 * 1024;

/** The numbers of all segments in a journal folder, ascending; empty if there is no folder. */
export async function listSegments(folder: string): Promise<number[]> {
  const names = (await namesIn(folder, 'list the journal')) ?? [];
  return names.filter((name) => /^\d{10}\.log$/.test(name)).map((name) => Number(name.slice(0, 10)));
}

/** The end of a segment as recorded in the header of the next one; `undefined` if that is missing or damaged. */
export async function recordedEnd(folder: string, number: number): Promise<number | undefined> {
  const next = await readSegmentHeader(folder, number + 1).catch((error: unknown) => {
    if (errnoOf(error) === 'ENOENT') return undefined;
    throw error;
  });
  return next?.previousEnd;
}

/**
 * The end of a segment that is not the last: as recorded in the next one, even if the file is shorter now. If compaction
 * has removed the next one, it is the end of the file.
 */
export async function endOfSealedSegment(folder: string, number: number): Promise<number> {
  return (await recordedEnd(folder, number)) ?? (await stat(segmentPath(folder, number))).size;
}

/**
 * Cuts a segment at its recorded end: the bytes beyond, of a write that failed, must never be read. Does nothing if there
 * is no next segment.
 */
export async function cutSegment(folder: string, number: number): Promise<void> {
  const end = await recordedEnd(folder, number);
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

/** As `cutSegment`, for a segment that compaction may have removed. */
export async function cutSegmentIfThere(folder: string, number: number): Promise<void> {
  await cutSegment(folder, number).catch((error: unknown) => {
    if (errnoOf(error) !== 'ENOENT') throw error;
  });
}

/**
 * Removes a segment, durably. The one before it is cut first, as its end is recorded nowhere else. Idempotent.
 * If it were not durable, power loss might restore a segment with a put after a younger one with its removal, dropped
 * later, is gone for good.
 */
export async function removeSegment(folder: string, number: number): Promise<void> {
  await cutSegmentIfThere(folder, number - 1);
  await rm(segmentPath(folder, number), { force: true });
  await syncFolder(folder);
}

/** Bytes of a segment that were durable once and hold no intact record. */
export interface DamagedRange {
  readonly segment: number;
  readonly start: number;
  readonly end: number;
}

export interface ScanOptions {
  /** Offset of the first record to read; by default that after the header. */
  readonly from?: number | undefined;
  /** The end, if it is known: everything before it was durable once. */
  readonly end?: number | undefined;
  /** Whether another segment follows, so that no write was cut short here; true if `end` is given. */
  readonly sealed?: boolean | undefined;
  /** Called for each damaged range, which is skipped; without it damage is an error. */
  readonly onDamage?: ((range: DamagedRange) => void) | undefined;
}

/**
 * Reads the records of a segment in order, in batches of one window (4 MiB); inline bytes are views that are valid until
 * the next batch. Returns the offset at which the intact records end.
 *
 * In the last segment the first bad record ends it, as a torn write, unless a record follows whose group began after it:
 * then the bad record was durable, and is damage.
 * @throws FiletrackerError `corrupt-store` for damage, unless `onDamage` is given.
 */
export async function* scanSegment(
  folder: string,
  number: number,
  options: ScanOptions = {},
): AsyncGenerator<PlacedRecord[], number, void> {
  await using file = await open(segmentPath(folder, number), 'r').catch((error: unknown) =>
    failToRead(number, error),
  );
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
    // Records follow a header that is durable: if the header is lost, unreadable bytes are no torn write.
    const isUnreadable = !layout.isKnown && at === begin && size > segmentHeaderSizeBytes;
    if (!wasDurable && !sealed && !isUnreadable) return at;
    // A segment that was not cut when it was closed continues with the zeros that were filled in ahead.
    if (next === undefined && options.end === undefined && (await isZero(file, number, at, limit))) return at;
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
}

function reportDamage(range: DamagedRange, onDamage: ScanOptions['onDamage']): void {
  if (onDamage !== undefined) {
    onDamage(range);
    return;
  }
  const where = `segment ${range.segment}, bytes ${range.start} to ${range.end}`;
  throw cannot(
    'corrupt-store',
    'read the journal',
    `${where} are damaged; run filetracker-recover on the store`,
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
): { records: PlacedRecord[]; consumed: number } {
  const records: PlacedRecord[] = [];
  const { segment } = seed;
  let position = 0;
  // A record that reaches beyond the window is left for the next one, which begins with it.
  const stop = last ? window.length : window.length - recordSizeMaxBytes;
  while (position < stop) {
    const length = checkRecord(window, position, seed);
    if (length === 0) break;
    const record = decodeRecord(window, position);
    if (record !== undefined) records.push({ record, segment, offset: at + position, length });
    position += length;
  }
  return { records, consumed: position };
}

/**
 * Looks for intact records behind the bad one at `at`, until it is known where reading continues and whether the bad
 * record was durable: because `sealed` says so, or because a group began after it.
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
 * What follows a bad record, as far as it was looked at.
 *
 * Records are looked for at the ends of records that state their length, intact or not; behind one that does not, at
 * every position, so that a part of its content may be taken for a record. In format 2 that does no harm: the author of a
 * file cannot know the seed. In format 1 the seed is no secret, so nothing that is found like this is read until intact
 * records have followed each other for longer than one content.
 */
class Beyond {
  readonly #layout: SegmentLayout;
  readonly #at: number;
  /** Whether the position is the end of a record. */
  #isAtEnd = true;
  #chainStart: number | undefined;
  /** Whether the bad record had been durable. */
  wasDurable: boolean;
  /** Where reading continues; `undefined` if nothing more can be read. */
  next: number | undefined;

  constructor(layout: SegmentLayout, { at, sealed }: { readonly at: number; readonly sealed: boolean }) {
    this.#layout = layout;
    this.#at = at;
    this.wasDurable = sealed;
  }

  get isKnown(): boolean {
    return this.wasDurable && this.next !== undefined;
  }

  /** Looks at one position of the segment, at `inner` in the window; returns the distance to the next one. */
  step(window: Buffer, inner: number, position: number): number {
    // Zeros, which are most of what follows a torn write, are skipped without a checksum.
    const isZero = window.readUInt32LE(inner + 4) === 0;
    const length = isZero || position === this.#at ? 0 : checkRecord(window, inner, this.#layout.seed);
    if (length === 0) {
      this.#chainStart = undefined;
      const stated = this.#isAtEnd && !isZero ? lengthByHeader(window, inner) : 0;
      this.#isAtEnd = stated > 0;
      return stated || 8;
    }
    this.#chainStart ??= position;
    const isGenuine =
      this.#layout.format === 2 || this.#isAtEnd || position - this.#chainStart >= enclosedSizeMaxBytes;
    if (isGenuine) this.next ??= position;
    if (groupStartOf(window, inner) > this.#at) this.wasDurable = true;
    return length;
  }
}
