import type { BigIntStats } from 'node:fs';
import { lstat, rmdir, stat, unlink, utimes } from 'node:fs/promises';
import { dirname, join, sep } from 'node:path';
import { errnoOf, FiletrackerError, isFiletrackerError } from '../../core/errors.ts';
import { parseDirectory } from '../../core/file-name.ts';
import { versionFromNs } from '../../core/file-version.ts';
import type { FileVersion } from '../../core/file-version.ts';
import { makeFolders } from '../../fs/folders.ts';
import { microsecondsOf, timeInSeconds } from '../../fs/time-stamps.ts';
import type { FileClient, FileInfo, GetFileOptions } from '../file-client.ts';
import { fromLocalError } from '../local-errors.ts';
import { removeEmptyFolders, sameContent, walkFolder } from './local-tree.ts';
import type { LocalFile, SkippedFile } from './local-tree.ts';
import { sideBySide } from '../../streams/side-by-side.ts';
import { TreeScope } from './scope.ts';
import { cacheReason, emptySource, Steps, Tally } from './tally.ts';
import type { TreeOptions, TreeSummary } from './tally.ts';

/** Brings the files below `directory` of the server into a folder. */
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
  const target: Target = { folder, scope, cleared: new Set() };
  const wanted = new Set<string>();
  const entries = async function* (): AsyncGenerator<FileInfo> {
    for await (const remote of listed(directory, options)) {
      const relative = remote.name.slice(prefix.length);
      if (scope.excludesFile(relative) || (await isInCache(target, relative, tally))) continue;
      wanted.add(relative);
      tally.expect(remote.size ?? 0);
      yield remote;
    }
  };
  const pull = async (remote: FileInfo): Promise<void> => {
    const place = placeOf(target, remote.name.slice(prefix.length));
    const event = { name: remote.versionedName, path: place.path, size: remote.size };
    await tally.guard(event, () => pullFile(client, remote, place, tally, options));
  };
  if (options.delete) {
    const remotes: FileInfo[] = [];
    for await (const remote of entries()) remotes.push(remote);
    for (const { name } of remotes) {
      await clearWay(placeOf(target, name.slice(prefix.length)), tally, options);
    }
    await sideBySide(remotes, options.parallel, pull);
  } else {
    await sideBySide(entries(), options.parallel, pull);
  }
  // A directory without files becomes a folder too; where it can't, the files that failed are told all the same.
  if (!options.dryRun) {
    await tally.guard({ name: undefined, path: folder, size: undefined }, async () => {
      makeFolders(folder);
    });
  }
  if (options.delete) await deleteOthers(target, wanted, { directory, tally, options });
  return tally.summary;
}

/** What is on the server; a directory that is not there is empty for a user who says that it may be. */
async function* listed(directory: string, options: TreeOptions): AsyncGenerator<FileInfo> {
  try {
    yield* options.list({ subpath: directory, signal: options.signal });
  } catch (error) {
    const mayBeEmpty = options.delete && options.allowEmpty;
    if (!mayBeEmpty || !isFiletrackerError(error, 'not-a-directory')) throw error;
  }
}

/** The folder that a tree is fetched into. */
interface Target {
  readonly folder: string;
  readonly scope: TreeScope;
  /** Paths of what was removed to make way, or with a dry run would be, for all files. */
  readonly cleared: Set<string>;
}

interface Place extends Target {
  readonly relative: string;
  readonly path: string;
}

function placeOf(target: Target, relative: string): Place {
  return { ...target, relative, path: join(target.folder, relative) };
}

/** Whether a file would be written into a cache, which is reported once for each. */
async function isInCache({ folder, scope }: Target, relative: string, tally: Tally): Promise<boolean> {
  const cache = await scope.cacheAround(relative);
  if (cache !== undefined) tally.skipOnce(join(folder, cache), cacheReason);
  return cache !== undefined;
}

/** @throws FiletrackerError `io` where the target is no folder and can't become one. */
async function requireNoFile(folder: string): Promise<void> {
  try {
    if ((await stat(folder)).isDirectory()) return;
  } catch (error) {
    if (errnoOf(error) === 'ENOENT') return;
    throw fromLocalError(error, `write to the folder "${folder}"`);
  }
  throw new FiletrackerError('io', `Cannot write to the folder "${folder}": it is a file and not a folder`);
}

async function pullFile(
  client: FileClient,
  remote: FileInfo,
  place: Place,
  tally: Tally,
  options: TreeOptions,
): Promise<void> {
  const { signal } = options;
  const { path } = place;
  const event = { name: remote.versionedName, path, size: remote.size };
  await requireFolders(place);
  const local = await localFile(place);
  if (options.onlyChanged && local !== undefined) {
    if (await sameContent(local, remote, options)) {
      if (!options.dryRun) await showVersion(local, remote.version);
      tally.tell({ ...event, action: 'unchanged' });
      return;
    }
    if (!options.force && versionFromNs(local.mtimeNs) > remote.version) {
      tally.tell({ ...event, action: 'kept', reason: 'the local file is newer' });
      return;
    }
  }
  if (options.dryRun) {
    tally.tell({ ...event, action: 'fetched' });
    return;
  }
  makeFolders(dirname(path));
  const steps = new Steps(options.onBytes);
  // No link in the tree is followed, and no pipe written to: what is there gives way.
  const transfer = { ...options.transfer, signal, onProgress: steps.onProgress, replaceSpecial: true };
  let got: FileInfo;
  try {
    got = await fetchListed(client, remote, path, transfer);
  } catch (error) {
    if (!isFiletrackerError(error, 'not-found')) throw error;
    tally.tell({ ...event, action: 'vanished', reason: 'it was removed while the tree was being fetched' });
    return;
  }
  steps.end(got.size ?? 0);
  tally.tell({ ...event, name: got.versionedName, size: got.size, action: 'fetched' });
}

