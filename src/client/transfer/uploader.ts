import { FiletrackerError, isFiletrackerError, messageOf } from '../../core/errors.ts';
import { formatVersionedName } from '../../core/file-name.ts';
import type { FileName, VersionedName } from '../../core/file-name.ts';
import type { FileVersion } from '../../core/file-version.ts';
import type { ProgressListener } from './download.ts';
import type { FetcherParts } from './fetcher.ts';
import type { PutOptions, StoredFile } from '../file-client.ts';
import type { KnownVersion } from '../cache/names.ts';
import type { LocalCache } from '../cache/local-cache.ts';
import { fromLocalError } from '../local-errors.ts';
import { LengthRequiredError } from '../http/remote-store.ts';
import type { RemoteStore, UploadAnswer, UploadContent } from '../http/remote-store.ts';
import { prepareUpload, requireUnchanged, sourceFile } from './upload-content.ts';
import type { PreparedUpload, SourceFile } from './upload-content.ts';

/** Sends local files to the server and keeps them in the cache. */
export class Uploader {
  readonly #parts: FetcherParts;

  constructor(parts: FetcherParts) {
    this.#parts = parts;
  }

  /**
   * Puts the file at `path`. The content counts as it was at one instant: a file that changes on the way is
   * an error and leaves what was stored.
   */
  async put(
    { name, version }: VersionedName,
    path: string,
    versionOf: (mtimeNs: bigint) => FileVersion,
    options: PutOptions,
  ): Promise<StoredFile> {
    const toRemote = options.toRemoteStore !== false && this.#parts.remote !== undefined;
    const toLocal = options.toLocalStore !== false && this.#parts.cache !== undefined;
    if (!toRemote && !toLocal) throw storedNowhere(name);
    const source = sourceFile(path);
    const wanted = version ?? versionOf(source.mtimeNs);
    const remote = toRemote ? this.#parts.remote : undefined;
    const { content, answer } = await this.#prepareAndSend(
      remote,
      { name, version: wanted },
      source,
      options,
    );
    const { digest, size } = content;
    const known: KnownVersion = { version: wanted, digest, size };
    const sent = answer?.sent ?? false;
    const cache = toLocal ? this.#parts.cache : undefined;
    if (remote === undefined && cache !== undefined) {
      return storedFile(
        name,
        await this.#storeAlone(cache, name, known, source, options.signal),
        wanted,
        sent,
      );
    }
    const now = answer?.version ?? wanted;
    if (answer?.removed === true) throw removedSince(name, wanted, now);
    // Where a newer version stays, this content is not what the name stands for.
    if (now > wanted) return storedFile(name, { version: now }, wanted, sent);
    if (cache !== undefined) await this.#keep(cache, name, known, source, options.signal);
    return storedFile(name, known, wanted, sent);
  }

  /** A proxy that takes no body without a length gets one that was compressed before. */
  async #prepareAndSend(
    remote: RemoteStore | undefined,
    named: { readonly name: FileName; readonly version: FileVersion },
    source: SourceFile,
    options: PutOptions,
  ): Promise<{ readonly content: UploadContent; readonly answer: UploadAnswer | undefined }> {
    for (let tries = 1; ; tries += 1) {
      await using prepared = await this.#prepare(remote, source, options);
      const { content } = prepared;
      requireUnchanged(source);
      try {
        const answer = remote && (await this.#send(remote, named, source, prepared, options));
        return { content, answer };
      } catch (error) {
        if (!(error instanceof LengthRequiredError) || tries > 1) throw error;
      }
    }
  }

  async #prepare(
    remote: RemoteStore | undefined,
    source: SourceFile,
    { signal, onProgress, compressHint }: PutOptions,
  ): Promise<PreparedUpload> {
    // A version-1 server takes bodies as they are, and a cache needs the digest alone.
    const abilities = await remote?.abilities({ signal });
    const compress = compressHint !== false && abilities !== undefined && abilities.protocolVersion > 1;
    const features = abilities?.features;
    const streams = features?.has('expect-continue') === true && features.has('chunked-upload');
    return await prepareUpload(source, { compress, streams, signal, onProgress });
  }

  async #send(
    remote: RemoteStore,
    { name, version }: { readonly name: FileName; readonly version: FileVersion },
    source: SourceFile,
    { content, plain }: PreparedUpload,
    { signal, onProgress }: PutOptions,
  ): Promise<UploadAnswer> {
    const send = async (form: UploadContent): Promise<UploadAnswer> => {
      try {
        return await remote.put(name, version, observed(form, onProgress), { signal });
      } catch (error) {
        // The server's check of the digest is what sees a change that happened while the file was sent.
        if (isFiletrackerError(error, 'digest-mismatch')) requireUnchanged(source);
        throw error;
      }
    };
    try {
      return await send(content);
    } catch (error) {
      // A bound on what gzip may unpack to does not hold for the plain form; one on files does, and is told before it is sent.
      if (plain === undefined || !isFiletrackerError(error, 'too-large')) throw error;
      return await send(plain);
    }
  }

  /** Keeps what the server has; a cache that can't is no reason to fail. */
  async #keep(
    cache: LocalCache,
    name: FileName,
    known: KnownVersion,
    source: SourceFile,
    signal: AbortSignal | undefined,
  ): Promise<void> {
    try {
      using _lock = await cache.lockName(name, signal);
      await cache.addFile(name, known, source.path, () => requireUnchanged(source), signal);
    } catch (error) {
      if (isFiletrackerError(error, 'aborted')) throw error;
      const told = fromLocalError(error, `keep "${name}" in the cache`);
      this.#parts.warn(`${messageOf(told)}; the server has it`);
    }
  }

  /** Without a server the cache is the store: the newest version wins, is the only one that stays, and is given. */
  async #storeAlone(
    cache: LocalCache,
    name: FileName,
    known: KnownVersion,
    source: SourceFile,
    signal: AbortSignal | undefined,
  ): Promise<KnownVersion> {
    try {
      using _lock = await cache.lockName(name, signal);
      const newest = cache.find(name);
      if (newest !== undefined && newest.version > known.version) return newest;
      const check = (): void => requireUnchanged(source);
      const added = await cache.addFile(name, { ...known, local: true }, source.path, check, signal);
      if (added === undefined) {
        throw new FiletrackerError('no-space', `Cannot put "${name}": the cache has no room for it`);
      }
      await cache.makeDurable(added);
      await cache.forget(name, known.version - 1);
      return known;
    } catch (error) {
      throw fromLocalError(error, `put "${name}" into the cache "${cache.folder}"`);
    }
  }
}

