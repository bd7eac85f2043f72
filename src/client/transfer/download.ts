import { createReadStream } from 'node:fs';
import { open } from 'node:fs/promises';
import type { FileHandle } from 'node:fs/promises';
import { digestOf } from '../../core/digest.ts';
import type { Digest } from '../../core/digest.ts';
import { errnoOf, FiletrackerError, isFiletrackerError } from '../../core/errors.ts';
import { chunkSizeBytes, fileSizeMaxBytes } from '../../core/limits.ts';
import { joined } from '../../streams/chunks.ts';
import type { Chunks } from '../../streams/chunks.ts';
import { ContentMeter } from '../../streams/content-meter.ts';
import type { ContentMeasure } from '../../streams/content-meter.ts';
import { gunzipBytes, gunzipChunks } from '../../streams/gzip-decoder.ts';
import type { RemoteContent, RemoteFile, RemoteStore } from '../http/remote-store.ts';
import { Retries } from '../http/retries.ts';
import type { RetryPolicy } from '../http/retries.ts';

/** Bodies up to this size as they travel are taken into memory whole. */
const smallTransferMaxBytes = 64 * 1024;
/** What such a body may unpack to in memory. */
const smallContentMaxBytes = 1024 * 1024;

/**
 * Pieces in which gzip is unpacked, each by a turn of another thread: a get of 256 MiB of text took 1.6 s of processor time
 * so, and 2.1 s in single pieces of 64 KiB.
 */
const unpackedPieces = { sizeBytes: 256 * 1024, ahead: 4 };

/** How far a transfer is: an upload is read, for its digest, and then sent. */
export interface TransferProgress {
  readonly phase: 'fetching' | 'reading' | 'sending';
  /** Bytes of the content, before encoding. */
  readonly done: number;
  /** Undefined where a legacy server does not tell. */
  readonly total: number | undefined;
}

/** Called as bytes of a content pass. */
export type ProgressListener = (progress: TransferProgress) => void;

export interface DownloadOptions {
  readonly retries: RetryPolicy;
  readonly signal?: AbortSignal | undefined;
  readonly onProgress?: ProgressListener | undefined;
}

/** Thrown where the file on the server became another one while it was being fetched. */
export class RemoteChangedError extends FiletrackerError {
  constructor(name: string) {
    super('aborted', `Cannot get "${name}": it changed on the server while it was being fetched`, {
      retryable: true,
    });
  }
}

/** Whether what arrived is what the server said it would be. @throws FiletrackerError `digest-mismatch`, `size-mismatch`. */
function verify(file: RemoteFile, measure: ContentMeasure): void {
  const { digest, size } = file;
  if (size !== undefined && measure.sizeBytes !== size) throw wrongSize(file, measure.sizeBytes);
  if (digest === undefined || measure.digest === digest) return;
  throw new FiletrackerError(
    'digest-mismatch',
    `Cannot get "${file.name}": the content that came does not have the digest that the server names`,
    { details: { name: file.name, expected: digest, actual: measure.digest } },
  );
}

function wrongSize(file: RemoteFile, actual: number): FiletrackerError {
  return new FiletrackerError(
    'size-mismatch',
    `Cannot get "${file.name}": the content that came does not have the size that the server names`,
    { details: { name: file.name, expected: file.size ?? 0, actual } },
  );
}

/** The content before encoding. */
function decoded(content: RemoteContent): Chunks {
  // A piece more than there should be, so that the excess is told as what it is.
  const sizeMaxBytes =
    content.file.size === undefined ? fileSizeMaxBytes : content.file.size + chunkSizeBytes;
  return content.encoding === 'gzip'
    ? gunzipChunks(content.body, { sizeMaxBytes }, unpackedPieces)
    : content.body;
}

/** Whether a body is taken into memory whole. */
export function isSmall({ file, transferSize, encoding }: RemoteContent): boolean {
  if (transferSize === undefined || transferSize > smallTransferMaxBytes) return false;
  return (file.size ?? 0) <= smallContentMaxBytes && (file.size !== undefined || encoding === 'identity');
}

