import type { Socket } from 'node:net';
import type { Readable } from 'node:stream';
import { giveBack } from '../../streams/chunks.ts';
import type { ResponseWriter } from './messages.ts';

/**
 * Sends a stream as the body of a response, and ends the response. Always destroys the stream; rejects if not all of it
 * could be sent.
 *
 * Each piece returns to its source for reuse when the system has taken it, which node:stream's `pipeline` does not
 * report: with new memory outside V8's heap for each piece, V8 collects the whole heap for every 64 MiB sent.
 */
export async function sendBody(body: Readable, response: ResponseWriter, socket: Socket): Promise<void> {
  let onClose: () => void = () => undefined;
  // A response that waits for the previous one gets no event when the connection is closed.
  const closed = new Promise<never>((_resolve, reject) => {
    onClose = () => reject(cutOff());
  });
  socket.once('close', onClose);
  try {
    if (socket.destroyed) throw cutOff();
    await Promise.race([sendPieces(body, response, socket), closed]);
  } finally {
    socket.off('close', onClose);
    body.destroy();
  }
}

async function sendPieces(body: Readable, response: ResponseWriter, socket: Socket): Promise<void> {
  for await (const piece of body as AsyncIterable<Uint8Array | string>) {
    await taken(socket, (done) => response.write(piece, done));
    if (typeof piece !== 'string') giveBack(body, piece);
  }
  await taken(socket, (done) => response.end(done));
}

/** Resolves when the system has taken the bytes that `write` writes. */
function taken(socket: Socket, write: (done: (error?: Error | null) => void) => void): Promise<void> {
  return new Promise((resolve, reject) => {
    write((error) => {
      // For a destroyed socket, Node 22 and older report success; newer versions report a cancelled write.
      if (socket.destroyed) reject(cutOff());
      else if (error instanceof Error) reject(error);
      else resolve();
    });
  });
}

/** The error of a response whose connection was closed before all of it was sent. */
function cutOff(): Error {
  return Object.assign(new Error('the connection was closed before the response was sent'), {
    code: 'ERR_STREAM_PREMATURE_CLOSE',
  });
}
