import type { Clock } from '../core/clock.ts';
import { FiletrackerError } from '../core/errors.ts';
import type { FileName } from '../core/file-name.ts';
import { freeSpaceAgeMaxMs } from '../core/limits.ts';

export interface FreeSpaceOptions {
  /** Bytes that stay free. */
  readonly minBytes: number;
  /** Free bytes of the disk of the store; `undefined` if unknown. */
  readonly ask: () => Promise<number | undefined>;
  readonly clock: Clock;
}

/**
 * Capacity of the disk of the store for uploads.
 *
 * Invariant: the disk is asked at most once in `freeSpaceAgeMaxMs`. The bytes that puts in progress announced count as
 * taken. Puts that announced nothing are aborted when the capacity is used up, which is checked as often.
 */
export class FreeSpace {
  readonly #options: FreeSpaceOptions;
  readonly #unannounced = new Set<AbortController>();
  /** Bytes announced by the puts in progress. */
  #announcedBytes = 0;
  #freeBytes: number | undefined;
  #knownMs = Number.NEGATIVE_INFINITY;
  #asking: Promise<void> | undefined;
  #timer: NodeJS.Timeout | undefined;

  constructor(options: FreeSpaceOptions) {
    this.#options = options;
  }

  /** Free bytes of the disk at the last look. */
  get bytes(): number | undefined {
    return this.#freeBytes;
  }

  /** `undefined`, without a turn of the event loop, if the last look is recent enough. */
  refresh(): Promise<void> | undefined {
    if (this.#options.clock.nowMs() - this.#knownMs < freeSpaceAgeMaxMs) return undefined;
    this.#asking ??= this.#ask();
    return this.#asking;
  }

  async #ask(): Promise<void> {
    try {
      this.#freeBytes = await this.#options.ask();
      this.#knownMs = this.#options.clock.nowMs();
    } finally {
      this.#asking = undefined;
    }
  }

  /** @throws FiletrackerError `no-space`. */
  check(sizeBytes: number, name: FileName): void {
    if (!this.#hasCapacityFor(sizeBytes)) throw noSpace(name);
  }

  #hasCapacityFor(sizeBytes: number): boolean {
    if (this.#freeBytes === undefined) return true;
    return this.#freeBytes - this.#announcedBytes - sizeBytes >= this.#options.minBytes;
  }

  /** Counts a put in progress until its size is given back. @throws as `check`. */
  take(sizeBytes: number, name: FileName): void {
    this.check(sizeBytes, name);
    this.#announcedBytes += sizeBytes;
  }

  giveBack(sizeBytes: number): void {
    this.#announcedBytes -= sizeBytes;
  }

  /** Runs a put of unknown size and aborts it when the capacity is used up. @throws `no-space` then. */
  async watch<Result>(
    name: FileName,
    signal: AbortSignal | undefined,
    put: (signal: AbortSignal) => Promise<Result>,
  ): Promise<Result> {
    const controller = new AbortController();
    this.#unannounced.add(controller);
    this.#timer ??= setInterval(() => void this.#abortUnannounced(), freeSpaceAgeMaxMs).unref();
    try {
      return await put(
        signal === undefined ? controller.signal : AbortSignal.any([signal, controller.signal]),
      );
    } catch (error) {
      throw controller.signal.aborted ? noSpace(name) : error;
    } finally {
      this.#unannounced.delete(controller);
      if (this.#unannounced.size === 0) {
        clearInterval(this.#timer);
        this.#timer = undefined;
      }
    }
  }

  async #abortUnannounced(): Promise<void> {
    try {
      await this.refresh();
    } catch {
      return; // The next put receives the error.
    }
    if (this.#hasCapacityFor(0)) return;
    for (const controller of this.#unannounced) controller.abort();
  }
}

function noSpace(name: FileName): FiletrackerError {
  return new FiletrackerError(
    'no-space',
    `Cannot store "${name}": the disk of the store has too little space left`,
  );
}
