import { closeSync, openSync } from 'node:fs';
import { errnoOf, FiletrackerError, fromSystemError } from '../core/errors.ts';
import { loadSystemLocks, lockExclusive, lockShared, lockUnlock, type SystemLocks } from './folder-lock.ts';

const pauseMs = 0.5;
const defaultWaitMaxMs = 10_000;

/**
 * A lock on a file among processes, by flock(2) on the file itself, for work that does not give up the thread: it is
 * waited for without giving it up either, so it is for what is held for milliseconds.
 */
export class FileGuard {
  readonly #locks: SystemLocks;
  readonly #descriptor: number;
  readonly #waitMaxMs: number;

  private constructor(locks: SystemLocks, descriptor: number, waitMaxMs: number) {
    this.#locks = locks;
    this.#descriptor = descriptor;
    this.#waitMaxMs = waitMaxMs;
  }

  /** Undefined where there is no such file. */
  static async open(path: string, waitMaxMs = defaultWaitMaxMs): Promise<FileGuard | undefined> {
    const locks = await loadSystemLocks();
    try {
      return new FileGuard(locks, openSync(path, 'r'), waitMaxMs);
    } catch (error) {
      if (errnoOf(error) === 'ENOENT') return undefined;
      throw fromSystemError(error, 'open a file to lock it');
    }
  }

  /** Does some work while no other process holds the lock, or with `shared` none exclusively. */
  run<Result>(mode: 'shared' | 'exclusive', work: () => Result): Result {
    this.#lock(mode === 'shared' ? lockShared : lockExclusive);
    try {
      return work();
    } finally {
      this.#locks.tryLock(this.#descriptor, lockUnlock);
    }
  }

  close(): void {
    closeSync(this.#descriptor);
  }

  /** @throws FiletrackerError `busy` where another process, which must have been halted, holds it on and on. */
  #lock(operation: number): void {
    if (this.#locks.tryLock(this.#descriptor, operation)) return;
    const pause = new Int32Array(new SharedArrayBuffer(4));
    const startMs = performance.now();
    while (!this.#locks.tryLock(this.#descriptor, operation)) {
      if (performance.now() - startMs > this.#waitMaxMs) {
        throw new FiletrackerError('busy', 'Cannot lock a file: another process does not let go of it');
      }
      Atomics.wait(pause, 0, 0, pauseMs);
    }
  }
}
