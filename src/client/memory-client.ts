import { readFile } from 'node:fs/promises';
import { Readable } from 'node:stream';
import { systemClock } from '../core/clock.ts';
import type { Clock } from '../core/clock.ts';
import { digestOf } from '../core/digest.ts';
import type { Digest } from '../core/digest.ts';
import { FiletrackerError } from '../core/errors.ts';
import {
  ancestorsOf,
  formatVersionedName,
  parseDirectory,
  parseVersionedName,
  shownName,
} from '../core/file-name.ts';
import type { FileName, GivenName, VersionedName } from '../core/file-name.ts';
import { checkVersion, versionFromMs, versionFromNs } from '../core/file-version.ts';
import type { FileVersion } from '../core/file-version.ts';
import type { Chunks } from '../streams/chunks.ts';
import type {
  CallOptions,
  DeletedFile,
  FetchedFile,
  FetchedStream,
  FileClient,
  FileInfo,
  GetFileOptions,
  GetStreamOptions,
  ListOptions,
  NameListOptions,
  PutOptions,
  RemoteListOptions,
  StoredFile,
} from './file-client.ts';
import { cutoffOf, requirePath } from './arguments.ts';
import { materializeBytes } from './cache/materialize.ts';
import { fromLocalError } from './local-errors.ts';
import { cancellableStream, eitherSignal, PutSource } from './transfer/caller-streams.ts';
import { resolveTarget, streamTo } from './transfer/targets.ts';
import { sourceFile } from './transfer/upload-content.ts';
import { storedNowhere } from './transfer/uploader.ts';

interface MemoryFile {
  readonly name: FileName;
  readonly version: FileVersion;
  readonly bytes: Buffer;
  readonly digest: Digest;
  /** Set where it was put into the cache alone, which then has the only copy. */
  readonly local?: boolean;
}

/**
 * A client whose server and cache are in memory, for tests of programs that use files. It behaves as `Client`
 * does with a server of ours; one suite of tests runs over both.
 */
export class MemoryClient implements FileClient {
  readonly #server = new Map<FileName, MemoryFile>();
  readonly #cache = new Map<string, MemoryFile>();
  readonly #clock: Clock;
  readonly #closing = new AbortController();

  constructor(clock: Clock = systemClock) {
    this.#clock = clock;
  }

  async getFile(name: GivenName, saveTo: string, options: GetFileOptions = {}): Promise<FetchedFile> {
    parseVersionedName(name);
    requirePath(saveTo);
    const target = resolveTarget(saveTo, options);
    const { file, cached } = this.#find(name, options, options.addToCache ?? true);
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

  async getStream(name: GivenName, options: GetStreamOptions = {}): Promise<FetchedStream> {
    const { file, cached } = this.#find(name, options, options.serveFromCache ?? false);
    const bytes = Readable.from([Buffer.from(file.bytes)], { objectMode: false });
    const stream = cancellableStream(bytes, `get "${shownName(name)}"`, options.signal);
    return await Promise.resolve({ ...infoOf(file), cached, stream });
  }

  #find(
    given: GivenName,
    options: GetFileOptions,
    addToCache: boolean,
  ): { readonly file: MemoryFile; readonly cached: boolean } {
    const text = shownName(given);
    this.#requireOpen(options, `get "${text}"`);
    const { name, version } = parseVersionedName(given);
    const mayServe = options.offline === true || (version !== undefined && options.forceRefresh !== true);
    const cached = mayServe
      ? this.#findCached({ name, ...(version !== undefined && { version }) })
      : undefined;
    if (cached !== undefined) return { file: cached, cached: true };
    const file = options.offline === true ? undefined : this.#server.get(name);
    if (file === undefined || (version ?? file.version) !== file.version) {
      throw notFound('get', text, name);
    }
    const versionedName = formatVersionedName(name, file.version);
    const known = this.#cache.has(versionedName) && options.forceRefresh !== true;
    if (addToCache) this.#cache.set(versionedName, file);
    return { file, cached: known };
  }

  #findCached({ name, version }: VersionedName): MemoryFile | undefined {
    if (version !== undefined) return this.#cache.get(formatVersionedName(name, version));
    const versions = [...this.#cache.values()].filter((file) => file.name === name);
    return versions.sort((a, b) => b.version - a.version)[0];
  }

  stat(given: GivenName, options: CallOptions = {}): Promise<FileInfo | undefined> {
    return promised(() => {
      this.#requireOpen(options, `look at "${shownName(given)}"`);
      const asked = parseVersionedName(given);
      const cached = asked.version === undefined ? undefined : this.#findCached(asked);
      const file = cached ?? this.#server.get(asked.name);
      const found = file !== undefined && (asked.version ?? file.version) === file.version;
      return found ? infoOf(file) : undefined;
    });
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
    const { mtimeNs } = sourceFile(path);
    try {
      return this.#put(asked, await readFile(path), versionFromNs(mtimeNs), options);
    } catch (error) {
      throw fromLocalError(error, `put "${path}"`);
    }
  }