/** Takes a small content into memory and verifies it. Undefined where it is not small: nothing is read then. */
export async function receiveSmall(
  remote: RemoteStore,
  content: RemoteContent,
  options: DownloadOptions,
): Promise<{ readonly bytes: Buffer; readonly digest: Digest } | undefined> {
  if (!isSmall(content)) return undefined;
  const retries = new Retries(options.retries, options.signal);
  for (let current = content; ;) {
    try {
      return await receiveOnce(current);
    } catch (error) {
      await retries.pauseAfter(error);
      const { file } = content;
      current = await reopen(remote, content, 0, options.signal);
      // The rest may come unpacked, and so be larger.
      const fits = file.size !== undefined && file.size <= smallContentMaxBytes;
      if (!fits && !isSmall(current)) throw new RemoteChangedError(file.name);
    }
  }
}

async function receiveOnce(
  content: RemoteContent,
): Promise<{ readonly bytes: Buffer; readonly digest: Digest }> {
  const { file } = content;
  const parts: Uint8Array[] = [];
  for await (const part of content.body) parts.push(part);
  const body = joined(parts);
  const sizeMaxBytes = file.size ?? smallContentMaxBytes;
  const bytes = content.encoding === 'gzip' ? await gunzipBytes(body, { sizeMaxBytes }) : body;
  const digest = digestOf(bytes);
  verify(file, { digest, sizeBytes: bytes.length });
  return { bytes, digest };
}

/** What is known of a content of which the first bytes are there already. */
export interface DownloadStart {
  readonly meter: ContentMeter;
}

/**
 * The bytes of a content as they come, before encoding. A cut or stalled connection is taken up again where
 * it ended, as long as the server still has the same content; the end comes only after digest and size were
 * found to be right. `onEnd` is given what was measured.
 * @throws RemoteChangedError; FiletrackerError `digest-mismatch`, `size-mismatch`, `corrupt-encoding`, and
 * those of the connection.
 */
export async function* verifiedChunks(
  remote: RemoteStore,
  content: RemoteContent,
  options: DownloadOptions & {
    readonly start?: DownloadStart | undefined;
    readonly onEnd?: (measure: ContentMeasure) => void;
  },
): AsyncGenerator<Uint8Array> {
  const { signal, onProgress } = options;
  const { file } = content;
  const retries = new Retries(options.retries, signal);
  const meter = options.start?.meter ?? new ContentMeter();
  let current = content;
  const complete = (): boolean => meter.sizeBytes > 0 && meter.sizeBytes === file.size;
  if (meter.sizeBytes > 0) {
    content.cancel();
    if (!complete()) current = await reopen(remote, content, meter.sizeBytes, signal);
  }
  while (!complete()) {
    let skip = meter.sizeBytes - current.first;
    const before = meter.sizeBytes;
    try {
      for await (const chunk of decoded(current)) {
        const fresh = chunk.subarray(Math.min(skip, chunk.length));
        skip -= chunk.length - fresh.length;
        if (fresh.length === 0) continue;
        meter.update(fresh);
        if (file.size !== undefined && meter.sizeBytes > file.size) throw wrongSize(file, meter.sizeBytes);
        yield fresh;
        onProgress?.({ phase: 'fetching', done: meter.sizeBytes, total: file.size });
      }
      break;
    } catch (error) {
      if (meter.sizeBytes > before) retries.reset();
      await retries.pauseAfter(error);
    } finally {
      current.cancel();
    }
    current = await reopen(remote, content, meter.sizeBytes, signal);
  }
  const measure = meter.finish();
  verify(file, measure);
  options.onEnd?.(measure);
}

/**
 * Asks for the rest of a content. An answer that begins at its start will do too. Where another place failed to
 * bring it, the server is asked for a part from the first byte on, which it gives itself.
 */
