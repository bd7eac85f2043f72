import type { Socket } from 'node:net';
import type { Readable } from 'node:stream';
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
//      4  length of the JSON text
//      …  JSON text: `{ id, method, … }`, or `{ id, result }` or `{ id, error }`
//      …  bytes of an inline blob, if the request has one

const prefixSizeBytes = 8;
/** Longer than any frame: the largest inline blob and a name. */
const frameSizeMaxBytes = 1024 * 1024;

export type ChangeRequest =
  | { readonly method: 'put'; readonly change: PutChange }
  | { readonly method: 'remove'; readonly change: RemoveChange }
  | { readonly method: 'collect'; readonly digests: readonly Digest[]; readonly beforeMs: number }
  | { readonly method: 'pin'; readonly digest: Digest }
  | { readonly method: 'release'; readonly digest: Digest }
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
  release: null;
  mark: null;
  add: null;
  probe: null;
  rebuild: null;
}

export interface Frame {
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

/**
 * The frames that arrive; ends when the peer ends.
 * @throws FiletrackerError `protocol` for bytes that are no frame.
 */
export async function* readFrames(source: Readable): AsyncGenerator<Frame, void, void> {
  let rest: Buffer = Buffer.alloc(0);
  for await (const chunk of source as AsyncIterable<Buffer>) {
    const bytes = rest.length === 0 ? chunk : Buffer.concat([rest, chunk]);
    let at = 0;
    while (bytes.length - at >= prefixSizeBytes) {
      const size = bytes.readUInt32LE(at);
      const textSize = bytes.readUInt32LE(at + 4);
      if (size > frameSizeMaxBytes || textSize + 4 > size) {
        throw cannot('protocol', 'read a message of another process', 'it is malformed');
      }
      if (bytes.length - at < size + 4) break;
      const textEnd = at + prefixSizeBytes + textSize;
      const message: unknown = JSON.parse(bytes.toString('utf8', at + prefixSizeBytes, textEnd));
      yield { message, bytes: bytes.subarray(textEnd, at + 4 + size) };
      at += size + 4;
    }
    rest = bytes.subarray(at);
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