/**
 * Gives a file the time of a version. Its microseconds stay: the file may be a link to a content of the cache, which is
 * known by them and taken for damaged without.
 */
async function showVersion({ path, mtimeNs }: LocalFile, version: FileVersion): Promise<void> {
  if (versionFromNs(mtimeNs) === version) return;
  const seconds = timeInSeconds(version, microsecondsOf(Number(mtimeNs) / 1e6));
  // A number before 1970 would be taken for now; a date is not.
  await utimes(path, new Date(), version < 0 ? new Date(version * 1000) : seconds);
}

/** The paths of the folders between the target folder and a file below it, the nearest to the target first. */
function foldersTo(folder: string, relative: string): string[] {
  const components = relative.split('/').slice(0, -1);
  return components.map((_component, index) => join(folder, components.slice(0, index + 1).join(sep)));
}

/**
 * Requires that what is between the target folder and a file are folders, or missing. What lies behind a link is not
 * below the folder that was named: nothing is written there.
 * @throws FiletrackerError `io`.
 */
async function requireFolders({ folder, relative, path, cleared }: Place): Promise<void> {
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
 * The regular file at a path; a link is none, and gives way to what is fetched.
 * @throws FiletrackerError `io` for a folder, which does not.
 */
async function localFile({ folder, relative, path, cleared }: Place): Promise<LocalFile | undefined> {
  const isGone = [...foldersTo(folder, relative), path].some((removed) => cleared.has(removed));
  const attributes = isGone ? undefined : await attributesOf(path);
  if (attributes?.isDirectory() === true) {
    throw new FiletrackerError('io', `Cannot write "${path}": it is a folder`);
  }
  if (attributes?.isFile() !== true) return undefined;
  const { size, mtimeNs } = attributes;
  return { path, relative, size: Number(size), mtimeNs, isExecutable: false };
}

/** Fetches what was listed, or the newer version that has come since. */
async function fetchListed(
  client: FileClient,
  remote: FileInfo,
  path: string,
  options: GetFileOptions,
): Promise<FileInfo> {
  try {
    const got = await client.getFile(remote, path, options);
    // The last to come under a version is what counts, and the cache may have another that came before.
    const isOther = got.cached && remote.digest !== undefined && got.digest !== remote.digest;
    return isOther ? await client.getFile(remote, path, { ...options, forceRefresh: true }) : got;
  } catch (error) {
    if (!isFiletrackerError(error, 'not-found') || error.details.version === undefined) throw error;
    return await client.getFile({ name: remote.name }, path, options);
  }
}

/** Removes what is a folder here and a file on the server, or the other way round: the one must go before the other. */
async function clearWay(place: Place, tally: Tally, { dryRun }: TreeOptions): Promise<void> {
  const { folder, relative, path, cleared, scope } = place;
  const remove = async (inTheWay: string, size: number | undefined): Promise<void> => {
    const removed = await tally.remove({ name: undefined, path: inTheWay, size }, () => unlink(inTheWay));
    if (removed) cleared.add(inTheWay);
  };
  for (const above of foldersTo(folder, relative)) {
    const attributes = cleared.has(above) ? undefined : await attributesOf(above);
    if (attributes === undefined) return;
    if (attributes.isDirectory()) continue;
    if (attributes.isFile() || attributes.isSymbolicLink()) await remove(above, undefined);
    return;
  }
  if ((await attributesOf(path))?.isDirectory() !== true) return;
  const event = { name: undefined, path, size: undefined };
  const left: string[] = [];
  const listener = { onSkipped: (skipped: SkippedFile) => void left.push(skipped.path) };
  await tally.guard(event, async () => {
    for await (const { path: below, size } of walkFolder(path, scope, listener, relative)) {
      await remove(below, size);
      if (!cleared.has(below)) left.push(below);
    }
    if (left.length > 0) {
      throw new FiletrackerError('io', `Cannot remove the folder "${path}": "${left[0]}" stays in it`);
    }
    if (!dryRun) {
      await removeEmptyFolders(path, scope, (_path, error) => Promise.reject(error), relative);
      await rmdir(path);
    }
    cleared.add(path);
  });
}

/** Deletes what the server does not have and did not have to go before; reports what stays. */
async function deleteOthers(
  { folder, scope, cleared }: Target,
  wanted: ReadonlySet<string>,
  work: { readonly directory: string; readonly tally: Tally; readonly options: TreeOptions },
): Promise<void> {
  const { directory, tally, options } = work;
  const { dryRun, allowEmpty } = options;
  // A dry run made no folder.
  if ((await attributesOf(folder)) === undefined) return;
  const fail = async (path: string, error: unknown): Promise<void> =>
    await tally.guard({ name: undefined, path, size: undefined }, () => Promise.reject(error));
  const keep = ({ path, relative, reason, kind }: SkippedFile): void => {
    // What is in the way of a file that was fetched was reported with it.
    if (wanted.has(relative) || (dryRun && cleared.has(path))) return;
    if (kind === 'cache') tally.skipOnce(path, cacheReason);
    else
      tally.tell({
        action: 'kept',
        name: undefined,
        path,
        size: undefined,
        reason: `${reason}; delete it by hand`,
      });
  };
  const listener = { onSkipped: keep, onUnreadable: fail };
  for await (const { path, relative, size } of walkFolder(folder, scope, listener)) {
    if (wanted.has(relative) || (dryRun && cleared.has(path))) continue;
    if (wanted.size === 0 && !allowEmpty && !tally.hasFailed) throw emptySource(directory, folder);
    await tally.remove({ name: undefined, path, size }, () => unlink(path));
  }
  if (!dryRun) await removeEmptyFolders(folder, scope, fail);
}
