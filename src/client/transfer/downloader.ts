import { Readable } from 'node:stream';
import type { Clock } from '../../core/clock.ts';
import type { Digest } from '../../core/digest.ts';
import { errnoOf, FiletrackerError, isFiletrackerError, messageOf } from '../../core/errors.ts';
import { formatVersionedName } from '../../core/file-name.ts';
import type { FileName } from '../../core/file-name.ts';
import type { FileVersion } from '../../core/file-version.ts';
import { digestOfFile } from '../../fs/file-digest.ts';
import type { LocalCache } from '../cache/local-cache.ts';
import { materializeBytes, moveToTarget, setVersion } from '../cache/materialize.ts';
import type { CachedFile, KnownVersion } from '../cache/names.ts';
import type { RemoteContent, RemoteFile, RemoteStore } from '../http/remote-store.ts';
import type { RetryPolicy } from '../http/retries.ts';
import { fromLocalError, translatingErrors } from '../local-errors.ts';
import { cancellableStream } from './caller-streams.ts';
import {
  isSmall,
  isWrongContent,
  measureFile,
  receiveSmall,
  RemoteChangedError,
  verifiedChunks,
} from './download.ts';
import type { DownloadOptions, ProgressListener, SmallContent } from './download.ts';
import { PartialFile } from './partial-file.ts';
import { SinkError, writeChunks } from './sink.ts';

/** Which file a caller wants, and how. */
export interface FetchRequest {
  readonly name: FileName;
  readonly version: FileVersion | undefined;
  readonly forceRefresh: boolean;
  readonly offline: boolean;
  readonly verify: boolean;
  /** Whether a fetched blob stays in the cache. */
  readonly addToCache: boolean;
  readonly signal: AbortSignal | undefined;
  readonly onProgress: ProgressListener | undefined;
}

/** Where a file was found. `cached` is false if it was fetched for this request. */
export type Found =
  /** In the cache; also in memory (`bytes`) if it was received in one piece. */
  | { readonly kind: 'cached'; readonly file: CachedFile; readonly cached: boolean; readonly bytes?: Buffer }
  /** In memory, verified; the cache has no capacity for it. */
  | { readonly kind: 'memory'; readonly file: RemoteFile; readonly cached: false; readonly bytes: Buffer }
  /** On the server; the request or the cache does not want it in the cache. The receiver reads or cancels it. */
  | {
      readonly kind: 'remote';
      readonly file: RemoteFile;
      readonly cached: false;
      readonly content: RemoteContent;
      readonly remote: RemoteStore;
    };

/** How often a file that changes on the server during its download is started again. */
const changesMax = 5;
/** How often a cached blob may be evicted or damaged between its look-up and its use. */
const findingsMax = 3;

export interface TransferParts {
  readonly remote: RemoteStore | undefined;
  readonly cache: LocalCache | undefined;
  readonly retries: RetryPolicy;
  readonly clock: Clock;
  readonly warn: (message: string) => void;
}

/** A request that the server answers through the cache. */
interface CachedFetch {
  readonly request: FetchRequest;
  readonly remote: RemoteStore;
  readonly cache: LocalCache;
}

/**
 * Gets files: from the cache if it may serve them, else from the server, through the cache.
 *
 * One process fetches a name while the others wait for its lock and then find the blob in the cache. If that process
 * dies, the kernel releases the lock, and the next one resumes the download.
 */
export class Downloader {
  readonly #parts: TransferParts;

  constructor(parts: TransferParts) {
    this.#parts = parts;
  }

