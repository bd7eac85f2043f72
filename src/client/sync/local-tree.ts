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

/** What is no regular file, or has a name that is not UTF-8, or is a cache, or an unfinished download. */
export interface SkippedFile {
  readonly path: string;
  readonly relative: string;
  readonly reason: string;
  /** Whether the user has to know: an unfinished download is nobody's file. */
  readonly kind: 'file' | 'cache' | 'unfinished';
  /** Whether a file, or a folder of them, is left out for its name, so that the tree is not whole at the target. */
  readonly loses: boolean;
}

export interface WalkListener {
  /** Called with what is left out; not with what the user excludes. */
  readonly onSkipped?: (skipped: SkippedFile) => void;
  /** Called with what can't be looked at; without it the walk ends with its error. */
  readonly onUnreadable?: (path: string, error: unknown) => Promise<void>;
  /** Called with what was removed between being listed and being looked at. */
  readonly onVanished?: (path: string) => void;
  /** Called with a folder that holds nothing. */
  readonly onEmptyFolder?: (path: string) => void;
}

/** Walks a folder in the order of its names. Links are not followed, and are reported like other special files. */
export async function* walkFolder(
  folder: string,
  scope: TreeScope,
  listener: WalkListener = {},
  relative = '',
): AsyncGenerator<LocalFile> {
  yield* walkNames(folder, await namesIn(folder), relative, { scope, listener });
}

/** The names in a folder, as bytes, because what is no UTF-8 has no name in text by which it could be looked at. */
async function namesIn(folder: string): Promise<Buffer[]> {
  const names = await translated(`read the folder "${folder}"`, () =>
    readdir(folder, { encoding: 'buffer' }),
  );
  return names.sort((a, b) => Buffer.compare(a, b));
}

interface Walk {
  readonly scope: TreeScope;
  readonly listener: WalkListener;
}

async function* walkNames(
  folder: string,
  names: readonly Buffer[],
  relative: string,
  walk: Walk,
): AsyncGenerator<LocalFile> {
  const { scope, listener } = walk;
  for (const bytes of names) {
    const name = bytes.toString();
    const path = join(folder, name);
    const below = relative === '' ? name : `${relative}/${name}`;
    const attributes = await attributesOf(Buffer.concat([Buffer.from(`${folder}/`), bytes]), path, listener);
    if (attributes === undefined) continue;
    const isFolder = attributes.isDirectory();
    if (scope.excludes(below, isFolder ? 'folder' : 'file')) continue;
    const skip = (kind: SkippedFile['kind'], reason: string, loses = false): void =>
      listener.onSkipped?.({ path, relative: below, reason, kind, loses });
    if (!isFolder && !attributes.isFile()) skip('file', kindOf(attributes));
    else if (!isUtf8(bytes)) skip('file', 'its name is not UTF-8', true);
    else if (!isFolder && unfinishedName.test(name)) skip('unfinished', 'it is an unfinished download');
    else if (!isFolder) yield fileOf(path, below, attributes);
    else if (await scope.isCache(below)) skip('cache', cacheReason);
    else yield* walkInto(path, below, walk);
  }
}

async function* walkInto(path: string, relative: string, walk: Walk): AsyncGenerator<LocalFile> {
  const { onUnreadable, onVanished, onEmptyFolder } = walk.listener;
  let names: readonly Buffer[];
  try {
    names = await namesIn(path);
  } catch (error) {
    if (hasVanished(error)) onVanished?.(path);
    else if (onUnreadable === undefined) throw error;
    else await onUnreadable(path, error);
    return;
  }
  if (names.length === 0) onEmptyFolder?.(path);
  yield* walkNames(path, names, relative, walk);
}

async function attributesOf(
  bytes: Buffer,
  path: string,
  { onVanished, onUnreadable }: WalkListener,
): Promise<BigIntStats | undefined> {
  try {
    return await translated(`look at "${path}"`, () => lstat(bytes, { bigint: true }));
  } catch (error) {
    if (hasVanished(error)) onVanished?.(path);
    else if (onUnreadable === undefined) throw error;
    else await onUnreadable(path, error);
    return undefined;
  }
}

/** Whether an error about a file says that it is not there any more. */
export function hasVanished(error: unknown): boolean {
  const errno = errnoOf(error) ?? (error instanceof Error ? errnoOf(error.cause) : undefined);
  return errno === 'ENOENT' || errno === 'ENOTDIR';
}

function fileOf(path: string, relative: string, { size, mtimeNs, mode }: BigIntStats): LocalFile {
  return { path, relative, size: Number(size), mtimeNs, isExecutable: (mode & 0o111n) !== 0n };
}

function kindOf(attributes: { isSymbolicLink(): boolean }): string {
  return attributes.isSymbolicLink() ? 'it is a symbolic link' : 'it is no regular file';
}

async function translated<T>(action: string, work: () => Promise<T>): Promise<T> {
  try {
    return await work();
  } catch (error) {
    throw fromLocalError(error, action);
  }
}

/**
 * Removes the folders below `folder` that hold nothing, but none that is excluded or a cache. What can't be removed or
 * read stays, and is passed to `onFailed`.
 */
export async function removeEmptyFolders(
  folder: string,
  scope: TreeScope,
  onFailed: (path: string, error: unknown) => Promise<void>,
  relative = '',
): Promise<void> {
  for (const bytes of await namesIn(folder)) {
    // A folder of another name has a file in it that stays, or is not ours to remove.
    if (!isUtf8(bytes)) continue;
    const name = bytes.toString();
    const path = join(folder, name);
    const below = relative === '' ? name : `${relative}/${name}`;
    try {
      if (!(await lstat(path)).isDirectory()) continue;
      if (scope.excludes(below, 'folder') || (await scope.isCache(below))) continue;
      await removeEmptyFolders(path, scope, onFailed, below);
      await rmdir(path);
    } catch (error) {
      if (hasVanished(error) || ['ENOTEMPTY', 'EEXIST'].includes(errnoOf(error) ?? '')) continue;
      await onFailed(path, fromLocalError(error, `remove the folder "${path}"`));
    }
  }
}

/**
 * Whether a local file has the content of a remote one; read only where size and version don't tell, or with `checksum`,
 * which believes no version. Contents that can't be compared then, because a legacy server tells no digest, count as different.
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
