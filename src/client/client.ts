import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { Readable } from 'node:stream';
import { systemClock, type Clock } from '../core/clock.ts';
import { abortedError, throwIfAborted, type CallOptions } from '../core/concurrency.ts';
import { cannot, FiletrackerError, isFiletrackerError } from '../core/errors.ts';
import { parseDirectory, parseVersionedName, shownName } from '../core/file-name.ts';
import type { FileName, GivenName, VersionedName } from '../core/file-name.ts';
import { checkVersion, versionFromMs, versionFromNs, type FileVersion } from '../core/file-version.ts';
import type { RangeLock } from '../fs/locks/range-locks.ts';
import type { ListQuery } from '../protocol/query.ts';
import type { Chunks } from '../streams/chunks.ts';
import { requirePath } from './arguments.ts';
import { checkCacheFolder } from './cache/folder-check.ts';
import { ClientBase, infoOf, listArguments } from './client-base.ts';
import { cacheOptionsOf, checkOptions, optionsFromEnvironment, reportNoCache } from './client-options.ts';
import type { ClientOptions } from './client-options.ts';
import { SinkError, writeChunks } from './transfer/sink.ts';
import { Downloader, type FetchRequest, type Found } from './transfer/downloader.ts';
import type {
  DeletedFile,
  FetchedFile,
  FetchedStream,
  FileClient,
  FileInfo,
  GetFileOptions,
  GetOptions,
  GetStreamOptions,
  ListOptions,
  PutOptions,
  RemoteListOptions,
  StoredFile,
} from './file-client.ts';
import { HttpTransport } from './http/transport.ts';
import type { KnownVersion } from './cache/names.ts';
import { LocalCache } from './cache/local-cache.ts';
import { fromLocalError } from './local-errors.ts';
import { eitherSignal, PutSource } from './transfer/caller-streams.ts';
import { remoteVersion, type RemoteStore } from './http/remote-store.ts';
import { defaultRetryPolicy } from './http/retries.ts';
import { resolveTarget, streamTo } from './transfer/targets.ts';
import { Uploader } from './transfer/uploader.ts';

/** With the `action` that completes "Cannot …" in errors. */
interface CallRequest extends FetchRequest {
  readonly action: string;
}

/** Warnings that are remembered, so that each is reported once. */
const warningsMax = 1000;

/**
 * Files of a server, through a cache. Opens nothing before it is needed. Calls may run concurrently, and several
 * processes may share one cache folder.
 *
 * @example
 * ```ts
 * import { writeFile } from 'node:fs/promises';
 * import { Client } from 'filetracker';
 *
 * // Server and cache from FILETRACKER_URL and FILETRACKER_DIR.
 * const client = Client.fromEnvironment();
 * await writeFile('report.txt', 'all is well\n');
 * const stored = await client.putFile('/examples/report.txt', 'report.txt');
 * await client.getFile(stored.versionedName, 'copy-of-report.txt');
 * for await (const { name, size } of client.listRemoteEntries({ subpath: '/examples' })) console.log(name, size);
 * await client.deleteFile('/examples/report.txt');
 * await client.close();
 * ```
 */
export class Client extends ClientBase implements FileClient {
  /** The server; `undefined` if the cache is a store of its own. */
  readonly remote: RemoteStore | undefined;
  /** `undefined` if nothing is cached. */
  readonly cache: LocalCache | undefined;
  readonly #options: ClientOptions;
  readonly #clock: Clock;
  readonly #downloader: Downloader;
  readonly #uploader: Uploader;

