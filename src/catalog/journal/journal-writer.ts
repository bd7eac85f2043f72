import { constants } from 'node:fs';
import { open, type FileHandle } from 'node:fs/promises';
import { type Clock } from '../../core/clock.ts';
import { cannot, errnoOf, fromSystemError } from '../../core/errors.ts';
import { segmentSizeBytes } from '../../core/limits.ts';
import { freeBytes, makeFolders, privateFolderMode, syncFolder } from '../../fs/folders.ts';
import { syncFile } from '../../fs/durable-file.ts';
import {
  encodeRecord,
  recordSizeBytes,
  type JournalRecord,
  type RecordPosition,
  type RecordSeed,
} from './record.ts';
import {
  encodeSegmentHeader,
  makeSeed,
  noteSeed,
  readSegmentHeader,
  segmentHeaderSizeBytes,
  segmentPath,
} from './segment-header.ts';

const prefillMinBytes = 256 * 1024;
const prefillMaxBytes = 8 * 1024 * 1024;

export interface WrittenGroup {
  /** The positions of the records, in order. */
  readonly positions: readonly RecordPosition[];
  /** The end of the journal after the group. */
  readonly end: RecordPosition;
}

/** The end of the journal when a writer opens it; segment 0 if the journal is empty. */
export interface JournalEnd extends RecordPosition {
  /** Whether the last segment ends exactly at `offset`, without a torn write, so that it may be continued. */
  readonly clean: boolean;
}

export interface JournalWriterOptions {
  readonly clock: Clock;
  readonly segmentSizeBytes?: number | undefined;
  /** Called before a segment is begun; if it throws, none is. */
  readonly check?: (() => void) | undefined;
}

/**
 * Appends groups of records to the journal; a group is durable when `append` resolves.
 *
 * Invariant: everything before `#offset` of the current segment is durable and intact. A group that fails is cut off
 * by a new segment whose header records the end of the one before, so that nothing of it is ever read back; a group that
 * is taken back is overwritten in place. One `append` or `takeBack` runs at a time.
 *
 * A group is one write to a file opened with O_DSYNC, into space that was filled with zeros before: measured, that takes
 * half the time of a write that lets the file grow (0.28 against 0.6 ms), because the sync has no metadata to flush, and
 * one call of the thread pool instead of two.
 */
export class JournalWriter {
  readonly #folder: string;
  readonly #clock: Clock;
  readonly #check: (() => void) | undefined;
  readonly #segmentSizeBytes: number;
  #file: FileHandle | undefined;
  #segment: number;
  #seed: RecordSeed;
  #offset: number;
  #filledTo = 0;
  #prefillBytes = prefillMinBytes;
  #prefill: Promise<void> | undefined;
  #endIsCertain = true;
  /** A segment that this writer could not finish creating. */
  #unfinished: number | undefined;

  private constructor(folder: string, end: JournalEnd, options: JournalWriterOptions) {
    this.#folder = folder;
    this.#clock = options.clock;
    this.#check = options.check;
    this.#segmentSizeBytes = options.segmentSizeBytes ?? segmentSizeBytes;
    this.#segment = end.segment;
    this.#seed = makeSeed(end.segment);
    this.#offset = end.offset;
  }

