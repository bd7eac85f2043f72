import { randomBytes } from 'node:crypto';
import {
  accessSync,
  closeSync,
  constants,
  fchmodSync,
  fchownSync,
  fstatSync,
  lstatSync,
  openSync,
  readlinkSync,
  realpathSync,
  renameSync,
  statSync,
  unlinkSync,
} from 'node:fs';
import type { Stats } from 'node:fs';
import { basename, dirname, join, resolve } from 'node:path';
import { errnoOf, FiletrackerError } from '../../core/errors.ts';
import { fromLocalError } from '../local-errors.ts';

/** Where a content goes that shall appear at a path. */
export type Target =
  /** A file that a rename replaces, or creates: at the end of the links that led there. */
  | { readonly kind: 'file'; readonly path: string }
  /** A device or a pipe: the content is written into it. */
  | { readonly kind: 'stream'; readonly path: string }
  /** One that this process has open, as `/dev/stdout` names it: written to from where it stands. */
  | { readonly kind: 'descriptor'; readonly descriptor: number; readonly path: string };

const linksMax = 40;
/** `/dev/stdout` and `/dev/fd` lead here. */
const descriptorFolder = /^\/proc\/(\d+)(?:\/task\/\d+)?\/fd$/;

/**
 * Looks at a target before anything is fetched for it, and follows the links that stand there. `replaceSpecial`: what
 * stands there, unless it is a folder, gives way to the file.
 * @throws FiletrackerError `io` for a folder, and for a target that can't be created.
 */
export function resolveTarget(
  saveTo: string,
  { replaceSpecial = false }: { readonly replaceSpecial?: boolean | undefined } = {},
): Target {
  try {
    let path = saveTo;
    for (let links = 0; ; links += 1) {
      const there = attributesAt(path, lstatSync);
      if (there === undefined || there.isFile() || (replaceSpecial && !there.isDirectory())) {
        requireFolder(saveTo, dirname(path));
        return { kind: 'file', path };
      }
      if (!there.isSymbolicLink()) return specialTarget(saveTo, path, there);
      if (links === linksMax) throw cannotWrite(saveTo, 'its path goes round in symbolic links');
      const folder = realpathSync(dirname(path));
      const processId = descriptorFolder.exec(folder)?.[1];
      if (processId !== undefined) return descriptorTarget(saveTo, path, Number(processId));
      path = resolve(folder, readlinkSync(path));
    }
  } catch (error) {
    throw fromLocalError(error, `write "${saveTo}"`);
  }
}

function specialTarget(saveTo: string, path: string, attributes: Stats): Target {
  if (attributes.isDirectory()) throw cannotWrite(saveTo, 'it is a folder');
  if (attributes.isSocket()) throw cannotWrite(saveTo, 'it is a socket');
  return { kind: 'stream', path };
}

/** A link in /proc that stands for an open file, which need not have a name. */
function descriptorTarget(saveTo: string, path: string, processId: number): Target {
  const attributes = statSync(path);
  if (attributes.isDirectory()) throw cannotWrite(saveTo, 'it is a folder');
  if (processId !== process.pid) return { kind: 'stream', path };
  const descriptor = Number(basename(path));
  const isKnown =
    attributes.isFile() ||
    attributes.isFIFO() ||
    attributes.isCharacterDevice() ||
    attributes.isSocket() ||
    attributes.isBlockDevice();
  if (!isKnown) throw cannotWrite(saveTo, 'it is no open file');
  return { kind: 'descriptor', descriptor, path };
}

function cannotWrite(saveTo: string, state: string, cause?: unknown): FiletrackerError {
  return new FiletrackerError('io', `Cannot write "${saveTo}": ${state}`, { cause });
}

/** The folder that could be written to when it was last looked at: mostly the next target is in it too. */
let lastFolder = '';

/** Looks at a folder before anything is fetched for it, so that a long download does not end in vain. */
function requireFolder(saveTo: string, folder: string): void {
  if (folder === lastFolder) return;
  if (attributesAt(folder, statSync)?.isDirectory() !== true)
    throw cannotWrite(saveTo, whatIsMissing(folder));
  if (descriptorFolder.test(realpathSync(folder)))
    throw cannotWrite(saveTo, 'no file is open under this number');
  accessSync(folder, constants.W_OK | constants.X_OK);
  lastFolder = folder;
}

/** Why a folder is not there: itself, or the first folder above it. */
function whatIsMissing(folder: string): string {
  for (let path = folder; ; path = dirname(path)) {
    if (attributesAt(path, statSync) !== undefined) return `"${path}" is a file and not a folder`;
    const above = dirname(path);
    if (above === path || attributesAt(above, statSync)?.isDirectory() === true) {
      return `the folder "${path}" does not exist`;
    }
  }
}

/** Undefined for what is not there, also because something above it is a file. */
function attributesAt(path: string, look: typeof statSync): Stats | undefined {
  try {
    return look(path);
  } catch (error) {
    if (errnoOf(error) === 'ENOENT' || errnoOf(error) === 'ENOTDIR') return undefined;
    throw error;
  }
}

/** What a file that is written over keeps. */
export interface KeptAttributes {
  readonly mode: number;
  readonly uid: number;
  readonly gid: number;
}

/** Permissions and owner of the file at a path; undefined if there is none, or something that gives way to a file. */
export function keptAttributes(path: string): KeptAttributes | undefined {
  const there = lstatSync(path, { throwIfNoEntry: false });
  if (there?.isFile() !== true) return undefined;
  // Not the bits that lend the owner's rights: they were for the content that was there.
  return { mode: there.mode & 0o777, uid: there.uid, gid: there.gid };
}

/** Permissions to create a file with that takes the place of another: nobody else may read what it may hold. */
export function creationMode(kept: KeptAttributes | undefined): number {
  return kept === undefined ? 0o666 : 0o600;
}

/** Gives an open file of ours the permissions of the one that it replaces, and its owner as far as we may. */
export function keepAttributes(descriptor: number, kept: KeptAttributes): void {
  const { uid, gid, mode } = fstatSync(descriptor);
  const isOwned = (uid === kept.uid && gid === kept.gid) || tryChown(descriptor, kept.uid, kept.gid);
  const hasGroup = isOwned || gid === kept.gid || tryChown(descriptor, uid, kept.gid);
  // What the group might do was meant for another group: this one gets the rights of all others.
  const wanted = hasGroup ? kept.mode : (kept.mode & 0o707) | ((kept.mode & 0o007) << 3);
  if ((mode & 0o777) !== wanted) fchmodSync(descriptor, wanted);
}

function tryChown(descriptor: number, uid: number, gid: number): boolean {
  try {
    fchownSync(descriptor, uid, gid);
    return true;
  } catch (error) {
    if (errnoOf(error) === undefined) throw error;
    return false;
  }
}

/** As `keepAttributes`, of a file by its path; in a folder that others may write to it may be another's by now. */
export function keepAttributesAt(path: string, kept: KeptAttributes): void {
  const descriptor = openSync(path, constants.O_RDONLY | constants.O_NOFOLLOW | constants.O_NONBLOCK);
  try {
    if (fstatSync(descriptor).nlink !== 1) throw cannotWrite(path, 'another program has changed it');
    keepAttributes(descriptor, kept);
  } finally {
    closeSync(descriptor);
  }
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
