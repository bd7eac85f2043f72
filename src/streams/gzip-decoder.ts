import { constants } from 'node:buffer';
import { pipeline } from 'node:stream/promises';
import { createGunzip, gunzip, gunzipSync, type Gunzip, type ZlibOptions } from 'node:zlib';
import { FiletrackerError } from '../core/errors.ts';
import { chunkSizeBytes, mainThreadBodyMaxBytes } from '../core/limits.ts';
import type { Chunks } from './chunks.ts';
import { storedContent } from './stored-gzip.ts';

/**
 * How much may come out of a gzip body. Deflate packs up to 1,032 to 1, so that a small body can unpack to
 * terabytes: that costs its sender nothing and the receiver minutes.
 */
export interface DecodingBounds {
  /** Bytes that may come out in any case. */
  readonly sizeMaxBytes: number;
  /** Maximum output bytes per input byte, beyond `ratioFreeBytes`; no limit unless given. */
  readonly ratioMax?: number | undefined;
  /** Output up to this size is not held against the ratio: a small bomb does no harm, and zeros are legal. */
  readonly ratioFreeBytes?: number | undefined;
}

/** The pieces of the output; larger ones cost less time and more memory. */
export interface PiecesOptions {
  readonly sizeBytes: number;
  /** Pieces that are decoded before the first of them is read. */
  readonly ahead: number;
}

/** Pieces of little memory. */
export const smallPieces: PiecesOptions = { sizeBytes: chunkSizeBytes, ahead: 1 };

/** Output up to which bodies are decoded on the main thread: 0.1 ms for text. */
const syncOutputMaxBytes = 64 * 1024;

/**
 * Decodes gzip as it passes, strictly: several members are one content (RFC 1952, 2.2), and a stream that is
 * cut short, fails its checksum or continues after its last member is refused. Decoding runs off the main thread.
 * @throws FiletrackerError `corrupt-encoding`; `too-large` beyond the bounds; what `source` throws.
 */
export async function* gunzipChunks(
  source: Chunks | readonly Uint8Array[],
  bounds: DecodingBounds,
  { sizeBytes, ahead }: PiecesOptions = smallPieces,
): AsyncGenerator<Buffer> {
  const unread = { highWaterMark: ahead * sizeBytes };
  const decoder = createGunzip({ chunkSize: sizeBytes, ...unread });
  const feed = new Feed(source);
  const feeding = pipeline(feed.chunks(), decoder);
  // A failure of the feed ends the reading as well, and only then is this promise asked for its reason.
  feeding.catch(() => undefined);
  let passedBytes = 0;
  try {
    for await (const piece of decoder as AsyncIterable<Buffer>) {
      passedBytes += piece.length;
      const maxBytes = outputMaxBytes(bounds, feed.fedBytes);
      if (passedBytes > maxBytes) throw tooLarge(maxBytes, bounds);
      yield piece;
    }
    await feeding;
  } catch (error) {
    throw feed.failure === undefined ? streamError(error, decoder, feed.fedBytes) : feed.failure.error;
  } finally {
    decoder.destroy();
  }
  if (decoder.bytesWritten < feed.fedBytes) throw trailingBytes();
}

/** Counts what goes into the decoder, and keeps a failure of the source apart from the decoder's. */
class Feed {
  readonly #source: Chunks | readonly Uint8Array[];
  fedBytes = 0;
  failure: { readonly error: unknown } | undefined;

  constructor(source: Chunks | readonly Uint8Array[]) {
    this.#source = source;
  }

  async *chunks(): AsyncGenerator<Uint8Array> {
    try {
      for await (const chunk of this.#source) {
        this.fedBytes += chunk.length;
        yield chunk;
      }
    } catch (error) {
      this.failure = { error };
      throw error;
    }
  }
}

/**
 * Decodes gzip in memory, with the rules and errors of `gunzipChunks`. The output is in memory too, so pass a
 * bound that fits it. Input that `gunzipAtOnce` does not accept is decoded off the main thread.
 */
export function gunzipBytes(bytes: Uint8Array, bounds: DecodingBounds): Buffer | Promise<Buffer> {
  return gunzipAtOnce(bytes, bounds) ?? gunzipInThread(bytes, bounds);
}

/**
 * Decodes gzip in memory on the main thread if it unpacks to at most 64 KiB, otherwise returns undefined: 4 KiB
 * of text take 14 µs so and 130 µs by way of the thread pool, 50 of them on the main thread.
 */
export function gunzipAtOnce(bytes: Uint8Array, bounds: DecodingBounds): Buffer | undefined {
  const expectedBytes = trailingSize(bytes);
  if (bytes.length > mainThreadBodyMaxBytes || expectedBytes > syncOutputMaxBytes) return undefined;
  const maxBytes = outputMaxBytes(bounds, bytes.length);
  const stored = storedContent(bytes);
  if (stored !== undefined && stored.length <= maxBytes) return stored;
  try {
    const options = decodingOptions(expectedBytes, Math.min(maxBytes, syncOutputMaxBytes));
    return whole(gunzipSync(bytes, options), bytes);
  } catch (error) {
    // The trailer gave no right idea of the size: several members, or a lie.
    if (isOverflow(error) && maxBytes > syncOutputMaxBytes) return undefined;
    throw bytesError(error, maxBytes, bounds);
  }
}

