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
import type { Stats } from 'node:fs';
import { copyFile } from 'node:fs/promises';
import { dirname } from 'node:path';
import { pipeline } from 'node:stream/promises';
import { digestOf } from '../../core/digest.ts';
import { errnoOf, FiletrackerError } from '../../core/errors.ts';
import type { FileVersion } from '../../core/file-version.ts';
import { digestOfFile } from '../../fs/file-digest.ts';
import {
  creationMode,
  keepAttributes,
  keptAttributes,
  removeIfThere,
  temporaryPathFor,
} from '../transfer/targets.ts';
import type { KeptAttributes } from '../transfer/targets.ts';
import { isOnlyName, openBlob, pathOfDescriptor } from './blob.ts';
import { isOwn } from './folders.ts';
import { isSealed, sealSeconds } from './layout.ts';
import type { CachedFile } from './names.ts';

/**
 * The link mode: how a cached blob gets to the caller's path.
 * `auto`: a reflink if the file system supports it; else, for larger files, a hard link to the read-only blob, unless
 * another file shares it; else a copy. `reflink`: a reflink or an error. `link`: a hard link, also if other files share
 * the blob; a copy across file systems. `copy`: always a copy.
 */
export type HandOut = 'auto' | 'reflink' | 'link' | 'copy';

export const handOuts: readonly HandOut[] = ['auto', 'reflink', 'link', 'copy'];

/** Up to this size a copy costs no more than a link, and the user can edit the file. */
const plainCopyMaxBytes = 64 * 1024;

const copyStepBytes = 1024 * 1024;

/** Errnos by which file systems refuse to link or reflink. */
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
  return cannotErrnos.has(errnoOf(error) ?? '');
}

/** Devices without reflinks; each is tried once per process. */
const withoutReflinks = new Set<number>();

/** Thrown if the blob is gone or changed; the caller fetches it again. */
export class BlobChangedError extends Error {}

/** Thrown if the blob, which another user wrote, does not match its digest. */
export class BlobDamagedError extends BlobChangedError {}

/** A blob on its way to a target. */
interface Source {
  readonly file: CachedFile;
  /** If the cache is shared, leads to the open file, else the name of the blob. */
  readonly path: string;
  readonly blob: Stats;
  /** Whether another user wrote the blob, and may write to it again: its bytes are verified, and it is never linked. */
  readonly isForeign: boolean;
  /** Attributes of the file at the target, if there is one. */
  readonly kept: KeptAttributes | undefined;
}

export interface MaterializeOptions {
  readonly how: HandOut;
  /** The content, if it is in memory. */
  readonly bytes?: Buffer | undefined;
  /** Whether other users can put files into the cache. */
  readonly isShared: boolean;
}

/**
 * Puts a blob at `target`, whole or not at all, in place of any file there, whose permissions and owner it keeps.
 * @throws BlobChangedError; system errors as they come.
 */
export async function materialize(
  file: CachedFile,
  target: string,
  { how, bytes, isShared }: MaterializeOptions,
): Promise<void> {
  const { path, digest, size, version } = file;
  if (bytes !== undefined && (how === 'auto' || how === 'copy') && size <= plainCopyMaxBytes) {
    materializeBytes(bytes, version, target);
    return;
  }
  using held = isShared ? openBlob(path, digest, size) : undefined;
  const blob = isShared ? held?.attributes : lstatSync(path, { throwIfNoEntry: false });
  if (blob?.isFile() !== true || !isSealed(blob, digest, size)) throw new BlobChangedError();
  const isForeign = !isOwn(blob);
  const existing = lstatSync(target, { throwIfNoEntry: false });
  const isLinked = existing?.ino === blob.ino && existing.dev === blob.dev;
  if (how === 'link' && isLinked && !isForeign) return;
  const temporaryPath = temporaryPathFor(target);
  const source = { file, path: held?.path ?? path, blob, isForeign, kept: keptAttributes(target) };
  try {
    await place(source, temporaryPath, how);
    renameSync(temporaryPath, target);
    // A rename between two links of one file does nothing and leaves both.
    if (existing?.ino === blob.ino) removeIfThere(temporaryPath);
  } catch (error) {
    removeIfThere(temporaryPath);
    throw error;
  }
}