  async putStream(name: GivenName, source: Readable | Chunks, options: PutOptions = {}): Promise<StoredFile> {
    using given = new PutSource(source);
    const asked = parseVersionedName(name);
    const parts: Uint8Array[] = [];
    const signal = eitherSignal(this.#closing.signal, options.signal);
    for await (const part of given.pieces(`put "${shownName(name)}"`, signal)) parts.push(part);
    return this.#put(asked, Buffer.concat(parts), versionFromMs(this.#clock.nowMs()), options);
  }

  #put(
    { name, version: asked }: VersionedName,
    bytes: Buffer,
    otherwise: FileVersion,
    options: PutOptions,
  ): StoredFile {
    this.#requireOpen(options, `put "${name}"`);
    if (options.toRemoteStore === false && options.toLocalStore === false) throw storedNowhere(name);
    const version = checkVersion(asked ?? otherwise);
    const file: MemoryFile = { name, version, bytes, digest: digestOf(bytes) };
    const present = this.#server.get(name);
    const toServer = options.toRemoteStore !== false;
    if (toServer && present !== undefined && present.version > version) {
      return { ...infoOf(present), size: undefined, digest: undefined, stored: false, sent: false };
    }
    const known = [...this.#server.values()].some(({ digest }) => digest === file.digest);
    if (toServer) {
      this.#requireTree(name);
      this.#server.set(name, file);
    }
    if (options.toLocalStore !== false) {
      this.#cache.set(formatVersionedName(name, version), { ...file, local: !toServer });
    }
    return { ...infoOf(file), stored: true, sent: toServer && !known };
  }

  /** Names form a tree, as on the server: no file lies below a file. */
  #requireTree(name: FileName): void {
    const above = ancestorsOf(name).find((ancestor) => this.#server.has(ancestor));
    const below = [...this.#server.keys()].find((other) => other.startsWith(`${name}/`));
    const other = above ?? below;
    if (other === undefined) return;
    throw new FiletrackerError('name-conflict', `Cannot store "${name}": "${other}" is a file`, {
      details: { name: other },
    });
  }

  deleteFile(given: GivenName, options: CallOptions = {}): Promise<DeletedFile> {
    return promised(() => {
      const shown = shownName(given);
      this.#requireOpen(options, `remove "${shown}"`);
      const { name, version } = parseVersionedName(given);
      const file = this.#server.get(name);
      const upTo = version ?? file?.version ?? Infinity;
      const forgotten = [...this.#cache].filter(
        ([, cached]) => cached.name === name && cached.version <= upTo,
      );
      for (const [key] of forgotten) this.#cache.delete(key);
      if (file === undefined) {
        if (!forgotten.some(([, cached]) => cached.local === true)) throw notFound('remove', shown, name);
        return { name, keptVersion: undefined };
      }
      if (file.version > upTo) return { name, keptVersion: file.version };
      this.#server.delete(name);
      return { name, keptVersion: undefined };
    });
  }

  async *listLocalFiles(options: ListOptions = {}): AsyncIterable<FileInfo> {
    const directory = parseDirectory(options.subpath ?? '/');
    await Promise.resolve();
    for (const file of this.#cache.values()) {
      if (file.name.startsWith(directory)) yield infoOf(file);
    }
  }

  async *listRemoteFiles(options: NameListOptions = {}): AsyncIterable<string> {
    const directory = parseDirectory(options.subpath ?? '/');
    const absolute = options.absolutePaths ?? true;
    for await (const { name } of this.listRemoteEntries(options)) {
      yield absolute ? name : name.slice(directory.length);
    }
  }

  async *listRemoteEntries(options: RemoteListOptions = {}): AsyncIterable<FileInfo> {
    const directory = parseDirectory(options.subpath ?? '/');
    const cutoff = cutoffOf(options) ?? Infinity;
    this.#requireOpen(options, `list "${directory}"`);
    await Promise.resolve();
    const below = [...this.#server.values()].filter(({ name }) => name.startsWith(directory));
    if (below.length === 0 && directory !== '/') {
      throw new FiletrackerError('not-a-directory', `Cannot list "${directory}": it holds no files`);
    }
    below.sort((a, b) => Buffer.compare(Buffer.from(a.name), Buffer.from(b.name)));
    for (const file of below) if (file.version <= cutoff) yield infoOf(file);
  }

  #requireOpen({ signal }: CallOptions, action: string): void {
    if (signal?.aborted === true) {
      throw new FiletrackerError('aborted', `Cannot ${action}: it was cancelled`, { cause: signal.reason });
    }
    if (this.#closing.signal.aborted)
      throw new FiletrackerError('aborted', `Cannot ${action}: the client is closed`);
  }

  /** Nothing can be asked of it any more. Idempotent. */
  close(): Promise<void> {
    this.#closing.abort();
    return Promise.resolve();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.close();
  }
}

function infoOf({ name, version, bytes, digest }: MemoryFile): FileInfo {
  return { name, version, versionedName: formatVersionedName(name, version), size: bytes.length, digest };
}

function notFound(verb: string, shown: string, name: FileName): FiletrackerError {
  return new FiletrackerError('not-found', `Cannot ${verb} "${shown}": there is no such file`, {
    details: { name },
  });
}

/** Runs synchronous work so that what it throws rejects. */
async function promised<T>(work: () => T): Promise<T> {
  return await Promise.resolve().then(work);
}
