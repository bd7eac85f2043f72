import {
  closeSync,
  constants,
  createReadStream,
  createWriteStream,
  fchmodSync,
  fstatSync,
  futimesSync,
  linkSync,
  lstatSync,
  openSync,
  readFileSync,
  renameSync,
  statSync,
  utimesSync,
  writeFileSync,
} from 'node:fs';
import { copyFile } from 'node:fs/promises';
import { dirname } from 'node:path';
import { pipeline } from 'node:stream/promises';
import { digestOf } from '../../core/digest.ts';
import type { Digest } from '../../core/digest.ts';
import { errnoOf, FiletrackerError } from '../../core/errors.ts';
import type { FileVersion } from '../../core/file-version.ts';
import { digestOfFile } from '../../fs/file-digest.ts';
import { openBlob, pathOfDescriptor } from './blob.ts';
import { isOwn } from './folders.ts';
import { isSealed, sealSeconds } from './layout.ts';
import {
  creationMode,
  keepAttributes,
  keptAttributes,
  removeIfThere,
  temporaryPathFor,
} from '../transfer/targets.ts';
import type { KeptAttributes } from '../transfer/targets.ts';

/**
 * How a cached content gets to the place where the user wants it.
 * `auto`: a reflink where the file system can; else, for larger files, a hard link to the read-only blob, as
 * long as no other file shares it; else a copy. `reflink`: a reflink or an error. `link`: a hard link whoever
 * else has one, a copy across file systems. `copy`: always bytes of its own.
 */
export type HandOut = 'auto' | 'reflink' | 'link' | 'copy';

export const handOuts: readonly HandOut[] = ['auto', 'reflink', 'link', 'copy'];

/** Up to this size a copy costs no more than a link, and the user gets a file that he may edit. */
const plainCopyMaxBytes = 64 * 1024;

const copyStepBytes = 1024 * 1024;

const createFlags = constants.O_RDWR | constants.O_CREAT | constants.O_EXCL;

/** A content in the cache and the version under which it was asked for. */
export interface HandOutSource {
  readonly path: string;
  readonly digest: Digest;
  readonly size: number;
  readonly version: FileVersion;
  /** Set where the cache holds the only copy, which no hard link may expose. */
  readonly local: boolean;
  /** The content, where it lies in memory already. */
  readonly bytes?: Buffer | undefined;
  /** Whether other users can put files into the cache. */
  readonly isShared: boolean;
}

/** A source that is open, if the cache is shared: `path` leads to this very file then. */
interface OpenSource extends HandOutSource {
  /** The name to link to. */
  readonly linkPath: string;
  /** Whether another user wrote the file, and can write it again: its bytes are checked, and it is never linked. */
  readonly isForeign: boolean;
}

/** Errnos by which file systems say that they can't link or reflink here. */
const cannotErrnos: ReadonlySet<string> = new Set([
  'EXDEV',
  'EPERM',
  'EMLINK',
  'ENOTSUP',
  'EOPNOTSUPP',
  'EINVAL',
  'ENOSYS',
  'ENOTTY',
  'EACCES',
]);

function isRefusal(error: unknown): boolean {
  const errno = errnoOf(error);
  return errno !== undefined && cannotErrnos.has(errno);
}

/** Devices whose file system was found to have no reflinks; asked once by process. */
const withoutReflinks = new Set<number>();

/** Thrown where the blob changed while it was handed out; the caller throws it out and fetches it again. */
export class BlobChangedError extends Error {}

/** Thrown if the blob, which another user wrote, is not what its name says. */
export class BlobDamagedError extends BlobChangedError {}

/**
 * Makes the content appear at `target`, whole or not at all, whatever was there before; a file that was there leaves its
 * permissions and owner.
 * @throws BlobChangedError where the blob is gone or no longer sealed; system errors as they come.
 */
