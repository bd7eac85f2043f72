import { createHash } from 'node:crypto';
import { Readable } from 'node:stream';
import type { Digest } from '../../core/digest.ts';
import type { Encoding } from '../../core/blob.ts';
import { FiletrackerError, isFiletrackerError, messageOf, type ErrorCode } from '../../core/errors.ts';
import { ancestorsOf, type FileName } from '../../core/file-name.ts';
import type { FileVersion } from '../../core/file-version.ts';
import { FolderLock } from '../../fs/locks/folder-lock.ts';
import { makeFolderDurably, privateFolderMode } from '../../fs/folders.ts';
import type { Chunks } from '../../streams/chunks.ts';
import { isBadContent } from '../body-verifier.ts';
import type {
  Entry,
  FileStore,
  ListOptions,
  PutBody,
  PutIntent,
  PutOptions,
  PutResult,
  PutWithoutBody,
  PutWithoutBodyOptions,
  RemoveIntent,
  RemoveResult,
  StoredFile,
  StoreStats,
} from '../file-store.ts';
import type { UploadGate, UploadRequest } from '../upload-gate.ts';
import { mergedNames } from './merged-names.ts';
import { Tombstones } from './tombstones.ts';

/** A file on the old server. What that server does not say is `undefined`. */
export interface OldFile {
  readonly version: FileVersion;
  readonly size: number | undefined;
  readonly digest: Digest | undefined;
  readonly encoding: Encoding;
  /** Bytes of the body on the wire. */
  readonly transferSize: number | undefined;
  readonly body: Chunks;
  /** Abandons the body. Idempotent. */
  cancel(): void;
}

/** The server that files are imported from. All methods throw FiletrackerErrors of the network, such as `unreachable`. */
export interface OldServer {
  version(name: FileName, signal?: AbortSignal): Promise<FileVersion | undefined>;
  open(name: FileName, signal?: AbortSignal): Promise<OldFile | undefined>;
  /** Names below a directory, in any order; none if there is no such directory. */
  list(directory: string, upTo: FileVersion | undefined, signal?: AbortSignal): AsyncIterable<FileName>;
}

export interface ImportingFileStoreOptions {
  readonly store: FileStore;
  readonly oldServer: OldServer;
  /** Admits imports as it admits other puts. */
  readonly uploads: UploadGate;
  /** Folder of deletions and locks, shared by the processes of a server. */
  readonly folder: string;
  readonly onImported?: ((name: FileName, version: FileVersion) => void) | undefined;
}

/**
 * A file store that imports a file from an old server at the first request for it.
 *
 * Invariants. Single flight: an import of a name runs under a lock that all processes share; a request that waited for
 * the lock finds the file. A deletion is final: it is recorded first and carried out then; an import checks for a record
 * before it fetches and again after it has stored, and removes what it stored if there is one. So whichever comes last,
 * the file is gone. The newest wins: a put of a name that is not here yet asks the old server, and if that has a newer
 * version, or the put has a precondition, imports it first.
 */
export class ImportingFileStore implements FileStore {
  readonly #store: FileStore;
  readonly #oldServer: OldServer;
  readonly #uploads: UploadGate;
  readonly #folder: string;
  readonly #tombstones: Tombstones;
  readonly #onImported: (name: FileName, version: FileVersion) => void;
  readonly #flights = new Map<FileName, Promise<void>>();

  private constructor(options: ImportingFileStoreOptions) {
    this.#store = options.store;
    this.#oldServer = options.oldServer;
    this.#uploads = options.uploads;
    this.#folder = options.folder;
    this.#tombstones = new Tombstones(options.folder);
    this.#onImported = options.onImported ?? ((): void => undefined);
  }

  static async open(options: ImportingFileStoreOptions): Promise<ImportingFileStore> {
    await makeFolderDurably(options.folder, privateFolderMode);
    return new ImportingFileStore(options);
  }

  async lookUp(name: FileName): Promise<StoredFile | undefined> {
    const file = await this.#store.lookUp(name);
    if (file !== undefined) return file;
    await this.#import(name);
    return this.#store.lookUp(name);
  }

  async putWithoutBody(intent: PutIntent, options: PutWithoutBodyOptions): Promise<PutWithoutBody> {
    await this.beforePut(intent);
    return this.#store.putWithoutBody(intent, options);
  }

