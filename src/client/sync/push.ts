import { lstat, stat } from 'node:fs/promises';
import { FiletrackerError, isFiletrackerError } from '../../core/errors.ts';
import { ancestorsOf, parseDirectory, parseFileName } from '../../core/file-name.ts';
import type { FileName } from '../../core/file-name.ts';
import { versionFromNs } from '../../core/file-version.ts';
import { sideBySide } from '../../streams/side-by-side.ts';
import type { FileClient, FileInfo, StoredFile } from '../file-client.ts';
import { fromLocalError } from '../local-errors.ts';
import { hasVanished, sameContent, walkFolder } from './local-tree.ts';
import type { LocalFile, SkippedFile } from './local-tree.ts';
import { TreeScope } from './scope.ts';
import { emptySource, Tally } from './tally.ts';
import type { TreeOptions, TreeSummary } from './tally.ts';

const vanishedReason = 'it was removed while the tree was being sent';

/** Sends the files of a folder to the server, below `directory`. */
export async function pushTree(
  client: FileClient,
  folder: string,
  directory: string,
  options: TreeOptions,
): Promise<TreeSummary> {
  const prefix = parseDirectory(directory);
  const tally = new Tally(options);
  const source = await SourceFolder.open(folder, tally, options);
  const stored = options.onlyChanged || options.delete ? await storedFiles(directory, options) : new Map();
  const push: Push = { client, tally, options, prefix, stored, places: new Places(client, prefix, stored) };
  const send = async (local: LocalFile): Promise<void> => await sendFile(push, local);
  if (!options.delete) {
    await sideBySide(source.files(), options.parallel, send);
    return tally.summary;
  }
  const locals: LocalFile[] = [];
  for await (const local of source.files()) locals.push(local);
  const present = new Set(locals.map(({ relative }) => `${prefix}${relative}`));
  const gone = [...push.stored.values()].filter(
    ({ name }) => !present.has(name) && !source.leavesOut(name.slice(prefix.length)),
  );
  if (locals.length === 0 && gone.length > 0 && !options.allowEmpty && !tally.hasFailed) {
    throw emptySource(folder, directory);
  }
  await source.requireSame();
  const remove = async ({ name, version, versionedName, size }: FileInfo): Promise<void> => {
    const removed = await tally.remove({ name: versionedName, size }, async () => {
      await client.deleteFile({ name, version }, { signal: options.signal });
    });
    if (removed) push.stored.delete(name);
  };
  // Names form a tree: a file with the name of a directory, or the other way round, must be removed first.
  const inTheWay = filesInTheWay(gone, present);
  await sideBySide(inTheWay, options.parallel, remove);
  await sideBySide(locals, options.parallel, send);
  const others = gone.filter((file) => !inTheWay.has(file));
  await sideBySide(others, options.parallel, remove);
  return tally.summary;
}

interface Push {
  readonly client: FileClient;
  readonly tally: Tally;
  readonly options: TreeOptions;
  readonly prefix: string;
  /** The files on the server below the directory, as listed, without those that were removed since. */
  readonly stored: Map<FileName, FileInfo>;
  readonly places: Places;
}

async function sendFile(push: Push, local: LocalFile): Promise<void> {
  const { tally, prefix } = push;
  const file = { name: `${prefix}${local.relative}`, path: local.path, size: local.size };
  await tally.guard(file, async () => {
    try {
      await sendUnlessSame(push, local, file);
    } catch (error) {
      if (!hasVanished(error) || !(await isGone(local.path))) throw error;
      tally.report({ ...file, action: 'vanished', reason: vanishedReason });
    }
  });
}

async function isGone(path: string): Promise<boolean> {
  return await lstat(path).then(() => false, hasVanished);
}

async function sendUnlessSame(
  { client, tally, options, stored, places }: Push,
  local: LocalFile,
  file: { readonly name: string; readonly path: string; readonly size: number },
): Promise<void> {
  const name = parseFileName(file.name);
  const remote = stored.get(name);
  const isNewer = remote !== undefined && remote.version > versionFromNs(local.mtimeNs);
  const keep = (versionedName: string): void =>
    tally.report({
      ...file,
      name: versionedName,
      action: 'kept',
      reason: 'the file on the server is newer',
    });
  if (options.onlyChanged && remote !== undefined) {
    if (await sameContent(local, remote, options)) {
      tally.report({ ...file, name: remote.versionedName, action: 'unchanged' });
      return;
    }
    if (isNewer && !options.force) {
      keep(remote.versionedName);
      return;
    }
  }
  if (options.dryRun) {
    if (options.namesFormTree) await places.require(name);
    tally.report({ ...file, action: 'sent' });
    return;
  }
  const { onProgress, end } = tally.progress();
  const put = async (version: number | undefined): Promise<StoredFile> => {
    const transfer = { ...options.transfer, signal: options.signal, onProgress };
    return await client.putFile({ name, version }, local.path, transfer);
  };
  let result = await put(isNewer && options.force ? remote.version + 1 : undefined);
  if (!result.stored && options.force) result = await put(result.version + 1);
  end(local.size);
  if (result.stored) tally.report({ ...file, name: result.versionedName, action: 'sent' });
  else keep(result.versionedName);
}

