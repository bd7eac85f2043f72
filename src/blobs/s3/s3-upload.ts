import type { CompletedPart } from '@aws-sdk/client-s3';
import { type Semaphore, throwIfAborted } from '../../core/concurrency.ts';
import type { Encoding } from '../../core/blob.ts';
import { FiletrackerError, isFiletrackerError } from '../../core/errors.ts';
import type { StagedUpload } from '../blob-store.ts';
import { isAbsence, isRefusal, type S3Connection } from './s3-connection.ts';

const mib = 1024 * 1024;

/** Size of the parts of an upload; all but the last have it, because some servers ask for equal ones. */
export const partSizeBytes = 8 * mib;
/** The most parts that an upload may have. */
const partsMax = 10_000;
/** Of these many an announced size is made, so that a little more may come than was announced. */
const plannedPartsMax = 9_900;
/** Where no size is announced, parts beyond this number are larger. */
const equalPartsMax = 5_000;
const largePartSizeBytes = 64 * mib;
/** Uploads beyond this size are counted, and only so many of them go on at the same time. */
const freeSizeBytes = 1 * mib;

export interface S3UploadOptions {
  readonly connection: S3Connection;
  readonly stagedId: string;
  readonly key: string;
  /** Places for large uploads: each stands for two parts of `partSizeBytes` in memory at the most. */
  readonly slots: Semaphore;
  /** Places for uploads that have come to larger parts than they have slots for. */
  readonly largeParts: Semaphore;
  /** About as many bytes will come, where that is known. */
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
 * Invariant: until it is placed there is no object under its key. A small one stays in memory and becomes an
 * object in one request; a larger one goes out as parts, which become an object when they are put together.
 * Memory: what gathers for the next part, and the part that is being sent.
 */
export class S3Upload implements StagedUpload {
  readonly stagedId: string;
  readonly #options: S3UploadOptions;
  readonly #connection: S3Connection;
  #state: 'open' | 'sealed' | 'placed' | 'discarded' = 'open';
  #gathered: Uint8Array[] = [];
  #gatheredBytes = 0;
  #sizeBytes = 0;
  #uploadId: string | undefined;
  #parts: CompletedPart[] = [];
  #sending: Promise<void> | undefined;
  #slot: (() => void) | undefined;
  #largeParts: (() => void) | undefined;
  readonly #plannedPartSize: number | undefined;
  lastWrittenMs = Date.now();

  constructor(options: S3UploadOptions) {
    this.stagedId = options.stagedId;
    this.#options = options;
    this.#connection = options.connection;
    const { announcedSize } = options;
    this.#plannedPartSize = announcedSize === undefined ? undefined : partSizeFor(announcedSize);
  }

  get uploadId(): string | undefined {
    return this.#uploadId;
  }

