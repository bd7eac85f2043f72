import { isUtf8 } from 'node:buffer';
import { lstat, readdir, rmdir } from 'node:fs/promises';
import { join } from 'node:path';
import { errnoOf } from '../core/errors.ts';
import { versionFromMs } from '../core/file-version.ts';
import type { FileInfo } from './file-client.ts';
import { digestOfFile } from './local-cache-check.ts';
import { fromLocalError } from './local-errors.ts';

/** A file below a folder. `relative` has slashes and no slash at its start. */
export interface LocalFile {
  readonly path: string;
  readonly relative: string;
  readonly size: number;
  readonly mtimeMs: number;
}

/** What is no regular file, or has a name that is not UTF-8. */
export interface SkippedFile {
  readonly path: string;
  readonly reason: string;
  /** Whether a file, or a folder of them, is left out for its name, so that the tree is not whole at the target. */
  readonly loses: boolean;
}

/** What a download that was killed leaves beside its target. */
const leftover = /^\.filetracker-[0-9a-f]{16}$/;

export interface WalkListener {
  /** Called with what is left out. */
  readonly onSkipped?: (skipped: SkippedFile) => void;
  /** Called with a folder below that can't be read; without it the walk ends with its error. */
  readonly onUnreadable?: (path: string, error: unknown) => Promise<void>;
}

/** Walks a folder in the order of its names. Links are not followed, and are told like other special files. */
export async function* walkFolder(folder: string, listener: WalkListener = {}): AsyncGenerator<LocalFile> {
  yield* walkNames(folder, await namesIn(folder), '', listener);
}

/** The names in a folder, as bytes, because what is no UTF-8 has no name in text by which it could be looked at. */
async function namesIn(folder: string): Promise<Buffer[]> {
  const names = await translated(`read the folder "${folder}"`, () =>
    readdir(folder, { encoding: 'buffer' }),
  );
  return names.sort((a, b) => Buffer.compare(a, b));
}

async function* walkNames(
  folder: string,
  names: readonly Buffer[],
  relative: string,
  listener: WalkListener,
): AsyncGenerator<LocalFile> {
  for (const bytes of names) {
    const name = bytes.toString();
    if (leftover.test(name)) continue;
    const path = join(folder, name);
    const below = relative === '' ? name : `${relative}/${name}`;
    const attributes = await lstat(Buffer.concat([Buffer.from(`${folder}/`), bytes])).catch(
      (error: unknown) => {
        if (errnoOf(error) === 'ENOENT') return undefined;
        throw fromLocalError(error, `look at "${path}"`);
      },
    );
    if (attributes === undefined) continue;
    const regular = attributes.isDirectory() || attributes.isFile();
    const wrong = regular ? undefined : kindOf(attributes);
    const reason = wrong ?? (isUtf8(bytes) ? undefined : 'its name is not UTF-8');
    if (reason !== undefined) listener.onSkipped?.({ path, reason, loses: regular });
    else if (attributes.isDirectory()) {
      const inside = await namesIn(path).catch(async (error: unknown) => {
        if (listener.onUnreadable === undefined) throw error;
        await listener.onUnreadable(path, error);
        return [];
      });
      yield* walkNames(path, inside, below, listener);
    } else yield { path, relative: below, size: attributes.size, mtimeMs: attributes.mtimeMs };
  }
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

/** Removes the folders below `folder` that hold nothing. */
export async function removeEmptyFolders(folder: string): Promise<void> {
  for (const item of await readdir(folder, { withFileTypes: true })) {
    if (!item.isDirectory()) continue;
    const path = join(folder, item.name);
    await removeEmptyFolders(path);
    try {
      await rmdir(path);
    } catch (error) {
      if (errnoOf(error) !== 'ENOTEMPTY' && errnoOf(error) !== 'EEXIST') {
        throw fromLocalError(error, `remove the folder "${path}"`);
      }
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
  if (!checksum && versionFromMs(local.mtimeMs) === remote.version) return true;
  return remote.digest !== undefined && (await digestOfFile(local.path, signal)) === remote.digest;
}
