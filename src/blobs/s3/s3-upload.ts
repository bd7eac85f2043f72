import type { CompletedPart } from '@aws-sdk/client-s3';
import { type Semaphore, throwIfAborted } from '../../core/concurrency.ts';
import type { Encoding } from '../../core/blob.ts';
import { FiletrackerError } from '../../core/errors.ts';
import type { StagedUpload } from '../blob-store.ts';
import { isAbsence, type S3Connection } from './s3-connection.ts';
import { abortUpload, completeUpload } from './s3-objects.ts';

const mib = 1024 * 1024;

/** Size of the parts of an upload; all but the last have it, because some servers require equal parts. */
export const partSizeBytes = 8 * mib;
/** The most parts that S3 allows. */
const partsMax = 10_000;
/** Parts that an announced size is divided into, so that a little more may come than was announced. */
const plannedPartsMax = 9_900;
/** If no size is announced, parts beyond this number are larger. */
const equalPartsMax = 5_000;
const largePartSizeBytes = 64 * mib;
/** Uploads beyond this size need a slot. */
const freeSizeBytes = 1 * mib;

export interface S3UploadOptions {
  readonly connection: S3Connection;
  readonly stagedId: string;
  readonly key: string;
  /** For large uploads: a slot is at most two parts of `partSizeBytes` in memory. */
  readonly slots: Semaphore;
  /** For uploads whose parts have become larger than their slots allow. */
  readonly largeParts: Semaphore;
  /** About how many bytes will come, if known. */
  readonly announcedSize?: number | undefined;
  /** Stored size up to which an upload stays in memory until it is placed; 0 for none. */
  readonly heldSizeMaxBytes: number;
  readonly encoding: Encoding;
  readonly signal?: AbortSignal | undefined;
  readonly onEnd: () => void;
}

/**
 * One upload on its way to the bucket.
 *
 * Invariant: until it is placed there is no object under its key. A small upload stays in memory and becomes an object by
 * one request; a larger one is sent in parts, which become an object when they are completed.
 * Memory: what is collected for the next part, and the part that is being sent.
 */
export class S3Upload implements StagedUpload {
  readonly stagedId: string;
  readonly #options: S3UploadOptions;
  readonly #connection: S3Connection;
  readonly #plannedPartSize: number | undefined;
  #state: 'open' | 'sealed' | 'placed' | 'discarded' = 'open';
  #collected: Uint8Array[] = [];
  #collectedBytes = 0;
  #sizeBytes = 0;
  #uploadId: string | undefined;
  #parts: CompletedPart[] = [];
  #sending: Promise<void> | undefined;
  #releaseSlot: (() => void) | undefined;
  #releaseLargeParts: (() => void) | undefined;
  lastWrittenMs = Date.now();

  constructor(options: S3UploadOptions) {
    const { announcedSize } = options;
    this.stagedId = options.stagedId;
    this.#options = options;
    this.#connection = options.connection;
    this.#plannedPartSize = announcedSize === undefined ? undefined : partSizeFor(announcedSize);
  }

  get uploadId(): string | undefined {
    return this.#uploadId;
  }

