import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import type { BlobStore } from '../blobs/blob-store.ts';
import type { BlobRecord, Catalog } from '../catalog/catalog.ts';
import { systemClock, type Clock } from '../core/clock.ts';
import { isDigest, type Digest } from '../core/digest.ts';
import { errnoOf, fromSystemError, mediumErrnoOf } from '../core/errors.ts';
import type { ReportProblem } from '../core/report.ts';
import { pause, timerMs } from '../core/timers.ts';
import { FolderLock } from '../fs/locks/folder-lock.ts';
import { checkStoredFormat } from '../core/release.ts';
import { writeFileDurably } from '../fs/durable-file.ts';
import { checkBlob, countOrphans, type BlobVerdict } from './integrity.ts';
import { flattened, sideBySide } from '../streams/side-by-side.ts';

/** Progress of the last verification, in whichever process of the server it ran. */
export interface VerificationStatus {
  readonly state: 'running' | 'interrupted' | 'finished';
  readonly startedMs: number;
  readonly finishedMs: number | undefined;
  readonly checkedBlobs: number;
  readonly totalBlobs: number;
  readonly readBytes: number;
  /** Blobs that are damaged or that the disk cannot read, those known before included. */
  readonly damagedBlobs: number;
  /** Blobs that this run found damaged, and marked unless the disk cannot read them; the first of them. */
  readonly foundDamaged: readonly Digest[];
  /** Blobs that were marked and are intact. */
  readonly mendedBlobs: number;
  /** Blobs whose recorded size was wrong, and was corrected. */
  readonly resizedBlobs: number;
  /** Orphans, which are not moved. */
  readonly strays: number;
  /** All blobs up to this one are checked. */
  readonly after: Digest | undefined;
  /** The last run that finished, this one or an earlier one; `undefined` if none did. */
  readonly lastEnd?: VerificationEnd | undefined;
}

export interface VerificationEnd {
  readonly finishedMs: number;
  readonly damagedBlobs: number;
}

/** Counts the work of the runs in this process as it happens. */
export interface VerificationCounters {
  read(sizeBytes: number): void;
  checked(): void;
  /** A blob that was not marked is damaged. */
  foundDamaged(): void;
}

export interface VerificationOptions {
  /** Holds the state, and the lock that lets one process at a time verify. */
  readonly folder: string;
  readonly catalog: Catalog;
  readonly blobs: BlobStore;
  /** Bytes read per second at most. */
  readonly bytesPerSecond: number;
  readonly onFinished?: ((status: VerificationStatus) => void | Promise<void>) | undefined;
  readonly counters?: VerificationCounters | undefined;
  readonly reportProblem: ReportProblem;
  readonly clock?: Clock | undefined;
}

const stateFileName = 'verification.json';
const lockFileName = 'verification.lock';
const blobsAtOnce = 2;
/** Blobs listed from one snapshot: one that is held for hours keeps old pages in use. */
const pageBlobs = 1024;
/** What a small blob costs besides its bytes. */
const blobCostBytes = 4096;
const saveIntervalMs = 5000;
/** After a run that could not start. */
const retryPauseMs = 60_000;
const foundMax = 1000;
/** Bytes without a name that are younger may be on their way into the catalog. */
const orphanAgeMs = 60 * 60 * 1000;

