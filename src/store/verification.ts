import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import type { BlobStore } from '../blobs/blob-store.ts';
import type { BlobRecord, Catalog } from '../catalog/catalog.ts';
import { systemClock, type Clock } from '../core/clock.ts';
import { isDigest, type Digest } from '../core/digest.ts';
import { errnoOf, fromSystemError, mediumErrnoOf } from '../core/errors.ts';
import { pause, timerMs } from '../core/timers.ts';
import { FolderLock } from '../fs/locks/folder-lock.ts';
import { checkStoredFormat } from '../core/release.ts';
import { writeFileDurably } from '../fs/durable-file.ts';
import { checkBlob, countOrphans, type BlobVerdict } from './integrity.ts';
import { flattened, sideBySide } from '../streams/side-by-side.ts';

/** How the last verification got on, whichever process of the server made it. */
export interface VerificationStatus {
  readonly state: 'running' | 'interrupted' | 'finished';
  readonly startedMs: number;
  readonly finishedMs: number | undefined;
  readonly checkedBlobs: number;
  readonly totalBlobs: number;
  readonly readBytes: number;
  /** Contents that are not right or that the disk does not give, those known before included. */
  readonly damagedBlobs: number;
  /** Contents that this run has found, and marked but where the disk does not give them; the first of them. */
  readonly foundDamaged: readonly Digest[];
  /** Contents that had been marked and are right. */
  readonly mendedBlobs: number;
  /** Contents whose size was told wrongly, which is put right. */
  readonly resizedBlobs: number;
  /** Contents that nothing names; they stay where they are. */
  readonly strays: number;
  /** All up to this one are checked. */
  readonly after: Digest | undefined;
  /** The last run that came to its end, this one or one before; undefined where none did. */
  readonly lastEnd?: VerificationEnd | undefined;
}

export interface VerificationEnd {
  readonly finishedMs: number;
  readonly damagedBlobs: number;
}

/** Counts what the runs in this process do, as they do it. */
export interface VerificationCounters {
  read(sizeBytes: number): void;
  checked(): void;
  /** A content that was taken for sound is not. */
  foundDamaged(): void;
}

export interface VerificationOptions {
  /** Where it keeps its state, and the lock that lets one process at a time verify. */
  readonly folder: string;
  readonly catalog: Catalog;
  readonly blobs: BlobStore;
  /** Bytes that are read in a second, at the most. */
  readonly bytesPerSecond: number;
  readonly onFinished?: ((status: VerificationStatus) => void | Promise<void>) | undefined;
  readonly counters?: VerificationCounters | undefined;
  readonly reportProblem: (problem: string, error: unknown) => void;
  readonly clock?: Clock | undefined;
}

const stateFileName = 'verification.json';
const lockFileName = 'verification.lock';
const blobsAtOnce = 2;
/** What a small blob costs, beside its bytes. */
const blobCostBytes = 4096;
const saveIntervalMs = 5000;
/** After a run that could not be begun. */
const retryPauseMs = 60_000;
const foundMax = 1000;
/** Bytes that nobody names yet, so young, may be on their way into the catalog. */
const strayAgeMs = 60 * 60 * 1000;

/**
 * Reads every blob of a store that is in use, at a bounded rate, and marks what is not right: reading it answers
 * an error from then on, until the content is stored again. What the disk does not give is counted and left as it is: it
 * may be given the next time. Corrects sizes that were taken on trust, and counts
 * strays. One run at a time, in all processes; one that was cut short is gone on with.
 */
export class Verification {
  readonly #options: VerificationOptions;
  readonly #clock: Clock;
  readonly #stopping = new AbortController();
  #starting = false;
  #running: Promise<void> | undefined;
  #timer: NodeJS.Timeout | undefined;

  constructor(options: VerificationOptions) {
    this.#options = options;
    this.#clock = options.clock ?? systemClock;
  }

