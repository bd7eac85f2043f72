import { finished, type Readable } from 'node:stream';
import { bodyAborted } from './chunks.ts';
import { freeNow } from './freed-memory.ts';

/**
 * Passes the pieces of a body to `take` as they come, until the stream ends or `take` returns false. Resolves to
 * whether it ended. One listener for all pieces: an iterator costs several promises for each. The stream is not
 * destroyed, and further pieces stay in it.
 * @throws what `take` throws; else as `bodyChunks`.
 */
export function readPieces(
  source: Readable,
  take: (piece: Buffer) => boolean,
  signal?: AbortSignal,
): Promise<boolean> {
  return new Promise((resolve, reject) => {
    const stopWatching = finished(source, { writable: false }, (error) => {
      stopReading();
      if (error) reject(bodyAborted(error));
      else resolve(true);
    });
    function stopReading(): void {
      source.off('readable', readOn);
      signal?.removeEventListener('abort', onAbort);
      stopWatching();
    }
    function onAbort(): void {
      stopReading();
      reject(bodyAborted(signal?.reason));
    }
    function readOn(): void {
      try {
        while (!source.destroyed) {
          const piece = source.read() as Buffer | null;
          if (piece === null) return;
          if (take(piece)) continue;
          stopReading();
          resolve(false);
          return;
        }
      } catch (error) {
        stopReading();
        reject(error);
      }
    }
    if (signal?.aborted === true) return onAbort();
    signal?.addEventListener('abort', onAbort, { once: true });
    source.on('readable', readOn);
    readOn();
  });
}

/** A block of a body that is being filled. */
class Block {
  readonly #bytes: Buffer;
  #filledBytes = 0;

  constructor(sizeBytes: number) {
    this.#bytes = Buffer.allocUnsafeSlow(sizeBytes);
  }

  get isFull(): boolean {
    return this.#filledBytes === this.#bytes.length;
  }

  get filled(): Buffer {
    return this.#bytes.subarray(0, this.#filledBytes);
  }

  /** Copies what fits, and returns the rest. */
  fill(piece: Buffer): Buffer {
    const copiedBytes = piece.copy(this.#bytes, this.#filledBytes);
    this.#filledBytes += copiedBytes;
    return piece.subarray(copiedBytes);
  }
}

const nothing = Buffer.alloc(0);

/** How a body is cut. */
export interface BlocksOptions {
  /** Called with each piece until it returns the size of the blocks; that piece is in the first one. */
  readonly blockSize: (piece: Buffer) => number | undefined;
  /** Whether nothing else uses the pieces of the stream, so that their memory may be freed. */
  readonly freesPieces: boolean;
  readonly signal: AbortSignal | undefined;
}

/**
 * A body in the pieces in which it comes, and later in blocks, of which only the last is smaller. A failure between two
 * steps is thrown by the next one. @throws as `bodyChunks`.
 */
export async function* bodyBlocks(source: Readable, options: BlocksOptions): AsyncGenerator<Buffer> {
  const ignore = (): void => undefined;
  // Nothing else listens for errors between two reads.
  source.on('error', ignore);
  try {
    for (;;) {
      let first: Buffer = nothing;
      const ended = await readPieces(source, (piece) => ((first = piece), false), options.signal);
      if (ended) return;
      const sizeBytes = options.blockSize(first);
      if (sizeBytes === undefined) yield first;
      else return yield* blocksAfter(first, source, sizeBytes, options);
    }
  } finally {
    source.off('error', ignore);
  }
}

async function* blocksAfter(
  first: Buffer,
  source: Readable,
  sizeBytes: number,
  { freesPieces, signal }: BlocksOptions,
): AsyncGenerator<Buffer> {
  let rest = first;
  for (let ended = false; !ended;) {
    const block = new Block(sizeBytes);
    const take = (piece: Buffer): boolean => {
      rest = block.fill(piece);
      if (rest.length === 0) {
        if (freesPieces) freeNow(piece);
        rest = nothing;
      }
      return !block.isFull;
    };
    if (take(rest)) ended = await readPieces(source, take, signal);
    if (block.filled.length > 0) yield block.filled;
  }
}