/**
 * Reads every blob of a store in use, at a bounded rate, and marks the damaged ones: reading them is an error from then
 * on, until the content is stored again. Blobs that the disk cannot read are counted and not marked: the disk may read
 * them the next time. Corrects sizes that were taken on trust, and counts orphans. One run at a time in all processes; a
 * run that was interrupted is resumed.
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

  /** Starts a run; false if one is in progress, here or in another process. */
  async start(): Promise<boolean> {
    if (this.#running !== undefined || this.#starting || this.#stopping.signal.aborted) return false;
    const lock = await this.#tryLock();
    if (lock === undefined) return false;
    this.#starting = true;
    try {
      const before = await this.recorded();
      const { blobs: totalBlobs } = await this.#options.catalog.stats();
      const run = new Run(this.#options, this.#clock, this.#stopping.signal, { before, totalBlobs });
      await run.save('running');
      this.#running = this.#complete(run, lock);
    } catch (error) {
      await lock.release();
      throw error;
    } finally {
      this.#starting = false;
    }
    return true;
  }

  /** Starts a run `intervalMs` after the start of the last one in any process; the first at once if it is due. */
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

  /** `undefined` if there never was a run. */
  async status(): Promise<VerificationStatus | undefined> {
    const status = await this.recorded();
    if (status?.state !== 'running' || this.#running !== undefined) return status;
    const lock = await this.#tryLock();
    await lock?.release();
    return lock === undefined ? status : { ...status, state: 'interrupted' };
  }

  /**
   * The status as last recorded by any process. Unlike `status` it takes no lock, which would keep a run from starting
   * for a moment: for frequent callers. A run that was interrupted is `running` here.
   */
  async recorded(): Promise<VerificationStatus | undefined> {
    try {
      const content: unknown = JSON.parse(await readFile(join(this.#options.folder, stateFileName), 'utf8'));
      // Releases up to 3.0 wrote no number.
      checkStoredFormat(stateFileName, content, [1]);
      const { format: _format, ...status } = content as VerificationStatus & { readonly format?: number };
      if (status.after !== undefined && !isDigest(status.after)) return undefined;
      return typeof status.startedMs === 'number' && Array.isArray(status.foundDamaged) ? status : undefined;
    } catch (error) {
      if (errnoOf(error) === 'ENOENT' || error instanceof SyntaxError) return undefined;
      throw fromSystemError(error, 'read the state of the last verification');
    }
  }

  /** Resolves when no run is in progress in this process. */
  async idle(): Promise<void> {
    await this.#running;
  }

  /** Interrupts a run in progress; the next one resumes it. Idempotent. */
  async stop(): Promise<void> {
    this.#stopping.abort();
    clearTimeout(this.#timer);
    await this.#running;
  }

  #tryLock(): Promise<FolderLock | undefined> {
    return FolderLock.tryAcquire(this.#options.folder, { mode: 'exclusive', fileName: lockFileName });
  }

  /** Never rejects: nothing waits for it. */
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
  readonly #startedAtMs = performance.now();
  readonly #foundDamaged: Digest[] = [];
  readonly #status: { -readonly [Key in keyof VerificationStatus]: VerificationStatus[Key] };
  /** Bytes that count for the rate. */
  #ratedBytes = 0;
  #savedAtMs = 0;

  constructor(
    options: VerificationOptions,
    clock: Clock,
    signal: AbortSignal,
    start: { readonly before: VerificationStatus | undefined; readonly totalBlobs: number },
  ) {
    this.#options = options;
    this.#clock = clock;
    this.#signal = signal;
    const { before, totalBlobs } = start;
    const resumed = before?.state === 'finished' ? undefined : before;
    this.#foundDamaged.push(...(resumed?.foundDamaged ?? []));
    this.#status = {
      state: 'running',
      startedMs: resumed?.startedMs ?? clock.nowMs(),
      finishedMs: undefined,
      checkedBlobs: resumed?.checkedBlobs ?? 0,
      totalBlobs,
      readBytes: resumed?.readBytes ?? 0,
      damagedBlobs: resumed?.damagedBlobs ?? 0,
      foundDamaged: this.#foundDamaged,
      mendedBlobs: resumed?.mendedBlobs ?? 0,
      resizedBlobs: resumed?.resizedBlobs ?? 0,
      strays: 0,
      after: resumed?.after,
      lastEnd: before && lastEndOf(before),
    };
  }

  async checkAll(): Promise<void> {
    const { catalog, blobs } = this.#options;
    for (;;) {
      const { after } = this.#status;
      const page: BlobRecord[] = [];
      const options = { signal: this.#signal, ...(after !== undefined && { after }) };
      for await (const record of flattened(catalog.listBlobs(options))) {
        page.push(record);
        if (page.length >= pageBlobs) break;
      }
      const last = page.at(-1);
      if (last === undefined) break;
      await sideBySide(page, blobsAtOnce, (record) => this.#check(record));
      this.#status.after = last.digest;
      if (performance.now() - this.#savedAtMs > saveIntervalMs) await this.save('running');
    }
    const beforeMs = this.#clock.nowMs() - orphanAgeMs;
    this.#status.strays = await countOrphans(catalog, blobs, { beforeMs, signal: this.#signal });
  }

  async save(state: VerificationStatus['state']): Promise<VerificationStatus> {
    const finishedMs = state === 'finished' ? this.#clock.nowMs() : undefined;
    const { damagedBlobs } = this.#status;
    const end = finishedMs !== undefined && {
      finishedMs,
      after: undefined,
      lastEnd: { finishedMs, damagedBlobs },
    };
    const status: VerificationStatus = { ...this.#status, state, ...end };
    this.#savedAtMs = performance.now();
    await writeFileDurably(
      join(this.#options.folder, stateFileName),
      Buffer.from(`${JSON.stringify({ format: 1, ...status })}\n`),
    );
    return status;
  }

  async #check(record: BlobRecord): Promise<void> {
    this.#signal.throwIfAborted();
    const { catalog, counters, reportProblem } = this.#options;
    const { digest, damaged } = record;
    await this.#keepRate(blobCostBytes);
    const verdict = await this.#verdictOn(record, (bytes) => {
      this.#status.readBytes += bytes;
      counters?.read(bytes);
      return this.#keepRate(bytes);
    });
    this.#status.checkedBlobs += 1;
    counters?.checked();
    if (verdict.kind === 'intact') {
      if (damaged) {
        await catalog.markDamaged(digest, false);
        this.#status.mendedBlobs += 1;
      }
      await this.#correctSize(record, verdict.logicalSize);
      return;
    }
    // It may have been moved, replaced or collected since it was listed.
    const now = await catalog.findBlob(digest);
    if (now === undefined) return;
    if (!damaged) {
      const again = await this.#verdictOn(now);
      if (again.kind === 'intact') return;
      if (again.kind === 'unreadable') reportProblem(`Cannot read the blob ${digest}`, again.error);
      else await catalog.markDamaged(digest, true);
      counters?.foundDamaged();
      if (this.#foundDamaged.length < foundMax) this.#foundDamaged.push(digest);
    }
    this.#status.damagedBlobs += 1;
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
    this.#status.resizedBlobs += 1;
  }

  /** Counts bytes for the rate, and waits until they are due. */
  async #keepRate(bytes: number): Promise<void> {
    this.#ratedBytes += bytes;
    const dueMs = (this.#ratedBytes / this.#options.bytesPerSecond) * 1000;
    const aheadMs = dueMs - (performance.now() - this.#startedAtMs);
    if (aheadMs > 20) await pause(aheadMs, this.#signal);
  }
}

/** The end of a run; if it has not finished, that of the run before. */
function lastEndOf({ finishedMs, damagedBlobs, lastEnd }: VerificationStatus): VerificationEnd | undefined {
  return finishedMs === undefined ? lastEnd : { finishedMs, damagedBlobs };
}

/** Blobs known to be damaged: those of the last run that finished, until a later one has found more. */
export function damagedBlobsOf(status: VerificationStatus): number {
  return Math.max(status.damagedBlobs, lastEndOf(status)?.damagedBlobs ?? 0);
}

/** `undefined` if no run has finished yet. */
export function lastFinishedMs(status: VerificationStatus): number | undefined {
  return lastEndOf(status)?.finishedMs;
}