  /** Imports a version that wins over the put, or that its precondition is about. */
  async beforePut({ name, version, precondition }: PutIntent): Promise<void> {
    if (await this.#has(name)) return;
    if ((await this.#tombstones.upTo(name)) !== undefined) {
      // Waits for an import that began before the deletion: it removes what it stores, and would remove this put too.
      await using _lock = await this.#lock(name);
    }
    const old = await this.#oldVersion(name);
    if (old !== undefined && (old > version || precondition !== undefined)) await this.#import(name);
  }

  put(intent: PutIntent, body: PutBody, options?: PutOptions): Promise<PutResult> {
    return this.#store.put(intent, body, options);
  }

  async remove(intent: RemoveIntent): Promise<RemoveResult | undefined> {
    const { name, version, precondition } = intent;
    if (!(await this.#has(name))) {
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
    // Recorded even if it may yet be refused: as long as the file is here, the record is not used.
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

  /** Imports the files that are not here yet: an old server does not say what an entry needs. */
  async *listEntries(directory: string, options: ListOptions = {}): AsyncIterable<readonly Entry[]> {
    for await (const names of this.listNames(directory, options)) {
      const entries: Entry[] = [];
      for (const name of names) {
        const file = await this.lookUp(name);
        if (file !== undefined && file.entry.version <= (options.upTo ?? Infinity)) entries.push(file.entry);
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

  async #has(name: FileName): Promise<boolean> {
    return (await this.#store.lookUp(name)) !== undefined;
  }

  /** Names of the old server that are not here and were not deleted here. */
  async *#oldNames(directory: string, { upTo, signal }: ListOptions): AsyncGenerator<FileName, void, void> {
    await this.#tombstones.upTo(directory as FileName);
    const names = this.#oldServer.list(directory, upTo, signal);
    for await (const name of withOldServerErrors(`list "${directory}"`, names)) {
      if (this.#tombstones.has(name)) continue;
      // Its version here counts, and may be beyond the cutoff.
      if (upTo !== undefined && (await this.#has(name))) continue;
      yield name;
    }
  }

  /** The version that the old server has, if it was not deleted here. */
  async #oldVersion(name: FileName): Promise<FileVersion | undefined> {
    const old = await this.#asking(name, () => this.#oldServer.version(name));
    if (old === undefined) return undefined;
    const deleted = await this.#tombstones.upTo(name);
    return deleted !== undefined && deleted >= old ? undefined : old;
  }

  async #import(name: FileName): Promise<void> {
    // No file of the old server can stand where a directory is here, or below a file of this store.
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
    for (const ancestor of ancestorsOf(name)) if (await this.#has(ancestor)) return true;
    return false;
  }

  /** Held while a name is imported, by one process at a time; shared with some other names. */
  #lock(name: FileName): Promise<FolderLock> {
    const lock = createHash('sha256').update(name).digest('hex').slice(0, 2);
    return FolderLock.acquire(this.#folder, { mode: 'exclusive', fileName: `import-${lock}.lock` });
  }

  async #fly(name: FileName): Promise<void> {
    await using _lock = await this.#lock(name);
    if (await this.#has(name)) return;
    if ((await this.#oldVersion(name)) === undefined) return;
    const file = await this.#asking(name, () => this.#oldServer.open(name));
    if (file === undefined) return;
    await this.#storeOldFile(name, file);
    const { version } = file;
    const deleted = await this.#tombstones.upTo(name);
    if (deleted === undefined || deleted < version) this.#onImported(name, version);
    else await this.#store.remove({ name, version });
  }

  async #storeOldFile(name: FileName, file: OldFile): Promise<void> {
    const { version, digest, size: logicalSize, encoding, transferSize: announcedSize } = file;
    const bytes = withOldServerErrors(`get "${name}"`, file.body);
    const source = Readable.from(bytes, { objectMode: false });
    const request: UploadRequest = { name, sender: importSender, announcedSize };
    const put = (signal: AbortSignal | undefined): Promise<PutResult> => {
      const intent = { name, version, claims: { digest, logicalSize } };
      return this.#store.put(intent, { source, encoding, announcedSize }, { signal });
    };
    try {
      await this.#uploads.run(request, put);
    } catch (error) {
      throw importError(name, error);
    } finally {
      source.destroy();
      file.cancel();
    }
  }

  async #asking<Result>(name: FileName, ask: () => Promise<Result>): Promise<Result> {
    try {
      return await ask();
    } catch (error) {
      throw oldServerError(`get "${name}"`, error);
    }
  }
}

/** The sender that imports count for, so that they leave slots for clients. No token or address has this name. */
const importSender = '(import)';

async function* withOldServerErrors<Item>(
  action: string,
  source: AsyncIterable<Item>,
): AsyncGenerator<Item, void, void> {
  try {
    yield* source;
  } catch (error) {
    throw oldServerError(action, error);
  }
}

const oldServerStates: Readonly<Partial<Record<ErrorCode, string>>> = {
  unreachable: 'cannot be reached',
  timeout: 'does not respond in time',
  protocol: 'sends an invalid response',
  unauthorized: 'requires a token',
  forbidden: 'refuses access',
  'truncated-body': 'broke off the transfer',
};

/**
 * An error of the old server, or of the network on the way to it, is not the client's fault. It names the file, because a
 * list in JSON needs all files and fails for one: a client that mirrors a shorter list would delete that file.
 */
function oldServerError(action: string, error: unknown): unknown {
  if (!isFiletrackerError(error) || error.code === 'aborted') return error;
  // The cause, for the log, names the address; clients need not know it.
  const state = `the server that files are imported from ${oldServerStates[error.code] ?? 'does not serve it'}`;
  return new FiletrackerError('unavailable', `Cannot ${action}: ${state}`, { cause: error });
}

/** Codes of a store that takes no more at the moment. */
const refusalCodes: ReadonlySet<ErrorCode> = new Set(['busy', 'rate-limited', 'no-space']);

function importError(name: FileName, error: unknown): unknown {
  if (isFiletrackerError(error) && refusalCodes.has(error.code)) {
    const { code, retryable, details } = error;
    const text = `Cannot get "${name}": it cannot be imported (${messageOf(error)})`;
    return new FiletrackerError(code, text, { retryable, details, cause: error });
  }
  if (!isBadContent(error)) return error;
  const state = `it is damaged on the server that files are imported from (${messageOf(error)})`;
  return new FiletrackerError('damaged-blob', `Cannot get "${name}": ${state}`, { cause: error });
}
