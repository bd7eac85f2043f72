import type { IncomingMessage } from 'node:http';
import { setTimeout as wait } from 'node:timers/promises';
import { FiletrackerError } from '../../core/errors.ts';
import { lingerSizeMaxBytes, lingerTimeMs } from '../../core/limits.ts';
import { parseSize } from '../../protocol/content-claims.ts';
import type { Connection } from './connection.ts';

/** How the body of a request is framed. */
export interface BodyFrame {
  /** Bytes that will come; undefined for a chunked body. */
  readonly announcedSize: number | undefined;
}

const noBody: BodyFrame = { announcedSize: 0 };
const chunkedBody: BodyFrame = { announcedSize: undefined };

/**
 * Whether the body comes in chunks.
 * @throws FiletrackerError `unsupported-encoding` for a transfer coding that Node would hand over undecoded.
 */
export function isChunked(request: IncomingMessage): boolean {
  const coding = request.headers['transfer-encoding'];
  if (coding === undefined) return false;
  if (coding.toLowerCase() === 'chunked') return true;
  throw new FiletrackerError(
    'unsupported-encoding',
    'Cannot read the body: the only Transfer-Encoding that is known here is chunked',
  );
}

/** Reads Content-Length and Transfer-Encoding, as `isChunked` does. Node has refused requests that carry both. */
export function frameOf(request: IncomingMessage): BodyFrame {
  if (isChunked(request)) return chunkedBody;
  const length = request.headers['content-length'];
  if (length === undefined || length === '0') return noBody;
  return { announcedSize: parseSize('Content-Length', length) };
}

/** Whether a request that was not read to its end has a body at all. */
export function announcesBody(request: IncomingMessage): boolean {
  const { 'content-length': length, 'transfer-encoding': coding } = request.headers;
  return coding !== undefined || (length !== undefined && length !== '0');
}

/**
 * Reads a small body whole. Cheaper than a pipeline or an iterator, which cost more than storing it: a PUT
 * of 4 KiB passes here with one listener and, as a rule, one piece that is handed on as it came.
 * @throws FiletrackerError whatever the connection is interrupted with; the rest of the body is left unread.
 */
export function collectBody(
  request: IncomingMessage,
  connection: Connection,
  sizeBytes: number,
): Promise<Buffer> {
  return new Promise((resolve, reject) => {
    const pieces: Buffer[] = [];
    let received = 0;
    function take(): void {
      for (let piece: unknown = request.read(); Buffer.isBuffer(piece); piece = request.read()) {
        pieces.push(piece);
        received += piece.length;
      }
      // Node hands over no more than was announced, and fails the connection where less comes.
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
 * Goes on reading a body that was refused, and throws it away, so that its sender reads the answer instead
 * of a reset connection; until it ends, or up to the limits on time and bytes.
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