export async function materialize(source: HandOutSource, target: string, how: HandOut): Promise<void> {
  if (source.bytes !== undefined && (how === 'auto' || how === 'copy') && source.size <= plainCopyMaxBytes) {
    materializeBytes(source.bytes, source.version, target);
    return;
  }
  const { path, isShared } = source;
  using held = isShared ? openBlob(path, source.digest, source.size) : undefined;
  const blob = isShared ? held?.attributes : lstatSync(path, { throwIfNoEntry: false });
  if (blob?.isFile() !== true || !isSealed(blob, source.digest, source.size)) throw new BlobChangedError();
  const open = { ...source, path: held?.path ?? path, linkPath: path, isForeign: !isOwn(blob) };
  const existing = lstatSync(target, { throwIfNoEntry: false });
  const isLinked = existing?.ino === blob.ino && existing.dev === blob.dev;
  if (how === 'link' && isLinked && !open.isForeign) return;
  const temporaryPath = temporaryPathFor(target);
  try {
    await bring(open, temporaryPath, how, { blob, kept: keptAttributes(target) });
    renameSync(temporaryPath, target);
    // A rename between two links of one file does nothing and leaves both.
    if (existing?.ino === blob.ino) removeIfThere(temporaryPath);
  } catch (error) {
    removeIfThere(temporaryPath);
    throw error;
  }
}

/** A content that lies in memory needs nothing of the blob. */
export function materializeBytes(bytes: Buffer, version: FileVersion, target: string): void {
  const temporaryPath = temporaryPathFor(target);
  const kept = keptAttributes(target);
  const descriptor = openSync(temporaryPath, 'wx', creationMode(kept));
  try {
    writeFileSync(descriptor, bytes);
    if (kept !== undefined) keepAttributes(descriptor, kept);
    // The file was made just now, so its time of access is known without asking.
    futimesSync(descriptor, new Date(), new Date(version * 1000));
    renameSync(temporaryPath, target);
  } catch (error) {
    removeIfThere(temporaryPath);
    throw error;
  } finally {
    closeSync(descriptor);
  }
}

interface BlobAttributes extends KeptAttributes {
  readonly ino: number;
  readonly nlink: number;
  readonly mtimeMs: number;
  readonly dev: number;
}

interface Surroundings {
  readonly blob: BlobAttributes;
  /** What the file at the target leaves; undefined if there is none. */
  readonly kept: KeptAttributes | undefined;
}

async function bring(
  source: OpenSource,
  temporaryPath: string,
  how: HandOut,
  { blob, kept }: Surroundings,
): Promise<void> {
  if (how === 'auto' && source.size <= plainCopyMaxBytes) {
    copySmall(source, temporaryPath, kept);
    return;
  }
  // The system copies permissions first, by which others could read what the target keeps from them.
  const isPrivate = kept !== undefined && (blob.mode & 0o077 & ~kept.mode) !== 0;
  if ((how === 'auto' && !isPrivate) || how === 'reflink') {
    if (await reflink(source, temporaryPath, blob.dev, kept)) return;
    if (how === 'reflink') {
      throw new FiletrackerError(
        'invalid-argument',
        'Cannot hand out a reflink: cache and target are not on one file system that has them',
      );
    }
  }
  // A link has the permissions of the blob.
  const mayLink =
    !source.local && !source.isForeign && sealSeconds(blob) === source.version && isAsKept(blob, kept);
  if (mayLink && (how === 'link' || (how === 'auto' && blob.nlink === 1))) {
    if (link(source, temporaryPath, how, blob)) return;
  }
  await copy(source, temporaryPath, kept, isPrivate);
}

function isAsKept({ mode, uid, gid }: BlobAttributes, kept: KeptAttributes | undefined): boolean {
  return kept === undefined || ((mode & 0o777) === kept.mode && uid === kept.uid && gid === kept.gid);
}

/** Links if the file system lets us, and, for `auto`, if no other user's file came to share the blob meanwhile. */
function link(source: OpenSource, temporaryPath: string, how: HandOut, blob: BlobAttributes): boolean {
  try {
    linkSync(source.linkPath, temporaryPath);
  } catch (error) {
    if (errnoOf(error) === 'ENOENT') throw missing(source, error);
    if (isRefusal(error)) return false;
    throw error;
  }
  const { ino, dev, nlink } = lstatSync(temporaryPath);
  // Another user of the cache may have put something else there.
  if (ino === blob.ino && dev === blob.dev && (how === 'link' || nlink <= 2)) return true;
  removeIfThere(temporaryPath);
  return false;
}

