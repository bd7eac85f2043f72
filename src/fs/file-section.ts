import { close, read } from 'node:fs';
import { Readable } from 'node:stream';
import { cannot, fromSystemError, type FiletrackerError } from '../core/errors.ts';

/** `length` bytes of a file from `start`. */
export interface FileRange {
  readonly start: number;
  readonly length: number;
}

/** Bytes per read: a megabyte takes four trips to the thread pool, and a fifth less time than in sixteen. */
const readSizeBytes = 256 * 1024;
/** Spare pieces for the next reads of any file: 16 MiB, which 32 concurrent readers use. */
const sparePiecesMax = 64;

/**
 * Reusable memory for pieces.
 *
 * Invariant: a piece belongs to one reader, or is spare. Returning a piece that is not lent does nothing, so that no
 * piece is lent twice.
 */
class PieceMemory {
  readonly #spare: Buffer[] = [];
  readonly #lent = new WeakSet<ArrayBufferLike>();

  lend(): Buffer {
    // Not from Node's pool: a slice of it would keep 8 KiB alive while the slice waits in a socket.
    const piece = this.#spare.pop() ?? Buffer.allocUnsafeSlow(readSizeBytes);
    this.#lent.add(piece.buffer);
    return piece;
  }

  giveBack(part: Uint8Array): void {
    if (!this.#lent.delete(part.buffer)) return;
    if (this.#spare.length < sparePiecesMax) this.#spare.push(Buffer.from(part.buffer));
  }
}

const memory = new PieceMemory();

/**
 * A section of an open file as a stream. Owns the descriptor and closes it.
 *
 * Invariant: it yields exactly the bytes of its range, or fails with `damaged-blob`; a truncated file never looks
 * complete.
 */
export class FileSection extends Readable {
  readonly #descriptor: number;
  readonly #endByte: number;
  readonly #reuses: boolean;
  #nextByte: number;
  #reading = false;
  #closeWhenRead: (() => void) | undefined;

  constructor(descriptor: number, range: FileRange, options: { signal?: AbortSignal | undefined } = {}) {
    // As objects, pieces are never joined into a copy that could not be given back.
    super({
      objectMode: true,
      highWaterMark: 1,
      ...(options.signal === undefined ? {} : { signal: options.signal }),
    });
    this.#descriptor = descriptor;
    this.#nextByte = range.start;
    this.#endByte = range.start + range.length;
    // A piece that is the whole range may be kept for long, by the read cache, so it has memory of its own.
    this.#reuses = range.length > readSizeBytes;
  }

  override _read(): void {
    const length = Math.min(readSizeBytes, this.#endByte - this.#nextByte);
    if (length === 0) {
      this.push(null);
      return;
    }
    this.#reading = true;
    const buffer = this.#reuses ? memory.lend() : Buffer.allocUnsafeSlow(length);
    read(this.#descriptor, buffer, 0, length, this.#nextByte, (error, bytesRead) => {
      this.#reading = false;
      if (this.#closeWhenRead !== undefined) this.#closeWhenRead();
      else if (error !== null) this.destroy(fromSystemError(error, 'read a file') as Error);
      else this.#give(buffer, bytesRead);
    });
  }

  /** Returns a piece of this stream for reuse; the caller no longer uses it. */
  giveBack(piece: Uint8Array): void {
    memory.giveBack(piece);
  }

  #give(buffer: Buffer, bytesRead: number): void {
    if (bytesRead === 0) {
      this.destroy(shortFile());
      return;
    }
    this.#nextByte += bytesRead;
    this.push(bytesRead === buffer.length ? buffer : buffer.subarray(0, bytesRead));
  }

  override _destroy(error: Error | null, callback: (error?: Error | null) => void): void {
    const closeFile = (): void => {
      close(this.#descriptor, (failure) => {
        callback(error ?? (failure && (fromSystemError(failure, 'close a file') as Error)));
      });
    };
    // A descriptor must not be closed during a read: its number could belong to another file by then.
    if (this.#reading) this.#closeWhenRead = closeFile;
    else closeFile();
  }
}

/** The error of a file that is shorter than when it was stored. */
export function shortFile(): FiletrackerError {
  return cannot('damaged-blob', 'read the content', 'the file in the store has become shorter');
}
