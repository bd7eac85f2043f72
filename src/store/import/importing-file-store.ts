import { createHash } from 'node:crypto';
import { Readable } from 'node:stream';
import { FiletrackerError, isFiletrackerError, messageOf, type ErrorCode } from '../../core/errors.ts';
import { ancestorsOf, type FileName } from '../../core/file-name.ts';
import type { FileVersion } from '../../core/file-version.ts';
import { FolderLock } from '../../fs/locks/folder-lock.ts';
import { makeFolderDurably, privateFolderMode } from '../../fs/folders.ts';
import type {
  Entry,
  FileStatus,
  FileStore,
  ForecastOptions,
  ListOptions,
  OpenFile,
  PutBody,
  PutForecast,
  PutIntent,
  PutOptions,
  PutResult,
  ReadOptions,
  RemoveResult,
  StoreStats,
} from '../file-store.ts';
import { isBadContent } from '../bad-content.ts';
import { mergedNames } from './merged-names.ts';
import type { OldServer } from './old-server.ts';
import { Tombstones } from './tombstones.ts';

export interface ImportingFileStoreOptions {
  readonly store: FileStore;
  readonly oldServer: OldServer;
  /** Where deletions and locks are kept, shared by the processes of a server. */
  readonly folder: string;
  readonly onImported?: ((name: FileName, version: FileVersion) => void) | undefined;
}

/**
 * A file store that takes a file over from an old server when it is asked for the first time.
 *
 * Invariants. Single flight: an import of a name runs under a lock that all processes share; who waited for it
 * finds the file. A deletion is not undone: it is recorded first and carried out then; an import looks whether
 * one is recorded before it fetches, and again after it has stored, and takes back what it stored if one has come
 * in between. So whichever comes last, the file is gone. The newest wins: a put of a name that is not here yet
 * asks the old server, and where that has a newer version, or the put has a condition, imports it first.
 * Bounds on uploads and on free space are those of the store below, for imports as for puts.
 */
export class ImportingFileStore implements FileStore {
  readonly #store: FileStore;
  readonly #oldServer: OldServer;
  readonly #folder: string;
  readonly #tombstones: Tombstones;
  readonly #onImported: (name: FileName, version: FileVersion) => void;
  readonly #flights = new Map<FileName, Promise<void>>();

  private constructor(options: ImportingFileStoreOptions) {
    this.#store = options.store;
    this.#oldServer = options.oldServer;
    this.#folder = options.folder;
    this.#tombstones = new Tombstones(options.folder);
    this.#onImported = options.onImported ?? ((): void => undefined);
  }

  static async open(options: ImportingFileStoreOptions): Promise<ImportingFileStore> {
    await makeFolderDurably(options.folder, privateFolderMode);
    return new ImportingFileStore(options);
  }

  async stat(name: FileName): Promise<FileStatus | undefined> {
    const entry = await this.#store.stat(name);
    if (entry !== undefined) return entry;
    await this.#import(name);
    return this.#store.stat(name);
  }

  async open(name: FileName, options: ReadOptions): Promise<OpenFile | undefined> {
    const file = await this.#store.open(name, options);
    if (file !== undefined) return file;
    await this.#import(name);
    return this.#store.open(name, options);
  }

  async directAddress(
    name: FileName,
    lifetimeSeconds: number,
  ): Promise<{ readonly entry: Entry; readonly url: string } | undefined> {
    return this.#store.directAddress(name, lifetimeSeconds);
  }

  async forecast(intent: PutIntent, options: ForecastOptions): Promise<PutForecast> {
    await this.#bringNewer(intent);
    return this.#store.forecast(intent, options);
  }

  async put(intent: PutIntent, body: PutBody, options?: PutOptions): Promise<PutResult> {
    await this.#bringNewer(intent);
    return this.#store.put(intent, body, options);
  }