/** The error of a put that had to be repeated and whose file was removed meanwhile. */
function removedSince(name: FileName, wanted: FileVersion, removed: FileVersion): FiletrackerError {
  const state = `version ${removed} was removed by another client while the upload was retried`;
  const advice = 'put it again to store it';
  return new FiletrackerError(
    'removed',
    `Cannot put "${formatVersionedName(name, wanted)}": ${state}; ${advice}`,
    { details: { name, version: removed } },
  );
}

/** The error of a put that would store nothing. */
export function storedNowhere(name: FileName): FiletrackerError {
  return new FiletrackerError(
    'invalid-argument',
    `Cannot put "${name}": neither server nor cache shall take it`,
  );
}

/** A content that tells as it is sent; what goes in one piece has nothing to tell, and what is made on the way does. */
function observed(content: UploadContent, onProgress: ProgressListener | undefined): UploadContent {
  const { bytes, size, transferSize } = content;
  if (onProgress === undefined || transferSize === undefined || Buffer.isBuffer(bytes)) return content;
  const counted = async function* (): AsyncGenerator<Uint8Array> {
    let sent = 0;
    for await (const piece of bytes()) {
      yield piece;
      sent += piece.length;
      onProgress({ phase: 'sending', done: Math.round((sent / transferSize) * size), total: size });
    }
  };
  return { ...content, bytes: counted };
}

function storedFile(
  name: FileName,
  now: Pick<KnownVersion, 'version'> & Partial<KnownVersion>,
  wanted: FileVersion,
  sent: boolean,
): StoredFile {
  const { version, digest, size } = now;
  const versionedName = formatVersionedName(name, version);
  return { name, version, versionedName, size, digest, stored: version <= wanted, sent };
}
