import type { BigIntStats } from 'node:fs';
import { lstat, rmdir, stat, unlink, utimes } from 'node:fs/promises';
import { dirname, join, sep } from 'node:path';
import { errnoOf, FiletrackerError, isFiletrackerError } from '../../core/errors.ts';
import { parseDirectory } from '../../core/file-name.ts';
import { versionFromNs } from '../../core/file-version.ts';
import type { FileVersion } from '../../core/file-version.ts';
import { makeFolders } from '../../fs/folders.ts';
import { microsecondsOf, timeInSeconds } from '../../fs/time-stamps.ts';
import { sideBySide } from '../../streams/side-by-side.ts';
import type { FileClient, FileInfo, GetFileOptions } from '../file-client.ts';
import { fromLocalError } from '../local-errors.ts';
import { removeEmptyFolders, sameContent, walkFolder } from './local-tree.ts';
import type { LocalFile, SkippedFile } from './local-tree.ts';
import { TreeScope } from './scope.ts';
import { emptySource, Tally } from './tally.ts';
import type { TreeOptions, TreeSummary } from './tally.ts';

/** Fetches the files below `directory` of the server into a folder. */
export async function pullTree(
  client: FileClient,
  directory: string,
  folder: string,
  options: TreeOptions,
): Promise<TreeSummary> {
  const prefix = parseDirectory(directory);
  await requireNoFile(folder);
  const scope = await TreeScope.open(folder, `write to the folder "${folder}"`, options);
  const tally = new Tally(options);
  const pull: Pull = { client, folder, scope, tally, options, cleared: new Set() };
  const wanted = new Set<string>();
  const entries = async function* (): AsyncGenerator<Entry> {
    for await (const remote of listed(directory, options)) {
      const relative = remote.name.slice(prefix.length);
      if (scope.excludesFile(relative)) continue;
      const cache = await scope.cacheAround(relative);
      if (cache === undefined) {
        wanted.add(relative);
        tally.expect(remote.size ?? 0);
        yield { remote, relative, path: join(folder, relative) };
      } else tally.skipCache(join(folder, cache));
    }
  };
  const fetch = async (entry: Entry): Promise<void> => await fetchFile(pull, entry);
  if (options.delete) {
    const all: Entry[] = [];
    for await (const entry of entries()) all.push(entry);
    for (const entry of all) await clearWay(pull, entry);
    await sideBySide(all, options.parallel, fetch);
  } else {
    await sideBySide(entries(), options.parallel, fetch);
  }
  // A directory without files becomes a folder too; if it can't, the failed files are reported all the same.
  if (!options.dryRun) {
    await tally.guard({ path: folder }, async () => {
      makeFolders(folder);
    });
  }
  if (options.delete) await deleteOthers(pull, wanted, directory);
  return tally.summary;
}

interface Pull {
  readonly client: FileClient;
  readonly folder: string;
  readonly scope: TreeScope;
  readonly tally: Tally;
  readonly options: TreeOptions;
  /** Paths that were removed, or would be without a dry run, to make way for files. */
  readonly cleared: Set<string>;
}

/** A file on the server and its place in the folder. */
interface Entry {
  readonly remote: FileInfo;
  readonly relative: string;
  readonly path: string;
}

/** The files on the server; a missing directory is empty if the user allows an empty source. */
async function* listed(directory: string, options: TreeOptions): AsyncGenerator<FileInfo> {
  try {
    yield* options.list({ subpath: directory, signal: options.signal });
  } catch (error) {
    const mayBeEmpty = options.delete && options.allowEmpty;
    if (!mayBeEmpty || !isFiletrackerError(error, 'not-a-directory')) throw error;
  }
}

/** @throws FiletrackerError `io` if the target is no folder and can't become one. */
async function requireNoFile(folder: string): Promise<void> {
  try {
    if ((await stat(folder)).isDirectory()) return;
  } catch (error) {
    if (errnoOf(error) === 'ENOENT') return;
    throw fromLocalError(error, `write to the folder "${folder}"`);
  }
  throw new FiletrackerError('io', `Cannot write to the folder "${folder}": it is a file and not a folder`);
}

