import { access, constants } from 'node:fs/promises';
import { resolve } from 'node:path';
import { retainAll } from '../../catalog/lmdb/writer/retention.ts';
import { errnoOf, fromSystemError } from '../../core/errors.ts';
import { storeFolders } from '../store-folders.ts';

const notWritable: ReadonlySet<string | undefined> = new Set(['EROFS', 'EACCES', 'EPERM']);

/**
 * Keeps `backup prune` from removing what is being read, until disposed of. A reader who may not write to the backup, or
 * whose file system is read-only, can lock nothing, and reads without a lock.
 */
export async function retainBackup(
  backup: string,
  signal: AbortSignal | undefined,
): Promise<AsyncDisposable> {
  const { journal } = storeFolders(resolve(backup));
  try {
    await access(journal, constants.W_OK);
  } catch (error) {
    if (!notWritable.has(errnoOf(error))) throw fromSystemError(error, 'lock the backup');
    return { [Symbol.asyncDispose]: () => Promise.resolve() };
  }
  return retainAll(journal, signal);
}
