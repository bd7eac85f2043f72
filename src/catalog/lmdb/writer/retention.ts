import { FolderLock } from '../../../fs/locks/folder-lock.ts';

// A backup reads the files of a store that another process changes. Meanwhile nothing that was durable may be removed: no
// blob, no segment. The backup holds a shared lock, which the kernel releases when it dies; a step of removal holds the
// same lock exclusively.

const fileName = 'retention.lock';

/** Keeps every blob and every segment of a store from being removed, until released. */
export function retainAll(journalFolder: string, signal?: AbortSignal): Promise<FolderLock> {
  return FolderLock.acquire(journalFolder, { mode: 'shared', fileName, signal });
}

/** Runs a step that removes something; returns `undefined` without running it while a backup retains everything. */
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

/** Whether a backup retains everything now: saves work whose last step would not run. */
export async function isRetained(journalFolder: string): Promise<boolean> {
  return (await unlessRetained(journalFolder, async () => undefined)) === undefined;
}
