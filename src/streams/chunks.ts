import { Readable } from 'node:stream';
import { FiletrackerError, isFiletrackerError, messageOf } from '../core/errors.ts';

/** Bytes that come piece by piece. The receiver may keep a piece: it is not overwritten unless the receiver gives it back (`giveBack`). */
export type Chunks = AsyncIterable<Uint8Array>;

/**
 * The bytes of a body that a peer sends. The stream is not destroyed, whether reading ends, fails or is
 * abandoned: destroying a request would close its connection, and no response could be sent.
 * @throws FiletrackerError `aborted` if the stream fails or `signal` aborts; a FiletrackerError that the stream
 * was destroyed with is rethrown.
 */
export async function* bodyChunks(source: Readable, signal?: AbortSignal): AsyncGenerator<Buffer> {
  const iterator = source.iterator({ destroyOnReturn: false });
  try {
    for (;;) {
      const step = await (signal === undefined ? iterator.next() : unlessAborted(iterator.next(), signal));
      if (step.done === true) return;
      yield step.value as Buffer;
    }
  } catch (error) {
    throw bodyAborted(error);
  }
}

/** The error of a body that did not come to its end. */
export function bodyAborted(cause: unknown): FiletrackerError {
  if (isFiletrackerError(cause)) return cause;
  return new FiletrackerError('aborted', `Cannot read the body: ${messageOf(cause)}`, { cause });
}

/** The result of a promise, or a rejection with the signal's reason if that comes first. */
export async function unlessAborted<T>(promise: Promise<T>, signal: AbortSignal): Promise<T> {
  let onAbort: (() => void) | undefined;
  const aborted = new Promise<never>((_resolve, reject) => {
    onAbort = () => reject(signal.reason as Error);
    if (signal.aborted) onAbort();
    else signal.addEventListener('abort', onAbort, { once: true });
  });
  try {
    return await Promise.race([promise, aborted]);
  } finally {
    if (onAbort !== undefined) signal.removeEventListener('abort', onAbort);
  }
}

/** Cuts and joins pieces to blocks of `blockSizeBytes`; only the last is smaller, and none is empty. */
export async function* blocksOf(source: Chunks, blockSizeBytes: number): AsyncGenerator<Buffer> {
  let parts: Uint8Array[] = [];
  let gatheredBytes = 0;
  for await (const chunk of source) {
    for (let start = 0; start < chunk.length;) {
      const part = chunk.subarray(start, start + blockSizeBytes - gatheredBytes);
      parts.push(part);
      gatheredBytes += part.length;
      start += part.length;
      if (gatheredBytes === blockSizeBytes) {
        yield joined(parts);
        parts = [];
        gatheredBytes = 0;
      }
    }
  }
  if (gatheredBytes > 0) yield joined(parts);
}

/**
 * Bytes in memory, in the pieces in which they came. They become one buffer only for who asks for that: to join a
 * mebibyte that needs but be digested costs 0.2 ms and, by the memory it takes, every second full garbage collection.
 */
export class GatheredBytes {
  #pieces: readonly Uint8Array[];
  readonly sizeBytes: number;

  constructor(pieces: readonly Uint8Array[]) {
    this.#pieces = pieces;
    this.sizeBytes = pieces.reduce((sum, piece) => sum + piece.length, 0);
  }

  get pieces(): readonly Uint8Array[] {
    return this.#pieces;
  }

  /** All in one buffer; the pieces are let go. */
  join(): Buffer {
    const bytes = joined(this.#pieces);
    this.#pieces = [bytes];
    return bytes;
  }
}

/** All of a source in one buffer, for small contents. */
export async function collectChunks(source: Chunks): Promise<Buffer> {
  const parts: Uint8Array[] = [];
  for await (const part of source) parts.push(part);
  return joined(parts);
}

/** A stream of `chunks`, which read from `source`; destroying the stream destroys the source too. */
export function streamOver(source: Readable | undefined, chunks: Chunks, signal?: AbortSignal): Readable {
  const stream = Readable.from(chunks, { objectMode: false, ...(signal !== undefined && { signal }) });
  // A stream that is destroyed before it is read never begins to iterate, so nothing else destroys its source.
  if (source !== undefined) stream.once('close', () => source.destroy());
  return stream;
}

/** The pieces as one buffer, without a copy if there is only one. */
export function joined(parts: readonly Uint8Array[]): Buffer {
  const [only] = parts;
  if (parts.length === 1 && only !== undefined) return asBuffer(only);
  return Buffer.concat(parts);
}

export function asBuffer(bytes: Uint8Array): Buffer {
  return Buffer.isBuffer(bytes) ? bytes : Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength);
}

/** A stream of Buffers that can be given back to it: it then overwrites them. */
interface ReusingSource extends Readable {
  giveBack(piece: Uint8Array): void;
}

/** Returns a piece that is no longer used to its source if the source reuses pieces; otherwise does nothing. */
export function giveBack(source: Readable, piece: Uint8Array): void {
  if ('giveBack' in source && typeof source.giveBack === 'function')
    (source as ReusingSource).giveBack(piece);
}
