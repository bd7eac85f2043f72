import { randomBytes } from 'node:crypto';
import { lstatSync, renameSync, statSync, unlinkSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { errnoOf, FiletrackerError } from '../core/errors.ts';
import { fromLocalError } from './local-errors.ts';

/** What stands at the path where a file shall appear. */
export type TargetKind =
  /** Nothing, or a file (or a link to one) that a rename replaces. */
  | 'replaceable'
  /** A device, pipe or socket: the content is written into it. */
  | 'stream';

/**
 * Looks at a target before anything is fetched for it.
 * @throws FiletrackerError `io` for a folder, and for a target whose folder is missing.
 */
export function kindOfTarget(target: string): TargetKind {
  try {
    const there = lstatSync(target, { throwIfNoEntry: false });
    if (there === undefined) {
      requireFolder(dirname(target));
      return 'replaceable';
    }
    const attributes = there.isSymbolicLink() ? statSync(target, { throwIfNoEntry: false }) : there;
    if (attributes?.isDirectory() === true) {
      throw new FiletrackerError('io', `Cannot write "${target}": it is a folder`);
    }
    return (attributes?.isFile() ?? true) ? 'replaceable' : 'stream';
  } catch (error) {
    if (errnoOf(error) === 'ENOENT') {
      throw new FiletrackerError('io', `Cannot write "${target}": its folder does not exist`, {
        cause: error,
      });
    }
    throw fromLocalError(error, `write "${target}"`);
  }
}

/** The folder that was there when it was last looked at: mostly the next target lies in it too. */
let lastFolder = '';

/** Looks for a folder before anything is fetched for it, so that a long download does not end in vain. */
function requireFolder(folder: string): void {
  if (folder === lastFolder) return;
  statSync(folder);
  lastFolder = folder;
}

const processTag = randomBytes(4).toString('hex');
let tags = 0;

/** Sixteen hex digits that no other file of this or another process has. */
export function uniqueTag(): string {
  tags = (tags + 1) % 2 ** 32;
  return processTag + tags.toString(16).padStart(8, '0');
}

/** A path beside the target for its content on the way in. */
export function temporaryPathFor(target: string): string {
  return join(dirname(target), `.filetracker-${uniqueTag()}`);
}

/** Gives a complete file its name: a reader of the target sees what was there before, or all of this. */
export function publishTarget(temporaryPath: string, target: string): void {
  renameSync(temporaryPath, target);
}

/** Removes a file if it is there. */
export function removeIfThere(path: string): void {
  try {
    unlinkSync(path);
  } catch (error) {
    if (errnoOf(error) !== 'ENOENT') throw error;
  }
}
