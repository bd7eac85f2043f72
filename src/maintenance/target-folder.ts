import { sep } from 'node:path';
import { cannot, fromSystemError, isFiletrackerError } from '../core/errors.ts';
import { realPathOf } from '../fs/folders.ts';

/**
 * Refuses to work from a folder into itself, or if either is within the other, through links too.
 * @param action completes "Cannot …", as in "back up". @param remedy what to do instead, if there is something.
 * @throws FiletrackerError `invalid-argument`.
 */
export async function checkApart(
  source: string,
  target: string,
  action: string,
  remedy?: string,
): Promise<void> {
  const [from, to] = await Promise.all([realPathOf(source), realPathOf(target)]);
  const contains = (outer: string, inner: string): boolean =>
    `${inner}${sep}`.startsWith(outer.endsWith(sep) ? outer : `${outer}${sep}`);
  if (!contains(from, to) && !contains(to, from)) return;
  const state = from === to ? 'they are the same folder' : 'one is within the other';
  const text = remedy === undefined ? state : `${state}; ${remedy}`;
  throw cannot('invalid-argument', `${action} "${source}" to "${target}"`, text);
}

/**
 * Runs work that writes to one folder alone. An error of its disk names the folder: the texts of the parts say "the
 * store", which a reader would take for the one that is read.
 * @param action completes "Cannot …", as in `back up to "/srv/backup"`.
 */
export async function writingTo<Result>(action: string, work: () => Promise<Result>): Promise<Result> {
  try {
    return await work();
  } catch (error) {
    const cause = fromSystemError(error, action);
    if (isFiletrackerError(cause, 'no-space'))
      throw cannot('no-space', action, 'its disk is full', { cause });
    if (!isFiletrackerError(cause, 'read-only')) throw cause;
    throw cannot('read-only', action, 'its file system is read-only', { cause });
  }
}
