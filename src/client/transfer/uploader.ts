import { FiletrackerError, isFiletrackerError, messageOf } from '../../core/errors.ts';
import { formatVersionedName } from '../../core/file-name.ts';
import type { FileName, VersionedName } from '../../core/file-name.ts';
import type { FileVersion } from '../../core/file-version.ts';
import type { LocalCache } from '../cache/local-cache.ts';
import type { KnownVersion } from '../cache/names.ts';
import { infoOf } from '../client-base.ts';
import type { PutOptions, StoredFile } from '../file-client.ts';
import { LengthRequiredError } from '../http/remote-store.ts';
import type { RemoteStore, UploadResult, UploadContent } from '../http/remote-store.ts';
import { fromLocalError } from '../local-errors.ts';
import type { ProgressListener } from './download.ts';
import type { TransferParts } from './downloader.ts';
import { prepareUpload, requireUnchanged, sourceFile } from './upload-content.ts';
import type { PreparedUpload, SourceFile } from './upload-content.ts';

/** A file to put and the version to put it under. */
interface Upload {
  readonly name: FileName;
  readonly version: FileVersion;
  readonly source: SourceFile;
  readonly options: PutOptions;
}

/** Sends local files to the server and adds them to the cache. */
export class Uploader {
  readonly #parts: TransferParts;

  constructor(parts: TransferParts) {
    this.#parts = parts;
  }

  /**
   * Puts the file at `path`, as it was at one instant: if it changes during the upload, the put fails and leaves the
   * stored file.
   */
  async put(
    { name, version: asked }: VersionedName,
    path: string,
    versionOf: (mtimeNs: bigint) => FileVersion,
    options: PutOptions,
  ): Promise<StoredFile> {
    const remote = options.toRemoteStore === false ? undefined : this.#parts.remote;
    const cache = options.toLocalStore === false ? undefined : this.#parts.cache;
    if (remote === undefined && cache === undefined) throw storedNowhere(name);
    const source = sourceFile(path);
    const version = asked ?? versionOf(source.mtimeNs);
    const upload = { name, version, source, options };
    const { content, answer } = await this.#prepareAndSend(remote, upload);
    const { digest, size } = content;
    const known: KnownVersion = { version, digest, size };
    const sent = answer?.sent ?? false;
    if (remote === undefined && cache !== undefined) {
      return storedFile(name, await this.#storeInCache(cache, upload, known), version, sent);
    }
    const now = answer?.version ?? version;
    if (answer?.removed === true) throw removedSince(name, version, now);
    // The name stands for the newer version, not for this content.
    if (now > version) return storedFile(name, { version: now }, version, sent);
    if (cache !== undefined) await this.#addToCache(cache, upload, known);
    return storedFile(name, known, version, sent);
  }

  /** If a proxy refuses a body without a length, prepares and sends the upload once more with one. */
  async #prepareAndSend(
    remote: RemoteStore | undefined,
    upload: Upload,
  ): Promise<{ readonly content: UploadContent; readonly answer: UploadResult | undefined }> {
    for (let tries = 1; ; tries += 1) {
      await using prepared = await this.#prepare(remote, upload);
      const { content } = prepared;
      requireUnchanged(upload.source);
      try {
        return { content, answer: remote && (await this.#send(remote, upload, prepared)) };
      } catch (error) {
        if (!(error instanceof LengthRequiredError) || tries > 1) throw error;
      }
    }
  }

  async #prepare(remote: RemoteStore | undefined, { source, options }: Upload): Promise<PreparedUpload> {
    const { signal, onProgress, compressHint } = options;
    // A version-1 server takes no compressed bodies, and a cache needs only the digest.
    const abilities = await remote?.abilities({ signal });
    const compress = compressHint !== false && abilities !== undefined && abilities.protocolVersion > 1;
    const features = abilities?.features;
    const streams = features?.has('expect-continue') === true && features.has('chunked-upload');
    return await prepareUpload(source, { compress, streams, signal, onProgress });
  }

  async #send(
    remote: RemoteStore,
    { name, version, source, options: { signal, onProgress } }: Upload,
    { content, plain }: PreparedUpload,
  ): Promise<UploadResult> {
    const send = async (form: UploadContent): Promise<UploadResult> => {
      try {
        return await remote.put(name, version, observed(form, onProgress), { signal });
      } catch (error) {
        // The server's check of the digest detects a change of the file while it is sent.
        if (isFiletrackerError(error, 'digest-mismatch')) requireUnchanged(source);
        throw error;
      }
    };
    try {
      return await send(content);
    } catch (error) {
      // The server's limit on unpacking does not apply to the plain form. Its limit on file sizes fails before the body.
      if (plain === undefined || !isFiletrackerError(error, 'too-large')) throw error;
      return await send(plain);
    }
  }

  /** Adds a file that the server has; a failure of the cache is only a warning. */
  async #addToCache(
    cache: LocalCache,
    { name, source, options }: Upload,
    known: KnownVersion,
  ): Promise<void> {
    const { signal } = options;
    try {
      using _lock = await cache.lockName(name, signal);
      await cache.addFile(name, known, source.path, { check: () => requireUnchanged(source), signal });
    } catch (error) {
      if (isFiletrackerError(error, 'aborted')) throw error;
      const translated = fromLocalError(error, `keep "${name}" in the cache`);
      this.#parts.warn(`${messageOf(translated)}; the server has it`);
    }
  }

  /** Without a server the cache is the store: it keeps only the newest version, which is returned. */
  async #storeInCache(
    cache: LocalCache,
    { name, source, options: { signal } }: Upload,
    known: KnownVersion,
  ): Promise<KnownVersion> {
    try {
      using _lock = await cache.lockName(name, signal);
      const newest = cache.find(name);
      if (newest !== undefined && newest.version > known.version) return newest;
      const check = (): void => requireUnchanged(source);
      const local = { ...known, local: true };
      const added = await cache.addFile(name, local, source.path, { check, signal });
      if (added === undefined) {
        throw new FiletrackerError(
          'no-space',
          `Cannot put "${name}": the cache does not have the capacity for it`,
        );
      }
      await cache.makeDurable(added);
      await cache.forget(name, known.version - 1);
      return known;
    } catch (error) {
      throw fromLocalError(error, `put "${name}" into the cache "${cache.folder}"`);
    }
  }
}

/** The error of a put that was repeated, and whose file another client removed in between. */
function removedSince(name: FileName, wanted: FileVersion, removed: FileVersion): FiletrackerError {
  const state = `version ${removed} was removed by another client while the upload was retried`;
  return new FiletrackerError(
    'removed',
    `Cannot put "${formatVersionedName(name, wanted)}": ${state}; put it again to store it`,
    { details: { name, version: removed } },
  );
}

/** The error of a put that would store nothing. */
export function storedNowhere(name: FileName): FiletrackerError {
  return new FiletrackerError(
    'invalid-argument',
    `Cannot put "${name}": the options exclude both the server and the cache`,
  );
}

/** Reports progress as the body is sent. Bytes in memory report none; a streamed form reports as it is made. */
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
  const info = infoOf({ name, size: undefined, digest: undefined, ...now });
  return { ...info, stored: info.version <= wanted, sent };
}
