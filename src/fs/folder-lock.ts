import { close, constants as flags, fstatSync, open, statSync } from 'node:fs';
import { constants } from 'node:os';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { promisify } from 'node:util';
import { errnoOf, FiletrackerError, fromSystemError, isFiletrackerError } from '../core/errors.ts';

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
      const details = { actual: errno };
      throw new FiletrackerError('io', `Cannot lock a folder: flock answered with errno ${errno}`, {
        details,
      });
    }
  };
  return { tryLock };
}

/** Of file systems that lock no folders, such as NFS. */
const unsupportedErrnos: ReadonlySet<unknown> = new Set([
  constants.errno.EBADF,
  constants.errno.EINVAL,
  constants.errno.EOPNOTSUPP,
  constants.errno.ENOSYS,
]);

/**
 * A lock on a folder among processes, by flock(2) on a file in it, as Python's `fcntl.flock` takes it, or on the folder
 * itself.
 *
 * Invariant: the lock is held as long as the descriptor is open, by nobody's care but the kernel's, so that
 * a process that dies, however it dies, holds nothing. Two locks in one process exclude each other as two in
 * two processes do. What was locked stood under its path when the lock was taken; whether it still does, `isInPlace` tells:
 * whoever removes a lock file lets a second process in.
 *
 * Waiting is done by asking again, at most every 25 ms, and not by a blocking call in a thread: such a call
 * can't be cancelled, takes one of the four threads that all file access of the process shares, and keeps the
 * process from exiting until some other process lets go (observed: `process.exit` hangs in it).
 */
export class FolderLock implements AsyncDisposable {
  readonly #path: string;
  readonly #inode: { readonly dev: number; readonly ino: number };
  #descriptor: number | undefined;

  private constructor(path: string, descriptor: number) {
    this.#path = path;
    this.#inode = fstatSync(descriptor);
    this.#descriptor = descriptor;
  }

  /** Takes the lock if it is free at this moment, else gives undefined. */
  static async tryAcquire(folder: string, options: FolderLockOptions): Promise<FolderLock | undefined> {
    const path = pathOf(folder, options);
    return this.#tryAcquire(path, operationOf(options.mode), () => openLockFile(path, options));
  }

  /**
   * Takes the lock of the folder itself, which nobody can remove while anything is in it, if it is free; else gives
   * undefined. Where the file system has no such locks, it gives one that excludes nobody, but knows whether the folder
   * is in place.
   */
  static async tryAcquireItself(folder: string): Promise<FolderLock | undefined> {
    const openFolder = (): Promise<number> => openFile(folder, flags.O_RDONLY | flags.O_DIRECTORY);
    try {
      return await this.#tryAcquire(folder, lockExclusive, openFolder);
    } catch (error) {
      if (!isFiletrackerError(error, 'io') || !unsupportedErrnos.has(error.details.actual)) {
        throw fromSystemError(error, 'lock a folder');
      }
      return new FolderLock(folder, await openFolder());
    }
  }

  static async #tryAcquire(
    path: string,
    operation: number,
    open: () => Promise<number>,
  ): Promise<FolderLock | undefined> {
    const locks = await loadSystemLocks();
    for (;;) {
      const descriptor = await open();
      let lock: FolderLock | undefined;
      try {
        if (!locks.tryLock(descriptor, operation)) return undefined;
        const taken = new FolderLock(path, descriptor);
        // Removed between the opening and the lock: another process may have one of the same name.
        if (!taken.isInPlace) continue;
        lock = taken;
        return lock;
      } finally {
        if (lock === undefined) await closeFile(descriptor);
      }
    }
  }

  /** Waits for the lock. @throws FiletrackerError `aborted` when `signal` says so. */
  static async acquire(folder: string, options: FolderLockOptions): Promise<FolderLock> {
    const { signal } = options;
    for (let pauseMs = firstPauseMs; ; pauseMs = Math.min(pauseMs * 1.5, longestPauseMs)) {
      if (signal?.aborted === true) throw waitAborted(signal.reason);
      const lock = await this.tryAcquire(folder, options);
      if (lock !== undefined) return lock;
      // A random part keeps many waiters from asking in step.
      const pause = pauseMs * (0.5 + Math.random() / 2);
      await delay(pause, undefined, signal === undefined ? {} : { signal }).catch((error: unknown) => {
        throw waitAborted(error);
      });
    }
  }

  /** Whether what is locked still stands under its path. */
  get isInPlace(): boolean {
    const { dev, ino } = statSync(this.#path, { throwIfNoEntry: false }) ?? {};
    return dev === this.#inode.dev && ino === this.#inode.ino;
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

function pathOf(folder: string, { fileName = 'lock' }: FolderLockOptions): string {
  return join(folder, fileName);
}

async function openLockFile(path: string, options: FolderLockOptions): Promise<number> {
  try {
    return await openFile(path, 'a+', options.fileMode).catch((error: unknown) => {
      if (options.mayBeReadOnly === true && errnoOf(error) === 'EROFS') return openFile(path, 'r');
      throw error;
    });
  } catch (error) {
    throw fromSystemError(error, 'lock a folder');
  }
}

function waitAborted(cause: unknown): FiletrackerError {
  return new FiletrackerError('aborted', 'Cannot lock a folder: the wait for it was aborted', { cause });
}