  /**
   * Reads no environment.
   * @throws FiletrackerError `invalid-argument` for unusable options.
   */
  constructor(options: ClientOptions = {}, clock: Clock = systemClock) {
    super();
    checkOptions(options);
    const { remoteUrl } = options;
    const cacheOptions = cacheOptionsOf(options);
    this.#options = options;
    this.#clock = clock;
    this.remote =
      options.remoteStore ?? (remoteUrl === undefined ? undefined : new HttpTransport(remoteUrl, options));
    this.cache = options.localStore ?? (cacheOptions && new LocalCache({ ...cacheOptions, clock }));
    if (this.remote === undefined && this.cache === undefined) {
      const state = 'it needs the URL of a server, the folder of a cache, or both';
      throw cannot('invalid-argument', 'open a client', state);
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

  /**
   * Opens a client with the options that the environment sets, as `optionsFromEnvironment` reads it.
   * @param options Take precedence over the environment.
   * @throws FiletrackerError `invalid-argument` for unusable options; `io` for files of certificates.
   */
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
    return fetchedFile(await abortable(request, () => this.#downloader.toFile(request, target.path)));
  }

  async getStream(name: GivenName, options: GetStreamOptions = {}): Promise<FetchedStream> {
    return await this.#stream(this.#request(name, options, options.serveFromCache ?? false));
  }

  async #stream(request: CallRequest): Promise<FetchedStream> {
    const { found, stream } = await abortable(request, () => this.#downloader.toStream(request));
    return { ...fetchedFile(found), stream };
  }

  /**
   * Fetches a file into the cache.
   * @throws FiletrackerError as `getFile`; `invalid-argument` without a cache; `no-space` if the cache cannot hold it.
   */
  async prefetch(name: GivenName, options: GetOptions = {}): Promise<FetchedFile> {
    const action = `prefetch "${shownName(name)}"`;
    if (this.cache === undefined) throw cannot('invalid-argument', action, 'the client has no cache');
    const request = this.#request(name, options, true);
    const found = await abortable(request, () => this.#downloader.find(request));
    if (found.kind === 'cached') return fetchedFile(found);
    if (found.kind === 'remote') found.content.cancel();
    throw cannot('no-space', action, 'the cache does not have the capacity for it');
  }

  async stat(name: GivenName, options: CallOptions = {}): Promise<FileInfo | undefined> {
    const wanted = parseVersionedName(name);
    throwIfAborted(options.signal, `look at "${shownName(name)}"`);
    const cached = wanted.version === undefined ? undefined : this.#findCached(wanted);
    if (cached !== undefined || this.remote === undefined || this.#options.offline === true) {
      return cached ?? this.#findCached(wanted);
    }
    const found = await this.remote.stat(wanted.name, options);
    if (found === undefined || (wanted.version ?? found.version) !== found.version) return undefined;
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

  async putFile(name: GivenName, path: string, options: PutOptions = {}): Promise<StoredFile> {
    const wanted = parseVersionedName(name);
    requirePath(path);
    if (wanted.version !== undefined) checkVersion(wanted.version);
    this.#requireOnline(`put "${shownName(name)}"`, options, options.toRemoteStore);
    const call = { action: `put "${shownName(name)}"`, signal: options.signal };
    return await abortable(call, () => this.#uploader.put(wanted, path, versionFromNs, options));
  }

  async putStream(name: GivenName, source: Readable | Chunks, options: PutOptions = {}): Promise<StoredFile> {
    using given = new PutSource(source);
    const wanted = parseVersionedName(name);
    const version = checkVersion(wanted.version ?? versionFromMs(this.#clock.nowMs()));
    const action = `put "${shownName(name)}"`;
    this.#requireOnline(action, options, options.toRemoteStore);
    const signal = eitherSignal(this.closing.signal, options.signal);
    // The digest must be known before anything is sent, so the bytes wait in a file.
    const folder = await mkdtemp(join(tmpdir(), 'filetracker-'));
    try {
      const path = join(folder, 'content');
      await writeChunks(path, given.pieces(action, signal));
      const named = { name: wanted.name, version };
      return await this.#uploader.put(named, path, () => version, { ...options, signal });
    } catch (error) {
      const cause = error instanceof SinkError ? error.cause : error;
      throw fromLocalError(cause, action);
    } finally {
      await rm(folder, { recursive: true, force: true });
    }
  }

  async deleteFile(given: GivenName, options: CallOptions = {}): Promise<DeletedFile> {
    const wanted = parseVersionedName(given);
    const { name } = wanted;
    const action = `remove "${shownName(given)}"`;
    this.#requireOnline(action, options);
    // Locked before anything is removed: a cache that cannot be changed would still serve the file.
    using lock = await this.#lockToForget(name, options);
    const removed =
      this.remote === undefined
        ? this.#removalWithoutServer(wanted)
        : await this.#removeRemote(this.remote, wanted, options);
    const forgotten = await this.#forget(wanted, removed?.keptVersion, lock);
    // The only copy, in the cache, is a file as well; a copy of what a server had is none.
    if (removed === undefined && !forgotten.some(({ local }) => local === true)) {
      throw cannot('not-found', action, 'there is no such file', { details: { name } });
    }
    return removed ?? { name, keptVersion: undefined };
  }

  /** The result of a removal if the cache is the store. */
  #removalWithoutServer({ name, version }: VersionedName): DeletedFile | undefined {
    const newest = this.#findCached({ name })?.version;
    if (newest === undefined) return undefined;
    return { name, keptVersion: newest > (version ?? newest) ? newest : undefined };
  }

  /** Without a version the one that is stored now is removed: a newer one that is put meanwhile stays. */
  async #removeRemote(
    remote: RemoteStore,
    { name, version }: VersionedName,
    options: CallOptions,
  ): Promise<DeletedFile | undefined> {
    const upTo = version ?? (await remoteVersion(remote, name, options));
    if (upTo === undefined) return undefined;
    const removed = await remote.remove(name, checkVersion(upTo), options);
    return removed === undefined ? undefined : { name, keptVersion: removed.kept };
  }

  /** Locks a name in the cache; `undefined` if the cache knows nothing of it. */
  async #lockToForget(name: FileName, { signal }: CallOptions): Promise<RangeLock | undefined> {
    const { cache } = this;
    try {
      return cache?.record(name) === undefined ? undefined : await cache.lockName(name, signal);
    } catch (cause) {
      const error = fromLocalError(cause, `remove "${name}" from the cache "${cache?.folder ?? ''}"`);
      if (!isFiletrackerError(error) || error.code === 'aborted') throw error;
      throw new FiletrackerError(error.code, `${error.message}; nothing was removed`, { cause });
    }
  }

  async #forget(
    { name, version }: VersionedName,
    kept: FileVersion | undefined,
    held: RangeLock | undefined,
  ): Promise<readonly KnownVersion[]> {
    // A version that was cached meanwhile is forgotten too.
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
      throwIfAborted(options.signal, 'list the cache');
      if (file.name.startsWith(directory)) yield infoOf(file);
    }
  }

  async *listRemoteEntries(options: RemoteListOptions = {}): AsyncIterable<FileInfo> {
    const { directory, query } = listArguments(options);
    const remote = this.#requireRemote(options);
    const { features } = await remote.abilities(options);
    if (features.has('list-json')) {
      for await (const file of remote.listFiles(directory, query, options)) yield infoOf(file);
      return;
    }
    // A legacy server lists names only; a file that is removed meanwhile is left out.
    for await (const name of remote.listNames(directory, query, options)) {
      const file = await remote.stat(name, options);
      if (file !== undefined) yield infoOf(file);
    }
  }

  protected listNames(directory: string, query: ListQuery, options: CallOptions): AsyncIterable<FileName> {
    return this.#requireRemote(options).listNames(directory, query, options);
  }

  /** Offline, a call that needs the server fails: it is not silently left out. */
  #requireOnline(action: string, { signal }: CallOptions, needsServer = true): void {
    throwIfAborted(signal, action);
    if (this.#options.offline !== true || this.remote === undefined || !needsServer) return;
    throw cannot('invalid-argument', action, 'the client is offline');
  }

  #requireRemote(options: CallOptions): RemoteStore {
    const action = 'list the files of the server';
    this.#requireOnline(action, options);
    if (this.remote !== undefined) return this.remote;
    const state = 'no server is set; name one with FILETRACKER_URL or --remote-url';
    throw cannot('invalid-argument', action, state);
  }

  #request(given: GivenName, options: GetOptions, addToCache: boolean): CallRequest {
    const { name, version } = parseVersionedName(given);
    return {
      action: `get "${shownName(given)}"`,
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

  close(): Promise<void> {
    this.closing.abort();
    this.remote?.close();
    this.cache?.close();
    return Promise.resolve();
  }
}

/** Runs a call, which an abort makes reject with the code `aborted`, whatever Node throws. */
async function abortable<T>(
  { action, signal }: CallOptions & { readonly action: string },
  call: () => Promise<T>,
): Promise<T> {
  throwIfAborted(signal, action);
  try {
    return await call();
  } catch (error) {
    throw signal?.aborted === true && !isFiletrackerError(error) ? abortedError(action, error) : error;
  }
}

/** Passes each warning on once: a cache that cannot be used is the same trouble for every file. */
function onceEach(listener: ((message: string) => void) | undefined): (message: string) => void {
  const reported = new Set<string>();
  return (message) => {
    if (listener === undefined || reported.has(message)) return;
    if (reported.size < warningsMax) reported.add(message);
    listener(message);
  };
}

function fetchedFile({ file, cached }: Found): FetchedFile {
  return { ...infoOf(file), cached };
}

/** The settings that are not undefined, so that they do not hide others. */
function given<T extends object>(settings: T): Partial<T> {
  const known = Object.entries(settings).filter(([, value]) => value !== undefined);
  return Object.fromEntries(known) as Partial<T>;
}
