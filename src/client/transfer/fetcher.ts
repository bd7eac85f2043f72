import { Readable } from 'node:stream';
import type { Clock } from '../../core/clock.ts';
import { errnoOf, FiletrackerError, isFiletrackerError, messageOf } from '../../core/errors.ts';
import { formatVersionedName } from '../../core/file-name.ts';
import type { FileName } from '../../core/file-name.ts';
import type { FileVersion } from '../../core/file-version.ts';
import { digestOfFile } from '../../fs/file-digest.ts';
import {
  isSmall,
  isWrongContent,
  measureFile,
  receiveSmall,
  RemoteChangedError,
  SinkError,
  verifiedChunks,
  writeChunks,
} from './download.ts';
import type { DownloadOptions, ProgressListener } from './download.ts';
import type { KnownVersion } from '../cache/names.ts';
import type { CacheAddition, LocalCache } from '../cache/local-cache.ts';
import type { CachedFile } from '../cache/names.ts';
import { fromLocalError } from '../local-errors.ts';
import type { RemoteContent, RemoteFile, RemoteStore } from '../http/remote-store.ts';
import type { RetryPolicy } from '../http/retries.ts';

/** What is wanted, and how. */
export interface FetchRequest {
  readonly name: FileName;
  readonly version: FileVersion | undefined;
  readonly forceRefresh: boolean;
  readonly offline: boolean;
  readonly verify: boolean;
  /** Whether what is fetched shall stay in the cache. */
  readonly addToCache: boolean;
  readonly signal: AbortSignal | undefined;
  readonly onProgress: ProgressListener | undefined;
}

/** Where a file was found. */
export type Found =
  | {
      readonly kind: 'cached';
      readonly file: CachedFile;
      /** Whether it was fetched just now. */
      readonly fresh: boolean;
      /** The content, where it lies in memory. */
      readonly bytes?: Buffer;
    }
  /** On the server; the cache does not want it or can't take it. Must be read or cancelled. */
  | { readonly kind: 'remote'; readonly content: RemoteContent };

/** How often a file that changes on the server while it is fetched is begun anew. */
const changesMax = 5;

export interface FetcherParts {
  readonly remote: RemoteStore | undefined;
  readonly cache: LocalCache | undefined;
  readonly retries: RetryPolicy;
  readonly clock: Clock;
  readonly warn: (message: string) => void;
}

/**
 * Finds files: in the cache where that is right, else on the server, through the cache.
 *
 * One process fetches while others that want the same name wait for its lock and then find the content in
 * the cache; when it dies the kernel frees the lock, and the next goes on from what it left.
 */
export class Fetcher {
  readonly #parts: FetcherParts;

  constructor(parts: FetcherParts) {
    this.#parts = parts;
  }

  /**
   * The file that is asked for, in the cache if it may be there.
   * @throws FiletrackerError `not-found`, and those of the server.
   */
  async find(request: FetchRequest): Promise<Found> {
    const { cache, remote } = this.#parts;
    const cached = await this.#findCached(request);
    if (cached !== undefined) return { kind: 'cached', file: cached, fresh: false };
    if (remote === undefined || request.offline) throw this.absent(request);
    if (cache === undefined) return await this.#openRemote(remote, request, []);
    for (let changes = 1; ; changes += 1) {
      try {
        return await this.#findThroughCache(remote, cache, request);
      } catch (error) {
        if (!(error instanceof RemoteChangedError) || changes === changesMax) throw error;
      }
    }
  }