  /**
   * Makes a file appear at `target`, whole and verified or not at all.
   * @throws FiletrackerError, also for the target.
   */
  async toFile(request: FetchRequest, target: string): Promise<Found> {
    for (let findings = 1; ; findings += 1) {
      const found = await this.find(request);
      if (found.kind === 'remote') {
        const size = await this.#downloadTo(target, request, found.remote, found.content);
        return { ...found, file: { ...found.file, size: found.file.size ?? size } };
      }
      if (found.kind === 'memory') {
        const { bytes, file } = found;
        translatingErrors(`write "${target}"`, () => materializeBytes(bytes, file.version, target));
        return found;
      }
      if (await this.#materialize(found.file, target, found.bytes)) return found;
      if (findings === findingsMax) {
        throw new FiletrackerError('busy', `Cannot get "${request.name}": its cached blob keeps changing`);
      }
    }
  }

  /** A file as a stream that fails instead of ending if it is incomplete or damaged. */
  async toStream(request: FetchRequest): Promise<{ readonly found: Found; readonly stream: Readable }> {
    const action = `get "${request.name}"`;
    for (let findings = 1; ; findings += 1) {
      const found = await this.find(request);
      const stream =
        found.kind === 'cached'
          ? await this.#parts.cache?.openStream(found.file)
          : this.#open(found, request);
      if (stream !== undefined) return { found, stream: cancellableStream(stream, action, request.signal) };
      if (findings === findingsMax) throw this.#absent(request);
    }
  }

  #open(found: Exclude<Found, { kind: 'cached' }>, request: FetchRequest): Readable {
    if (found.kind === 'memory') return Readable.from([found.bytes], { objectMode: false });
    const chunks = verifiedChunks(found.remote, found.content, this.#downloadOptions(request));
    const stream = Readable.from(chunks, { objectMode: false, highWaterMark: 256 * 1024 });
    return stream.once('close', () => found.content.cancel());
  }

  /**
   * Finds a file, and adds it to the cache if the request says so.
   * @throws FiletrackerError `not-found`, and the errors of the server.
   */
  async find(request: FetchRequest): Promise<Found> {
    const { cache, remote } = this.#parts;
    const isAlone = remote === undefined || request.offline;
    if (cache !== undefined && (isAlone || (request.version !== undefined && !request.forceRefresh))) {
      const file = await this.#findIntact(cache, request);
      if (file !== undefined) return { kind: 'cached', file, cached: true };
    }
    if (isAlone) throw this.#absent(request);
    if (cache === undefined) return await this.#openRemote(remote, request);
    for (let changes = 1; ; changes += 1) {
      try {
        return await this.#findThroughCache({ request, remote, cache });
      } catch (error) {
        if (!(error instanceof RemoteChangedError) || changes === changesMax) throw error;
      }
    }
  }

  /** The cached version; with `verify`, only if its digest is right. */
  async #findIntact(cache: LocalCache, request: FetchRequest): Promise<CachedFile | undefined> {
    const cached = this.#tryCache(() => cache.find(request.name, request.version));
    if (cached === undefined || !request.verify) return cached;
    if ((await digestOfFile(cached.path, request.signal)) === cached.digest) return cached;
    const versionedName = formatVersionedName(cached.name, cached.version);
    if (cached.local === true) {
      throw new FiletrackerError(
        'damaged-blob',
        `Cannot serve "${versionedName}": its blob is damaged, and there is no other copy`,
      );
    }
    this.#tryCache(() => cache.discard(cached.digest));
    this.#parts.warn(`The cached blob of "${versionedName}" was damaged and is fetched again`);
    return undefined;
  }

  async #findThroughCache(work: CachedFetch): Promise<Found> {
    const { request, cache } = work;
    const beganMs = this.#parts.clock.nowMs();
    const lock = request.addToCache
      ? await cache.lockName(request.name, request.signal).catch(this.#cacheFailed)
      : undefined;
    try {
      const held = request.forceRefresh ? undefined : await this.#findIntact(cache, request);
      // Another process may have fetched it while this one waited for the lock.
      const isCurrent = request.version !== undefined || (held?.checkedMs ?? -Infinity) >= beganMs;
      if (held !== undefined && isCurrent) return { kind: 'cached', file: held, cached: false };
      return await this.#requestFile(work, held, lock !== undefined);
    } finally {
      lock?.release();
    }
  }