/** The new file that a copy goes to. It is written by its descriptor: others may be able to rename it meanwhile. */
interface Copy extends Disposable {
  readonly descriptor: number;
  /** Leads to the open file. */
  readonly path: string;
  /** What the umask left of its permissions, which a copy takes over from the blob. */
  readonly mode: number;
  readonly kept: KeptAttributes | undefined;
}

function createForCopy(temporaryPath: string, kept: KeptAttributes | undefined): Copy {
  const descriptor = openSync(temporaryPath, createFlags, creationMode(kept));
  const mode = fstatSync(descriptor).mode & 0o777;
  const path = pathOfDescriptor(descriptor, temporaryPath);
  return { descriptor, path, mode, kept, [Symbol.dispose]: () => closeSync(descriptor) };
}

async function reflink(
  source: OpenSource,
  temporaryPath: string,
  device: number,
  kept: KeptAttributes | undefined,
): Promise<boolean> {
  if (withoutReflinks.has(device)) return false;
  using target = createForCopy(temporaryPath, kept);
  try {
    await copyFile(source.path, target.path, constants.COPYFILE_FICLONE_FORCE);
  } catch (error) {
    if (errnoOf(error) === 'ENOENT') throw missing(source, error);
    if (!isRefusal(error)) throw error;
    // Across devices nothing is learnt about the cache's own file system.
    if (statSync(dirname(temporaryPath)).dev === device) withoutReflinks.add(device);
    removeIfThere(temporaryPath);
    return false;
  }
  await finishLargeCopy(source, target);
  return true;
}

async function copy(
  source: OpenSource,
  temporaryPath: string,
  kept: KeptAttributes | undefined,
  isPrivate: boolean,
): Promise<void> {
  using target = createForCopy(temporaryPath, kept);
  try {
    if (isPrivate) {
      const output = createWriteStream(target.path, { flags: 'r+' });
      await pipeline(createReadStream(source.path, { highWaterMark: copyStepBytes }), output);
    } else {
      await copyFile(source.path, target.path);
    }
  } catch (error) {
    if (errnoOf(error) === 'ENOENT') throw missing(source, error);
    throw error;
  }
  await finishLargeCopy(source, target);
}

function copySmall(source: OpenSource, temporaryPath: string, kept: KeptAttributes | undefined): void {
  let bytes: Buffer;
  try {
    bytes = readFileSync(source.path);
  } catch (error) {
    throw errnoOf(error) === 'ENOENT' ? missing(source, error) : error;
  }
  if (source.isForeign && digestOf(bytes) !== source.digest) throw new BlobDamagedError();
  using target = createForCopy(temporaryPath, kept);
  writeFileSync(target.descriptor, bytes);
  finishCopy(source, target);
}

/** The copy is what is checked: another user may write to the blob at any time. */
async function finishLargeCopy(source: OpenSource, target: Copy): Promise<void> {
  if (source.isForeign && (await digestOfFile(target.path)) !== source.digest) throw new BlobDamagedError();
  if (target.kept === undefined) fchmodSync(target.descriptor, target.mode);
  finishCopy(source, target);
}

/** The blob is looked at once more, because someone may have been writing to a link of it while it was copied. */
function finishCopy(source: OpenSource, { descriptor, kept }: Copy): void {
  const blob = statSync(source.path, { throwIfNoEntry: false });
  if (blob !== undefined && !isSealed(blob, source.digest, source.size)) throw new BlobChangedError();
  if (kept !== undefined) keepAttributes(descriptor, kept);
  futimesSync(descriptor, fstatSync(descriptor).atime, new Date(source.version * 1000));
}

/** Shows the version as the file's modification time. As a date, because Node takes a number before 1970 for now. */
export function setVersion(path: string, version: FileVersion): void {
  utimesSync(path, statSync(path).atime, new Date(version * 1000));
}

function missing(source: OpenSource, cause: unknown): Error {
  // The blob or the target's folder: the caller's next look-up tells which.
  return lstatSync(source.path, { throwIfNoEntry: false }) === undefined
    ? new BlobChangedError()
    : (cause as Error);
}
