import { access } from 'node:fs/promises';
import { join } from 'node:path';
import { errnoOf, FiletrackerError, fromSystemError } from '../../../core/errors.ts';
import { FolderLock } from '../../../fs/locks/folder-lock.ts';

const lockFileName = 'lock';
const checkIntervalMs = 100;

export interface JournalLockOptions {
  /** For a process that changes nothing: it makes no lock file, and locks the one that is there. */
  readonly readOnly?: boolean | undefined;
}

/**
 * The lock of the one process that may change a store: the folder of the journal itself, which can't be removed unnoticed, and
 * the file `lock` in it, by which release 3.0 knows that the store is in use.
 */
export class JournalLock implements AsyncDisposable {
  readonly #folder: FolderLock;
  readonly #file: FolderLock | undefined;
  #checkedMs = Number.NEGATIVE_INFINITY;

  private constructor(folder: FolderLock, file: FolderLock | undefined) {
    this.#folder = folder;
    this.#file = file;
  }

  /** Takes the lock if it is free, else gives undefined. The folder must be there. */
  static async tryAcquire(
    folder: string,
    options: JournalLockOptions = {},
  ): Promise<JournalLock | undefined> {
    const itself = await FolderLock.tryAcquireItself(folder);
    if (itself === undefined) return undefined;
    try {
      const needsFile = options.readOnly !== true || (await isThere(join(folder, lockFileName)));
      const file = needsFile ? await tryLockFile(folder, options) : undefined;
      if (!needsFile || file !== undefined) return new JournalLock(itself, file);
    } catch (error) {
      await itself.release();
      throw error;
    }
    await itself.release();
    return undefined;
  }

  /** Whether the journal is still where it was locked, and still locked. */
  get isInPlace(): boolean {
    return this.#folder.isInPlace && this.#file?.isInPlace !== false;
  }

  /**
   * As `check`, for every group of changes: 4 µs. The lock file shows nearly everything that can happen to the folder too; what
   * it does not (a copy of the store by hard links in its place), the folder shows, within 100 ms.
   */
  checkOften(): void {
    const isRecent = performance.now() - this.#checkedMs < checkIntervalMs;
    if (!isRecent || this.#file?.isInPlace !== true) this.check();
  }

  /**
   * Sees to it that this process still is the only one that changes the store under its path; to be called before anything
   * is written or removed. @throws FiletrackerError `unavailable`.
   */
  check(): void {
    if (!this.#folder.isInPlace) {
      const state = 'its folder was moved, removed or replaced while the store was in use';
      throw new FiletrackerError(
        'unavailable',
        `Cannot change the store: ${state}; stop the server, and start it on the right folder`,
      );
    }
    if (this.#file?.isInPlace === false) {
      const state =
        'the file "journal/lock" was removed or replaced, so that another server may use the store';
      throw new FiletrackerError(
        'unavailable',
        `Cannot change the store: ${state}; stop all its servers, and start one`,
      );
    }
    this.#checkedMs = performance.now();
  }

  /** Idempotent. */
  async release(): Promise<void> {
    await this.#file?.release();
    await this.#folder.release();
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.release();
  }
}

function tryLockFile(folder: string, { readOnly }: JournalLockOptions): Promise<FolderLock | undefined> {
  return FolderLock.tryAcquire(folder, {
    mode: 'exclusive',
    fileName: lockFileName,
    mayBeReadOnly: readOnly,
  });
}

async function isThere(path: string): Promise<boolean> {
  try {
    await access(path);
    return true;
  } catch (error) {
    if (errnoOf(error) === 'ENOENT') return false;
    throw fromSystemError(error, 'look for the lock of the store');
  }
}

/** @throws FiletrackerError `store-locked` where another process has it. */
export async function lockJournal(folder: string): Promise<JournalLock> {
  const lock = await JournalLock.tryAcquire(folder);
  if (lock !== undefined) return lock;
  throw new FiletrackerError('store-locked', 'Cannot open the store: another process has it open');
}