  /** Requests a file from the server, naming what the cache holds; with `add` a new blob goes into the cache. */
  async #requestFile(work: CachedFetch, held: CachedFile | undefined, add: boolean): Promise<Found> {
    const { request, remote, cache } = work;
    const checkedMs = this.#parts.clock.nowMs();
    const found = await this.#openRemote(remote, request, held);
    if (found.kind === 'cached') {
      if (add && found.file.version !== held?.version) await this.#remember(cache, found.file);
      return found;
    }
    const { file, content } = found;
    const { version, etag, digest, size } = file;
    const isSame = held !== undefined && (digest === held.digest || isSameLegacy(file, held));
    if (isSame && version === held.version) {
      content.cancel();
      return { kind: 'cached', file: held, cached: true };
    }
    if (!add) return found;
    const known = { version, etag, checkedMs };
    // A small body is received all the same: to cancel it would cost the connection.
    if (digest !== undefined && size !== undefined && !request.forceRefresh && !isSmall(content)) {
      const path = this.#tryCache(() => cache.findBlob(digest, size));
      if (path !== undefined) {
        content.cancel();
        const cached = { ...known, name: request.name, digest, size, path };
        await this.#remember(cache, cached);
        return { kind: 'cached', file: cached, cached: false };
      }
    }
    const small = await receiveSmall(remote, content, this.#downloadOptions(request));
    if (small === undefined) return await this.#addLarge(work, content, known);
    return await this.#addSmall(work, file, small, known);
  }

