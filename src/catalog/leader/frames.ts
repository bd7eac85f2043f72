import type { Socket } from 'node:net';
import type { Readable } from 'node:stream';
import {
  FiletrackerError,
  isFiletrackerError,
  type ErrorCode,
  type ErrorDetails,
} from '../../core/errors.ts';
import type { Digest } from '../../core/digest.ts';
import type {
  BlobRecord,
  Catalog,
  PlacedBlob,
  PutChange,
  PutOutcome,
  RemoveChange,
  RemoveOutcome,
} from '../catalog.ts';

// How processes of one store talk about changes: frames over a Unix socket, in one direction requests, in the
// other their answers, in any order. A frame is: length of what follows (4 bytes, little endian), length of
// the JSON part (4 bytes), the JSON part, and the bytes of an inline content, if there are any.

const prefixSizeBytes = 8;
/** Longer than any frame: the largest inline content and a name. */
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
  /** A damaged row was met in the index: the leader ends, so that the next one rebuilds it. */
  | { readonly method: 'rebuild' };

/** What each method gives back. */
export interface ChangeAnswers {
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

/** Makes a requested change in the catalog of this process; pins, and the process itself, are the business of the caller. */
export async function carryOut(
  catalog: Catalog,
  request: Exclude<ChangeRequest, { method: 'pin' | 'release' | 'rebuild' }>,
): Promise<ChangeAnswers[ChangeRequest['method']]> {
  switch (request.method) {
    case 'put':
      return catalog.put(request.change);
    case 'remove':
      return catalog.remove(request.change);
    case 'collect':
      return catalog.collect(request.digests, request.beforeMs);
    case 'mark':
      await catalog.markDamaged(request.digest, request.damaged);
      return null;
    case 'add':
      await catalog.addBlobs(request.blobs);
      return null;
    case 'probe':
      await catalog.probe();
      return null;
  }
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

/** Writes a frame; frames of one turn of the event loop leave in one system call. */
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
 * The frames that come in. Ends where the peer ends.
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
        throw new FiletrackerError(
          'protocol',
          'Cannot read a message of another process: it has no sound form',
        );
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

export function errorFromWire(error: WireError): FiletrackerError {
  const { code, message, retryable, details } = error;
  return new FiletrackerError(code, message, { retryable, details });
}