  /** Begins a run; false where one is under way, here or in another process. */
  async start(): Promise<boolean> {
    if (this.#running !== undefined || this.#starting || this.#stopping.signal.aborted) return false;
    const { folder } = this.#options;
    const lock = await FolderLock.tryAcquire(folder, { mode: 'exclusive', fileName: lockFileName });
    if (lock === undefined) return false;
    this.#starting = true;
    try {
      const run = await this.#prepare();
      this.#running = this.#complete(run, lock);
    } catch (error) {
      await lock.release();
      throw error;
    } finally {
      this.#starting = false;
    }
    return true;
  }

  /** Begins a run each `intervalMs` after the last one was begun, whoever did; the first at once if it is due. */
  schedule(intervalMs: number): void {
    const begin = async (): Promise<number> => {
      const last = await this.status();
      const dueMs = last?.state === 'finished' ? last.startedMs + intervalMs : 0;
      const nowMs = this.#clock.nowMs();
      if (nowMs < dueMs) return dueMs - nowMs;
      await this.start();
      return intervalMs;
    };
    const again = (pauseMs: number): void => {
      if (this.#stopping.signal.aborted) return;
      this.#timer = setTimeout(run, timerMs(pauseMs)).unref();
    };
    const run = (): void => {
      begin().then(again, (error: unknown) => {
        this.#options.reportProblem('Cannot verify the store', error);
        again(Math.min(intervalMs, retryPauseMs));
      });
    };
    run();
  }

  /** Undefined where there never was a run. */
  async status(): Promise<VerificationStatus | undefined> {
    const status = await readStatus(this.#options.folder);
    if (status?.state !== 'running' || this.#running !== undefined) return status;
    const { folder } = this.#options;
    const lock = await FolderLock.tryAcquire(folder, { mode: 'exclusive', fileName: lockFileName });
    await lock?.release();
    return lock === undefined ? status : { ...status, state: 'interrupted' };
  }

  /**
   * What was written down last, by whichever process. Unlike `status` it takes no lock, which for that moment would
   * keep a run from being begun: for who asks often. A run that was cut short is `running` here.
   */
  recorded(): Promise<VerificationStatus | undefined> {
    return readStatus(this.#options.folder);
  }

  /** Resolves when no run is under way in this process. */
  async idle(): Promise<void> {
    await this.#running;
  }

  /** Ends a run that is under way; the next one goes on. Idempotent. */
  async stop(): Promise<void> {
    this.#stopping.abort();
    clearTimeout(this.#timer);
    await this.#running;
  }

  async #prepare(): Promise<Run> {
    const before = await readStatus(this.#options.folder);
    const { blobs: totalBlobs } = await this.#options.catalog.stats();
    const run = new Run(this.#options, this.#clock, this.#stopping.signal, { before, totalBlobs });
    await run.save('running');
    return run;
  }

  /** Never rejects: who began it has gone on. */
  async #complete(run: Run, lock: FolderLock): Promise<void> {
    const { onFinished, reportProblem } = this.#options;
    try {
      await run.checkAll();
      const status = await run.save('finished');
      await onFinished?.(status);
    } catch (error) {
      if (!this.#stopping.signal.aborted) reportProblem('Cannot verify the store', error);
      await run
        .save('interrupted')
        .catch((failure: unknown) => reportProblem('Cannot write a file', failure));
    } finally {
      this.#running = undefined;
      await lock.release();
    }
  }
}

class Run {
  readonly #options: VerificationOptions;
  readonly #clock: Clock;
  readonly #signal: AbortSignal;
  readonly #totalBlobs: number;
  readonly #startedMs: number;
  readonly #begunMs = performance.now();
  readonly #foundDamaged: Digest[] = [];
  readonly #endBefore: VerificationEnd | undefined;
  #after: Digest | undefined;
  #checked = 0;
  #readBytes = 0;
  #budgetBytes = 0;
  #damaged = 0;
  #mended = 0;
  #resized = 0;
  #strays = 0;
  #savedMs = 0;

  constructor(
    options: VerificationOptions,
    clock: Clock,
    signal: AbortSignal,
    start: { readonly before: VerificationStatus | undefined; readonly totalBlobs: number },
  ) {
    this.#options = options;
    this.#clock = clock;
    this.#signal = signal;
    this.#totalBlobs = start.totalBlobs;
    const { before } = start;
    this.#startedMs = clock.nowMs();
    this.#endBefore = before && lastEndOf(before);
    if (before === undefined || before.state === 'finished') return;
    this.#startedMs = before.startedMs;
    this.#after = before.after;
    this.#checked = before.checkedBlobs;
    this.#readBytes = before.readBytes;
    this.#damaged = before.damagedBlobs;
    this.#mended = before.mendedBlobs;
    this.#resized = before.resizedBlobs;
    this.#foundDamaged.push(...before.foundDamaged);
  }

  async checkAll(): Promise<void> {
    const { catalog, blobs } = this.#options;
    for (;;) {
      // Each page is read from a snapshot of its own: one that is held for hours keeps old pages in use.
      const page: BlobRecord[] = [];
      const options = { signal: this.#signal, ...(this.#after !== undefined && { after: this.#after }) };
      for await (const record of flattened(catalog.listBlobs(options))) {
        page.push(record);
        if (page.length >= 1024) break;
      }
      const last = page.at(-1);
      if (last === undefined) break;
      await sideBySide(page, blobsAtOnce, (record) => this.#check(record));
      this.#after = last.digest;
      if (performance.now() - this.#savedMs > saveIntervalMs) await this.save('running');
    }
    const beforeMs = this.#clock.nowMs() - strayAgeMs;
    this.#strays = await countOrphans(catalog, blobs, { beforeMs, signal: this.#signal });
  }

  async save(state: VerificationStatus['state']): Promise<VerificationStatus> {
    const finishedMs = state === 'finished' ? this.#clock.nowMs() : undefined;
    const status: VerificationStatus = {
      state,
      startedMs: this.#startedMs,
      finishedMs,
      checkedBlobs: this.#checked,
      totalBlobs: this.#totalBlobs,
      readBytes: this.#readBytes,
      damagedBlobs: this.#damaged,
      foundDamaged: this.#foundDamaged,
      mendedBlobs: this.#mended,
      resizedBlobs: this.#resized,
      strays: this.#strays,
      after: state === 'finished' ? undefined : this.#after,
      lastEnd: finishedMs === undefined ? this.#endBefore : { finishedMs, damagedBlobs: this.#damaged },
    };
    this.#savedMs = performance.now();
    await writeFileDurably(
      join(this.#options.folder, stateFileName),
      Buffer.from(`${JSON.stringify({ format: 1, ...status })}\n`),
    );
    return status;
  }

  async #check(record: BlobRecord): Promise<void> {
    this.#signal.throwIfAborted();
    const { catalog, counters } = this.#options;
    const { digest, damaged } = record;
    await this.#pace(blobCostBytes);
    const onBytes = (bytes: number): Promise<void> => {
      this.#readBytes += bytes;
      counters?.read(bytes);
      return this.#pace(bytes);
    };
    const verdict = await this.#verdictOn(record, onBytes);
    this.#checked += 1;
    counters?.checked();
    if (verdict.kind === 'sound') {
      if (damaged) {
        await catalog.markDamaged(digest, false);
        this.#mended += 1;
      }
      await this.#correctSize(record, verdict.logicalSize);
      return;
    }
    // It may have been moved, replaced or collected since it was listed.
    const now = await catalog.findBlob(digest);
    if (now === undefined) return;
    if (!damaged) {
      const again = await this.#verdictOn(now);
      if (again.kind === 'sound') return;
      if (again.kind === 'unreadable') {
        this.#options.reportProblem(`Cannot read the content ${digest}`, again.error);
      } else {
        await catalog.markDamaged(digest, true);
      }
      counters?.foundDamaged();
      if (this.#foundDamaged.length < foundMax) this.#foundDamaged.push(digest);
    }
    this.#damaged += 1;
  }

  async #verdictOn(
    record: BlobRecord,
    onBytes?: (bytes: number) => Promise<void>,
  ): Promise<BlobVerdict | { readonly kind: 'unreadable'; readonly error: unknown }> {
    try {
      return await checkBlob(record, this.#options.blobs, { signal: this.#signal, onBytes });
    } catch (error) {
      if (mediumErrnoOf(error) === undefined) throw error;
      return { kind: 'unreadable', error };
    }
  }

  async #correctSize(record: BlobRecord, logicalSize: number): Promise<void> {
    const { location, digest, encoding, storedSize } = record;
    if (record.logicalSize === logicalSize || location.kind !== 'object') return;
    const { key } = location;
    await this.#options.catalog.addBlobs([{ digest, encoding, logicalSize, storedSize, key }]);
    this.#resized += 1;
  }

  /** Waits until so many bytes more keep within the rate. */
  async #pace(bytes: number): Promise<void> {
    this.#budgetBytes += bytes;
    const dueMs = (this.#budgetBytes / this.#options.bytesPerSecond) * 1000;
    const aheadMs = dueMs - (performance.now() - this.#begunMs);
    if (aheadMs > 20) await pause(aheadMs, this.#signal);
  }
}

/** The end of a run; of one that is not at its end, that of the run before. */
function lastEndOf({ finishedMs, damagedBlobs, lastEnd }: VerificationStatus): VerificationEnd | undefined {
  return finishedMs === undefined ? lastEnd : { finishedMs, damagedBlobs };
}

/** Contents that are known to be damaged: those of the last run that ended, until a later one has found more. */
export function damagedBlobsOf(status: VerificationStatus): number {
  return Math.max(status.damagedBlobs, lastEndOf(status)?.damagedBlobs ?? 0);
}

/** Undefined where no run has come to its end yet. */
export function lastFinishedMs(status: VerificationStatus): number | undefined {
  return lastEndOf(status)?.finishedMs;
}

async function readStatus(folder: string): Promise<VerificationStatus | undefined> {
  try {
    const content: unknown = JSON.parse(await readFile(join(folder, stateFileName), 'utf8'));
    // Releases up to 3.0 wrote no number.
    checkStoredFormat(stateFileName, content, [1]);
    const { format: _format, ...status } = content as VerificationStatus & { readonly format?: number };
    if (status.after !== undefined && !isDigest(status.after)) return undefined;
    return typeof status.startedMs === 'number' && Array.isArray(status.foundDamaged) ? status : undefined;
  } catch (error) {
    if (errnoOf(error) === 'ENOENT' || error instanceof SyntaxError) return undefined;
    throw fromSystemError(error, 'read how the last verification went');
  }
}
