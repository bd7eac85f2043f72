import type { IncomingMessage } from 'node:http';

/** Read to its end so that the connection can be used again; a longer body costs more than a new connection. */
const readMaxBytes = 64 * 1024;

/** Throws the body of a response away, however long the server makes it. */
export function discard(body: IncomingMessage): void {
  let readBytes = 0;
  body.on('data', (piece: Buffer) => {
    readBytes += piece.length;
    if (readBytes > readMaxBytes) body.destroy();
  });
}
