import { randomBytes } from 'node:crypto';
import {
  accessSync,
  closeSync,
  constants,
  createWriteStream,
  fchmodSync,
  fchownSync,
  fstatSync,
  lstatSync,
  openSync,
  readlinkSync,
  realpathSync,
  statSync,
  unlinkSync,
  WriteStream,
} from 'node:fs';
import type { Stats } from 'node:fs';
import { Socket } from 'node:net';
import { basename, dirname, join, resolve } from 'node:path';
import type { Readable, Writable } from 'node:stream';
import { pipeline } from 'node:stream/promises';
import { errnoOf, FiletrackerError } from '../../core/errors.ts';
import { fromLocalError } from '../local-errors.ts';

/** A device, a pipe or an open file, which no rename may replace. */
export type StreamTarget =
  /** A device or a pipe: the bytes are written into it. */
  | { readonly kind: 'stream'; readonly path: string }
  /** A file that this process has open, as `/dev/stdout` names it: written from its current position on. */
  | { readonly kind: 'descriptor'; readonly descriptor: number; readonly path: string };

/** Where a downloaded file goes. */
export type Target =
  | StreamTarget
  /** A file that a rename replaces or creates, at the end of any symbolic links. */
  | { readonly kind: 'file'; readonly path: string };

const linksMax = 40;
/** `/dev/stdout` and `/dev/fd` lead here. */
const descriptorFolder = /^\/proc\/(\d+)(?:\/task\/\d+)?\/fd$/;

/**
 * Checks a target before anything is fetched for it, and follows its links.
 * @param options.replaceSpecial a link, pipe or device at `saveTo` is replaced by the file.
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
      if (there.isDirectory()) throw cannotWrite(saveTo, 'it is a folder');
      if (there.isSocket()) throw cannotWrite(saveTo, 'it is a socket');
      if (!there.isSymbolicLink()) return { kind: 'stream', path };
      if (links === linksMax) throw cannotWrite(saveTo, 'its path is a loop of symbolic links');
      const folder = realpathSync(dirname(path));
      const processId = descriptorFolder.exec(folder)?.[1];
      if (processId !== undefined) return descriptorTarget(saveTo, path, Number(processId));
      path = resolve(folder, readlinkSync(path));
    }
  } catch (error) {
    throw fromLocalError(error, `write "${saveTo}"`);
  }
}

/** A link in /proc that stands for an open file, which need not have a name. */
function descriptorTarget(saveTo: string, path: string, processId: number): Target {
  const there = statSync(path);
  if (there.isDirectory()) throw cannotWrite(saveTo, 'it is a folder');
  if (processId !== process.pid) return { kind: 'stream', path };
  // An epoll or timer descriptor has no file type.
  const isKnown = (there.mode & constants.S_IFMT) !== 0;
  if (!isKnown) throw cannotWrite(saveTo, 'it is not an open file');
  return { kind: 'descriptor', descriptor: Number(basename(path)), path };
}

function cannotWrite(saveTo: string, state: string): FiletrackerError {
  return new FiletrackerError('io', `Cannot write "${saveTo}": ${state}`);
}

/** The last folder that was found writable: the next target is usually in it too. */
let lastFolder = '';

/** Checks a folder before a download, which would otherwise fail only at its end. */
function requireFolder(saveTo: string, folder: string): void {
  if (folder === lastFolder) return;
  if (attributesAt(folder, statSync)?.isDirectory() !== true)
    throw cannotWrite(saveTo, missingFolder(folder));
  if (descriptorFolder.test(realpathSync(folder))) {
    throw cannotWrite(saveTo, 'no file is open under this number');
  }
  accessSync(folder, constants.W_OK | constants.X_OK);
  lastFolder = folder;
}

