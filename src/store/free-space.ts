import type { Clock } from '../core/clock.ts';
import { FiletrackerError } from '../core/errors.ts';
import type { FileName } from '../core/file-name.ts';
import { freeSpaceAgeMaxMs } from '../core/limits.ts';

export interface FreeSpaceOptions {
  /** Bytes that stay free, whatever is put. */
  readonly minBytes: number;
  /** Bytes that the disk of the store has left; undefined where nobody can tell. */
  readonly ask: () => Promise<number | undefined>;
  readonly clock: Clock;
}

/**
 * Knows how much room the disk of the store has for uploads.
 *
 * Invariant: the disk is asked at most once in `freeSpaceAgeMaxMs`. What puts under way will still write is counted
 * by what they announced; those that announced nothing are given up when there is no more room, which is looked at
 * as often.
 */
export class FreeSpace {
  readonly #options: FreeSpaceOptions;
  readonly #unannounced = new Set<AbortController>();
  /** Bytes announced by the puts under way. */
  #announcedBytes = 0;
  #freeBytes: number | undefined;
  #knownMs = Number.NEGATIVE_INFINITY;
  #asking: Promise<void> | undefined;
  #timer: NodeJS.Timeout | undefined;

  constructor(options: FreeSpaceOptions) {
    this.#options = options;
  }

  /** Bytes that the disk had left when it was last asked. */
  get bytes(): number | undefined {
    return this.#freeBytes;
  }

  /** Undefined, without a turn of the event loop, where it is known. */
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
    if (!this.#hasRoomFor(sizeBytes)) throw noSpace(name);
  }

  #hasRoomFor(sizeBytes: number): boolean {
    if (this.#freeBytes === undefined) return true;
    return this.#freeBytes - this.#announcedBytes - sizeBytes >= this.#options.minBytes;
  }

  /** Counts a put that is under way until what is given is called. @throws as `check`. */
  take(sizeBytes: number, name: FileName): () => void {
    this.check(sizeBytes, name);
    this.#announcedBytes += sizeBytes;
    return () => {
      this.#announcedBytes -= sizeBytes;
    };
  }

  /** Runs a put of unknown size; the signal tells it to stop. @throws `no-space` then. */
  async watch<Result>(name: FileName, put: (signal: AbortSignal) => Promise<Result>): Promise<Result> {
    const controller = new AbortController();
    this.#unannounced.add(controller);
    this.#timer ??= setInterval(() => void this.#giveUpUnannounced(), freeSpaceAgeMaxMs).unref();
    try {
      return await put(controller.signal);
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

  async #giveUpUnannounced(): Promise<void> {
    try {
      await this.refresh();
    } catch {
      // The next put is told.
      return;
    }
    if (this.#hasRoomFor(0)) return;
    for (const controller of this.#unannounced) controller.abort();
  }
}

function noSpace(name: FileName): FiletrackerError {
  return new FiletrackerError(
    'no-space',
    `Cannot store "${name}": the disk of the store has too little space left`,
  );
}
