import type { IncomingMessage } from 'node:http';
import { setTimeout as wait } from 'node:timers/promises';
import { cannot } from '../../core/errors.ts';
import { lingerSizeMaxBytes, lingerTimeMs } from '../../core/limits.ts';
import { parseSize } from '../../protocol/content-claims.ts';
import type { Connection } from './connection.ts';
import type { RequestHead } from './messages.ts';

/** How the body of a request is framed. */
export interface BodyFrame {
  /** Bytes that will come; `undefined` for a chunked body. */
  readonly announcedSize: number | undefined;
}

const noBody: BodyFrame = { announcedSize: 0 };
const chunkedBody: BodyFrame = { announcedSize: undefined };

/**
 * Whether the body comes in chunks.
 * @throws FiletrackerError `unsupported-encoding` for a transfer coding that Node does not decode.
 */
export function isChunked(request: RequestHead): boolean {
  const coding = request.headers['transfer-encoding'];
  if (coding === undefined) return false;
  if (coding.toLowerCase() === 'chunked') return true;
  throw cannot('unsupported-encoding', 'read the body', 'the only supported Transfer-Encoding is chunked');
}

/** Reads Content-Length and Transfer-Encoding. Node refuses requests that have both. @throws as `isChunked`. */
export function frameOf(request: RequestHead): BodyFrame {
  if (isChunked(request)) return chunkedBody;
  const length = request.headers['content-length'];
  if (length === undefined || length === '0') return noBody;
  return { announcedSize: parseSize('Content-Length', length) };
}

/** Whether a request has a body. */
export function announcesBody(request: IncomingMessage): boolean {
  const { 'content-length': length, 'transfer-encoding': coding } = request.headers;
  return coding !== undefined || (length !== undefined && length !== '0');
}

/**
 * Reads a small body whole. A pipeline or an iterator would cost more than storing it: a PUT of 4 KiB needs one listener
 * and usually one piece, which is not copied.
 * @throws FiletrackerError if the connection is interrupted; the rest of the body is left unread.
 */
export function collectBody(
  body: IncomingMessage | Buffer,
  connection: Connection,
  sizeBytes: number,
): Promise<Buffer> | Buffer {
  return Buffer.isBuffer(body) ? body : collectStream(body, connection, sizeBytes);
}

function collectStream(request: IncomingMessage, connection: Connection, sizeBytes: number): Promise<Buffer> {
  return new Promise((resolve, reject) => {
    const pieces: Buffer[] = [];
    let received = 0;
    function take(): void {
      for (let piece: unknown = request.read(); Buffer.isBuffer(piece); piece = request.read()) {
        pieces.push(piece);
        received += piece.length;
      }
      // Node delivers no more than Content-Length, and fails the connection if less comes.
      if (received < sizeBytes) return;
      request.off('readable', take);
      connection.endReading();
      const [first] = pieces;
      resolve(pieces.length === 1 && first !== undefined ? first : Buffer.concat(pieces, received));
    }
    connection.beginReading(request, (error) => {
      request.off('readable', take);
      reject(error);
    });
    request.on('readable', take);
  });
}

/**
 * Reads and discards a refused body, so that its sender reads the response instead of a connection reset; until it ends,
 * or up to the limits on time and bytes.
 */
export async function lingerOn(request: IncomingMessage): Promise<void> {
  const { socket } = request;
  const startBytes = socket.bytesRead;
  const stop = new AbortController();
  const over = (): void => stop.abort();
  request.removeAllListeners('readable');
  request.once('end', over).once('close', over).resume();
  socket.once('end', over).once('close', over);
  const stepMs = 50;
  for (let waitedMs = 0; waitedMs < lingerTimeMs && !stop.signal.aborted; waitedMs += stepMs) {
    if (
      request.complete ||
      socket.readableEnded ||
      socket.destroyed ||
      socket.bytesRead - startBytes > lingerSizeMaxBytes
    )
      break;
    await wait(stepMs, undefined, { signal: stop.signal }).catch(() => undefined);
  }
  request.off('end', over).off('close', over);
  socket.off('end', over).off('close', over);
}
