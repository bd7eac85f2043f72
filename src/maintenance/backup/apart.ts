import { sep } from 'node:path';
import { FiletrackerError } from '../../core/errors.ts';
import { realPathOf } from '../../fs/folders.ts';

/**
 * Refuses to work from a folder into itself, or where one lies within the other, by whatever links.
 * @param action completes "Cannot …", as in "back up". @param instead what to do, if there is something.
 * @throws FiletrackerError `invalid-argument`.
 */
export async function checkApart(
  source: string,
  target: string,
  action: string,
  instead?: string,
): Promise<void> {
  const [from, to] = await Promise.all([realPathOf(source), realPathOf(target)]);
  const contains = (outer: string, inner: string): boolean =>
    `${inner}${sep}`.startsWith(outer.endsWith(sep) ? outer : `${outer}${sep}`);
  if (!contains(from, to) && !contains(to, from)) return;
  const state = from === to ? 'they are the same folder' : 'one lies within the other';
  const remedy = instead === undefined ? '' : `; ${instead}`;
  throw new FiletrackerError(
    'invalid-argument',
    `Cannot ${action} "${source}" to "${target}": ${state}${remedy}`,
  );
}