async function fetchFile(pull: Pull, entry: Entry): Promise<void> {
  const { client, tally, options } = pull;
  const { remote, path } = entry;
  const file = { name: remote.versionedName, path, size: remote.size };
  await tally.guard(file, async () => {
    await requireFolders(pull, entry);
    const local = await localFile(pull, entry);
    if (options.onlyChanged && local !== undefined) {
      if (await sameContent(local, remote, options)) {
        if (!options.dryRun) await showVersion(local, remote.version);
        tally.report({ ...file, action: 'unchanged' });
        return;
      }
      if (!options.force && versionFromNs(local.mtimeNs) > remote.version) {
        tally.report({ ...file, action: 'kept', reason: 'the local file is newer' });
        return;
      }
    }
    if (options.dryRun) {
      tally.report({ ...file, action: 'fetched' });
      return;
    }
    makeFolders(dirname(path));
    const { onProgress, end } = tally.progress();
    // A link or pipe in the tree is replaced, not written through.
    const transfer = { ...options.transfer, signal: options.signal, onProgress, replaceSpecial: true };
    try {
      const { versionedName: name, size } = await fetchListed(client, remote, path, transfer);
      end(size ?? 0);
      tally.report({ name, path, size, action: 'fetched' });
    } catch (error) {
      if (!isFiletrackerError(error, 'not-found')) throw error;
      const reason = 'it was removed while the tree was being fetched';
      tally.report({ ...file, action: 'vanished', reason });
    }
  });
}

/**
 * Sets the time of a file to that of a version. Its microseconds stay: the file may be a link to a cached blob, whose seal
 * they are.
 */
async function showVersion({ path, mtimeNs }: LocalFile, version: FileVersion): Promise<void> {
  if (versionFromNs(mtimeNs) === version) return;
  const seconds = timeInSeconds(version, microsecondsOf(Number(mtimeNs) / 1e6));
  // Node takes a number before 1970 for now, but not a date.
  await utimes(path, new Date(), version < 0 ? new Date(version * 1000) : seconds);
}

/** The paths of the folders between the target folder and a file below it, the topmost first. */
function foldersTo(folder: string, relative: string): string[] {
  const components = relative.split('/').slice(0, -1);
  return components.map((_component, index) => join(folder, components.slice(0, index + 1).join(sep)));
}

/**
 * Requires that only folders, or nothing, are between the target folder and a file. A link there leads out of the folder
 * that the user named.
 * @throws FiletrackerError `io`.
 */
async function requireFolders({ folder, cleared }: Pull, { relative, path }: Entry): Promise<void> {
  for (const above of foldersTo(folder, relative)) {
    const attributes = cleared.has(above) ? undefined : await attributesOf(above);
    if (attributes === undefined) return;
    if (attributes.isDirectory()) continue;
    const kind = attributes.isSymbolicLink()
      ? 'a symbolic link, which is not followed'
      : 'a file and not a folder';
    throw new FiletrackerError('io', `Cannot write "${path}": "${above}" is ${kind}`);
  }
}

async function attributesOf(path: string): Promise<BigIntStats | undefined> {
  try {
    return await lstat(path, { bigint: true });
  } catch (error) {
    if (errnoOf(error) === 'ENOENT' || errnoOf(error) === 'ENOTDIR') return undefined;
    throw fromLocalError(error, `look at "${path}"`);
  }
}

/**
 * The regular file at a path, if there is one.
 * @throws FiletrackerError `io` for a folder, which a fetched file does not replace.
 */