/**
 * Decodes gzip in memory off the main thread in one call, which takes a fraction of the time of many. `undefined` if
 * that does not give exactly `sizeBytes` bytes from all input, within the bounds: `gunzipChunks` finds out why.
 */
export async function gunzipToSize(
  bytes: Uint8Array,
  sizeBytes: number,
  bounds: DecodingBounds,
): Promise<Buffer | undefined> {
  if (sizeBytes > outputMaxBytes(bounds, bytes.length)) return undefined;
  // One byte more than is expected, so that zlib sees the end, or an excess, without a second buffer.
  const chunkSize = Math.max(64, sizeBytes + 1);
  const options: ZlibOptions = { info: true, chunkSize, maxOutputLength: Math.max(1, sizeBytes) };
  return new Promise((resolve) => {
    gunzip(bytes, options, (error, result: unknown) => {
      if (error !== null) return resolve(undefined);
      const { buffer, engine } = result as DecodedBuffer;
      resolve(buffer.length === sizeBytes && engine.bytesWritten === bytes.length ? buffer : undefined);
    });
  });
}

/** The size that the last member claims in its trailer: a hint for the size of the first buffer, no more. */
export function trailingSize(bytes: Uint8Array): number {
  if (bytes.length < 18) return 0;
  return new DataView(bytes.buffer, bytes.byteOffset + bytes.length - 4, 4).getUint32(0, true);
}

function decodingOptions(expectedBytes: number, maxOutputLength: number): ZlibOptions {
  // One byte more than is expected, so that zlib sees the end without a second buffer.
  const chunkSize = Math.max(64, Math.min(expectedBytes + 1, 4 * chunkSizeBytes));
  return {
    info: true,
    chunkSize,
    maxOutputLength: Math.max(1, Math.min(maxOutputLength, constants.MAX_LENGTH)),
  };
}

function gunzipInThread(bytes: Uint8Array, bounds: DecodingBounds): Promise<Buffer> {
  const maxBytes = outputMaxBytes(bounds, bytes.length);
  return new Promise((resolve, reject) => {
    gunzip(bytes, decodingOptions(trailingSize(bytes), maxBytes), (error, result) => {
      if (error !== null) {
        reject(bytesError(error, maxBytes, bounds));
        return;
      }
      try {
        resolve(whole(result, bytes));
      } catch (failure) {
        reject(failure);
      }
    });
  });
}

/** What zlib gives with `info`: the engine knows how much of the input it has used. */
interface DecodedBuffer {
  readonly buffer: Buffer;
  readonly engine: { readonly bytesWritten: number };
}

/** The output, if it is that of all input: zlib itself passes over zeros after the last member. */
function whole(result: unknown, bytes: Uint8Array): Buffer {
  const { buffer, engine } = result as DecodedBuffer;
  if (engine.bytesWritten < bytes.length) throw trailingBytes();
  return buffer;
}

/** The most that may come out of `inputBytes`. */
function outputMaxBytes(bounds: DecodingBounds, inputBytes: number): number {
  if (bounds.ratioMax === undefined) return bounds.sizeMaxBytes;
  const byRatio = Math.max(bounds.ratioFreeBytes ?? 0, inputBytes * bounds.ratioMax);
  return Math.min(bounds.sizeMaxBytes, byRatio);
}

function streamError(error: unknown, decoder: Gunzip, fedBytes: number): unknown {
  if (isInputError(error)) return corrupt(error);
  // Zeros after the last member make the decoder's output end while input is still coming.
  return decoder.readableEnded && decoder.bytesWritten < fedBytes ? trailingBytes() : error;
}

function bytesError(error: unknown, maxBytes: number, bounds: DecodingBounds): unknown {
  if (isInputError(error)) return corrupt(error);
  return isOverflow(error) ? tooLarge(maxBytes, bounds) : error;
}

const inputErrors: ReadonlySet<string> = new Set(['Z_DATA_ERROR', 'Z_BUF_ERROR', 'Z_NEED_DICT']);

/** Whether zlib blames its input; want of memory, for one, is no fault of the input. */
function isInputError(error: unknown): error is Error & { code: string } {
  return error instanceof Error && 'code' in error && inputErrors.has(String(error.code));
}

function isOverflow(error: unknown): boolean {
  return error instanceof Error && 'code' in error && error.code === 'ERR_BUFFER_TOO_LARGE';
}

function corrupt(cause: Error & { code: string }): FiletrackerError {
  const state = cause.code === 'Z_BUF_ERROR' ? 'the gzip stream is cut short' : 'it is not valid gzip';
  return new FiletrackerError('corrupt-encoding', `Cannot decode the content: ${state}`, { cause });
}

function trailingBytes(): FiletrackerError {
  return new FiletrackerError(
    'corrupt-encoding',
    'Cannot decode the content: bytes follow the end of the gzip stream',
  );
}

function tooLarge(maxBytes: number, bounds: DecodingBounds): FiletrackerError {
  const byRatio = maxBytes < bounds.sizeMaxBytes && bounds.ratioMax !== undefined;
  const rule = byRatio ? `, and to more than ${bounds.ratioMax} times its own size (--unpack-ratio-max)` : '';
  const text = `Cannot decode the content: it unpacks to more than ${maxBytes} bytes${rule}`;
  return new FiletrackerError('too-large', text, { details: { expected: maxBytes } });
}