  /** Requests a file; the server need not send it if it is the one that is `held`. */
  async #openRemote(
    remote: RemoteStore,
    request: FetchRequest,
    held?: CachedFile,
  ): Promise<Exclude<Found, { kind: 'memory' }>> {
    const { name, version, signal } = request;
    const etags = held?.etag === undefined ? [] : [held.etag];
    const answer = await remote.open(name, { etags, signal });
    if (answer.kind === 'absent') throw this.#absent(request);
    if (answer.kind === 'unchanged') {
      if (held === undefined) {
        const state = 'the server reports "not modified" to an unconditional request';
        throw new FiletrackerError('protocol', `Cannot get "${name}": ${state}`);
      }
      return { kind: 'cached', file: { ...held, version: answer.version ?? held.version }, cached: true };
    }
    const { file } = answer;
    if (version === undefined || file.version === version) {
      return { kind: 'remote', file, cached: false, content: answer, remote };
    }
    answer.cancel();
    throw new FiletrackerError(
      'not-found',
      `Cannot get "${formatVersionedName(name, version)}": the server holds version ${file.version} of it`,
      { details: { name, version: file.version } },
    );
  }

  async #addSmall(
    { request, cache }: CachedFetch,
    file: RemoteFile,
    { bytes, digest }: SmallContent,
    known: Omit<KnownVersion, 'digest' | 'size'>,
  ): Promise<Found> {
    const size = bytes.length;
    request.onProgress?.({ phase: 'fetching', done: size, total: size });
    if (request.forceRefresh) this.#tryCache(() => cache.discard(digest));
    const version = { ...known, digest, size };
    const cached = await cache.addBytes(request.name, version, bytes).catch(this.#cacheFailed);
    if (cached !== undefined) return { kind: 'cached', file: cached, cached: false, bytes };
    return { kind: 'memory', file: { ...file, size }, cached: false, bytes };
  }

  /** Downloads a blob into the cache; if the cache has no capacity for it, leaves it to be read from the server. */
  async #addLarge(
    { request, remote, cache }: CachedFetch,
    content: RemoteContent,
    known: Omit<KnownVersion, 'digest' | 'size'>,
  ): Promise<Found> {
    const { file } = content;
    const { digest, size } = file;
    if (request.forceRefresh && digest !== undefined) this.#tryCache(() => cache.discard(digest));
    const addition =
      size === undefined
        ? undefined
        : await cache.begin(size, digest, request.signal).catch(this.#cacheFailed);
    if (addition === undefined) return { kind: 'remote', file, cached: false, content, remote };
    try {
      let received: Digest | undefined;
      const isResumed = addition.presentBytes > 0;
      const chunks = verifiedChunks(remote, content, {
        ...this.#downloadOptions(request),
        meter: isResumed ? await measureFile(addition.path, request.signal) : undefined,
        onEnd: (measure) => (received = measure.digest),
      });
      await writeChunks(addition.path, chunks, (bytes) => cache.space.freeDisk(bytes));
      if (received === undefined) throw new Error('a download ended without its end');
      const version = { ...known, digest: received, size: size ?? 0 };
      const added = await addition.commit(request.name, version).catch((error: unknown) => {
        throw isCacheFailure(error) ? new SinkError(error) : error;
      });
      return { kind: 'cached', file: added, cached: false };
    } catch (error) {
      content.cancel();
      const keep = !isWrongContent(error) && digest !== undefined && !(error instanceof SinkError);
      await addition.abandon({ keep }).catch(this.#cacheFailed);
      if (!(error instanceof SinkError)) throw error;
      this.#cacheFailed(error.cause);
      return await this.#openRemote(remote, request);
    }
  }

  /** Downloads straight to the target; returns the size. */
  async #downloadTo(
    target: string,
    request: FetchRequest,
    remote: RemoteStore,
    content: RemoteContent,
  ): Promise<number> {
    const options = this.#downloadOptions(request);
    const { version } = content.file;
    try {
      const small = await receiveSmall(remote, content, options);
      if (small !== undefined) {
        const size = small.bytes.length;
        materializeBytes(small.bytes, version, target);
        request.onProgress?.({ phase: 'fetching', done: size, total: size });
        return size;
      }
      let size = 0;
      const onEnd = ({ sizeBytes }: { readonly sizeBytes: number }): void => void (size = sizeBytes);
      using partial = await PartialFile.beside(target);
      await writeChunks(partial.ownPath, verifiedChunks(remote, content, { ...options, onEnd }));
      setVersion(partial.ownPath, version);
      partial.publish(target);
      return size;
    } catch (error) {
      content.cancel();
      throw fromLocalError(error instanceof SinkError ? error.cause : error, `write "${target}"`);
    }
  }

  async #materialize(file: CachedFile, target: string, bytes: Buffer | undefined): Promise<boolean> {
    const { cache } = this.#parts;
    if (cache === undefined) return false;
    try {
      return await cache.materialize(file, target, { bytes });
    } catch (error) {
      if (errnoOf(error) !== 'ENOSPC') throw fromLocalError(error, `write "${target}"`);
    }
    // If the full disk is the cache's, the cache gives way: other blobs first, then this one itself.
    try {
      using _lock = await cache.lockBlob(file.digest);
      if (cache.sharesDiskWith(target)) await cache.space.freeDisk(file.size);
      return await cache.materialize(file, target);
    } catch (error) {
      if (errnoOf(error) === 'ENOSPC' && moveToTarget(file, target)) return true;
      throw fromLocalError(error, `write "${target}"`);
    }
  }

  #downloadOptions({ signal, onProgress }: FetchRequest): DownloadOptions {
    return { retries: this.#parts.retries, signal, onProgress };
  }

  async #remember(cache: LocalCache, { name, path: _path, ...known }: CachedFile): Promise<void> {
    await cache.remember(name, known).catch(this.#cacheFailed);
  }

  /** The result of `work`; `undefined`, and a warning, if the folder of the cache can't be used. */
  #tryCache<T>(work: () => T): T | undefined {
    try {
      return work();
    } catch (error) {
      return this.#cacheFailed(error);
    }
  }

  /** If there is a server, an unusable cache fails no request; other errors do. */
  readonly #cacheFailed = (error: unknown): undefined => {
    if (!isCacheFailure(error) || this.#parts.remote === undefined)
      throw fromLocalError(error, 'use the cache');
    const translated = fromLocalError(error, `use the cache "${this.#parts.cache?.folder ?? ''}"`);
    this.#parts.warn(`${messageOf(translated)}; continuing without it`);
    return undefined;
  };

  #absent({ name, version, offline }: FetchRequest): FiletrackerError {
    const { remote, cache } = this.#parts;
    const shown = version === undefined ? name : formatVersionedName(name, version);
    const state =
      remote === undefined || offline
        ? `the cache "${cache?.folder ?? ''}" does not hold it`
        : `there is no such file on the server at "${remote.shown}"`;
    return new FiletrackerError('not-found', `Cannot get "${shown}": ${state}`, { details: { name } });
  }
}

/** Whether an error concerns the folder of the cache, and not the file or the server. */
function isCacheFailure(error: unknown): boolean {
  return (
    errnoOf(error) !== undefined ||
    isFiletrackerError(error, 'io') ||
    isFiletrackerError(error, 'read-only') ||
    isFiletrackerError(error, 'no-space')
  );
}

/** A legacy server reports no digest: a version that it still has is the content that it had. */
function isSameLegacy(file: RemoteFile, held: CachedFile): boolean {
  return file.digest === undefined && file.version === held.version && (file.size ?? held.size) === held.size;
}
