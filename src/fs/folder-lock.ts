import { close, open } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { promisify } from 'node:util';
import { errnoOf, FiletrackerError, fromSystemError } from '../core/errors.ts';

const openFile = promisify(open);
const closeFile = promisify(close);

export const lockShared = 1;
export const lockExclusive = 2;
const lockNonBlocking = 4;
export const lockUnlock = 8;

const firstPauseMs = 1;
const longestPauseMs = 25;

export interface FolderLockOptions {
  /** Many may hold it `shared`, or one `exclusive`. */
  readonly mode: 'shared' | 'exclusive';
  /** Name of the lock file in the folder; `lock` unless given. It is created where missing, and stays. */
  readonly fileName?: string | undefined;
  /** Permissions of the lock file if it is created, before the umask. */
  readonly fileMode?: number | undefined;
  /** For who only reads: where the file system is read-only, a lock file that is there is locked all the same. */
  readonly mayBeReadOnly?: boolean | undefined;
  readonly signal?: AbortSignal | undefined;
}

/** flock(2). */
export interface SystemLocks {
  /** Gives whether the lock was taken, or given back; false where another holds it. */
  tryLock(descriptor: number, operation: number): boolean;
}

let systemLocks: Promise<SystemLocks> | undefined;

/** Node has no flock(2). The library that calls it is loaded when the first lock is taken, not before. */
export function loadSystemLocks(): Promise<SystemLocks> {
  systemLocks ??= loadFlock();
  return systemLocks;
}

async function loadFlock(): Promise<SystemLocks> {
  const { default: koffi } = await import('koffi');
  const flock = koffi.load(null).func('int flock(int fd, int operation)') as (
    descriptor: number,
    operation: number,
  ) => number;
  const { EWOULDBLOCK, EAGAIN, EINTR } = koffi.os.errno;
  const tryLock = (descriptor: number, operation: number): boolean => {
    for (;;) {
      if (flock(descriptor, operation | lockNonBlocking) === 0) return true;
      const errno = koffi.errno();
      if (errno === EINTR) continue;
      if (errno === EWOULDBLOCK || errno === EAGAIN) return false;
      throw new FiletrackerError('io', `Cannot lock a folder: flock answered with errno ${errno}`);
    }
  };
  return { tryLock };
}

/**
 * A lock on a folder among processes, by flock(2) on a file in it, as Python's `fcntl.flock` takes it.
 *
 * Invariant: the lock is held as long as the descriptor is open, by nobody's care but the kernel's, so that
 * a process that dies, however it dies, holds nothing. Two locks in one process exclude each other as two in
 * two processes do.
 *
 * Waiting is done by asking again, at most every 25 ms, and not by a blocking call in a thread: such a call
 * can't be cancelled, takes one of the four threads that all file access of the process shares, and keeps the
 * process from exiting until some other process lets go (observed: `process.exit` hangs in it).
 */
export class FolderLock implements AsyncDisposable {
  #descriptor: number | undefined;

  private constructor(descriptor: number) {
    this.#descriptor = descriptor;
  }

  /** Takes the lock if it is free at this moment, else gives undefined. */
  static async tryAcquire(folder: string, options: FolderLockOptions): Promise<FolderLock | undefined> {
    const locks = await loadSystemLocks();
    const descriptor = await openLockFile(folder, options);
    let held = false;
    try {
      held = locks.tryLock(descriptor, operationOf(options.mode));
    } finally {
      if (!held) await closeFile(descriptor);
    }
    return held ? new FolderLock(descriptor) : undefined;
  }

  /** Waits for the lock. @throws FiletrackerError `aborted` when `signal` says so. */
  static async acquire(folder: string, options: FolderLockOptions): Promise<FolderLock> {
    const locks = await loadSystemLocks();
    const descriptor = await openLockFile(folder, options);
    try {
      await untilLocked(locks, descriptor, options);
    } catch (error) {
      await closeFile(descriptor);
      throw error;
    }
    return new FolderLock(descriptor);
  }

  /** Lets go. Idempotent. */
  async release(): Promise<void> {
    const descriptor = this.#descriptor;
    this.#descriptor = undefined;
    if (descriptor !== undefined) await closeFile(descriptor);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.release();
  }
}

function operationOf(mode: FolderLockOptions['mode']): number {
  return mode === 'shared' ? lockShared : lockExclusive;
}

async function openLockFile(folder: string, options: FolderLockOptions): Promise<number> {
  const path = join(folder, options.fileName ?? 'lock');
  try {
    return await openFile(path, 'a+', options.fileMode).catch((error: unknown) => {
      if (options.mayBeReadOnly === true && errnoOf(error) === 'EROFS') return openFile(path, 'r');
      throw error;
    });
  } catch (error) {
    throw fromSystemError(error, 'lock a folder');
  }
}

async function untilLocked(
  locks: SystemLocks,
  descriptor: number,
  options: FolderLockOptions,
): Promise<void> {
  const { signal } = options;
  for (let pauseMs = firstPauseMs; ; pauseMs = Math.min(pauseMs * 1.5, longestPauseMs)) {
    if (signal?.aborted === true) throw waitAborted(signal.reason);
    if (locks.tryLock(descriptor, operationOf(options.mode))) return;
    // A random part keeps many waiters from asking in step.
    const pause = pauseMs * (0.5 + Math.random() / 2);
    await delay(pause, undefined, signal === undefined ? {} : { signal }).catch((error: unknown) => {
      throw waitAborted(error);
    });
  }
}

function waitAborted(cause: unknown): FiletrackerError {
  return new FiletrackerError('aborted', 'Cannot lock a folder: the wait for it was aborted', { cause });
}