async function localFile(
  { folder, cleared }: Pull,
  { relative, path }: Entry,
): Promise<LocalFile | undefined> {
  const isCleared = [...foldersTo(folder, relative), path].some((removed) => cleared.has(removed));
  const attributes = isCleared ? undefined : await attributesOf(path);
  if (attributes?.isDirectory() === true) {
    throw new FiletrackerError('io', `Cannot write "${path}": it is a folder`);
  }
  if (attributes?.isFile() !== true) return undefined;
  const { size, mtimeNs } = attributes;
  return { path, relative, size: Number(size), mtimeNs, isExecutable: false };
}

/** Fetches the listed version, or a newer one if it was replaced since. */
async function fetchListed(
  client: FileClient,
  remote: FileInfo,
  path: string,
  options: GetFileOptions,
): Promise<FileInfo> {
  try {
    const got = await client.getFile(remote, path, options);
    // A version can be stored again with another content, and the cache may have the first.
    const isOther = got.cached && remote.digest !== undefined && got.digest !== remote.digest;
    return isOther ? await client.getFile(remote, path, { ...options, forceRefresh: true }) : got;
  } catch (error) {
    if (!isFiletrackerError(error, 'not-found') || error.details.version === undefined) throw error;
    return await client.getFile({ name: remote.name }, path, options);
  }
}

/** Removes a local file that has the path of a directory, or a local folder that has the path of a file. */
async function clearWay(pull: Pull, { relative, path }: Entry): Promise<void> {
  const { folder, scope, tally, options, cleared } = pull;
  const remove = async (inTheWay: string, size?: number): Promise<void> => {
    if (await tally.remove({ path: inTheWay, size }, () => unlink(inTheWay))) cleared.add(inTheWay);
  };
  for (const above of foldersTo(folder, relative)) {
    const attributes = cleared.has(above) ? undefined : await attributesOf(above);
    if (attributes === undefined) return;
    if (attributes.isDirectory()) continue;
    if (attributes.isFile() || attributes.isSymbolicLink()) await remove(above);
    return;
  }
  if ((await attributesOf(path))?.isDirectory() !== true) return;
  const left: string[] = [];
  const listener = { onSkipped: (skipped: SkippedFile) => void left.push(skipped.path) };
  await tally.guard({ path }, async () => {
    for await (const { path: below, size } of walkFolder(path, scope, listener, relative)) {
      await remove(below, size);
      if (!cleared.has(below)) left.push(below);
    }
    if (left.length > 0) {
      throw new FiletrackerError('io', `Cannot remove the folder "${path}": "${left[0]}" stays in it`);
    }
    if (!options.dryRun) {
      await removeEmptyFolders(path, scope, (_path, error) => Promise.reject(error), relative);
      await rmdir(path);
    }
    cleared.add(path);
  });
}

/** Deletes local files that the server does not have; reports those that stay. */
async function deleteOthers(pull: Pull, wanted: ReadonlySet<string>, directory: string): Promise<void> {
  const { folder, scope, tally, cleared } = pull;
  const { dryRun, allowEmpty } = pull.options;
  // A dry run created no folder.
  if ((await attributesOf(folder)) === undefined) return;
  // A wanted file, and with it what was in its way, was reported when it was fetched.
  const isReported = ({ path, relative }: { readonly path: string; readonly relative: string }): boolean =>
    wanted.has(relative) || (dryRun && cleared.has(path));
  const onSkipped = (skipped: SkippedFile): void => {
    const { path, reason, kind } = skipped;
    if (isReported(skipped)) return;
    if (kind === 'cache') tally.skipCache(path);
    else tally.report({ action: 'kept', path, reason: `${reason}; delete it by hand` });
  };
  for await (const local of walkFolder(folder, scope, { onSkipped, onUnreadable: tally.fail })) {
    if (isReported(local)) continue;
    if (wanted.size === 0 && !allowEmpty && !tally.hasFailed) throw emptySource(directory, folder);
    const { path, size } = local;
    await tally.remove({ path, size }, () => unlink(path));
  }
  if (!dryRun) await removeEmptyFolders(folder, scope, tally.fail);
}