/** Names the missing folder, or the topmost missing one above it. */
function missingFolder(folder: string): string {
  for (let path = folder; ; path = dirname(path)) {
    if (attributesAt(path, statSync) !== undefined) return `"${path}" is a file and not a folder`;
    const above = dirname(path);
    if (above === path || attributesAt(above, statSync)?.isDirectory() === true) {
      return `the folder "${path}" does not exist`;
    }
  }
}

/** `undefined` if nothing is there, also because something above it is a file. */
function attributesAt(path: string, look: typeof statSync): Stats | undefined {
  try {
    return look(path);
  } catch (error) {
    if (errnoOf(error) === 'ENOENT' || errnoOf(error) === 'ENOTDIR') return undefined;
    throw error;
  }
}

/** Writes a stream into a device, a pipe or an open file. */
export async function streamTo(stream: Readable, target: StreamTarget): Promise<void> {
  try {
    const output = outputTo(target);
    const end = output instanceof WriteStream;
    await pipeline(stream, output, { end });
    // Other writers may continue to write to a pipe, so it stays open: only wait until these bytes are written.
    if (!end) await written(output);
  } catch (error) {
    throw fromLocalError(error, `write "${target.path}"`);
  }
}

function written(output: Writable): Promise<void> {
  return new Promise((resolve, reject) => {
    output.write('', (error) => {
      if (error === undefined || error === null) resolve();
      else reject(error);
    });
  });
}

function outputTo(target: StreamTarget): Writable {
  if (target.kind === 'stream') {
    return createWriteStream(target.path, { fd: openSync(target.path, constants.O_WRONLY) });
  }
  const { descriptor } = target;
  if (descriptor === process.stdout.fd) return process.stdout;
  if (descriptor === process.stderr.fd) return process.stderr;
  const attributes = fstatSync(descriptor);
  // A pipe may be non-blocking, which a file stream does not handle.
  if (attributes.isFIFO() || attributes.isSocket()) return new Socket({ fd: descriptor, readable: false });
  return createWriteStream('', { fd: descriptor, autoClose: false });
}

/** What a new file takes over from the file that it replaces. */
export interface KeptAttributes {
  readonly mode: number;
  readonly uid: number;
  readonly gid: number;
}

/** Permissions and owner of the regular file at a path; `undefined` if there is none. */
export function keptAttributes(path: string): KeptAttributes | undefined {
  const there = lstatSync(path, { throwIfNoEntry: false });
  if (there?.isFile() !== true) return undefined;
  // Not set-uid and set-gid: they were granted to the old content.
  return { mode: there.mode & 0o777, uid: there.uid, gid: there.gid };
}

/** Permissions to create a replacement with: until it gets its final ones, no other user may read it. */
export function creationMode(kept: KeptAttributes | undefined): number {
  return kept === undefined ? 0o666 : 0o600;
}

/** Sets the permissions of the replaced file on an open file, and its owner as far as this user may. */
export function keepAttributes(descriptor: number, kept: KeptAttributes): void {
  const { uid, gid, mode } = fstatSync(descriptor);
  const isOwned = (uid === kept.uid && gid === kept.gid) || tryChown(descriptor, kept.uid, kept.gid);
  const hasGroup = isOwned || gid === kept.gid || tryChown(descriptor, uid, kept.gid);
  // Rights meant for another group: this one gets the rights of all others.
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

/** As `keepAttributes`, by path; in a folder that others can write to, the path may be another user's file by now. */
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

/** Sixteen hex digits, unique among all processes. */
export function uniqueTag(): string {
  tags = (tags + 1) % 2 ** 32;
  return processTag + tags.toString(16).padStart(8, '0');
}

/** A path beside the target for a file that is being written. */
export function temporaryPathFor(target: string): string {
  return join(dirname(target), `.filetracker-${uniqueTag()}`);
}

/** Removes a file if it is there. */
export function removeIfThere(path: string): void {
  try {
    unlinkSync(path);
  } catch (error) {
    if (errnoOf(error) !== 'ENOENT') throw error;
  }
}