/** The folder that is sent. */
class SourceFolder {
  readonly #folder: string;
  readonly #scope: TreeScope;
  readonly #tally: Tally;
  readonly #onLoss: (text: string) => void;
  readonly #identity: string;
  /** Caches that the walk has met. */
  readonly #caches: string[] = [];

  private constructor(
    folder: string,
    found: { readonly scope: TreeScope; readonly identity: string },
    tally: Tally,
    onLoss: (text: string) => void,
  ) {
    this.#folder = folder;
    this.#scope = found.scope;
    this.#identity = found.identity;
    this.#tally = tally;
    this.#onLoss = onLoss;
  }

  static async open(folder: string, tally: Tally, options: TreeOptions): Promise<SourceFolder> {
    const scope = await TreeScope.open(folder, `send the folder "${folder}"`, options);
    return new SourceFolder(folder, { scope, identity: await identityOf(folder) }, tally, options.onLoss);
  }

  /** The files to send; reports the others. */
  async *files(): AsyncGenerator<LocalFile> {
    const walked = walkFolder(this.#folder, this.#scope, {
      onSkipped: (skipped) => this.#skip(skipped),
      // As a failure, so that nothing is deleted because it was not found in an unreadable folder.
      onUnreadable: this.#tally.fail,
      onVanished: (path) => this.#tally.report({ action: 'vanished', path, reason: vanishedReason }),
      onEmptyFolder: (path) => this.#onLoss(`"${path}" is an empty folder, which is not stored`),
    });
    for await (const local of walked) {
      this.#tally.expect(local.size);
      if (local.isExecutable) this.#onLoss(`"${local.path}" is executable, which is not stored`);
      yield local;
    }
  }

  #skip({ path, relative, reason, kind, loses }: SkippedFile): void {
    if (kind === 'unfinished') return;
    if (kind === 'cache') this.#caches.push(`${relative}/`);
    this.#tally.report({ action: loses ? 'failed' : 'skipped', path, reason });
  }

  /** Whether a name belongs to a file that is not sent, and therefore stays at the target too. */
  leavesOut(relative: string): boolean {
    return (
      this.#scope.excludesFile(relative) || this.#caches.some((cache) => `${relative}/`.startsWith(cache))
    );
  }

  /** @throws FiletrackerError `io` if the folder was replaced, as after its disk was unmounted. */
  async requireSame(): Promise<void> {
    if ((await identityOf(this.#folder)) === this.#identity) return;
    const state = 'it was replaced by another while it was being read; run this again';
    throw new FiletrackerError('io', `Cannot send the folder "${this.#folder}": ${state}`);
  }
}

async function identityOf(folder: string): Promise<string> {
  try {
    const { dev, ino } = await stat(folder, { bigint: true });
    return `${dev}:${ino}`;
  } catch (error) {
    throw fromLocalError(error, `read the folder "${folder}"`);
  }
}

/** For a dry run: whether the server would store a name. */
class Places {
  readonly #client: FileClient;
  readonly #prefix: string;
  readonly #stored: ReadonlyMap<FileName, FileInfo>;
  #directories: ReadonlySet<FileName> | undefined;
  #isBelowFile: Promise<boolean> | undefined;

  constructor(client: FileClient, prefix: string, stored: ReadonlyMap<FileName, FileInfo>) {
    this.#client = client;
    this.#prefix = prefix;
    this.#stored = stored;
  }

  /** @throws FiletrackerError `name-conflict`, as the server does, if there are files below the name or a file above it. */
  async require(name: FileName): Promise<void> {
    this.#directories ??= new Set([...this.#stored.keys()].flatMap(ancestorsOf));
    this.#isBelowFile ??= this.#findFileAbove();
    const fail = (state: string): never => {
      throw new FiletrackerError('name-conflict', `Cannot store "${name}": ${state}`, { details: { name } });
    };
    if (this.#directories.has(name)) fail('there are files below it, as below a directory');
    const isBelowFile = ancestorsOf(name).some((above) => this.#stored.has(above));
    if (isBelowFile || (await this.#isBelowFile)) fail('one of the directories above it is a file');
  }

  /** Whether the directory itself, or one above it, is a file; impossible if there are files below. */
  async #findFileAbove(): Promise<boolean> {
    if (this.#stored.size > 0 || this.#prefix === '/') return false;
    const directory = parseFileName(this.#prefix.slice(0, -1));
    for (const name of [...ancestorsOf(directory), directory]) {
      if (await this.#client.exists({ name })) return true;
    }
    return false;
  }
}

/** Stored files that can't coexist with the names that will be put. */
function filesInTheWay(gone: readonly FileInfo[], present: ReadonlySet<string>): ReadonlySet<FileInfo> {
  const names = new Set<FileName>();
  for (const text of present) {
    try {
      names.add(parseFileName(text));
    } catch (error) {
      // It will not be put.
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
    // Nothing is stored there yet.
    if (!isFiletrackerError(error, 'not-a-directory')) throw error;
  }
  return files;
}
