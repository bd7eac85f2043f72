import { access } from 'node:fs/promises';
import { join } from 'node:path';
import { cannot, errnoOf, fromSystemError } from '../../../core/errors.ts';
import { FolderLock } from '../../../fs/locks/folder-lock.ts';

const lockFileName = 'lock';
const checkIntervalMs = 100;

export interface JournalLockOptions {
  /** For a process that changes nothing: it creates no lock file, and locks an existing one. */
  readonly readOnly?: boolean | undefined;
}

/**
 * The lock of the one process that may change a store: on the folder of the journal, which cannot be removed unnoticed, and
 * on the file `lock` in it, by which release 3.0 knows that the store is in use.
 */
export class JournalLock implements AsyncDisposable {
  readonly #folder: FolderLock;
  readonly #file: FolderLock | undefined;
  #checkedMs = Number.NEGATIVE_INFINITY;

  private constructor(folder: FolderLock, file: FolderLock | undefined) {
    this.#folder = folder;
    this.#file = file;
  }

  /** Takes the lock if it is free, else returns `undefined`. The folder must exist. */
  static async tryAcquire(
    folder: string,
    options: JournalLockOptions = {},
  ): Promise<JournalLock | undefined> {
    const itself = await FolderLock.tryAcquireItself(folder);
    if (itself === undefined) return undefined;
    try {
      const needsFile = options.readOnly !== true || (await exists(join(folder, lockFileName)));
      const file = needsFile ? await tryLockFile(folder, options) : undefined;
      if (!needsFile || file !== undefined) return new JournalLock(itself, file);
    } catch (error) {
      await itself.release();
      throw error;
    }
    await itself.release();
    return undefined;
  }

  /** Whether the locked journal is still at its path. */
  get isInPlace(): boolean {
    return this.#folder.isInPlace && this.#file?.isInPlace !== false;
  }

  /**
   * As `check`, for every group of changes: 4 µs. The lock file shows nearly everything that can happen to the folder; the
   * rest (a copy of the store by hard links in its place) the folder shows, within 100 ms.
   */
  checkOften(): void {
    const isRecent = performance.now() - this.#checkedMs < checkIntervalMs;
    if (!isRecent || this.#file?.isInPlace !== true) this.check();
  }

  /**
   * Checks that this is still the only process that changes the store at its path; called before anything is written or
   * removed. @throws FiletrackerError `unavailable`.
   */
  check(): void {
    if (!this.#folder.isInPlace) {
      const state = 'its folder was moved, removed or replaced while the store was in use';
      const action = 'stop the server, and start it on the right folder';
      throw cannot('unavailable', 'change the store', `${state}; ${action}`);
    }
    if (this.#file?.isInPlace === false) {
      const state =
        'the file "journal/lock" was removed or replaced, so that another server may use the store';
      throw cannot('unavailable', 'change the store', `${state}; stop all its servers, and start one`);
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

async function exists(path: string): Promise<boolean> {
  try {
    await access(path);
    return true;
  } catch (error) {
    if (errnoOf(error) === 'ENOENT') return false;
    throw fromSystemError(error, 'look for the lock of the store');
  }
}

/** @throws FiletrackerError `store-locked` if another process has the lock. */
export async function lockJournal(folder: string): Promise<JournalLock> {
  const lock = await JournalLock.tryAcquire(folder);
  if (lock !== undefined) return lock;
  throw cannot('store-locked', 'open the store', 'another process has it open');
}
