import { readFile } from 'node:fs/promises';
import { Readable } from 'node:stream';
import { systemClock, type Clock } from '../core/clock.ts';
import { throwIfAborted, type CallOptions } from '../core/concurrency.ts';
import { digestOf } from '../core/digest.ts';
import { cannot } from '../core/errors.ts';
import {
  ancestorsOf,
  formatVersionedName,
  parseDirectory,
  parseVersionedName,
  shownName,
} from '../core/file-name.ts';
import type { FileName, GivenName, VersionedName } from '../core/file-name.ts';
import { checkVersion, versionFromMs, versionFromNs, type FileVersion } from '../core/file-version.ts';
import type { ListQuery } from '../protocol/query.ts';
import type { Chunks } from '../streams/chunks.ts';
import { requirePath } from './arguments.ts';
import { materializeBytes } from './cache/materialize.ts';
import { ClientBase, infoOf, listArguments } from './client-base.ts';
import type {
  DeletedFile,
  FetchedFile,
  FetchedStream,
  FileClient,
  FileInfo,
  GetFileOptions,
  GetStreamOptions,
  ListOptions,
  PutOptions,
  RemoteListOptions,
  StoredFile,
} from './file-client.ts';
import { fromLocalError } from './local-errors.ts';
import { cancellableStream, eitherSignal, PutSource } from './transfer/caller-streams.ts';
import { resolveTarget, streamTo } from './transfer/targets.ts';
import { sourceFile } from './transfer/upload-content.ts';
import { storedNowhere } from './transfer/uploader.ts';

interface MemoryFile extends Omit<FileInfo, 'versionedName'> {
  readonly bytes: Buffer;
  /** Set if it was put into the cache only, which then has the only copy. */
  readonly local?: boolean;
}

/**
 * A client whose server and cache are in memory, for tests of programs that use files. It behaves as `Client` with a
 * current server: one test suite runs over both.
 *
 * @example
 * ```ts
 * import { Readable } from 'node:stream';
 * import { MemoryClient } from 'filetracker';
 *
 * const client = new MemoryClient();
 * await client.putStream('/a/b.txt', Readable.from(['hello\n']));
 * console.log(await client.fileSize('/a/b.txt')); // 6
 * await client.close();
 * ```
 */
export class MemoryClient extends ClientBase implements FileClient {
  readonly #server = new Map<FileName, MemoryFile>();
  /** By versioned name. */
  readonly #cache = new Map<string, MemoryFile>();
  readonly #clock: Clock;

  constructor(clock: Clock = systemClock) {
    super();
    this.#clock = clock;
  }

  async getFile(name: GivenName, saveTo: string, options: GetFileOptions = {}): Promise<FetchedFile> {
    parseVersionedName(name);
    requirePath(saveTo);
    const target = resolveTarget(saveTo, options);
    const { file, cached } = this.#get(name, options, options.addToCache ?? true);
    options.onProgress?.({ phase: 'fetching', done: file.bytes.length, total: file.bytes.length });
    if (target.kind !== 'file') {
      await streamTo(Readable.from([file.bytes]), target);
      return { ...infoOf(file), cached };
    }
    try {
      materializeBytes(file.bytes, file.version, target.path);
    } catch (error) {
      throw fromLocalError(error, `write "${saveTo}"`);
    }
    return { ...infoOf(file), cached };
  }

  getStream(name: GivenName, options: GetStreamOptions = {}): Promise<FetchedStream> {
    return promised(() => {
      const { file, cached } = this.#get(name, options, options.serveFromCache ?? false);
      const bytes = Readable.from([Buffer.from(file.bytes)], { objectMode: false });
      const stream = cancellableStream(bytes, `get "${shownName(name)}"`, options.signal);
      return { ...infoOf(file), cached, stream };
    });
  }