  static async open(folder: string, end: JournalEnd, options: JournalWriterOptions): Promise<JournalWriter> {
    const writer = new JournalWriter(folder, end, options);
    try {
      makeFolders(folder, privateFolderMode);
      if (end.segment > 0) await makeEndDurable(folder, end.segment);
      const continues = end.clean && end.segment > 0 && (await writer.#continueSegment());
      if (!continues) await writer.#beginSegment();
    } catch (error) {
      throw fromSystemError(error, 'open the journal');
    }
    return writer;
  }

  /** The current segment; older ones never change. */
  get segment(): number {
    return this.#segment;
  }

  /** The end of the journal: everything before it is durable. */
  get end(): RecordPosition {
    return { segment: this.#segment, offset: this.#offset };
  }

  /**
   * Whether nothing of a failed group can be read back. False if neither the group nor its removal was written for certain:
   * then the group may be in the journal until the next one is written.
   */
  get endIsCertain(): boolean {
    return this.#endIsCertain;
  }

  /**
   * Appends a group and makes it durable.
   * @throws FiletrackerError `no-space`, `io` …: nothing of the group is in the journal, if `endIsCertain`.
   */
  async append(records: readonly JournalRecord[]): Promise<WrittenGroup> {
    try {
      let size = 0;
      for (const record of records) size += recordSizeBytes(record);
      if (this.#file === undefined || this.#offset + size > this.#segmentSizeBytes)
        await this.#beginSegment();
      const group = Buffer.allocUnsafe(size);
      const positions = this.#encode(records, group);
      // A prefill that is still writing zeros here would overwrite the group.
      if (this.#prefill !== undefined && this.#offset + size > this.#filledTo) await this.#prefill;
      this.#endIsCertain = false;
      await writeAll(this.#file, group, this.#offset);
      this.#endIsCertain = true;
      this.#offset += size;
      this.#prefillAhead();
      return { positions, end: this.end };
    } catch (error) {
      await this.#abandonSegment();
      throw fromSystemError(error, 'write the journal');
    }
  }

  /**
   * Overwrites the last group with zeros, in its own space, as a full disk may have no other.
   * @returns whether nothing of it can be read back (`endIsCertain`).
   */
  async takeBack({ positions, end }: WrittenGroup): Promise<boolean> {
    const start = positions[0]?.offset ?? end.offset;
    this.#offset = start;
    this.#endIsCertain = false;
    try {
      await writeAll(this.#file, Buffer.alloc(end.offset - start), start);
      this.#endIsCertain = true;
    } catch {
      await this.#abandonSegment();
    }
    return this.#endIsCertain;
  }

  /** Cuts the current segment at its end and closes it. Idempotent. */
  async close(): Promise<void> {
    const file = this.#file;
    this.#file = undefined;
    await this.#prefill;
    if (file === undefined) return;
    try {
      await file.truncate(this.#offset);
      await file.sync();
    } finally {
      await file.close();
    }
  }

  #encode(records: readonly JournalRecord[], group: Buffer): RecordPosition[] {
    const positions: RecordPosition[] = [];
    let at = 0;
    for (const record of records) {
      positions.push({ segment: this.#segment, offset: this.#offset + at });
      at += encodeRecord(record, group, at, this.#seed, this.#offset);
    }
    return positions;
  }

  async #beginSegment(): Promise<void> {
    this.#check?.();
    const previousEnd = this.#offset;
    await this.close();
    const number = this.#segment + 1;
    const seed = makeSeed(number);
    await noteSeed(this.#folder, seed);
    const file = await this.#createSegment(number);
    try {
      const header = { number, createdMs: this.#clock.nowMs(), previousEnd, seed };
      await writeAll(file, encodeSegmentHeader(header), 0);
      await file.sync();
      await syncFolder(this.#folder);
    } catch (error) {
      this.#unfinished = number;
      await file.close();
      throw error;
    }
    this.#adopt(file, seed, segmentHeaderSizeBytes);
  }

  /** An existing file belongs to another process and must not be overwritten, unless this writer failed to finish it. */
  async #createSegment(number: number): Promise<FileHandle> {
    const { O_WRONLY, O_CREAT, O_EXCL, O_TRUNC, O_DSYNC } = constants;
    const mode = this.#unfinished === number ? O_TRUNC : O_EXCL;
    try {
      return await open(segmentPath(this.#folder, number), O_WRONLY | O_CREAT | O_DSYNC | mode, 0o644);
    } catch (cause) {
      if (errnoOf(cause) !== 'EEXIST') throw cause;
      const state = 'it exists already; another process writes to this store';
      throw cannot('unavailable', `begin segment ${number} of the journal`, state, { cause });
    }
  }

  /** Continues the last segment, if it has the current format. */
  async #continueSegment(): Promise<boolean> {
    const header = await readSegmentHeader(this.#folder, this.#segment);
    if (header?.format !== 2) return false;
    const file = await open(segmentPath(this.#folder, this.#segment), constants.O_WRONLY | constants.O_DSYNC);
    this.#adopt(file, header.seed, this.#offset);
    return true;
  }

  #adopt(file: FileHandle, seed: RecordSeed, offset: number): void {
    this.#file = file;
    this.#endIsCertain = true;
    this.#segment = seed.segment;
    this.#seed = seed;
    this.#offset = offset;
    this.#filledTo = offset;
    this.#prefillBytes = prefillMinBytes;
  }

  /** After a failed write: cuts off the group now if the disk allows it; the next header does so in any case. */
  async #abandonSegment(): Promise<void> {
    if (this.#file === undefined) {
      await this.#prefill;
      return;
    }
    try {
      await this.close();
      this.#endIsCertain = true;
    } catch {
      // A disk that refused the group may refuse its removal too.
    }
  }

  /** Fills zeros ahead of the end, in the background, once half of the filled space is used up. */
  #prefillAhead(): void {
    const ahead = this.#filledTo - this.#offset;
    if (this.#prefill !== undefined || ahead > this.#prefillBytes / 2) return;
    const start = Math.max(this.#filledTo, this.#offset);
    const end = Math.min(start + this.#prefillBytes, this.#segmentSizeBytes);
    if (end <= start) return;
    this.#prefillBytes = Math.min(this.#prefillBytes * 2, prefillMaxBytes);
    this.#prefill = fillZeros(segmentPath(this.#folder, this.#segment), start, end)
      .then((filled) => {
        if (filled) this.#filledTo = end;
      })
      // Only the speed depends on it: on a full disk groups are written without it.
      .catch(() => undefined)
      .finally(() => {
        this.#prefill = undefined;
      });
  }
}

async function writeAll(file: FileHandle | undefined, bytes: Buffer, position: number): Promise<void> {
  if (file === undefined) throw new Error('the journal has no segment');
  let written = 0;
  while (written < bytes.length) {
    const { bytesWritten } = await file.write(bytes, written, bytes.length - written, position + written);
    written += bytesWritten;
  }
}

/** False if the disk has little more than that left, which is for changes. */
async function fillZeros(path: string, start: number, end: number): Promise<boolean> {
  if (freeBytes(path) < 2 * (end - start)) return false;
  const file = await open(path, constants.O_WRONLY);
  try {
    await writeAll(file, Buffer.alloc(end - start), start);
    await file.datasync();
    return true;
  } finally {
    await file.close();
  }
}

/**
 * Makes the last segment, as it was read, durable. A process that was killed during a write, or before it had synced the
 * name of a new segment, leaves bytes that the next process reads although they are not on the disk yet: power loss could
 * take them from under the changes that were made on top of them.
 */
async function makeEndDurable(folder: string, segment: number): Promise<void> {
  await syncFile(segmentPath(folder, segment));
  await syncFolder(folder);
}