  /** What the cache may serve without asking the server. */
  async #findCached(request: FetchRequest): Promise<CachedFile | undefined> {
    const { cache, remote } = this.#parts;
    const alone = remote === undefined || request.offline;
    const allowed = alone || (request.version !== undefined && !request.forceRefresh);
    if (cache === undefined || !allowed) return undefined;
    return await this.#findSound(cache, request);
  }

  /** A cached version, its digest checked if that is asked for. */
  async #findSound(cache: LocalCache, request: FetchRequest): Promise<CachedFile | undefined> {
    const cached = this.#tryCache(() => cache.find(request.name, request.version));
    if (cached === undefined || !request.verify) return cached;
    if ((await digestOfFile(cached.path, request.signal)) === cached.digest) return cached;
    const versionedName = formatVersionedName(cached.name, cached.version);
    if (cached.local === true) {
      throw new FiletrackerError(
        'damaged-blob',
        `Cannot serve "${versionedName}": its content is damaged, and there is no other copy`,
      );
    }
    this.#discard(cache, cached);
    this.#parts.warn(`The cached content of "${versionedName}" was damaged and is fetched again`);
    return undefined;
  }

  async #findThroughCache(remote: RemoteStore, cache: LocalCache, request: FetchRequest): Promise<Found> {
    const beganMs = this.#parts.clock.nowMs();
    const lock = request.addToCache
      ? await this.#tryCacheAsync(() => cache.lockName(request.name, request.signal))
      : undefined;
    try {
      const held = request.forceRefresh ? undefined : await this.#findSound(cache, request);
      // Whoever held the lock before may have fetched what we want.
      const current = request.version !== undefined || (held?.checkedMs ?? -Infinity) >= beganMs;
      if (held !== undefined && current) return { kind: 'cached', file: held, fresh: true };
      return await this.#askRemote(remote, cache, request, held, lock !== undefined);
    } finally {
      lock?.release();
    }
  }

  /** Asks the server, naming what the cache holds, and brings a new content into the cache if it is to be. */
  async #askRemote(
    remote: RemoteStore,
    cache: LocalCache,
    request: FetchRequest,
    held: CachedFile | undefined,
    add: boolean,
  ): Promise<Found> {
    const { name, forceRefresh } = request;
    const etags = held?.etag === undefined ? [] : [held.etag];
    const beganMs = this.#parts.clock.nowMs();
    const found = await this.#openRemote(remote, request, etags, held);
    if (found.kind === 'cached') {
      if (add && found.file.version !== held?.version) await this.#remember(cache, found.file);
      return found;
    }
    const { file } = found.content;
    const same = held !== undefined && (file.digest === held.digest || isSameLegacy(file, held));
    if (same && file.version === held.version) {
      found.content.cancel();
      return { kind: 'cached', file: held, fresh: false };
    }
    if (!add) return found;
    const known = { version: file.version, etag: file.etag, checkedMs: beganMs };
    // A small body is taken in all the same, because giving it up would cost the connection.
    const wanted = forceRefresh || isSmall(found.content);
    const present = wanted ? undefined : this.#contentOf(cache, file);
    if (present === undefined) return await this.#bring(remote, cache, request, found.content, known);
    found.content.cancel();
    const cached = { ...known, name, digest: present.digest, size: present.size, path: present.path };
    await this.#remember(cache, cached);
    return { kind: 'cached', file: cached, fresh: true };
  }

  /** The content of a remote file, if it is in the cache under whatever name. */
  #contentOf(
    cache: LocalCache,
    { digest, size }: RemoteFile,
  ): Pick<CachedFile, 'digest' | 'size' | 'path'> | undefined {
    if (digest === undefined || size === undefined) return undefined;
    const path = this.#tryCache(() => cache.findContent(digest, size));
    return path === undefined ? undefined : { digest, size, path };
  }

  /** Asks the server for a file. `held` is what one of the tags stands for. */
  async #openRemote(
    remote: RemoteStore,
    request: FetchRequest,
    etags: readonly string[],
    held?: CachedFile,
  ): Promise<Found> {
    const answer = await remote.open(request.name, { etags, signal: request.signal });
    if (answer.kind === 'absent') throw this.absent(request);
    if (answer.kind === 'unchanged') {
      if (held === undefined)
        throw new FiletrackerError(
          'protocol',
          `Cannot get "${request.name}": the server says that nothing changed though it was not asked`,
        );
      return { kind: 'cached', file: { ...held, version: answer.version ?? held.version }, fresh: false };
    }
    if (request.version !== undefined && answer.file.version !== request.version) {
      answer.cancel();
      throw this.#otherVersion(request.name, request.version, answer.file.version);
    }
    return { kind: 'remote', content: answer };
  }

  /** Fetches a content into the cache; where the cache can't take it, leaves it to be read from the server. */
  async #bring(
    remote: RemoteStore,
    cache: LocalCache,
    request: FetchRequest,
    content: RemoteContent,
    known: Omit<KnownVersion, 'digest' | 'size'>,
  ): Promise<Found> {
    const { file } = content;
    const small = await receiveSmall(remote, content, this.downloadOptions(request));
    if (small !== undefined) return await this.#keepSmall(cache, request, content, small, known);
    const { size } = file;
    if (request.forceRefresh && file.digest !== undefined) this.#discard(cache, { digest: file.digest });
    const addition =
      size === undefined
        ? undefined
        : await this.#tryCacheAsync(() => cache.begin(size, file.digest, request.signal));
    if (addition === undefined) return { kind: 'remote', content };
    try {
      return await this.#fill(remote, cache, request, content, known, addition);
    } catch (error) {
      content.cancel();
      const lost = isWrongContent(error) || file.digest === undefined || error instanceof SinkError;
      await this.#tryCacheAsync(() => addition.abandon({ keep: !lost }));
      if (!(error instanceof SinkError)) throw error;
      this.#cacheFailed(error.cause);
      return await this.#openRemote(remote, request, []);
    }
  }

  async #keepSmall(
    cache: LocalCache,
    { name, onProgress, forceRefresh }: FetchRequest,
    content: RemoteContent,
    { bytes, digest }: { readonly bytes: Buffer; readonly digest: CachedFile['digest'] },
    known: Omit<KnownVersion, 'digest' | 'size'>,
  ): Promise<Found> {
    onProgress?.({ phase: 'fetching', done: bytes.length, total: bytes.length });
    if (forceRefresh) this.#discard(cache, { digest });
    const version = { ...known, digest, size: bytes.length };
    const cached = await this.#tryCacheAsync(() => cache.addBytes(name, version, bytes));
    if (cached !== undefined) return { kind: 'cached', file: cached, fresh: true, bytes };
    const read = { ...content, encoding: 'identity' as const, body: Readable.from([bytes]) };
    return { kind: 'remote', content: { ...read, transferSize: bytes.length } };
  }

  async #fill(
    remote: RemoteStore,
    cache: LocalCache,
    request: FetchRequest,
    content: RemoteContent,
    known: Omit<KnownVersion, 'digest' | 'size'>,
    addition: CacheAddition,
  ): Promise<Found> {
    let digest: CachedFile['digest'] | undefined;
    const meter = addition.presentBytes > 0 ? await measureFile(addition.path, request.signal) : undefined;
    const chunks = verifiedChunks(remote, content, {
      ...this.downloadOptions(request),
      start: meter === undefined ? undefined : { meter },
      onEnd: (measure) => (digest = measure.digest),
    });
    await writeChunks(addition.path, chunks, (bytes) => cache.space.freeDisk(bytes));
    if (digest === undefined) throw new Error('a download ended without its end');
    const version = { ...known, digest, size: content.file.size ?? 0 };
    try {
      return { kind: 'cached', file: await addition.commit(request.name, version), fresh: true };
    } catch (error) {
      throw isCacheFailure(error) ? new SinkError(error) : error;
    }
  }

  /** How contents are read from the server for this request. */
  downloadOptions({ signal, onProgress }: FetchRequest): DownloadOptions {
    return { retries: this.#parts.retries, signal, onProgress };
  }

  async #remember(cache: LocalCache, { name: _name, path: _path, ...known }: CachedFile): Promise<void> {
    await this.#tryCacheAsync(() => cache.remember(_name, known));
  }

  /** What the cache answers; undefined, and a warning, where its folder can't be used. */
  #tryCache<T>(work: () => T): T | undefined {
    try {
      return work();
    } catch (error) {
      return this.#cacheFailed(error);
    }
  }

  async #tryCacheAsync<T>(work: () => Promise<T>): Promise<T | undefined> {
    try {
      return await work();
    } catch (error) {
      return this.#cacheFailed(error);
    }
  }

  #discard(cache: LocalCache, content: { readonly digest: CachedFile['digest'] }): void {
    this.#tryCache(() => cache.discard(content));
  }

  /** A cache that can't be used is no reason to fail where there is a server; other errors are. */
  #cacheFailed(error: unknown): undefined {
    if (!isCacheFailure(error) || this.#parts.remote === undefined)
      throw fromLocalError(error, 'use the cache');
    const told = fromLocalError(error, `use the cache "${this.#parts.cache?.folder ?? ''}"`);
    this.#parts.warn(`${messageOf(told)}; going on without it`);
    return undefined;
  }

  /** The error of a file that is nowhere. */
  absent({ name, version, offline }: FetchRequest): FiletrackerError {
    const { remote, cache } = this.#parts;
    const shown = version === undefined ? name : formatVersionedName(name, version);
    const where =
      remote === undefined || offline
        ? `the cache "${cache?.folder ?? ''}" does not hold it`
        : `there is no such file on the server at "${remote.shown}"`;
    return new FiletrackerError('not-found', `Cannot get "${shown}": ${where}`, { details: { name } });
  }

  #otherVersion(name: FileName, asked: FileVersion, stored: FileVersion): FiletrackerError {
    return new FiletrackerError(
      'not-found',
      `Cannot get "${formatVersionedName(name, asked)}": the server holds version ${stored} of it`,
      { details: { name, version: stored } },
    );
  }
}

/** Whether an error is about the folder of the cache, and not about the file or the server. */
function isCacheFailure(error: unknown): boolean {
  return (
    errnoOf(error) !== undefined ||
    isFiletrackerError(error, 'io') ||
    isFiletrackerError(error, 'read-only') ||
    isFiletrackerError(error, 'no-space')
  );
}

/** A legacy server names no digest: a version that it still has is the content that it had. */
function isSameLegacy(file: RemoteFile, held: CachedFile): boolean {
  return file.digest === undefined && file.version === held.version && (file.size ?? held.size) === held.size;
}
