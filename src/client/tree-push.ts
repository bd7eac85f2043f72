import { isFiletrackerError } from '../core/errors.ts';
import { ancestorsOf, parseDirectory, parseFileName } from '../core/file-name.ts';
import type { FileName } from '../core/file-name.ts';
import type { FileClient, FileInfo } from './file-client.ts';
import { sameContent, walkFolder } from './local-tree.ts';
import type { LocalFile } from './local-tree.ts';
import { forEachParallel } from './parallel.ts';
import { Steps, Tally } from './tree-tally.ts';
import type { TreeOptions, TreeSummary } from './tree-tally.ts';

/** Sends the files of a folder to the server, below `directory`. */
export async function pushTree(
  client: FileClient,
  folder: string,
  directory: string,
  options: TreeOptions,
): Promise<TreeSummary> {
  const { signal } = options;
  const prefix = parseDirectory(directory);
  const tally = new Tally(options);
  const known =
    options.onlyChanged || options.delete
      ? await remoteFiles(client, directory, signal)
      : new Map<string, FileInfo>();
  const push = async (local: LocalFile): Promise<void> => {
    const event = { name: `${prefix}${local.relative}`, path: local.path, size: local.size };
    await tally.guard(event, async () => {
      const name = parseFileName(event.name);
      const remote = known.get(name);
      if (options.onlyChanged && remote !== undefined && (await sameContent(local, remote, signal))) {
        tally.tell({ ...event, name: remote.versionedName, action: 'unchanged' });
        return;
      }
      if (options.dryRun) {
        tally.tell({ ...event, action: 'sent' });
        return;
      }
      const steps = new Steps(options.onBytes);
      const transfer = { ...options.transfer, signal, onProgress: steps.onProgress };
      const put = await client.putFile({ name }, local.path, transfer);
      steps.end(local.size);
      const told = { ...event, name: put.versionedName };
      if (put.stored) tally.tell({ ...told, action: 'sent' });
      else tally.tell({ ...told, action: 'kept', reason: 'the file on the server is newer' });
    });
  };
  const files = async function* (): AsyncGenerator<LocalFile> {
    const walked = walkFolder(folder, {
      onSkipped: ({ path, reason, loses }) =>
        tally.tell({ action: loses ? 'failed' : 'skipped', name: undefined, path, size: undefined, reason }),
      // As a failure of the work, because nothing may be deleted for not having been found in there.
      onUnreadable: (path, error) =>
        tally.guard({ name: undefined, path, size: undefined }, () => Promise.reject(error)),
    });
    for await (const local of walked) {
      tally.expect(local.size);
      yield local;
    }
  };
  if (!options.delete) {
    await forEachParallel(files(), options.parallel, push);
    return tally.summary;
  }
  const locals: LocalFile[] = [];
  for await (const local of files()) locals.push(local);
  const present = new Set(locals.map(({ relative }) => `${prefix}${relative}`));
  const gone = [...known.values()].filter(({ name }) => !present.has(name));
  const inTheWay = filesInTheWay(gone, present);
  const remove = async ({ name, version, versionedName, size }: FileInfo): Promise<void> =>
    await tally.remove({ name: versionedName, path: undefined, size }, async () => {
      await client.deleteFile({ name, version }, { signal });
    });
  // Names form a tree: what is a file here and a directory there, or the other way round, must go before.
  await forEachParallel(inTheWay, options.parallel, remove);
  await forEachParallel(locals, options.parallel, push);
  await forEachParallel(
    gone.filter((file) => !inTheWay.has(file)),
    options.parallel,
    remove,
  );
  return tally.summary;
}

/** Those that can't be on the server together with the names that will be put. */
function filesInTheWay(gone: readonly FileInfo[], present: ReadonlySet<string>): ReadonlySet<FileInfo> {
  const names = new Set<FileName>();
  for (const text of present) {
    try {
      names.add(parseFileName(text));
    } catch (error) {
      // It will not be put, so nothing is in its way.
      if (!isFiletrackerError(error, 'invalid-name')) throw error;
    }
  }
  const directories = new Set([...names].flatMap(ancestorsOf));
  return new Set(
    gone.filter(({ name }) => directories.has(name) || ancestorsOf(name).some((above) => names.has(above))),
  );
}

async function remoteFiles(
  client: FileClient,
  directory: string,
  signal: AbortSignal | undefined,
): Promise<Map<string, FileInfo>> {
  const files = new Map<string, FileInfo>();
  try {
    for await (const file of client.listRemoteEntries({ subpath: directory, signal }))
      files.set(file.name, file);
  } catch (error) {
    // Nothing is there yet.
    if (!isFiletrackerError(error, 'not-a-directory')) throw error;
  }
  return files;
}