/** Puts bytes at `target`, as `materialize` does. */
export function materializeBytes(bytes: Buffer, version: FileVersion, target: string): void {
  const temporaryPath = temporaryPathFor(target);
  const kept = keptAttributes(target);
  const descriptor = openSync(temporaryPath, 'wx', creationMode(kept));
  try {
    writeFileSync(descriptor, bytes);
    if (kept !== undefined) keepAttributes(descriptor, kept);
    // The file is new, so its access time is now: no need for a stat(2).
    futimesSync(descriptor, new Date(), new Date(version * 1000));
    renameSync(temporaryPath, target);
  } catch (error) {
    removeIfThere(temporaryPath);
    throw error;
  } finally {
    closeSync(descriptor);
  }
}

/**
 * Moves a blob out of the cache to `target`, for a disk without space for two copies. False if the blob must stay or the
 * target is on another file system.
 */
export function moveToTarget(file: CachedFile, target: string): boolean {
  if (file.local === true) return false;
  using blob = openBlob(file.path, file.digest, file.size);
  if (blob?.attributes.nlink !== 1 || !isOwn(blob.attributes)) return false;
  const temporaryPath = temporaryPathFor(target);
  const kept = keptAttributes(target);
  try {
    renameSync(file.path, temporaryPath);
  } catch (error) {
    if (errnoOf(error) === 'EXDEV') return false;
    throw error;
  }
  // Another user of the cache may have replaced the blob just before.
  if (!isOnlyName(temporaryPath, blob.descriptor)) {
    removeIfThere(temporaryPath);
    return false;
  }
  if (kept === undefined) fchmodSync(blob.descriptor, 0o644);
  else keepAttributes(blob.descriptor, kept);
  setVersion(blob.path, file.version);
  renameSync(temporaryPath, target);
  return true;
}

async function place(source: Source, temporaryPath: string, how: HandOut): Promise<void> {
  const { file, blob, isForeign, kept } = source;
  if (how === 'auto' && file.size <= plainCopyMaxBytes) {
    copySmall(source, temporaryPath);
    return;
  }
  // The system copies permissions first, and other users could read a file that the target keeps from them.
  const isPrivate = kept !== undefined && (blob.mode & 0o077 & ~kept.mode) !== 0;
  if ((how === 'auto' && !isPrivate) || how === 'reflink') {
    if (await reflink(source, temporaryPath)) return;
    if (how === 'reflink') {
      throw new FiletrackerError(
        'invalid-argument',
        'Cannot make a reflink: cache and target are not on one file system with reflinks; choose another link mode with handOut',
      );
    }
  }
  // A link has the permissions and the time of the blob, and would expose the only copy to edits.
  const mayLink =
    file.local !== true && !isForeign && sealSeconds(blob) === file.version && isAsKept(blob, kept);
  if (mayLink && (how === 'link' || (how === 'auto' && blob.nlink === 1))) {
    if (link(source, temporaryPath, how)) return;
  }
  await copy(source, temporaryPath, isPrivate);
}

function isAsKept({ mode, uid, gid }: Stats, kept: KeptAttributes | undefined): boolean {
  return kept === undefined || ((mode & 0o777) === kept.mode && uid === kept.uid && gid === kept.gid);
}

/** False if the file system refuses, or, for `auto`, if another file came to share the blob meanwhile. */
function link(source: Source, temporaryPath: string, how: HandOut): boolean {
  const { file, blob } = source;
  try {
    linkSync(file.path, temporaryPath);
  } catch (error) {
    if (isRefusal(error)) return false;
    throw changedOr(error, source);
  }
  const { ino, dev, nlink } = lstatSync(temporaryPath);
  // Another user of the cache may have replaced the blob.
  if (ino === blob.ino && dev === blob.dev && (how === 'link' || nlink <= 2)) return true;
  removeIfThere(temporaryPath);
  return false;
}

