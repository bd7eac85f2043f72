import { isUtf8 } from 'node:buffer';
import type { BigIntStats } from 'node:fs';
import { lstat, readdir, rmdir } from 'node:fs/promises';
import { join } from 'node:path';
import { errnoOf } from '../../core/errors.ts';
import { versionFromNs } from '../../core/file-version.ts';
import { digestOfFile } from '../../fs/file-digest.ts';
import { unfinishedName } from '../../fs/folder-marks.ts';
import type { FileInfo } from '../file-client.ts';
import { fromLocalError } from '../local-errors.ts';
import type { TreeScope } from './scope.ts';
import { cacheReason } from './tally.ts';

/** A file below a folder. `relative` has slashes and no slash at its start. */
export interface LocalFile {
  readonly path: string;
  readonly relative: string;
  readonly size: number;
  readonly mtimeNs: bigint;
  readonly isExecutable: boolean;
}

/** A file or folder that is not part of a tree, besides exclusions. */
export interface SkippedFile {
  readonly path: string;
  readonly relative: string;
  readonly reason: string;
  /** Whether the user has to know: not of an unfinished download, which is no user's file. */
  readonly kind: 'file' | 'cache' | 'unfinished';
  /** Whether its name, which is not UTF-8, keeps a file or folder from the target. */
  readonly loses: boolean;
}

export interface WalkListener {
  readonly onSkipped?: (skipped: SkippedFile) => void;
  /** Without it an unreadable file or folder ends the walk with its error. */
  readonly onUnreadable?: (path: string, error: unknown) => Promise<void>;
  /** Called with the path of a file that was removed during the walk. */
  readonly onVanished?: (path: string) => void;
  readonly onEmptyFolder?: (path: string) => void;
}

/** Walks a folder in the order of its names. Links are not followed, and are skipped like other special files. */
export async function* walkFolder(
  folder: string,
  scope: TreeScope,
  listener: WalkListener = {},
  relative = '',
): AsyncGenerator<LocalFile> {
  yield* walkNames({ path: folder, relative }, await namesIn(folder), { scope, listener });
}

/** The names in a folder, as bytes: a name that is not UTF-8 can't be looked up as text. */
async function namesIn(folder: string): Promise<Buffer[]> {
  try {
    return (await readdir(folder, { encoding: 'buffer' })).sort((a, b) => Buffer.compare(a, b));
  } catch (error) {
    throw fromLocalError(error, `read the folder "${folder}"`);
  }
}

interface Walk {
  readonly scope: TreeScope;
  readonly listener: WalkListener;
}

interface Folder {
  readonly path: string;
  readonly relative: string;
}

async function* walkNames(folder: Folder, names: readonly Buffer[], walk: Walk): AsyncGenerator<LocalFile> {
  const { scope, listener } = walk;
  for (const bytes of names) {
    const name = bytes.toString();
    const path = join(folder.path, name);
    const relative = below(folder.relative, name);
    const attributes = await attempt(path, listener, () => attributesOf(folder.path, bytes, path));
    if (attributes === undefined) continue;
    const isFolder = attributes.isDirectory();
    if (scope.excludes(relative, isFolder ? 'folder' : 'file')) continue;
    const skip = (kind: SkippedFile['kind'], reason: string, loses = false): void =>
      listener.onSkipped?.({ path, relative, reason, kind, loses });
    if (!isFolder && !attributes.isFile()) {
      skip('file', attributes.isSymbolicLink() ? 'it is a symbolic link' : 'it is not a regular file');
    } else if (!isUtf8(bytes)) skip('file', 'its name is not UTF-8', true);
    else if (!isFolder && unfinishedName.test(name)) skip('unfinished', 'it is an unfinished download');
    else if (!isFolder) {
      const { size, mtimeNs, mode } = attributes;
      yield { path, relative, size: Number(size), mtimeNs, isExecutable: (mode & 0o111n) !== 0n };
    } else if (await scope.isCache(relative)) skip('cache', cacheReason);
    else {
      const inside = await attempt(path, listener, () => namesIn(path));
      if (inside?.length === 0) listener.onEmptyFolder?.(path);
      if (inside !== undefined) yield* walkNames({ path, relative }, inside, walk);
    }
  }
}

function below(relative: string, name: string): string {
  return relative === '' ? name : `${relative}/${name}`;
}

async function attributesOf(folder: string, name: Buffer, path: string): Promise<BigIntStats> {
  try {
    return await lstat(Buffer.concat([Buffer.from(`${folder}/`), name]), { bigint: true });
  } catch (error) {
    throw fromLocalError(error, `look at "${path}"`);
  }
}

/** `undefined` if the file has vanished, or its error was reported. */
async function attempt<T>(
  path: string,
  { onVanished, onUnreadable }: WalkListener,
  work: () => Promise<T>,
): Promise<T | undefined> {
  try {
    return await work();
  } catch (error) {
    if (hasVanished(error)) onVanished?.(path);
    else if (onUnreadable === undefined) throw error;
    else await onUnreadable(path, error);
    return undefined;
  }
}

/** Whether an error means that the file was removed. */
export function hasVanished(error: unknown): boolean {
  const errno = errnoOf(error) ?? (error instanceof Error ? errnoOf(error.cause) : undefined);
  return errno === 'ENOENT' || errno === 'ENOTDIR';
}

/**
 * Removes the empty folders below `folder`, except excluded ones and caches. Errors of a folder that can't be read or
 * removed go to `onFailed`.
 */
export async function removeEmptyFolders(
  folder: string,
  scope: TreeScope,
  onFailed: (path: string, error: unknown) => Promise<void>,
  relative = '',
): Promise<void> {
  for (const bytes of await namesIn(folder)) {
    // A folder whose name is not UTF-8 was skipped by the walk.
    if (!isUtf8(bytes)) continue;
    const name = bytes.toString();
    const path = join(folder, name);
    const inTree = below(relative, name);
    try {
      if (!(await lstat(path)).isDirectory()) continue;
      if (scope.excludes(inTree, 'folder') || (await scope.isCache(inTree))) continue;
      await removeEmptyFolders(path, scope, onFailed, inTree);
      await rmdir(path);
    } catch (error) {
      if (hasVanished(error) || ['ENOTEMPTY', 'EEXIST'].includes(errnoOf(error) ?? '')) continue;
      await onFailed(path, fromLocalError(error, `remove the folder "${path}"`));
    }
  }
}

/**
 * Whether a local and a remote file have the same content. Reads the local file only if size and version don't decide, or
 * with `checksum`, which ignores versions. Without a digest, as from a legacy server, the contents then count as
 * different.
 */
export async function sameContent(
  local: LocalFile,
  remote: FileInfo,
  { checksum, signal }: { readonly checksum: boolean; readonly signal?: AbortSignal | undefined },
): Promise<boolean> {
  if (remote.size !== undefined && remote.size !== local.size) return false;
  if (!checksum && versionFromNs(local.mtimeNs) === remote.version) return true;
  return remote.digest !== undefined && (await digestOfFile(local.path, signal)) === remote.digest;
}
