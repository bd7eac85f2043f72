import { FolderLock } from '../../../fs/locks/folder-lock.ts';

// A backup reads the files of a store that another process changes. While it does, nothing that was durable
// may go: no blob, no segment. It says so by a shared lock, which the kernel takes from it when it dies;
// who removes takes the same lock exclusively, for as long as one step of removal takes.

const fileName = 'retention.lock';

/** Keeps every blob and every segment of a store from being removed, until released. */
export function retainAll(journalFolder: string, signal?: AbortSignal): Promise<FolderLock> {
  return FolderLock.acquire(journalFolder, { mode: 'shared', fileName, signal });
}

/** Runs a step that removes something, unless somebody retains all; undefined where it was not run. */
export async function unlessRetained<Result>(
  journalFolder: string,
  step: () => Promise<Result>,
): Promise<{ readonly result: Result } | undefined> {
  const lock = await FolderLock.tryAcquire(journalFolder, { mode: 'exclusive', fileName });
  if (lock === undefined) return undefined;
  try {
    return { result: await step() };
  } finally {
    await lock.release();
  }
}

/** Whether somebody retains all at this moment: to spare work whose last step would not be run. */
export async function isRetained(journalFolder: string): Promise<boolean> {
  return (await unlessRetained(journalFolder, async () => undefined)) === undefined;
}
