import { cannot, errnoOf, isFiletrackerError, type ErrorCode } from '../core/errors.ts';

const states: Readonly<Record<string, readonly [ErrorCode, string]>> = {
  ENOENT: ['io', 'there is no such file or folder'],
  EACCES: ['io', 'permission is denied'],
  EPERM: ['io', 'permission is denied'],
  ENOSPC: ['no-space', 'the disk is full'],
  EDQUOT: ['no-space', 'the disk quota is used up'],
  EROFS: ['read-only', 'the file system is read-only'],
  EISDIR: ['io', 'it is a folder'],
  ENOTDIR: ['io', 'a part of its path is a file, not a folder'],
  ENOTEMPTY: ['io', 'it is a folder'],
  EEXIST: ['io', 'it exists already'],
  ENAMETOOLONG: ['io', 'its path is too long'],
  ELOOP: ['io', 'its path is a loop of symbolic links'],
};

/**
 * Translates a system error about a file of the user or the cache for the user, who may see local paths. Any other error is
 * returned as it is. `action` completes "Cannot …".
 */
export function fromLocalError(error: unknown, action: string): unknown {
  const errno = errnoOf(error);
  if (errno === undefined || isFiletrackerError(error)) return error;
  const [code, state] = states[errno] ?? ['io', `the system reports ${errno}`];
  return cannot(code, action, state, { cause: error });
}

/** Runs `work` with system errors translated. */
export function translatingErrors<T>(action: string, work: () => T): T {
  try {
    return work();
  } catch (error) {
    throw fromLocalError(error, action);
  }
}
