import type { Socket } from 'node:net';
import type { Digest } from '../../core/digest.ts';
import {
  cannot,
  FiletrackerError,
  isFiletrackerError,
  type ErrorCode,
  type ErrorDetails,
} from '../../core/errors.ts';
import type {
  BlobRecord,
  PlacedBlob,
  PutChange,
  PutOutcome,
  RemoveChange,
  RemoveOutcome,
} from '../catalog.ts';

// The protocol between the processes of one store: frames over a Unix socket, requests in one direction, responses in the
// other, in any order.
//
//   size  field of a frame; numbers are little endian
//      4  length of what follows
//      4  length of the JSON text; zero in a batch
//      …  JSON text: `{ id, method, … }`, or `{ id, result }` or `{ id, error }`
//      …  bytes of an inline blob, if the request has one; the content of a batch: see `batches.ts`
//
// During a hand-over processes of two releases share a store. Batches are sent only to a process that has stated that it
// reads them: see `ChangeClient.greet`.

export const prefixSizeBytes = 8;
/** Longer than any frame: a batch, or the largest inline blob and a name. */
const frameSizeMaxBytes = 1024 * 1024;

/** The form of batches that this release writes and reads; a later form gets a higher number. */
export const batchForm = 1;

export type ChangeRequest =
  | { readonly method: 'put'; readonly change: PutChange }
  | { readonly method: 'remove'; readonly change: RemoveChange }
  | { readonly method: 'collect'; readonly digests: readonly Digest[]; readonly beforeMs: number }
  | { readonly method: 'pin'; readonly digest: Digest }
  | {
      readonly method: 'release';
      readonly digest: Digest;
      /** The form of batches that the sender reads; earlier releases do not state it. */
      readonly batches?: number;
    }
  | { readonly method: 'mark'; readonly digest: Digest; readonly damaged: boolean }
  | { readonly method: 'add'; readonly blobs: readonly PlacedBlob[] }
  | { readonly method: 'probe' }
  /** The index has a damaged row: the leader ends, so that the next one rebuilds it. */
  | { readonly method: 'rebuild' };

/** The result of each method. */
export interface ChangeResults {
  put: PutOutcome;
  remove: RemoveOutcome;
  collect: readonly BlobRecord[];
  pin: boolean;
  /** The form of batches that both processes read; `null` if not asked for, and from earlier releases. */
  release: { readonly batches: number } | null;
  mark: null;
  add: null;
  probe: null;
  rebuild: null;
}

export interface Frame {
  /** `undefined` in a batch. */
  readonly message: unknown;
  readonly bytes: Buffer;
}

interface WireError {
  readonly code: ErrorCode;
  readonly message: string;
  readonly retryable: boolean;
  readonly details: ErrorDetails;
}

/** Writes a frame; the frames of one turn of the event loop leave in one system call. */
export function writeFrame(socket: Socket, message: unknown, bytes?: Buffer): void {
  const text = Buffer.from(JSON.stringify(message));
  const prefix = Buffer.allocUnsafe(prefixSizeBytes);
  prefix.writeUInt32LE(4 + text.length + (bytes?.length ?? 0), 0);
  prefix.writeUInt32LE(text.length, 4);
  if (socket.writableCorked === 0) {
    socket.cork();
    process.nextTick(() => socket.uncork());
  }
  socket.write(prefix);
  socket.write(text);
  if (bytes !== undefined && bytes.length > 0) socket.write(bytes);
}

export function malformedFrame(): FiletrackerError {
  return cannot('protocol', 'read a message of another process', 'it is malformed');
}

/**
 * Splits what arrives on a connection into frames. The bytes of a frame are a view of what arrived.
 *
 * Invariant: `#chunks` has the beginning of one frame, whose end has not arrived.
 */
export class FrameReader {
  readonly #onFrame: (frame: Frame) => void;
  #chunks: Buffer[] = [];
  #sizeBytes = 0;
  /** Size at which the frame, or its prefix, is whole. */
  #wholeBytes = prefixSizeBytes;

  constructor(onFrame: (frame: Frame) => void) {
    this.#onFrame = onFrame;
  }

  /** @throws FiletrackerError `protocol` for bytes that are no frame. */
  push(chunk: Buffer): void {
    this.#chunks.push(chunk);
    this.#sizeBytes += chunk.length;
    if (this.#sizeBytes < this.#wholeBytes) return;
    const bytes = this.#chunks.length === 1 ? chunk : Buffer.concat(this.#chunks);
    let at = 0;
    let whole = prefixSizeBytes;
    while (bytes.length - at >= prefixSizeBytes) {
      const size = bytes.readUInt32LE(at);
      const textSize = bytes.readUInt32LE(at + 4);
      if (size > frameSizeMaxBytes || textSize + 4 > size) throw malformedFrame();
      whole = size + 4;
      if (bytes.length - at < whole) break;
      const textEnd = at + prefixSizeBytes + textSize;
      const message: unknown =
        textSize === 0 ? undefined : JSON.parse(bytes.toString('utf8', at + prefixSizeBytes, textEnd));
      this.#onFrame({ message, bytes: bytes.subarray(textEnd, at + whole) });
      at += whole;
      whole = prefixSizeBytes;
    }
    const rest = bytes.subarray(at);
    this.#chunks = rest.length === 0 ? [] : [rest];
    this.#sizeBytes = rest.length;
    this.#wholeBytes = whole;
  }
}

export function errorToWire(error: unknown): WireError {
  if (isFiletrackerError(error)) {
    const { code, message, retryable, details } = error;
    return { code, message, retryable, details };
  }
  return { code: 'io', message: 'Cannot change the catalog: it failed', retryable: false, details: {} };
}

export function errorFromWire({ code, message, retryable, details }: WireError): FiletrackerError {
  return new FiletrackerError(code, message, { retryable, details });
}
