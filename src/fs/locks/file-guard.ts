import { closeSync, openSync } from 'node:fs';
import { cannot, errnoOf, fromSystemError } from '../../core/errors.ts';
import { loadSystemCalls, type LockOperation, type SystemCalls } from '../native.ts';

const pauseMs = 0.5;
const defaultWaitMaxMs = 10_000;

/**
 * flock(2) on a file for synchronous work. Waiting blocks the thread too, so the lock is only for work of
 * milliseconds.
 */
export class FileGuard {
  readonly #calls: SystemCalls;
  readonly #descriptor: number;
  readonly #waitMaxMs: number;

  private constructor(calls: SystemCalls, descriptor: number, waitMaxMs: number) {
    this.#calls = calls;
    this.#descriptor = descriptor;
    this.#waitMaxMs = waitMaxMs;
  }

  /** `undefined` if the file does not exist. */
  static async open(path: string, waitMaxMs = defaultWaitMaxMs): Promise<FileGuard | undefined> {
    const calls = await loadSystemCalls();
    try {
      return new FileGuard(calls, openSync(path, 'r'), waitMaxMs);
    } catch (error) {
      if (errnoOf(error) === 'ENOENT') return undefined;
      throw fromSystemError(error, 'open a file to lock it');
    }
  }

  /** Runs `work` while the lock is held. @throws FiletrackerError `busy` if another process keeps it for too long. */
  run<Result>(mode: 'shared' | 'exclusive', work: () => Result): Result {
    this.#lock(mode);
    try {
      return work();
    } finally {
      this.#calls.tryLock(this.#descriptor, 'unlock');
    }
  }

  close(): void {
    closeSync(this.#descriptor);
  }

  #lock(operation: LockOperation): void {
    if (this.#calls.tryLock(this.#descriptor, operation)) return;
    const pause = new Int32Array(new SharedArrayBuffer(4));
    const startMs = performance.now();
    while (!this.#calls.tryLock(this.#descriptor, operation)) {
      if (performance.now() - startMs > this.#waitMaxMs) {
        throw cannot('busy', 'lock a file', 'another process does not release its lock');
      }
      Atomics.wait(pause, 0, 0, pauseMs);
    }
  }
}
