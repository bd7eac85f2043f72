import { close, constants as flags, fstatSync, open, statSync } from 'node:fs';
import { constants } from 'node:os';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { errnoOf, fromSystemError, isFiletrackerError } from '../../core/errors.ts';
import { loadSystemCalls } from '../native.ts';
import { polled } from './polling.ts';

const openFile = promisify(open);
const closeFile = promisify(close);

export interface FolderLockOptions {
  /** Many holders may be `shared`, or one `exclusive`. */
  readonly mode: 'shared' | 'exclusive';
  /** Name of the lock file in the folder; `lock` by default. It is created if missing, and stays. */
  readonly fileName?: string | undefined;
  /** Permissions of a new lock file, before the umask. */
  readonly fileMode?: number | undefined;
  /** For readers: on a read-only file system, an existing lock file is locked nevertheless. */
  readonly mayBeReadOnly?: boolean | undefined;
  readonly signal?: AbortSignal | undefined;
}

/** Of file systems that cannot lock folders, such as NFS. */
const unsupportedErrnos: ReadonlySet<unknown> = new Set([
  constants.errno.EBADF,
  constants.errno.EINVAL,
  constants.errno.EOPNOTSUPP,
  constants.errno.ENOSYS,
]);

/**
 * A lock on a folder among processes: flock(2) on a file in it, as Python's `fcntl.flock` takes it, or on the folder
 * itself.
 *
 * Invariant: the kernel holds the lock while the descriptor is open, so a dead process holds nothing. Two locks in
 * one process exclude each other as in two processes. The locked file was under its path when the lock was taken;
 * `isInPlace` reports whether it still is: removing a lock file admits a second process.
 *
 * `acquire` polls. A blocking call in a thread can't be cancelled, occupies one of the four threads that serve all
 * file access of the process, and keeps the process from exiting (observed: `process.exit` hangs in it).
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

  /** Takes the lock if it is free, or returns `undefined`. @throws FiletrackerError of the disk. */
  static async tryAcquire(folder: string, options: FolderLockOptions): Promise<FolderLock | undefined> {
    const path = join(folder, options.fileName ?? 'lock');
    return this.#tryAcquire(path, options.mode, () => openLockFile(path, options));
  }

  /**
   * Takes the lock of the folder itself, which cannot be removed while it has content, if it is free, or returns
   * `undefined`. On a file system without such locks the result excludes no other process, but reports whether the
   * folder is in place.
   */
  static async tryAcquireItself(folder: string): Promise<FolderLock | undefined> {
    const openFolder = (): Promise<number> => openFile(folder, flags.O_RDONLY | flags.O_DIRECTORY);
    try {
      return await this.#tryAcquire(folder, 'exclusive', openFolder);
    } catch (error) {
      if (!isFiletrackerError(error, 'io') || !unsupportedErrnos.has(error.details.actual)) {
        throw fromSystemError(error, 'lock a folder');
      }
      return new FolderLock(folder, await openFolder());
    }
  }

  static async #tryAcquire(
    path: string,
    mode: 'shared' | 'exclusive',
    open: () => Promise<number>,
  ): Promise<FolderLock | undefined> {
    const calls = await loadSystemCalls();
    for (;;) {
      const descriptor = await open();
      let lock: FolderLock | undefined;
      try {
        if (!calls.tryLock(descriptor, mode)) return undefined;
        const taken = new FolderLock(path, descriptor);
        // If it was removed before the lock was taken, another process may have one of the same name.
        if (!taken.isInPlace) continue;
        lock = taken;
        return lock;
      } finally {
        if (lock === undefined) await closeFile(descriptor);
      }
    }
  }

  /** Waits for the lock. @throws FiletrackerError `aborted`. */
  static acquire(folder: string, options: FolderLockOptions): Promise<FolderLock> {
    return polled('lock a folder', options.signal, () => this.tryAcquire(folder, options));
  }

  /** Whether the locked file is still under its path. */
  get isInPlace(): boolean {
    const { dev, ino } = statSync(this.#path, { throwIfNoEntry: false }) ?? {};
    return dev === this.#inode.dev && ino === this.#inode.ino;
  }

  /** Idempotent. */
  async release(): Promise<void> {
    const descriptor = this.#descriptor;
    this.#descriptor = undefined;
    if (descriptor !== undefined) await closeFile(descriptor);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.release();
  }
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
