import type { BlobStore } from '../blobs/blob-store.ts';
import type { Catalog } from '../catalog/catalog.ts';
import { SingleFlight } from '../core/concurrency.ts';
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
  /** How long a blob is kept after its last name is gone; 0 collects it at once. */
  readonly graceMs?: number | undefined;
  readonly intervalMs?: number | undefined;
  /**
   * Whether no other process can be writing to the blob store at the start: then every upload found at the start is
   * abandoned, else only old uploads are.
   */
  readonly exclusive?: boolean | undefined;
  /** Called after every successful run, with its duration. */
  readonly onRun?: ((report: CollectionReport, durationMs: number) => void) | undefined;
}

export interface CollectionReport {
  readonly collectedBlobs: number;
  readonly collectedBytes: number;
  readonly sweptUploads: number;
}

/** Shortest pause between runs, so that one run serves the hints of many changes. */
const hintPauseMs = 50;

/**
 * Collects blobs that no entry names, and uploads whose server is gone.
 *
 * It only proposes: `Catalog.collect` decides inside the catalog's sequence of changes, by references, holds and time at
 * that instant, and removes the bytes in the same step. So however old the list of a run is, a blob that a put uses again
 * stays (invariant 5). A reader has the file open, or looks up again.
 *
 * Invariant: at most one run is in progress. A failed run is reported, and the next one tries again.
 */
export class GarbageCollector {
  readonly #options: GarbageCollectorOptions;
  readonly #graceMs: number;
  readonly #intervalMs: number;
  readonly #runs = new SingleFlight<CollectionReport>();
  #timer: NodeJS.Timeout | undefined;
  #timerDueMs = Infinity;
  #sweptMs: number | undefined;
  #state: 'new' | 'started' | 'stopped' = 'new';

  constructor(options: GarbageCollectorOptions) {
    this.#options = options;
    this.#graceMs = options.graceMs ?? collectionGraceMs;
    this.#intervalMs = options.intervalMs ?? collectionIntervalMs;
  }

  /**
   * Sweeps abandoned uploads and begins to run in the background. Resolves after the sweep: an exclusive sweep must end
   * before the first upload, which it could not tell from an abandoned one.
   */
  async start(): Promise<void> {
    if (this.#state !== 'new') return;
    this.#state = 'started';
    try {
      await this.#sweep();
    } catch (error) {
      this.#options.reportProblem('Cannot remove abandoned uploads', error);
    }
    this.#schedule(0);
  }

  /** A blob may have lost its last name: with a short grace period the next run comes sooner. */
  hint(): void {
    if (this.#graceMs < this.#intervalMs) this.#schedule(Math.max(this.#graceMs, hintPauseMs));
  }

  /** Runs once, now, or joins a run in progress. @throws what the catalog or the blob store throws. */
  run(): Promise<CollectionReport> {
    return this.#runs.run(() => this.#run());
  }

  /** Ends the background work and waits for a run in progress. Idempotent. */
  async stop(): Promise<void> {
    this.#state = 'stopped';
    clearTimeout(this.#timer);
    await this.#runs.running?.catch(() => undefined); // Its caller receives the error.
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
      this.#options.reportProblem('Cannot collect garbage', error);
    }
    this.#schedule(this.#intervalMs);
  }

  async #run(): Promise<CollectionReport> {
    const { catalog, onRun } = this.#options;
    const startMs = performance.now();
    const sweptUploads = await this.#sweep();
    let collectedBlobs = 0;
    let collectedBytes = 0;
    // Plus one millisecond, because a blob that lost its name in this very one has had its grace of 0.
    const beforeMs = (await catalog.timeMs()) - this.#graceMs + 1;
    for (let progress = true; progress && this.#state !== 'stopped';) {
      const digests = await catalog.listUnreferenced(beforeMs, collectionBatchBlobs);
      const collected = digests.length === 0 ? [] : await catalog.collect(digests, beforeMs);
      collectedBlobs += collected.length;
      for (const blob of collected) collectedBytes += blob.storedSize;
      // Held blobs stay on the list: if it has no others, this run is done.
      progress = collected.length > 0;
    }
    const report = { collectedBlobs, collectedBytes, sweptUploads };
    onRun?.(report, performance.now() - startMs);
    return report;
  }

  /** Once at the start, then often enough to keep old uploads from piling up. */
  async #sweep(): Promise<number> {
    const { catalog, blobs, exclusive = false } = this.#options;
    const nowMs = await catalog.timeMs();
    const all = this.#sweptMs === undefined && this.#state === 'started' && exclusive;
    if (this.#sweptMs !== undefined && nowMs - this.#sweptMs < stagedLifetimeMs / 24) return 0;
    this.#sweptMs = nowMs;
    return await blobs.sweepStaged(all ? Number.MAX_SAFE_INTEGER : nowMs - stagedLifetimeMs);
  }
}
