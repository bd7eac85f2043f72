import { randomBytes } from 'node:crypto';
import { Readable } from 'node:stream';
import { Semaphore, throwIfAborted } from '../../core/concurrency.ts';
import type { Encoding } from '../../core/blob.ts';
import { FiletrackerError } from '../../core/errors.ts';
import type {
  BlobKey,
  BlobReadOptions,
  BlobStore,
  BlobStoreCapabilities,
  FoundBlob,
  Placement,
  StageOptions,
  StagedUpload,
} from '../blob-store.ts';
import { isAbsence, isBeyondEnd, S3Connection, type S3ConnectionOptions } from './s3-connection.ts';
import {
  abortUpload,
  completeUpload,
  listObjects,
  listParts,
  listUploads,
  removeObject,
  sizeOf,
  type UnfinishedUpload,
} from './s3-objects.ts';
import { probeFolder, S3Probe } from './s3-probe.ts';
import { bodyFor, shortBlob } from './s3-range.ts';
import { partSizeBytes, S3Upload, type S3UploadOptions } from './s3-upload.ts';

export interface S3BlobStoreOptions extends S3ConnectionOptions {
  /** Uploads larger than 1 MiB at once. Each holds up to 16 MiB in memory; one beyond 77 GiB counts as several. */
  readonly largeUploadsMax?: number | undefined;
  /** Whether other processes place the uploads of this one: then none waits in memory. */
  readonly placedElsewhere?: boolean | undefined;
}

const largeUploadsMax = 32;
/** Uploads of unannounced size that have grown beyond 39 GiB, each with 128 MiB in memory. */
const largePartsMax = 2;
const keyForm = /^[0-9a-f]{32}$/;
const folder = 'blobs/';
const quarantineFolder = 'quarantine/';
const placeForm = /^[\w-]{1,64}$/;
/** Requests at once for many objects. */
const requestsAtOnce = 16;

/**
 * Blobs as objects of one bucket: `<prefix>blobs/<key>`, the key being a random name that the upload was given.
 *
 * Invariant: an object exists under a key only once the upload of that name has been placed, whole. It never changes,
 * and a key is used once. Uploads in progress are unfinished multipart uploads of the bucket, or, as long as they fit one
 * part, memory of this process. Discarding ends uploads and never removes an object. Nothing here relies on conditional
 * requests, on checksums, or on what a server does with two writers.
 *
 * The key does not name the content, because it is needed before the content is known; the catalog maps one to the other.
 */
export class S3BlobStore implements BlobStore {
  readonly capabilities: BlobStoreCapabilities = {
    keysFollowContent: false,
    digestOnRead: true,
    presign: true,
  };
  readonly #connection: S3Connection;
  readonly #slots: Semaphore;
  readonly #largeParts = new Semaphore(largePartsMax);
  readonly #probe: S3Probe;
  readonly #heldSizeMaxBytes: number;
  readonly #uploads = new Map<string, S3Upload>();

  private constructor(connection: S3Connection, options: S3BlobStoreOptions) {
    this.#connection = connection;
    this.#probe = new S3Probe(connection);
    this.#slots = new Semaphore(options.largeUploadsMax ?? largeUploadsMax);
    this.#heldSizeMaxBytes = options.placedElsewhere === true ? 0 : partSizeBytes;
  }

  /** Sends no request yet: a store that cannot be reached now may be available soon. */
  static async open(options: S3BlobStoreOptions): Promise<S3BlobStore> {
    return new S3BlobStore(await S3Connection.create(options), options);
  }