  async write(bytes: Uint8Array): Promise<void> {
    throwIfAborted(this.#options.signal, 'write an upload');
    this.#checkState('open');
    this.lastWrittenMs = Date.now();
    this.#collected.push(bytes);
    this.#collectedBytes += bytes.length;
    this.#sizeBytes += bytes.length;
    if (this.#sizeBytes > freeSizeBytes) await this.#acquireSlots();
    const { heldSizeMaxBytes } = this.#options;
    if (this.#uploadId === undefined && this.#sizeBytes <= Math.max(heldSizeMaxBytes, partSizeBytes)) return;
    while (this.#collectedBytes >= this.#partSize()) await this.#sendPart(this.#partSize());
  }

  async seal(): Promise<number> {
    this.#checkState('open');
    throwIfAborted(this.#options.signal, 'write an upload');
    const held = this.#uploadId === undefined && this.#sizeBytes <= this.#options.heldSizeMaxBytes;
    if (!held) {
      while (this.#collectedBytes > this.#partSize()) await this.#sendPart(this.#partSize());
      // An empty upload has one empty part.
      if (this.#collectedBytes > 0 || this.#parts.length === 0) await this.#sendPart(this.#collectedBytes);
      await this.#settleSending();
    }
    this.#state = 'sealed';
    this.#releaseSlots();
    return this.#sizeBytes;
  }

  /** Makes the object. @throws FiletrackerError `not-found` if the upload is gone. */
  async place(): Promise<void> {
    if (this.#state === 'placed') return;
    this.#checkState('sealed');
    const at = { key: this.#options.key, uploadId: this.#uploadId };
    if (at.uploadId === undefined) await this.#putWhole();
    else
      await completeUpload(this.#connection, { ...at, uploadId: at.uploadId }, this.#parts, this.#sizeBytes);
    this.#state = 'placed';
    this.#end();
  }

  async discard(): Promise<void> {
    if (this.#state === 'placed' || this.#state === 'discarded') return;
    this.#state = 'discarded';
    this.#end();
    await this.#sending?.catch(() => undefined); // The writer, which discards now, has its error.
    if (this.#uploadId !== undefined) await abortUpload(this.#connection, this.#options.key, this.#uploadId);
  }

  #end(): void {
    this.#collected = [];
    this.#collectedBytes = 0;
    this.#releaseSlots();
    this.#options.onEnd();
  }

  #checkState(state: 'open' | 'sealed'): void {
    if (this.#state === state) return;
    const text = `Cannot use the upload "${this.stagedId}": it is ${this.#state}`;
    throw new FiletrackerError(this.#state === 'discarded' ? 'not-found' : 'invalid-argument', text);
  }

  #partSize(): number {
    if (this.#plannedPartSize !== undefined) return this.#plannedPartSize;
    return this.#releaseLargeParts === undefined ? partSizeBytes : largePartSizeBytes;
  }

  async #acquireSlots(): Promise<void> {
    const { slots, largeParts, signal } = this.#options;
    const count = Math.ceil((this.#plannedPartSize ?? partSizeBytes) / partSizeBytes);
    this.#releaseSlot ??= await slots.acquire('write an upload', { count, signal });
    const outgrown = this.#plannedPartSize === undefined && this.#parts.length >= equalPartsMax;
    if (outgrown) this.#releaseLargeParts ??= await largeParts.acquire('write an upload', { signal });
  }

  #releaseSlots(): void {
    this.#releaseSlot?.();
    this.#releaseSlot = undefined;
    this.#releaseLargeParts?.();
    this.#releaseLargeParts = undefined;
  }

  /** Begins to send the first `sizeBytes` of what is collected, once the part before is sent. */
  async #sendPart(sizeBytes: number): Promise<void> {
    await this.#settleSending();
    if (this.#parts.length >= partsMax) throw tooManyParts(this.#sizeBytes);
    this.#uploadId ??= await this.#begin();
    const all = Buffer.concat(this.#collected);
    const body = all.subarray(0, sizeBytes);
    // Copied, because a view would keep the whole part in memory.
    this.#collected = all.length > sizeBytes ? [Buffer.from(all.subarray(sizeBytes))] : [];
    this.#collectedBytes = all.length - sizeBytes;
    this.#sending = this.#send(this.#uploadId, this.#parts.length + 1, body);
    // Awaited when the next part is due, or at the end.
    this.#sending.catch(() => undefined);
  }

  /** Waits for the part that is being sent. One that failed stays, and fails the upload each time. */
  async #settleSending(): Promise<void> {
    await this.#sending;
    this.#sending = undefined;
  }

  async #begin(): Promise<string> {
    const { key, encoding, signal } = this.#options;
    const at = { ...this.#connection.at(key), ...labels(encoding) };
    const command = new this.#connection.library.CreateMultipartUploadCommand(at);
    const { UploadId } = await this.#connection.send('begin an upload', command, { signal });
    if (UploadId !== undefined) return UploadId;
    throw new FiletrackerError('io', 'Cannot begin an upload: the object store did not name it');
  }

  async #send(uploadId: string, partNumber: number, body: Buffer): Promise<void> {
    const { key, signal } = this.#options;
    const command = new this.#connection.library.UploadPartCommand({
      ...this.#connection.at(key),
      UploadId: uploadId,
      PartNumber: partNumber,
      Body: body,
      ContentLength: body.length,
    });
    const { ETag } = await this.#connection
      .send('write an upload', command, { signal, slow: true })
      .catch((error: unknown) => {
        // The upload was swept, or the server lost it: for the client that is no absence, but a reason to try again.
        if (!isAbsence(error)) throw error;
        const text = 'Cannot write an upload: the object store has discarded it; try again';
        throw new FiletrackerError('unavailable', text, { cause: error });
      });
    this.#parts.push({ PartNumber: partNumber, ETag });
  }

  async #putWhole(): Promise<void> {
    const body = Buffer.concat(this.#collected);
    const command = new this.#connection.library.PutObjectCommand({
      ...this.#connection.at(this.#options.key),
      Body: body,
      ContentLength: body.length,
      ...labels(this.#options.encoding),
    });
    await this.#connection.send('place a blob', command, { slow: body.length > mib });
  }
}

/**
 * What an object says of itself to a client that reads it directly: not every server labels it as a URL requests. No
 * proxy may unpack it, which some do with what is labelled as gzip.
 */
function labels(encoding: Encoding) {
  return {
    ContentType: 'application/octet-stream',
    CacheControl: 'no-transform',
    ...(encoding === 'gzip' && { ContentEncoding: encoding }),
  };
}

/**
 * Size of the parts of an upload of about `announcedSize` bytes. The stored form can be a little larger than the content.
 * 1 TiB makes parts of 106 MiB.
 */
export function partSizeFor(announcedSize: number): number {
  return Math.max(partSizeBytes, Math.ceil(announcedSize / plannedPartsMax / mib) * mib);
}

function tooManyParts(sizeBytes: number): FiletrackerError {
  return new FiletrackerError(
    'too-large',
    `Cannot write an upload: it has the maximum number of parts after ${sizeBytes} bytes; announce its size by Content-Length or Logical-Size`,
  );
}
