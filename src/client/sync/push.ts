import { lstat } from 'node:fs/promises';
import { FiletrackerError, isFiletrackerError } from '../../core/errors.ts';
import { ancestorsOf, parseDirectory, parseFileName } from '../../core/file-name.ts';
import type { FileName } from '../../core/file-name.ts';
import { versionFromNs } from '../../core/file-version.ts';
import type { FileClient, FileInfo, StoredFile } from '../file-client.ts';
import { hasVanished, sameContent } from './local-tree.ts';
import type { LocalFile } from './local-tree.ts';
import { sideBySide } from '../../streams/side-by-side.ts';
import { SentFolder, vanishedReason } from './sent-folder.ts';
import { emptySource, Steps, Tally } from './tally.ts';
import type { TreeOptions, TreeSummary } from './tally.ts';

/** Sends the files of a folder to the server, below `directory`. */
export async function pushTree(
  client: FileClient,
  folder: string,
  directory: string,
  options: TreeOptions,
): Promise<TreeSummary> {
  const prefix = parseDirectory(directory);
  const tally = new Tally(options);
  const source = await SentFolder.open(folder, tally, options);
  const known =
    options.onlyChanged || options.delete
      ? await storedFiles(directory, options)
      : new Map<FileName, FileInfo>();
  const names = new KnownNames(client, prefix, known);
  const push = async (local: LocalFile): Promise<void> => {
    const event = { name: `${prefix}${local.relative}`, path: local.path, size: local.size };
    await tally.guard(event, async () => {
      try {
        await pushFile(client, local, event, names, tally, options);
      } catch (error) {
        if (!hasVanished(error) || !(await isGone(local.path))) throw error;
        tally.tell({ ...event, action: 'vanished', reason: vanishedReason });
      }
    });
  };
  if (!options.delete) {
    await sideBySide(source.files(), options.parallel, push);
    return tally.summary;
  }
  const locals: LocalFile[] = [];
  for await (const local of source.files()) locals.push(local);
  const present = new Set(locals.map(({ relative }) => `${prefix}${relative}`));
  const gone = [...known.values()].filter(
    ({ name }) => !present.has(name) && !source.leavesOut(name.slice(prefix.length)),
  );
  if (locals.length === 0 && gone.length > 0 && !options.allowEmpty && !tally.hasFailed) {
    throw emptySource(folder, directory);
  }
  await source.requireSame();
  const inTheWay = filesInTheWay(gone, present);
  const remove = async ({ name, version, versionedName, size }: FileInfo): Promise<void> => {
    const event = { name: versionedName, path: undefined, size };
    const removed = await tally.remove(event, async () => {
      await client.deleteFile({ name, version }, { signal: options.signal });
    });
    if (removed) known.delete(name);
  };
  // Names form a tree: what is a file here and a directory there, or the other way round, must go before.
  await sideBySide(inTheWay, options.parallel, remove);
  await sideBySide(locals, options.parallel, push);
  await sideBySide(
    gone.filter((file) => !inTheWay.has(file)),
    options.parallel,
    remove,
  );
  return tally.summary;
}

async function isGone(path: string): Promise<boolean> {
  return await lstat(path).then(
    () => false,
    (error: unknown) => hasVanished(error),
  );
}

interface PushEvent {
  readonly name: string;
  readonly path: string;
  readonly size: number;
}

async function pushFile(
  client: FileClient,
  local: LocalFile,
  event: PushEvent,
  names: KnownNames,
  tally: Tally,
  options: TreeOptions,
): Promise<void> {
  const name = parseFileName(event.name);
  const remote = names.files.get(name);
  const isNewer = remote !== undefined && remote.version > versionFromNs(local.mtimeNs);
  if (options.onlyChanged && remote !== undefined) {
    const told = { ...event, name: remote.versionedName };
    if (await sameContent(local, remote, options)) {
      tally.tell({ ...told, action: 'unchanged' });
      return;
    }
    if (isNewer && !options.force) {
      tally.tell({ ...told, action: 'kept', reason: 'the file on the server is newer' });
      return;
    }
  }
  if (options.dryRun) {
    if (options.namesFormTree) await names.requirePlace(name);
    tally.tell({ ...event, action: 'sent' });
    return;
  }
  const steps = new Steps(options.onBytes);
  const put = async (version: number | undefined): Promise<StoredFile> => {
    const transfer = { ...options.transfer, signal: options.signal, onProgress: steps.onProgress };
    return await client.putFile({ name, version }, local.path, transfer);
  };
  let stored = await put(isNewer && options.force ? remote.version + 1 : undefined);
  if (!stored.stored && options.force) stored = await put(stored.version + 1);
  steps.end(local.size);
  const told = { ...event, name: stored.versionedName };
  if (stored.stored) tally.tell({ ...told, action: 'sent' });
  else tally.tell({ ...told, action: 'kept', reason: 'the file on the server is newer' });
}

/** What is on the server below a directory, as it was listed; what is removed is taken out. */
class KnownNames {
  readonly files: ReadonlyMap<FileName, FileInfo>;
  readonly #client: FileClient;
  readonly #prefix: string;
  #directories: ReadonlySet<FileName> | undefined;
  #isBelowFile: Promise<boolean> | undefined;

  constructor(client: FileClient, prefix: string, files: ReadonlyMap<FileName, FileInfo>) {
    this.#client = client;
    this.#prefix = prefix;
    this.files = files;
  }

  /** Fails as the server does where it has files below this name, or a file above it. For dry runs, which change nothing after. */
  async requirePlace(name: FileName): Promise<void> {
    this.#directories ??= new Set([...this.files.keys()].flatMap(ancestorsOf));
    this.#isBelowFile ??= this.#findFileAbove();
    const fail = (state: string): never => {
      throw new FiletrackerError('name-conflict', `Cannot store "${name}": ${state}`, { details: { name } });
    };
    if (this.#directories.has(name)) fail('there are files below it, as below a directory');
    const isBelowFile = ancestorsOf(name).some((above) => this.files.has(above)) || (await this.#isBelowFile);
    if (isBelowFile) fail('one of the directories above it is a file');
  }

  /** Whether the directory itself, or one above it, is a file; none is where files are below. */
  async #findFileAbove(): Promise<boolean> {
    if (this.files.size > 0 || this.#prefix === '/') return false;
    const directory = parseFileName(this.#prefix.slice(0, -1));
    for (const name of [...ancestorsOf(directory), directory]) {
      if (await this.#client.exists({ name })) return true;
    }
    return false;
  }
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

async function storedFiles(
  directory: string,
  { list, signal }: TreeOptions,
): Promise<Map<FileName, FileInfo>> {
  const files = new Map<FileName, FileInfo>();
  try {
    for await (const file of list({ subpath: directory, signal })) files.set(file.name, file);
  } catch (error) {
    // Nothing is there yet.
    if (!isFiletrackerError(error, 'not-a-directory')) throw error;
  }
  return files;
}