  async write(bytes: Uint8Array): Promise<void> {
    throwIfAborted(this.#options.signal, 'write an upload');
    this.#checkState('open');
    this.lastWrittenMs = Date.now();
    this.#gathered.push(bytes);
    this.#gatheredBytes += bytes.length;
    this.#sizeBytes += bytes.length;
    if (this.#sizeBytes > freeSizeBytes) await this.#takeSlot();
    const { heldSizeMaxBytes } = this.#options;
    if (this.#uploadId === undefined && this.#sizeBytes <= Math.max(heldSizeMaxBytes, partSizeBytes)) return;
    while (this.#gatheredBytes >= this.#partSize()) await this.#sendPart(this.#partSize());
  }

  async seal(): Promise<number> {
    this.#checkState('open');
    throwIfAborted(this.#options.signal, 'write an upload');
    const held = this.#uploadId === undefined && this.#sizeBytes <= this.#options.heldSizeMaxBytes;
    if (!held) {
      while (this.#gatheredBytes > this.#partSize()) await this.#sendPart(this.#partSize());
      // An upload of nothing has one part of nothing.
      if (this.#gatheredBytes > 0 || this.#parts.length === 0) await this.#sendPart(this.#gatheredBytes);
      await this.#settleSending();
    }
    this.#state = 'sealed';
    this.#leaveSlot();
    return this.#sizeBytes;
  }

  /** Makes the object. @throws FiletrackerError `not-found` where the upload is gone. */
  async place(): Promise<void> {
    if (this.#state === 'placed') return;
    this.#checkState('sealed');
    if (this.#uploadId === undefined) await this.#putWhole();
    else
      await completeUpload(this.#connection, this.#options.key, this.#uploadId, this.#parts, this.#sizeBytes);
    this.#state = 'placed';
    this.#end();
  }

  async discard(): Promise<void> {
    if (this.#state === 'placed' || this.#state === 'discarded') return;
    this.#state = 'discarded';
    this.#end();
    await this.#sending?.catch(() => undefined); // Reported to the writer, who is the one to discard.
    if (this.#uploadId !== undefined) await abortUpload(this.#connection, this.#options.key, this.#uploadId);
  }

  #end(): void {
    this.#gathered = [];
    this.#gatheredBytes = 0;
    this.#leaveSlot();
    this.#options.onEnd();
  }

  #checkState(state: 'open' | 'sealed'): void {
    if (this.#state === state) return;
    const text = `Cannot use the upload "${this.stagedId}": it is ${this.#state}`;
    throw new FiletrackerError(this.#state === 'discarded' ? 'not-found' : 'invalid-argument', text);
  }

  #partSize(): number {
    return this.#plannedPartSize ?? (this.#largeParts === undefined ? partSizeBytes : largePartSizeBytes);
  }

  async #takeSlot(): Promise<void> {
    const { slots, largeParts, signal } = this.#options;
    const count = Math.ceil((this.#plannedPartSize ?? partSizeBytes) / partSizeBytes);
    this.#slot ??= await slots.acquire('write an upload', { count, signal });
    const outgrown = this.#plannedPartSize === undefined && this.#parts.length >= equalPartsMax;
    if (outgrown) this.#largeParts ??= await largeParts.acquire('write an upload', { signal });
  }

  #leaveSlot(): void {
    this.#slot?.();
    this.#slot = undefined;
    this.#largeParts?.();
    this.#largeParts = undefined;
  }

  /** Begins to send the first `sizeBytes` of what has gathered, once the part before is through. */
  async #sendPart(sizeBytes: number): Promise<void> {
    await this.#settleSending();
    if (this.#parts.length >= partsMax) throw tooManyParts(this.#sizeBytes);
    this.#uploadId ??= await beginUpload(this.#connection, this.#options);
    const all = Buffer.concat(this.#gathered);
    const body = all.subarray(0, sizeBytes);
    // Copied, because a view of it would keep the whole part in memory.
    this.#gathered = all.length > sizeBytes ? [Buffer.from(all.subarray(sizeBytes))] : [];
    this.#gatheredBytes = all.length - sizeBytes;
    const sending = this.#send(this.#uploadId, this.#parts.length + 1, body);
    // Looked at when the next part is due, or at the end.
    sending.catch(() => undefined);
    this.#sending = sending;
  }

  /** Waits for the part under way; one that failed stays, and fails the upload each time. */
  async #settleSending(): Promise<void> {
    await this.#sending;
    this.#sending = undefined;
  }

  async #send(uploadId: string, partNumber: number, body: Buffer): Promise<void> {
    const { library, client } = this.#connection;
    const { key, signal } = this.#options;
    const command = new library.UploadPartCommand({
      ...this.#connection.at(key),
      UploadId: uploadId,
      PartNumber: partNumber,
      Body: body,
      ContentLength: body.length,
    });
    const answer = await this.#connection
      .run('write an upload', (abortSignal) => client.send(command, { abortSignal }), { signal, slow: true })
      .catch((error: unknown) => {
        // Somebody swept it, or the server forgot it: for who uploads that is no absence, but a reason to try again.
        if (!isAbsence(error)) throw error;
        const text = 'Cannot write an upload: the object store has given it up, try again';
        throw new FiletrackerError('unavailable', text, { cause: error });
      });
    this.#parts.push({ PartNumber: partNumber, ETag: answer.ETag });
  }

  async #putWhole(): Promise<void> {
    const { library, client } = this.#connection;
    const body = Buffer.concat(this.#gathered);
    const command = new library.PutObjectCommand({
      ...this.#connection.at(this.#options.key),
      Body: body,
      ContentLength: body.length,
      ...labels(this.#options.encoding),
    });
    await this.#connection.run('place a blob', (abortSignal) => client.send(command, { abortSignal }), {
      slow: body.length > mib,
    });
  }
}

/**
 * What an object says of itself to who reads it directly: not every server labels it as an address asks. None may
 * unpack it on the way, which some do with what is labelled as gzip.
 */
function labels(encoding: Encoding) {
  return {
    ContentType: 'application/octet-stream',
    CacheControl: 'no-transform',
    ...(encoding === 'gzip' && { ContentEncoding: encoding }),
  };
}

/**
 * Size of the parts of an upload of about so many bytes: what is stored of a content can be a little more than the
 * content. 1 TiB makes parts of 106 MiB.
 */
export function partSizeFor(announcedSize: number): number {
  return Math.max(partSizeBytes, Math.ceil(announcedSize / plannedPartsMax / mib) * mib);
}

function tooManyParts(sizeBytes: number): FiletrackerError {
  return new FiletrackerError(
    'too-large',
    `Cannot write an upload: after ${sizeBytes} bytes there can be no more parts; announce its size by Content-Length or Logical-Size`,
  );
}

async function beginUpload(
  connection: S3Connection,
  { key, encoding, signal }: Pick<S3UploadOptions, 'key' | 'encoding' | 'signal'>,
): Promise<string> {
  const { library, client } = connection;
  const command = new library.CreateMultipartUploadCommand({
    ...connection.at(key),
    ...labels(encoding),
  });
  const answer = await connection.run(
    'begin an upload',
    (abortSignal) => client.send(command, { abortSignal }),
    { signal },
  );
  if (answer.UploadId !== undefined) return answer.UploadId;
  throw new FiletrackerError('io', 'Cannot begin an upload: the object store gave it no name');
}

/**
 * Puts parts together. What came of it is looked at in any case: not every server tells of every failure, and where the
 * answer to an earlier try got lost the upload is not there any more, which servers say in words of their own, and
 * the object is. No other upload has its key, so an object of its size is what it has become.
 */
export async function completeUpload(
  connection: S3Connection,
  key: string,
  uploadId: string,
  parts: readonly CompletedPart[],
  sizeBytes: number,
): Promise<void> {
  const { library, client } = connection;
  const command = new library.CompleteMultipartUploadCommand({
    ...connection.at(key),
    UploadId: uploadId,
    MultipartUpload: { Parts: [...parts] },
  });
  let refusal: FiletrackerError | undefined;
  try {
    await connection.run('place a blob', (abortSignal) => client.send(command, { abortSignal }), {
      slow: true,
    });
  } catch (error) {
    // Without an answer there is no telling, and no time left to ask.
    if (!isFiletrackerError(error) || !isRefusal(error)) throw error;
    refusal = error;
  }
  const found = await sizeOf(connection, key);
  if (found === sizeBytes) return;
  if (found !== undefined) {
    throw new FiletrackerError('io', `Cannot place a blob: ${found} of its ${sizeBytes} bytes arrived`);
  }
  if (refusal === undefined) {
    const text = 'Cannot place a blob: the object store took it and does not have it';
    throw new FiletrackerError('unavailable', text);
  }
  if (!isAbsence(refusal)) throw refusal;
  throw new FiletrackerError('not-found', 'Cannot place the upload: it is gone', { cause: refusal });
}

/** Removes the parts of an upload; none is no error. */
export async function abortUpload(connection: S3Connection, key: string, uploadId: string): Promise<void> {
  const { library, client } = connection;
  const command = new library.AbortMultipartUploadCommand({ ...connection.at(key), UploadId: uploadId });
  try {
    await connection.run('discard an upload', (abortSignal) => client.send(command, { abortSignal }));
  } catch (error) {
    if (!isAbsence(error)) throw error;
  }
}

/**
 * Size of an object, or undefined where there is none.
 * @throws FiletrackerError `unavailable` where there is no such bucket, among others.
 */
export async function sizeOf(connection: S3Connection, key: string): Promise<number | undefined> {
  const { library, client } = connection;
  const command = new library.HeadObjectCommand(connection.at(key));
  try {
    const answer = await connection.run('look at a blob', (abortSignal) =>
      client.send(command, { abortSignal }),
    );
    const size = answer.ContentLength ?? (await listedSizeOf(connection, key));
    if (size !== undefined) return size;
  } catch (error) {
    if (!isAbsence(error)) throw error;
    // An answer to HEAD has no body that would say what there is none of; only a list tells a missing bucket.
    await listedSizeOf(connection, key);
    return undefined;
  }
  throw new FiletrackerError('unavailable', 'Cannot look at a blob: the object store does not tell its size');
}

/** The same from a list, for servers that leave Content-Length out. */
async function listedSizeOf(connection: S3Connection, key: string): Promise<number | undefined> {
  const { library, client } = connection;
  const { Bucket, Key } = connection.at(key);
  const command = new library.ListObjectsV2Command({ Bucket, Prefix: Key, MaxKeys: 1 });
  const page = await connection.run('look at a blob', (abortSignal) => client.send(command, { abortSignal }));
  return page.Contents?.find((found) => found.Key === Key)?.Size;
}