async function reopen(
  remote: RemoteStore,
  { file, direct = false }: RemoteContent,
  first: number,
  signal: AbortSignal | undefined,
): Promise<RemoteContent> {
  const begun = (first > 0 || direct) && file.digest !== undefined;
  const resumable = begun && (file.size === undefined || first < file.size);
  const answer = await remote.open(file.name, { first: resumable ? first : undefined, signal });
  if (answer.kind !== 'content') throw new RemoteChangedError(file.name);
  const { digest, version, size } = answer.file;
  const same =
    file.digest === undefined ? version === file.version && size === file.size : digest === file.digest;
  if (same) return answer;
  answer.cancel();
  throw new RemoteChangedError(file.name);
}

/** Measures what an earlier download left in a file. */
export async function measureFile(path: string, signal?: AbortSignal): Promise<ContentMeter> {
  const meter = new ContentMeter();
  const stream = createReadStream(path, { highWaterMark: 1024 * 1024, ...(signal ? { signal } : {}) });
  for await (const piece of stream) meter.update(piece as Buffer);
  return meter;
}

/** Thrown where the disk that a download is written to fails: not the server's fault. */
export class SinkError extends Error {
  constructor(cause: unknown) {
    super('the file can not be written', { cause });
  }
}

/**
 * Bytes written at once: handing a write to another thread costs as much as writing a small piece, and what is larger
 * than this has left the processor's cache by then.
 */
const writeSizeBytes = 512 * 1024;
/** Room asked for at once when a disk is full, so that the next pieces find some too. */
const roomStepBytes = 16 * 1024 * 1024;

/**
 * Appends pieces to a file; while one is written the next may come. Where the disk is full `makeRoom` is asked
 * to free some, and gives how many bytes it did.
 * @throws SinkError around what the system says; what `source` throws.
 */
export async function writeChunks(
  path: string,
  source: Chunks,
  makeRoom?: (bytes: number) => Promise<number>,
): Promise<void> {
  const handle = await asSink(open(path, 'a', 0o666));
  let writing: Promise<void> = Promise.resolve();
  let pieces: Uint8Array[] = [];
  let gatheredBytes = 0;
  const flush = async (): Promise<void> => {
    await writing;
    writing = asSink(writeAll(handle, pieces, makeRoom));
    // Looked at with the next flush, or at the end.
    writing.catch(() => undefined);
    pieces = [];
    gatheredBytes = 0;
  };
  try {
    for await (const piece of source) {
      pieces.push(piece);
      gatheredBytes += piece.length;
      if (gatheredBytes >= writeSizeBytes) await flush();
    }
  } finally {
    // What came before a failure is written all the same: the next download goes on from there.
    await flush().then(() => writing, ignoreFailure);
    await writing.catch(ignoreFailure);
    await handle.close();
  }
  await writing;
}

/** A failure to write is thrown by whoever awaits the last write. */
function ignoreFailure(): void {
  // Nothing to do.
}

/** Writes all of the pieces, however many bytes the system takes at a time. */
export async function writeAll(
  handle: FileHandle,
  pieces: readonly Uint8Array[],
  makeRoom?: (bytes: number) => Promise<number>,
): Promise<void> {
  let left = pieces.filter((piece) => piece.length > 0);
  while (left.length > 0) {
    try {
      left = after(left, (await handle.writev(left)).bytesWritten);
    } catch (error) {
      if (errnoOf(error) !== 'ENOSPC' || makeRoom === undefined) throw error;
      if ((await makeRoom(roomStepBytes)) === 0) throw error;
    }
  }
}

/** What is left of pieces after their first bytes. */
function after(pieces: readonly Uint8Array[], bytes: number): Uint8Array[] {
  let skip = bytes;
  return pieces.flatMap((piece) => {
    const rest = piece.subarray(Math.min(skip, piece.length));
    skip -= piece.length - rest.length;
    return rest.length > 0 ? [rest] : [];
  });
}

async function asSink<T>(work: Promise<T>): Promise<T> {
  try {
    return await work;
  } catch (error) {
    throw new SinkError(error);
  }
}

/** Whether a download failed by what the server sent, so that what was kept of it is worth nothing. */
export function isWrongContent(error: unknown): boolean {
  return (
    isFiletrackerError(error, 'digest-mismatch') ||
    isFiletrackerError(error, 'size-mismatch') ||
    isFiletrackerError(error, 'corrupt-encoding')
  );
}