/** A new file for a copy. It is written by its descriptor: other users may be able to replace its name. */
interface Copy extends Disposable {
  readonly descriptor: number;
  /** Leads to the open file. */
  readonly path: string;
  /** The permissions that the umask left; copyFile sets those of the blob. */
  readonly mode: number;
}

function createForCopy(temporaryPath: string, kept: KeptAttributes | undefined): Copy {
  const { O_RDWR, O_CREAT, O_EXCL } = constants;
  const descriptor = openSync(temporaryPath, O_RDWR | O_CREAT | O_EXCL, creationMode(kept));
  const mode = fstatSync(descriptor).mode & 0o777;
  const path = pathOfDescriptor(descriptor, temporaryPath);
  return { descriptor, path, mode, [Symbol.dispose]: () => closeSync(descriptor) };
}

async function reflink(source: Source, temporaryPath: string): Promise<boolean> {
  const { dev } = source.blob;
  if (withoutReflinks.has(dev)) return false;
  using target = createForCopy(temporaryPath, source.kept);
  try {
    await copyFile(source.path, target.path, constants.COPYFILE_FICLONE_FORCE);
  } catch (error) {
    if (!isRefusal(error)) throw changedOr(error, source);
    // A failure across devices shows nothing about the cache's own file system.
    if (statSync(dirname(temporaryPath)).dev === dev) withoutReflinks.add(dev);
    removeIfThere(temporaryPath);
    return false;
  }
  await finishLargeCopy(source, target);
  return true;
}

async function copy(source: Source, temporaryPath: string, isPrivate: boolean): Promise<void> {
  using target = createForCopy(temporaryPath, source.kept);
  try {
    if (isPrivate) {
      const output = createWriteStream(target.path, { flags: 'r+' });
      await pipeline(createReadStream(source.path, { highWaterMark: copyStepBytes }), output);
    } else {
      await copyFile(source.path, target.path);
    }
  } catch (error) {
    throw changedOr(error, source);
  }
  await finishLargeCopy(source, target);
}

function copySmall(source: Source, temporaryPath: string): void {
  let bytes: Buffer;
  try {
    bytes = readFileSync(source.path);
  } catch (error) {
    throw changedOr(error, source);
  }
  if (source.isForeign && digestOf(bytes) !== source.file.digest) throw new BlobDamagedError();
  using target = createForCopy(temporaryPath, source.kept);
  writeFileSync(target.descriptor, bytes);
  finishCopy(source, target);
}

/** Verifies the copy, and not the blob: another user may write to the blob at any time. */
async function finishLargeCopy(source: Source, target: Copy): Promise<void> {
  const isDamaged = source.isForeign && (await digestOfFile(target.path)) !== source.file.digest;
  if (isDamaged) throw new BlobDamagedError();
  if (source.kept === undefined) fchmodSync(target.descriptor, target.mode);
  finishCopy(source, target);
}

/** Checks the seal once more: a program may have written to a link of the blob during the copy. */
function finishCopy({ file, path, kept }: Source, { descriptor }: Copy): void {
  const blob = statSync(path, { throwIfNoEntry: false });
  if (blob !== undefined && !isSealed(blob, file.digest, file.size)) throw new BlobChangedError();
  if (kept !== undefined) keepAttributes(descriptor, kept);
  futimesSync(descriptor, fstatSync(descriptor).atime, new Date(file.version * 1000));
}

/** Shows the version as the file's modification time. As a date, because Node takes a number before 1970 for now. */
export function setVersion(path: string, version: FileVersion): void {
  utimesSync(path, statSync(path).atime, new Date(version * 1000));
}

/** ENOENT means that the blob is gone, or the target's folder. */
function changedOr(error: unknown, { path }: Source): unknown {
  const isGone = errnoOf(error) === 'ENOENT' && lstatSync(path, { throwIfNoEntry: false }) === undefined;
  return isGone ? new BlobChangedError() : error;
}
