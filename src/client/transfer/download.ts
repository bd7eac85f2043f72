import { createReadStream } from 'node:fs';
import { digestOf } from '../../core/digest.ts';
import type { Digest } from '../../core/digest.ts';
import { FiletrackerError, isFiletrackerError } from '../../core/errors.ts';
import type { ErrorCode } from '../../core/errors.ts';
import { chunkSizeBytes, fileSizeMaxBytes } from '../../core/limits.ts';
import { joined } from '../../streams/chunks.ts';
import type { Chunks } from '../../streams/chunks.ts';
import { ContentMeter } from '../../streams/content-meter.ts';
import type { ContentMeasure } from '../../streams/content-meter.ts';
import { gunzipBytes, gunzipChunks } from '../../streams/gzip-decoder.ts';
import type { RemoteContent, RemoteFile, RemoteStore } from '../http/remote-store.ts';
import { Retries } from '../http/retries.ts';
import type { RetryPolicy } from '../http/retries.ts';

/** Bodies up to this size, as transferred, are received in memory whole. */
const smallTransferMaxBytes = 64 * 1024;
/** Largest content that such a body may unpack to in memory. */
const smallContentMaxBytes = 1024 * 1024;

/**
 * Pieces in which gzip is unpacked, each by one task of another thread: a get of 256 MiB of text takes 1.6 s of processor
 * time, and 2.1 s in single pieces of 64 KiB.
 */
const unpackedPieces = { sizeBytes: 256 * 1024, ahead: 4 };

/**
 * Progress of a transfer. An upload is first read, for its digest, and then sent.
 *
 * @example
 * ```ts
 * import { Readable } from 'node:stream';
 * import { Client } from 'filetracker';
 * import type { ProgressListener, TransferProgress } from 'filetracker';
 *
 * const percent = ({ done, total }: TransferProgress): number => (total ? (100 * done) / total : 100);
 * const onProgress: ProgressListener = (progress) => console.log(progress.phase, percent(progress));
 * const client = Client.fromEnvironment();
 * await client.putStream('/examples/progress.txt', Readable.from(['hello\n']), { onProgress });
 * await client.close();
 * ```
 */
export interface TransferProgress {
  readonly phase: 'fetching' | 'reading' | 'sending';
  /** Bytes of the content, before encoding. */
  readonly done: number;
  /** `undefined` if a legacy server does not report it. */
  readonly total: number | undefined;
}

/** Called as bytes of a transfer pass. */
export type ProgressListener = (progress: TransferProgress) => void;

export interface DownloadOptions {
  readonly retries: RetryPolicy;
  readonly signal?: AbortSignal | undefined;
  readonly onProgress?: ProgressListener | undefined;
}

/** Thrown if the file on the server is replaced during the download. */
export class RemoteChangedError extends FiletrackerError {
  constructor(name: string) {
    super('aborted', `Cannot get "${name}": it changed on the server while it was being fetched`, {
      retryable: true,
    });
  }
}

/** @throws FiletrackerError `digest-mismatch`, `size-mismatch`. */
function verify(file: RemoteFile, measure: ContentMeasure): void {
  const { digest, size } = file;
  if (size !== undefined && measure.sizeBytes !== size) throw wrongSize(file, measure.sizeBytes);
  if (digest === undefined || measure.digest === digest) return;
  throw new FiletrackerError(
    'digest-mismatch',
    `Cannot get "${file.name}": the digest of the received content differs from the one that the server states`,
    { details: { name: file.name, expected: digest, actual: measure.digest } },
  );
}

function wrongSize(file: RemoteFile, actual: number): FiletrackerError {
  return new FiletrackerError(
    'size-mismatch',
    `Cannot get "${file.name}": the size of the received content differs from the one that the server states`,
    { details: { name: file.name, expected: file.size ?? 0, actual } },
  );
}

function decoded({ file: { size }, encoding, body }: RemoteContent): Chunks {
  // One piece more than expected, so that an excess is reported as a wrong size.
  const sizeMaxBytes = size === undefined ? fileSizeMaxBytes : size + chunkSizeBytes;
  return encoding === 'gzip' ? gunzipChunks(body, { sizeMaxBytes }, unpackedPieces) : body;
}

/** Whether a body is received in memory whole. */
export function isSmall({ file, transferSize, encoding }: RemoteContent): boolean {
  if (transferSize === undefined || transferSize > smallTransferMaxBytes) return false;
  return (file.size ?? 0) <= smallContentMaxBytes && (file.size !== undefined || encoding === 'identity');
}

export interface SmallContent {
  readonly bytes: Buffer;
  readonly digest: Digest;
}

/** Receives a small content in memory and verifies it; `undefined`, with nothing read, if it is not small. */
export async function receiveSmall(
  remote: RemoteStore,
  content: RemoteContent,
  options: DownloadOptions,
): Promise<SmallContent | undefined> {
  if (!isSmall(content)) return undefined;
  const retries = new Retries(options.retries, options.signal);
  for (let current = content; ;) {
    try {
      return await receiveOnce(current);
    } catch (error) {
      await retries.pauseAfter(error);
      const { file } = content;
      current = await reopen(remote, content, 0, options.signal);
      // The server may send the rest unpacked, which is larger.
      const fits = file.size !== undefined && file.size <= smallContentMaxBytes;
      if (!fits && !isSmall(current)) throw new RemoteChangedError(file.name);
    }
  }
}

async function receiveOnce({ file, encoding, body }: RemoteContent): Promise<SmallContent> {
  const parts: Uint8Array[] = [];
  for await (const part of body) parts.push(part);
  const sizeMaxBytes = file.size ?? smallContentMaxBytes;
  const bytes = encoding === 'gzip' ? await gunzipBytes(joined(parts), { sizeMaxBytes }) : joined(parts);
  const digest = digestOf(bytes);
  verify(file, { digest, sizeBytes: bytes.length });
  return { bytes, digest };
}

/**
 * The decoded bytes of a blob as they arrive. After a cut or stalled connection the download resumes, as long as the
 * server still has the same blob. The iteration ends only after digest and size were verified.
 * @param options.meter has measured the first bytes, which an earlier download left.
 * @param options.onEnd receives digest and size.
 * @throws RemoteChangedError; FiletrackerError `digest-mismatch`, `size-mismatch`, `corrupt-encoding`, and the errors of
 * the connection.
 */
export async function* verifiedChunks(
  remote: RemoteStore,
  content: RemoteContent,
  options: DownloadOptions & {
    readonly meter?: ContentMeter | undefined;
    readonly onEnd?: (measure: ContentMeasure) => void;
  },
): AsyncGenerator<Uint8Array> {
  const { signal, onProgress, meter = new ContentMeter() } = options;
  const { file } = content;
  const retries = new Retries(options.retries, signal);
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
 * Requests the rest of a blob; the server may send all of it. After a failed direct download the request has a range,
 * from the first byte on if need be: the server sends ranges itself.
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

/** Measures the bytes that an earlier download left in a file. */
export async function measureFile(path: string, signal?: AbortSignal): Promise<ContentMeter> {
  const meter = new ContentMeter();
  const stream = createReadStream(path, { highWaterMark: 1024 * 1024, ...(signal ? { signal } : {}) });
  for await (const piece of stream) meter.update(piece as Buffer);
  return meter;
}

const wrongContentCodes: readonly ErrorCode[] = ['digest-mismatch', 'size-mismatch', 'corrupt-encoding'];

/** Whether the server sent wrong bytes, so that a partial download can't be resumed. */
export function isWrongContent(error: unknown): boolean {
  return isFiletrackerError(error) && wrongContentCodes.includes(error.code);
}
