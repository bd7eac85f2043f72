import { FiletrackerError, fromSystemError, isFiletrackerError } from '../../core/errors.ts';

/**
 * Does work that writes to one folder alone. What its disk does not take is told of the folder: the texts of the parts
 * speak of "the store", which is taken for the one that is read.
 * @param action completes "Cannot …", as in `back up to "/srv/backup"`.
 */
export async function writingTo<Result>(action: string, work: () => Promise<Result>): Promise<Result> {
  try {
    return await work();
  } catch (error) {
    const cause = fromSystemError(error, action);
    const fail = (code: 'no-space' | 'read-only', state: string): FiletrackerError =>
      new FiletrackerError(code, `Cannot ${action}: ${state}`, { cause });
    if (isFiletrackerError(cause, 'no-space')) throw fail('no-space', 'its disk is full');
    if (isFiletrackerError(cause, 'read-only')) throw fail('read-only', 'its file system is read-only');
    throw cause;
  }
}
