import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { Readable } from 'node:stream';
import { systemClock } from '../core/clock.ts';
import type { Clock } from '../core/clock.ts';
import { FiletrackerError, isFiletrackerError } from '../core/errors.ts';
import { formatVersionedName, parseDirectory, parseVersionedName, shownName } from '../core/file-name.ts';
import type { FileName, GivenName, VersionedName } from '../core/file-name.ts';
import { checkVersion, versionFromMs, versionFromNs } from '../core/file-version.ts';
import type { FileVersion } from '../core/file-version.ts';
import type { RangeLock } from '../fs/locks/range-locks.ts';
import type { Chunks } from '../streams/chunks.ts';
import { cutoffOf, requirePath } from './arguments.ts';
import { checkCacheFolder } from './cache/folder-check.ts';
import { cacheOptionsOf, checkOptions, optionsFromEnvironment, reportNoCache } from './client-options.ts';
import type { ClientOptions } from './client-options.ts';
import { SinkError, writeChunks } from './transfer/download.ts';
import { Downloader } from './transfer/downloader.ts';
import type { FetchRequest, Found } from './transfer/downloader.ts';
import type {
  CallOptions,
  DeletedFile,
  FetchedFile,
  FetchedStream,
  FileClient,
  FileInfo,
  GetFileOptions,
  GetOptions,
  GetStreamOptions,
  ListOptions,
  NameListOptions,
  PutOptions,
  RemoteListOptions,
  StoredFile,
} from './file-client.ts';
import { HttpTransport } from './http/transport.ts';
import type { KnownVersion } from './cache/names.ts';
import { LocalCache } from './cache/local-cache.ts';
import { fromLocalError } from './local-errors.ts';
import { eitherSignal, PutSource } from './transfer/caller-streams.ts';
import { remoteVersion, type RemoteFile, type RemoteStore } from './http/remote-store.ts';
import { defaultRetryPolicy } from './http/retries.ts';
import { resolveTarget, streamTo } from './transfer/targets.ts';
import { Uploader } from './transfer/uploader.ts';

/** Warnings remembered, so that none is told twice. */
const warningsMax = 1000;

/**
 * Files of a server, through a cache: what programs use. Opens nothing before it is needed. Any number of
 * calls may run at the same time; several processes may use one cache folder.
 */
export class Client implements FileClient {
  readonly remote: RemoteStore | undefined;
  readonly cache: LocalCache | undefined;
  readonly #options: ClientOptions;
  readonly #clock: Clock;
  readonly #downloader: Downloader;
  readonly #uploader: Uploader;
  /** Ends what waits for bytes of the caller's. */
  readonly #closing = new AbortController();

  /** @throws FiletrackerError `invalid-argument` for options that can't be used. */
  constructor(options: ClientOptions = {}, clock: Clock = systemClock) {
    checkOptions(options);
    const { remoteUrl } = options;
    const cacheOptions = cacheOptionsOf(options);
    this.#options = options;
    this.#clock = clock;
    this.remote =
      options.remoteStore ?? (remoteUrl === undefined ? undefined : new HttpTransport(remoteUrl, options));
    this.cache = options.localStore ?? (cacheOptions && new LocalCache({ ...cacheOptions, clock }));
    if (this.remote === undefined && this.cache === undefined) {
      throw new FiletrackerError(
        'invalid-argument',
        'Cannot open a client: it needs the URL of a server, the folder of a cache, or both',
      );
    }
    const warn = onceEach(options.onWarning);
    if (cacheOptions !== undefined) checkCacheFolder(cacheOptions.folder, cacheOptions.freeMinBytes, warn);
    const parts = {
      remote: this.remote,
      cache: this.cache,
      retries: { ...defaultRetryPolicy, ...options.retries },
      clock,
      warn,
    };
    this.#downloader = new Downloader(parts);
    this.#uploader = new Uploader(parts);
  }

  /** A client as the environment describes it; options that are given win. @throws FiletrackerError `invalid-argument`. */
  static fromEnvironment(options: ClientOptions = {}): Client {
    const environment = optionsFromEnvironment();
    const tls = { ...environment.tls, ...given(options.tls ?? {}) };
    const retries = { ...environment.retries, ...given(options.retries ?? {}) };
    const merged = { ...environment, ...given(options), tls, retries };
    if (merged.cacheDir === undefined && merged.localStore === undefined) reportNoCache(merged);
    return new Client(merged);
  }

  async getFile(name: GivenName, saveTo: string, options: GetFileOptions = {}): Promise<FetchedFile> {
    const request = this.#request(name, options, options.addToCache ?? true);
    requirePath(saveTo);
    const target = resolveTarget(saveTo, options);
    if (target.kind !== 'file') {
      const { stream, ...fetched } = await this.#stream(request);
      await streamTo(stream, target);
      return fetched;
    }
    return fetchedFile(await this.#downloader.toFile(request, target.path));
  }

  async getStream(name: GivenName, options: GetStreamOptions = {}): Promise<FetchedStream> {
    return await this.#stream(this.#request(name, options, options.serveFromCache ?? false));
  }

  async #stream(request: FetchRequest): Promise<FetchedStream> {
    const { found, stream } = await this.#downloader.toStream(request);
    return { ...fetchedFile(found), stream };
  }

