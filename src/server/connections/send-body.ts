import type { ServerResponse } from 'node:http';
import type { Socket } from 'node:net';
import type { Readable } from 'node:stream';
import { giveBack } from '../../streams/reused-pieces.ts';

/**
 * Sends what a stream gives as the body of an answer, and ends the answer. Destroys the stream, whatever happens; rejects
 * where not all of it could be sent.
 *
 * Each piece goes back to where it came from when the system has taken it, which node:stream's `pipeline` would not
 * tell us: memory outside of V8's heap that is taken anew for each piece has the whole heap collected for every 64 MiB
 * that are sent.
 */
export async function sendBody(body: Readable, response: ServerResponse, socket: Socket): Promise<void> {
  let onClose: () => void = () => undefined;
  // An answer that waits for the one before it is never told that the connection has gone.
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

async function sendPieces(body: Readable, response: ServerResponse, socket: Socket): Promise<void> {
  for await (const piece of body as AsyncIterable<Uint8Array | string>) {
    await taken(socket, (done) => response.write(piece, done));
    if (typeof piece !== 'string') giveBack(body, piece);
  }
  await taken(socket, (done) => response.end(done));
}

/** Resolves when the system has taken what `write` writes. */
function taken(socket: Socket, write: (done: (error?: Error | null) => void) => void): Promise<void> {
  return new Promise((resolve, reject) => {
    write((error) => {
      // For a socket that was destroyed, Node 22 and older report success, and newer versions that the write was cancelled.
      if (socket.destroyed) reject(cutOff());
      else if (error instanceof Error) reject(error);
      else resolve();
    });
  });
}

/** The error of an answer whose connection went before all of it was sent. */
function cutOff(): Error {
  return Object.assign(new Error('the connection was closed before the answer was sent'), {
    code: 'ERR_STREAM_PREMATURE_CLOSE',
  });
}