  async stage(options: StageOptions = {}): Promise<StagedUpload> {
    const stagedId = randomBytes(16).toString('hex');
    const upload = this.#upload(stagedId, objectOf(stagedId), {
      ...options,
      heldSizeMaxBytes: this.#heldSizeMaxBytes,
      onEnd: () => this.#uploads.delete(stagedId),
    });
    this.#uploads.set(stagedId, upload);
    return upload;
  }

  #upload(
    stagedId: string,
    key: string,
    options: StageOptions & Pick<S3UploadOptions, 'heldSizeMaxBytes' | 'onEnd'>,
  ): S3Upload {
    return new S3Upload({
      ...options,
      encoding: options.encoding ?? 'identity',
      connection: this.#connection,
      stagedId,
      key,
      slots: this.#slots,
      largeParts: this.#largeParts,
    });
  }

  async place(placements: readonly Placement[]): Promise<readonly BlobKey[]> {
    await Promise.all(placements.map(({ stagedId }) => this.#place(stagedId)));
    return placements.map(({ stagedId }) => stagedId);
  }

  async #place(stagedId: string): Promise<void> {
    const upload = this.#uploads.get(stagedId);
    if (upload !== undefined) {
      await upload.place();
      return;
    }
    // Staged by another process, or placed by an earlier call.
    const key = objectOf(stagedId);
    const [uploadId] = await this.#unfinished(key);
    if (uploadId !== undefined) {
      const parts = await listParts(this.#connection, key, uploadId);
      const sizeBytes = parts.reduce((sum, part) => sum + part.sizeBytes, 0);
      const completed = parts.map(({ PartNumber, ETag }) => ({ PartNumber, ETag }));
      await completeUpload(this.#connection, { key, uploadId }, completed, sizeBytes);
      return;
    }
    if ((await sizeOf(this.#connection, key)) !== undefined) return;
    throw new FiletrackerError('not-found', `Cannot place the upload "${stagedId}": it is gone`);
  }

  async #unfinished(key: string): Promise<string[]> {
    const found: string[] = [];
    for await (const upload of listUploads(this.#connection, key)) {
      if (upload.key === key) found.push(upload.uploadId);
    }
    return found;
  }

  async discard(stagedId: string): Promise<void> {
    const upload = this.#uploads.get(stagedId);
    if (upload !== undefined) {
      await upload.discard();
      return;
    }
    const key = objectOf(stagedId);
    for (const uploadId of await this.#unfinished(key)) await abortUpload(this.#connection, key, uploadId);
  }

  async open(key: BlobKey, options: BlobReadOptions = {}): Promise<Readable | undefined> {
    const { range, storedSize, signal } = options;
    throwIfAborted(signal, 'open a blob');
    if (range !== undefined && (range.length === 0 || range.start === storedSize)) return Readable.from([]);
    const command = new this.#connection.library.GetObjectCommand({
      ...this.#connection.at(objectOf(key)),
      ...(range !== undefined && { Range: `bytes=${range.start}-${range.start + range.length - 1}` }),
    });
    try {
      const response = await this.#connection.send('open a blob', command, { signal });
      const body = response.Body;
      if (!(body instanceof Readable)) {
        throw new FiletrackerError('io', 'Cannot open a blob: the object store sent no body');
      }
      if (signal !== undefined) {
        const abort = (): void => void body.destroy(abortedError(signal));
        signal.addEventListener('abort', abort, { once: true });
        // A signal may be shared by thousands of objects, as in a verification.
        body.once('close', () => signal.removeEventListener('abort', abort));
      }
      const whole = range === undefined || response.ContentRange === undefined;
      return bodyFor(body, response.ContentLength, { options, whole });
    } catch (error) {
      if (isAbsence(error)) return this.#notFound(key);
      if (isBeyondEnd(error)) {
        const size = await this.size(key);
        if (range !== undefined && size === range.start) return Readable.from([]);
        throw shortBlob(size ?? 0, storedSize ?? 0);
      }
      throw error;
    }
  }

  /** Makes sure that the object is absent: a blob that is reported missing may be given up for lost. */
  async #notFound(key: BlobKey): Promise<undefined> {
    if ((await this.size(key)) === undefined) return undefined;
    throw new FiletrackerError(
      'unavailable',
      'Cannot open a blob: the object store lists it but does not send it; try again',
    );
  }

  async size(key: BlobKey): Promise<number | undefined> {
    return sizeOf(this.#connection, objectOf(key));
  }

  async remove(keys: readonly BlobKey[]): Promise<void> {
    // One by one, because servers disagree about what a request that removes many must carry.
    const waiting = [...keys];
    const worker = async (): Promise<void> => {
      for (let key = waiting.pop(); key !== undefined; key = waiting.pop()) {
        await removeObject(this.#connection, objectOf(key), 'remove a blob');
      }
    };
    await Promise.all(Array.from({ length: Math.min(requestsAtOnce, keys.length) }, worker));
  }

  async *list(options: { signal?: AbortSignal } = {}): AsyncIterable<FoundBlob> {
    for await (const found of listObjects(this.#connection, folder, options.signal)) {
      const key = found.key.slice(folder.length);
      if (keyForm.test(key)) yield { key, storedSize: found.sizeBytes, modifiedMs: found.modifiedMs };
    }
  }

  async sweepStaged(beforeMs: number): Promise<number> {
    let swept = 0;
    const own = new Set<string>();
    for (const upload of this.#uploads.values()) {
      if (upload.uploadId !== undefined) own.add(upload.uploadId);
      if (upload.lastWrittenMs >= beforeMs) continue;
      await upload.discard();
      swept += 1;
    }
    for await (const { key, uploadId } of this.#uploadsBefore(beforeMs)) {
      if (own.has(uploadId)) continue;
      await abortUpload(this.#connection, key, uploadId);
      swept += 1;
    }
    await this.#sweepProbes(beforeMs);
    return swept;
  }

  /**
   * Uploads that began before `beforeMs` and have received no part since: an upload may take days, and some servers
   * report the same beginning for all.
   */
  async *#uploadsBefore(beforeMs: number): AsyncGenerator<UnfinishedUpload> {
    for await (const upload of this.#allUploads()) {
      if (upload.initiatedMs >= beforeMs) continue;
      if (beforeMs <= Date.now() && (await this.#hasPartSince(upload, beforeMs))) continue;
      yield upload;
    }
  }

  async #hasPartSince({ key, uploadId }: UnfinishedUpload, sinceMs: number): Promise<boolean> {
    try {
      const parts = await listParts(this.#connection, key, uploadId);
      return parts.some(({ modifiedMs }) => modifiedMs >= sinceMs);
    } catch (error) {
      // It has ended meanwhile; to end it again does no harm.
      if (isAbsence(error)) return false;
      throw error;
    }
  }

  /** Every upload below the prefix. MinIO lists the uploads of one key or of the whole bucket, but not of a folder. */
  async *#allUploads(): AsyncGenerator<UnfinishedUpload> {
    let found = false;
    for await (const upload of listUploads(this.#connection, folder)) {
      found = true;
      yield upload;
    }
    if (found) return;
    for await (const upload of listUploads(this.#connection, undefined)) {
      if (upload.key.startsWith(folder)) yield upload;
    }
  }

  /** Names of the unfinished uploads that began before `beforeMs`. */
  async staged(beforeMs: number): Promise<readonly string[]> {
    const found: string[] = [];
    for await (const { key } of this.#uploadsBefore(beforeMs)) found.push(key.slice(folder.length));
    return found;
  }

  /** Whether this could be a key of this store. */
  isKey(key: string): boolean {
    return keyForm.test(key);
  }

  /**
   * Moves an object out of the store, to `<prefix>quarantine/<place>/<key>`; absence is no error. Its bytes pass through
   * this process: not every server copies large objects, or any.
   */
  async setAside(key: BlobKey, place: string): Promise<void> {
    if (!placeForm.test(place)) throw new TypeError('The place in the quarantine has a bad form');
    const sizeBytes = await this.size(key);
    const source = sizeBytes === undefined ? undefined : await this.open(key, { storedSize: sizeBytes });
    if (source === undefined) return;
    const upload = this.#upload(key, `${quarantineFolder}${place}/${key}`, {
      announcedSize: sizeBytes,
      heldSizeMaxBytes: partSizeBytes,
      onEnd: () => undefined,
    });
    try {
      for await (const piece of source as AsyncIterable<Uint8Array>) await upload.write(piece);
      await upload.seal();
      await upload.place();
    } catch (error) {
      await upload.discard();
      throw error;
    }
    await this.remove([key]);
  }

  /** Removes the objects of probes that were interrupted. */
  async #sweepProbes(beforeMs: number): Promise<void> {
    for await (const { key, modifiedMs } of listObjects(this.#connection, probeFolder)) {
      if (modifiedMs < beforeMs) await removeObject(this.#connection, key, 'remove a probe');
    }
  }

  presign(key: BlobKey, lifetimeSeconds: number, encoding: Encoding = 'identity'): Promise<string> {
    return this.#connection.presign(objectOf(key), lifetimeSeconds, encoding);
  }

  /** Requests a list of one object, and every few seconds writes and reads an object. */
  async probe({ signal }: { signal?: AbortSignal } = {}): Promise<void> {
    const { library, bucket, prefix } = this.#connection;
    const list = { Bucket: bucket, Prefix: `${prefix}${folder}`, MaxKeys: 1 };
    const command = new library.ListObjectsV2Command(list);
    await this.#connection.send('reach the object store', command, { signal });
    await this.#probe.run();
  }

  async close(): Promise<void> {
    this.#connection.close();
  }
}

/** The object of a key, below the prefix. Every key passes this check before it becomes part of a URL. */
function objectOf(key: string): string {
  if (keyForm.test(key)) return `${folder}${key}`;
  throw new FiletrackerError(
    'invalid-argument',
    `Cannot use ${JSON.stringify(key)} as a blob's key: bad form`,
  );
}

function abortedError(signal: AbortSignal): FiletrackerError {
  return new FiletrackerError('aborted', 'Cannot read a blob: it was aborted', { cause: signal.reason });
}