  /** Brings a file into the cache without handing it out. */
  async prefetch(name: GivenName, options: GetOptions = {}): Promise<FetchedFile> {
    if (this.cache === undefined) {
      throw new FiletrackerError(
        'invalid-argument',
        `Cannot prefetch "${shownName(name)}": the client has no cache`,
      );
    }
    const found = await this.#downloader.find(this.#request(name, options, true));
    if (found.kind === 'cached') return fetchedFile(found);
    if (found.kind === 'remote') found.content.cancel();
    throw new FiletrackerError(
      'no-space',
      `Cannot prefetch "${shownName(name)}": the cache has no room for it`,
    );
  }

  async stat(name: GivenName, options: CallOptions = {}): Promise<FileInfo | undefined> {
    const asked = parseVersionedName(name);
    const cached = asked.version === undefined ? undefined : this.#findCached(asked);
    if (cached !== undefined || this.remote === undefined || this.#options.offline === true) {
      return cached ?? this.#findCached(asked);
    }
    const found = await this.remote.stat(asked.name, options);
    if (found === undefined || (asked.version ?? found.version) !== found.version) return undefined;
    return infoOf(found);
  }

  #findCached({ name, version }: VersionedName): FileInfo | undefined {
    try {
      const cached = this.cache?.find(name, version);
      return cached === undefined ? undefined : infoOf(cached);
    } catch (error) {
      throw fromLocalError(error, `use the cache "${this.cache?.folder ?? ''}"`);
    }
  }

  async fileVersion(name: GivenName, options: CallOptions = {}): Promise<FileVersion | undefined> {
    return (await this.stat({ name: parseVersionedName(name).name }, options))?.version;
  }

  async fileSize(name: GivenName, options: CallOptions = {}): Promise<number | undefined> {
    return (await this.stat(name, options))?.size;
  }

  async exists(name: GivenName, options: CallOptions = {}): Promise<boolean> {
    return (await this.stat(name, options)) !== undefined;
  }

  async putFile(name: GivenName, path: string, options: PutOptions = {}): Promise<StoredFile> {
    const asked = parseVersionedName(name);
    requirePath(path);
    if (asked.version !== undefined) checkVersion(asked.version);
    this.#requireOnline(`put "${shownName(name)}"`, options.toRemoteStore);
    return await this.#uploader.put(asked, path, versionFromNs, options);
  }

  async putStream(name: GivenName, source: Readable | Chunks, options: PutOptions = {}): Promise<StoredFile> {
    using given = new PutSource(source);
    const asked = parseVersionedName(name);
    const version = checkVersion(asked.version ?? versionFromMs(this.#clock.nowMs()));
    const action = `put "${shownName(name)}"`;
    this.#requireOnline(action, options.toRemoteStore);
    const signal = eitherSignal(this.#closing.signal, options.signal);
    // The digest must be known before anything is sent, so the bytes wait in a file.
    const folder = await mkdtemp(join(tmpdir(), 'filetracker-'));
    try {
      const path = join(folder, 'content');
      await writeChunks(path, given.pieces(action, signal));
      const named = { name: asked.name, version };
      return await this.#uploader.put(named, path, () => version, { ...options, signal });
    } catch (error) {
      const cause = error instanceof SinkError ? error.cause : error;
      throw fromLocalError(cause, action);
    } finally {
      await rm(folder, { recursive: true, force: true });
    }
  }

  async deleteFile(name: GivenName, options: CallOptions = {}): Promise<DeletedFile> {
    const asked = parseVersionedName(name);
    const shown = shownName(name);
    this.#requireOnline(`remove "${shown}"`);
    // Before anything is removed: a cache that can't be changed would go on serving the file.
    using lock = await this.#lockToForget(asked.name, options);
    const removed =
      this.remote === undefined
        ? this.#deletedAlone(asked)
        : await this.#deleteRemote(this.remote, asked, options);
    const gone = await this.#forget(asked, removed?.keptVersion, lock);
    // What only the cache had is a file as well; copies of what a server had are none.
    if (removed === undefined && !gone.some(({ local }) => local === true)) {
      throw new FiletrackerError('not-found', `Cannot remove "${shown}": there is no such file`, {
        details: { name: asked.name },
      });
    }
    return removed ?? { name: asked.name, keptVersion: undefined };
  }

  /** What it comes to where the cache is the store. */
  #deletedAlone({ name, version }: VersionedName): DeletedFile | undefined {
    const newest = this.#findCached({ name })?.version;
    if (newest === undefined) return undefined;
    return { name, keptVersion: newest > (version ?? newest) ? newest : undefined };
  }

  /** Without a version it is the stored one that goes: a newer one that comes meanwhile stays. */
  async #deleteRemote(
    remote: RemoteStore,
    { name, version }: VersionedName,
    options: CallOptions,
  ): Promise<DeletedFile | undefined> {
    const upTo = version ?? (await remoteVersion(remote, name, options));
    if (upTo === undefined) return undefined;
    const removed = await remote.remove(name, checkVersion(upTo), options);
    return removed === undefined ? undefined : { name, keptVersion: removed.kept };
  }

  /** Holds what the cache knows of a name; undefined if that is nothing. */
  async #lockToForget(name: FileName, { signal }: CallOptions): Promise<RangeLock | undefined> {
    const { cache } = this;
    try {
      return cache?.record(name) === undefined ? undefined : await cache.lockName(name, signal);
    } catch (error) {
      const told = fromLocalError(error, `remove "${name}" from the cache "${cache?.folder ?? ''}"`);
      if (!isFiletrackerError(told) || told.code === 'aborted') throw told;
      throw new FiletrackerError(told.code, `${told.message}; nothing was removed`, { cause: error });
    }
  }

  async #forget(
    { name, version }: VersionedName,
    kept: FileVersion | undefined,
    held: RangeLock | undefined,
  ): Promise<readonly KnownVersion[]> {
    // What came into the cache meanwhile is forgotten too.
    using _lock = held === undefined ? await this.#lockToForget(name, {}) : undefined;
    try {
      const upTo = version ?? (kept === undefined ? undefined : kept - 1);
      return (await this.cache?.forget(name, upTo)) ?? [];
    } catch (error) {
      throw fromLocalError(error, `remove "${name}" from the cache`);
    }
  }

  async *listLocalFiles(options: ListOptions = {}): AsyncIterable<FileInfo> {
    const directory = parseDirectory(options.subpath ?? '/');
    if (this.cache === undefined) return;
    for await (const file of this.cache.maintenance.list()) {
      options.signal?.throwIfAborted();
      if (file.name.startsWith(directory)) yield infoOf(file);
    }
  }

  async *listRemoteFiles(options: NameListOptions = {}): AsyncIterable<string> {
    const directory = parseDirectory(options.subpath ?? '/');
    const query = { upTo: cutoffOf(options) };
    const absolute = options.absolutePaths ?? true;
    for await (const name of this.#requireRemote().listNames(directory, query, options)) {
      yield absolute ? name : name.slice(directory.length);
    }
  }

  async *listRemoteEntries(options: RemoteListOptions = {}): AsyncIterable<FileInfo> {
    const directory = parseDirectory(options.subpath ?? '/');
    const query = { upTo: cutoffOf(options) };
    const remote = this.#requireRemote();
    const { features } = await remote.abilities(options);
    if (features.has('list-json')) {
      for await (const file of remote.listFiles(directory, query, options)) yield infoOf(file);
      return;
    }
    // A legacy server lists names alone; what is gone meanwhile is left out.
    for await (const name of remote.listNames(directory, query, options)) {
      const file = await remote.stat(name, options);
      if (file !== undefined) yield infoOf(file);
    }
  }

  /** Offline nothing is asked of the server, and nothing that it should be told is left out on the quiet. */
  #requireOnline(action: string, wanted = true): void {
    if (this.#options.offline !== true || this.remote === undefined || !wanted) return;
    throw new FiletrackerError('invalid-argument', `Cannot ${action}: the client is offline`);
  }

  #requireRemote(): RemoteStore {
    this.#requireOnline('list the files of the server');
    if (this.remote !== undefined) return this.remote;
    throw new FiletrackerError(
      'invalid-argument',
      'Cannot list the files of the server: no server is set; give its URL by FILETRACKER_URL or --remote-url',
    );
  }

  #request(given: GivenName, options: GetOptions, addToCache: boolean): FetchRequest {
    const { name, version } = parseVersionedName(given);
    return {
      name,
      version,
      forceRefresh: options.forceRefresh ?? false,
      offline: options.offline ?? this.#options.offline ?? false,
      verify: options.verify ?? this.#options.verify ?? false,
      addToCache,
      signal: options.signal,
      onProgress: options.onProgress,
    };
  }

  /** Idempotent. */
  close(): Promise<void> {
    this.#closing.abort();
    this.remote?.close();
    this.cache?.close();
    return Promise.resolve();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.close();
  }
}

/** Passes each warning on once: a cache that can't be used is the same trouble for every file. */
function onceEach(listener: ((message: string) => void) | undefined): (message: string) => void {
  const told = new Set<string>();
  return (message) => {
    if (listener === undefined || told.has(message)) return;
    if (told.size < warningsMax) told.add(message);
    listener(message);
  };
}

interface Described {
  readonly name: FileName;
  readonly version: FileVersion;
  readonly size: number | undefined;
  readonly digest: RemoteFile['digest'];
}

function infoOf({ name, version, size, digest }: Described): FileInfo {
  return { name, version, versionedName: formatVersionedName(name, version), size, digest };
}

function fetchedFile({ file, cached }: Found): FetchedFile {
  return { ...infoOf(file), cached };
}

/** The settings that are not undefined, so that they don't hide others. */
function given<T extends object>(settings: T): Partial<T> {
  const known = Object.entries(settings).filter(([, value]) => value !== undefined);
  return Object.fromEntries(known) as Partial<T>;
}
