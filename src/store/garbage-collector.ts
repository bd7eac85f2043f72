import type { BlobStore } from '../blobs/blob-store.ts';
import type { Catalog } from '../catalog/catalog.ts';
import {
  collectionBatchBlobs,
  collectionGraceMs,
  collectionIntervalMs,
  stagedLifetimeMs,
} from '../core/limits.ts';
import type { ReportProblem } from '../core/report.ts';
import { timerMs } from '../core/timers.ts';

export interface GarbageCollectorOptions {
  readonly catalog: Catalog;
  readonly blobs: BlobStore;
  readonly reportProblem: ReportProblem;
  /** Time that a blob stays after its last name is gone; 0 collects it at once. */
  readonly graceMs?: number | undefined;
  readonly intervalMs?: number | undefined;
  /**
   * Whether no other process can be writing to the blob store when this one starts: then every upload found
   * at the start is left over, else only old ones are.
   */
  readonly exclusive?: boolean | undefined;
  /** Told of every run that has ended well, with the time it took. */
  readonly onRun?: ((report: CollectionReport, durationMs: number) => void) | undefined;
}

/** What one run has done. */
export interface CollectionReport {
  readonly collectedBlobs: number;
  readonly collectedBytes: number;
  readonly sweptUploads: number;
}

/** Shortest pause between runs, so that a hint with each change makes one run for many changes. */
const hintPauseMs = 50;

/**
 * Collects blobs that no entry names, and uploads whose server is gone.
 *
 * It only proposes: `Catalog.collect` decides inside the catalog's sequence of changes, by count, pin and time
 * as they are at that instant, and removes the bytes in the same step. So however old the list is that a run
 * works from, a blob that a put has taken up again stays (invariant 5); and a reader holds the file open, or
 * looks up again.
 *
 * Invariant: at most one run is under way; a failed run is reported and the next one tries again.
 */
export class GarbageCollector {
  readonly #catalog: Catalog;
  readonly #blobs: BlobStore;
  readonly #reportProblem: ReportProblem;
  readonly #graceMs: number;
  readonly #intervalMs: number;
  readonly #exclusive: boolean;
  readonly #onRun: ((report: CollectionReport, durationMs: number) => void) | undefined;
  #timer: NodeJS.Timeout | undefined;
  #timerDueMs = Infinity;
  #running: Promise<CollectionReport> | undefined;
  #sweptMs: number | undefined;
  #state: 'new' | 'started' | 'stopped' = 'new';

  constructor(options: GarbageCollectorOptions) {
    this.#catalog = options.catalog;
    this.#blobs = options.blobs;
    this.#reportProblem = options.reportProblem;
    this.#graceMs = options.graceMs ?? collectionGraceMs;
    this.#intervalMs = options.intervalMs ?? collectionIntervalMs;
    this.#exclusive = options.exclusive ?? false;
    this.#onRun = options.onRun;
  }

  /**
   * Sweeps what uploads are left over, and begins to run in the background. Resolves after the sweep: an
   * exclusive one must be over before the first upload, which it could not tell from a left-over one.
   */
  async start(): Promise<void> {
    if (this.#state !== 'new') return;
    this.#state = 'started';
    try {
      await this.#sweep();
    } catch (error) {
      this.#reportProblem('Cannot remove uploads that are left over', error);
    }
    this.#schedule(0);
  }

  /** Told that a blob may have lost its last name: with a short grace period the next run comes sooner. */
  hint(): void {
    if (this.#graceMs < this.#intervalMs) this.#schedule(Math.max(this.#graceMs, hintPauseMs));
  }

  /** Runs once, now; a run that is under way is joined. @throws what the catalog or the blob store throws. */
  run(): Promise<CollectionReport> {
    this.#running ??= this.#run().finally(() => {
      this.#running = undefined;
    });
    return this.#running;
  }

  /** Ends the background work and waits for a run that is under way. Idempotent. */
  async stop(): Promise<void> {
    this.#state = 'stopped';
    clearTimeout(this.#timer);
    await this.#running?.catch(() => undefined); // Reported where it was begun.
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.stop();
  }

  #schedule(delayMs: number): void {
    if (this.#state !== 'started') return;
    const dueMs = performance.now() + delayMs;
    if (dueMs >= this.#timerDueMs) return;
    clearTimeout(this.#timer);
    this.#timerDueMs = dueMs;
    this.#timer = setTimeout(() => void this.#runInBackground(), timerMs(delayMs)).unref();
  }

  async #runInBackground(): Promise<void> {
    this.#timerDueMs = Infinity;
    try {
      await this.run();
    } catch (error) {
      this.#reportProblem('Cannot collect garbage', error);
    }
    this.#schedule(this.#intervalMs);
  }

  async #run(): Promise<CollectionReport> {
    const startMs = performance.now();
    const sweptUploads = await this.#sweep();
    let collectedBlobs = 0;
    let collectedBytes = 0;
    // One millisecond more, because a blob that lost its name in this very one has had its grace of 0.
    const beforeMs = (await this.#catalog.timeMs()) - this.#graceMs + 1;
    for (let progress = true; progress && this.#state !== 'stopped';) {
      const digests = await this.#catalog.listUnreferenced(beforeMs, collectionBatchBlobs);
      const collected = digests.length === 0 ? [] : await this.#catalog.collect(digests, beforeMs);
      collectedBlobs += collected.length;
      for (const blob of collected) collectedBytes += blob.storedSize;
      // Pinned blobs stay on the list: with nothing else on it, this run is done.
      progress = collected.length > 0;
    }
    const report = { collectedBlobs, collectedBytes, sweptUploads };
    this.#onRun?.(report, performance.now() - startMs);
    return report;
  }

  /** Once at the start, then as often as keeps old uploads from gathering. */
  async #sweep(): Promise<number> {
    const nowMs = await this.#catalog.timeMs();
    const all = this.#sweptMs === undefined && this.#state === 'started' && this.#exclusive;
    if (this.#sweptMs !== undefined && nowMs - this.#sweptMs < stagedLifetimeMs / 24) return 0;
    this.#sweptMs = nowMs;
    return await this.#blobs.sweepStaged(all ? Number.MAX_SAFE_INTEGER : nowMs - stagedLifetimeMs);
  }
}