  async remove(intent: Parameters<FileStore['remove']>[0]): Promise<RemoveResult | undefined> {
    const { name, version, precondition } = intent;
    if ((await this.#store.stat(name)) === undefined) {
      const old = await this.#oldVersion(name);
      if (old === undefined) return this.#store.remove(intent);
      if (old > version) return { version: old, removed: false };
      if (precondition === undefined) {
        await this.#tombstones.record(name, version);
        const result = await this.#store.remove(intent);
        return result ?? { version: old, removed: true };
      }
      await this.#import(name);
    }
    // Recorded though it may yet be refused: as long as the file is here, nobody asks for the record.
    await this.#tombstones.record(name, version);
    return this.#store.remove(intent);
  }

  async kindOfDirectory(directory: string): Promise<'directory' | 'file' | 'absent'> {
    const here = await this.#store.kindOfDirectory(directory);
    if (here !== 'absent') return here;
    for await (const _name of this.#oldNames(directory, {})) return 'directory';
    return 'absent';
  }

  listNames(directory: string, options: ListOptions = {}): AsyncIterable<readonly FileName[]> {
    const here = this.#store.listNames(directory, { ...options, limit: undefined });
    return mergedNames(here, () => this.#oldNames(directory, options), options);
  }

  /** Files that are not here yet are imported for it: an old server does not tell what an entry needs. */
  async *listEntries(directory: string, options: ListOptions = {}): AsyncIterable<readonly Entry[]> {
    for await (const names of this.listNames(directory, options)) {
      const entries: Entry[] = [];
      for (const name of names) {
        const entry = await this.stat(name);
        if (entry !== undefined && entry.version <= (options.upTo ?? Infinity)) entries.push(entry);
      }
      if (entries.length > 0) yield entries;
    }
  }

  stats(): Promise<StoreStats> {
    return this.#store.stats();
  }

  probe(): Promise<void> {
    return this.#store.probe();
  }

  async close(): Promise<void> {
    await Promise.allSettled(this.#flights.values());
    await this.#store.close();
  }

  /** Names of the old server that are not here and were not deleted here. */
  async *#oldNames(directory: string, { upTo, signal }: ListOptions): AsyncGenerator<FileName, void, void> {
    await this.#tombstones.upTo(directory as FileName);
    for await (const name of this.#asked(
      `list "${directory}"`,
      this.#oldServer.list(directory, upTo, signal),
    )) {
      if (this.#tombstones.has(name)) continue;
      // Its version here may be beyond the cutoff, and is the one that counts.
      if (upTo !== undefined && (await this.#store.stat(name)) !== undefined) continue;
      yield name;
    }
  }

  async #bringNewer({ name, version, precondition }: PutIntent): Promise<void> {
    if ((await this.#store.stat(name)) !== undefined) return;
    if ((await this.#tombstones.upTo(name)) !== undefined) {
      // An import that began before the deletion takes back what it stores, and would take this put along.
      await using _lock = await this.#lock(name);
    }
    const old = await this.#oldVersion(name);
    if (old !== undefined && (old > version || precondition !== undefined)) await this.#import(name);
  }

  /** The version that the old server has, if it was not deleted here. */
  async #oldVersion(name: FileName): Promise<FileVersion | undefined> {
    const old = await this.#asking(name, () => this.#oldServer.version(name));
    if (old === undefined) return undefined;
    const deleted = await this.#tombstones.upTo(name);
    return deleted !== undefined && deleted >= old ? undefined : old;
  }

  async #import(name: FileName): Promise<void> {
    // No file of the old server can stand where a directory is here, or below a file of ours.
    if (await this.#isBarred(name)) return;
    let flight = this.#flights.get(name);
    if (flight === undefined) {
      flight = this.#fly(name).finally(() => this.#flights.delete(name));
      this.#flights.set(name, flight);
    }
    await flight;
  }

  async #isBarred(name: FileName): Promise<boolean> {
    if ((await this.#store.kindOfDirectory(`${name}/`)) === 'directory') return true;
    for (const ancestor of ancestorsOf(name)) {
      if ((await this.#store.stat(ancestor)) !== undefined) return true;
    }
    return false;
  }

  /** Held while a name is imported, by one process at a time; shared with some other names. */
  #lock(name: FileName): Promise<FolderLock> {
    const lock = createHash('sha256').update(name).digest('hex').slice(0, 2);
    return FolderLock.acquire(this.#folder, { mode: 'exclusive', fileName: `import-${lock}.lock` });
  }

  async #fly(name: FileName): Promise<void> {
    await using _lock = await this.#lock(name);
    if ((await this.#store.stat(name)) !== undefined) return;
    if ((await this.#oldVersion(name)) === undefined) return;
    const file = await this.#asking(name, () => this.#oldServer.open(name));
    if (file === undefined) return;
    const { version, digest, size, encoding, transferSize } = file;
    const source = Readable.from(this.#asked(`get "${name}"`, file.body), { objectMode: false });
    try {
      const claims = { digest, logicalSize: size };
      const body = { source, encoding, announcedSize: transferSize };
      await this.#store.put({ name, version, claims }, body, { sender: importSender });
    } catch (error) {
      throw importError(name, error);
    } finally {
      source.destroy();
      file.cancel();
    }
    const deleted = await this.#tombstones.upTo(name);
    if (deleted === undefined || deleted < version) this.#onImported(name, version);
    else await this.#store.remove({ name, version });
  }

  async #asking<Result>(name: FileName, ask: () => Promise<Result>): Promise<Result> {
    try {
      return await ask();
    } catch (error) {
      throw oldServerError(`get "${name}"`, error);
    }
  }

  async *#asked<Item>(action: string, source: AsyncIterable<Item>): AsyncGenerator<Item, void, void> {
    try {
      yield* source;
    } catch (error) {
      throw oldServerError(action, error);
    }
  }
}

const oldServerStates: Readonly<Partial<Record<ErrorCode, string>>> = {
  unreachable: 'cannot be reached',
  timeout: 'does not answer in time',
  protocol: 'answers what is no answer',
  unauthorized: 'wants a token',
  forbidden: 'refuses it',
  'truncated-body': 'broke off in the middle',
};

/**
 * What the old server, or the way to it, does wrong is not the fault of who asked here. It is told of which file, because
 * a list in JSON asks for all of them, and can't be without the one: who makes his folder like it would remove that file.
 */
function oldServerError(action: string, error: unknown): unknown {
  if (!isFiletrackerError(error) || error.code === 'aborted') return error;
  // Its address is nobody's business here; the cause, for the log, has it.
  const state = `the server that files are moved from ${oldServerStates[error.code] ?? 'does not serve it'}`;
  return new FiletrackerError('unavailable', `Cannot ${action}: ${state}`, { cause: error });
}

/** What imports count as among the senders of uploads, so that they leave room for others. No token or address is it. */
const importSender = '(import)';

/** A store that takes no more at the moment; a reader is told so of the file that it asked for. */
const refusalCodes: ReadonlySet<ErrorCode> = new Set(['busy', 'rate-limited', 'no-space']);

function importError(name: FileName, error: unknown): unknown {
  if (isFiletrackerError(error) && refusalCodes.has(error.code)) {
    const { code, retryable, details } = error;
    const text = `Cannot get "${name}": it cannot be imported (${messageOf(error)})`;
    return new FiletrackerError(code, text, { retryable, details, cause: error });
  }
  if (!isBadContent(error)) return error;
  const state = `the server that files are moved from has it damaged (${messageOf(error)})`;
  return new FiletrackerError('damaged-blob', `Cannot get "${name}": ${state}`, { cause: error });
}