  #get(
    given: GivenName,
    options: GetFileOptions,
    addToCache: boolean,
  ): { readonly file: MemoryFile; readonly cached: boolean } {
    const action = `get "${shownName(given)}"`;
    this.#requireOpen(action, options);
    const wanted = parseVersionedName(given);
    const { name, version } = wanted;
    const { offline = false, forceRefresh = false } = options;
    const cached = offline || (version !== undefined && !forceRefresh) ? this.#findCached(wanted) : undefined;
    if (cached !== undefined) return { file: cached, cached: true };
    const file = offline ? undefined : this.#server.get(name);
    if (file === undefined || (version ?? file.version) !== file.version) throw notFound(action, name);
    const versionedName = formatVersionedName(name, file.version);
    const wasCached = this.#cache.has(versionedName) && !forceRefresh;
    if (addToCache) this.#cache.set(versionedName, file);
    return { file, cached: wasCached };
  }

  #findCached({ name, version }: VersionedName): MemoryFile | undefined {
    if (version !== undefined) return this.#cache.get(formatVersionedName(name, version));
    const versions = [...this.#cache.values()].filter((file) => file.name === name);
    return versions.sort((a, b) => b.version - a.version)[0];
  }

  stat(given: GivenName, options: CallOptions = {}): Promise<FileInfo | undefined> {
    return promised(() => {
      this.#requireOpen(`look at "${shownName(given)}"`, options);
      const wanted = parseVersionedName(given);
      const cached = wanted.version === undefined ? undefined : this.#findCached(wanted);
      const file = cached ?? this.#server.get(wanted.name);
      const found = file !== undefined && (wanted.version ?? file.version) === file.version;
      return found ? infoOf(file) : undefined;
    });
  }

  async putFile(name: GivenName, path: string, options: PutOptions = {}): Promise<StoredFile> {
    const wanted = parseVersionedName(name);
    requirePath(path);
    const { mtimeNs } = sourceFile(path);
    try {
      return this.#put(wanted, await readFile(path), versionFromNs(mtimeNs), options);
    } catch (error) {
      throw fromLocalError(error, `put "${path}"`);
    }
  }

  async putStream(name: GivenName, source: Readable | Chunks, options: PutOptions = {}): Promise<StoredFile> {
    using given = new PutSource(source);
    const wanted = parseVersionedName(name);
    const parts: Uint8Array[] = [];
    const signal = eitherSignal(this.closing.signal, options.signal);
    for await (const part of given.pieces(`put "${shownName(name)}"`, signal)) parts.push(part);
    return this.#put(wanted, Buffer.concat(parts), versionFromMs(this.#clock.nowMs()), options);
  }

  #put(
    { name, version: wanted }: VersionedName,
    bytes: Buffer,
    otherwise: FileVersion,
    options: PutOptions,
  ): StoredFile {
    this.#requireOpen(`put "${name}"`, options);
    const toServer = options.toRemoteStore !== false;
    const toCache = options.toLocalStore !== false;
    if (!toServer && !toCache) throw storedNowhere(name);
    const version = checkVersion(wanted ?? otherwise);
    const file: MemoryFile = { name, version, size: bytes.length, digest: digestOf(bytes), bytes };
    const present = this.#server.get(name);
    if (toServer && present !== undefined && present.version > version) {
      const kept = { name, version: present.version, size: undefined, digest: undefined };
      return { ...infoOf(kept), stored: false, sent: false };
    }
    const known = [...this.#server.values()].some(({ digest }) => digest === file.digest);
    if (toServer) {
      this.#requireTree(name);
      this.#server.set(name, file);
    }
    if (toCache) this.#cache.set(formatVersionedName(name, version), { ...file, local: !toServer });
    return { ...infoOf(file), stored: true, sent: toServer && !known };
  }

  /** Names form a tree, as on the server: no file is below a file. */
  #requireTree(name: FileName): void {
    const above = ancestorsOf(name).find((ancestor) => this.#server.has(ancestor));
    const below = [...this.#server.keys()].find((other) => other.startsWith(`${name}/`));
    const other = above ?? below;
    if (other === undefined) return;
    throw cannot('name-conflict', `store "${name}"`, `"${other}" is a file`, { details: { name: other } });
  }

  deleteFile(given: GivenName, options: CallOptions = {}): Promise<DeletedFile> {
    return promised(() => {
      const action = `remove "${shownName(given)}"`;
      this.#requireOpen(action, options);
      const { name, version } = parseVersionedName(given);
      const file = this.#server.get(name);
      const upTo = version ?? file?.version ?? Infinity;
      const forgotten = [...this.#cache].filter(
        ([, cached]) => cached.name === name && cached.version <= upTo,
      );
      for (const [key] of forgotten) this.#cache.delete(key);
      if (file === undefined && !forgotten.some(([, cached]) => cached.local === true)) {
        throw notFound(action, name);
      }
      if (file !== undefined && file.version > upTo) return { name, keptVersion: file.version };
      this.#server.delete(name);
      return { name, keptVersion: undefined };
    });
  }

  async *listLocalFiles(options: ListOptions = {}): AsyncIterable<FileInfo> {
    const directory = parseDirectory(options.subpath ?? '/');
    await Promise.resolve();
    for (const file of this.#cache.values()) {
      throwIfAborted(options.signal, 'list the cache');
      if (file.name.startsWith(directory)) yield infoOf(file);
    }
  }

  async *listRemoteEntries(options: RemoteListOptions = {}): AsyncIterable<FileInfo> {
    const { directory, query } = listArguments(options);
    for await (const file of this.#list(directory, query, options)) yield infoOf(file);
  }

  protected async *listNames(
    directory: string,
    query: ListQuery,
    options: CallOptions,
  ): AsyncIterable<FileName> {
    for await (const { name } of this.#list(directory, query, options)) yield name;
  }

  async *#list(directory: string, query: ListQuery, options: CallOptions): AsyncIterable<MemoryFile> {
    const action = `list "${directory}"`;
    this.#requireOpen(action, options);
    await Promise.resolve();
    const below = [...this.#server.values()].filter(({ name }) => name.startsWith(directory));
    if (below.length === 0 && directory !== '/') throw cannot('not-a-directory', action, 'it holds no files');
    below.sort((a, b) => Buffer.compare(Buffer.from(a.name), Buffer.from(b.name)));
    yield* below.filter(({ version }) => version <= (query.upTo ?? Infinity));
  }

  #requireOpen(action: string, { signal }: CallOptions): void {
    throwIfAborted(signal, action);
    if (this.closing.signal.aborted) throw cannot('aborted', action, 'the client is closed');
  }

  close(): Promise<void> {
    this.closing.abort();
    return Promise.resolve();
  }
}

function notFound(action: string, name: FileName): Error {
  return cannot('not-found', action, 'there is no such file', { details: { name } });
}

/** Runs synchronous work so that its errors reject. */
async function promised<T>(work: () => T): Promise<T> {
  return await Promise.resolve().then(work);
}
