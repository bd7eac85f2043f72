import { access } from 'node:fs/promises';
import { join } from 'node:path';
import { errnoOf, FiletrackerError, fromSystemError } from '../../core/errors.ts';
import { FolderLock, type FolderLockOptions } from '../../fs/folder-lock.ts';

const lockFileName = 'lock';

/** Whether any process ever took the lock. */
export async function hasJournalLock(folder: string): Promise<boolean> {
  try {
    await access(join(folder, lockFileName));
    return true;
  } catch (error) {
    if (errnoOf(error) === 'ENOENT') return false;
    throw fromSystemError(error, 'look for the lock of the store');
  }
}

/** Takes the lock of the one process that may change the store, if it is free. */
export function tryLockJournal(
  folder: string,
  options: Pick<FolderLockOptions, 'mayBeReadOnly'> = {},
): Promise<FolderLock | undefined> {
  return FolderLock.tryAcquire(folder, { ...options, mode: 'exclusive', fileName: lockFileName });
}

/** @throws FiletrackerError `store-locked` where another process has it. */
export async function lockJournal(folder: string): Promise<FolderLock> {
  const lock = await tryLockJournal(folder);
  if (lock !== undefined) return lock;
  throw new FiletrackerError('store-locked', 'Cannot open the store: another process has it open');
}
