import type { ServerResponse } from 'node:http';
import { waitingRequestsMax, waitingRequestsPauseAt, waitingRequestsTotalMax } from '../../core/limits.ts';
import type { Connection } from './connection.ts';

/**
 * Bounds the requests that wait for the one before them on their connection.
 *
 * Invariant: at most `waitingRequestsMax` wait on one connection. All connections together hold at most
 * `waitingRequestsTotalMax` beside the first one of each, which a client may send just before the end of an answer
 * is noticed here. Reading stops long before the first bound, so only a client that sends very many at once gets there.
 */
export class WaitingRequests {
  #count = 0;

  /** Counts another request of a connection; false if there are too many. */
  enter(connection: Connection): boolean {
    const { waiting } = connection;
    if (waiting >= waitingRequestsMax || (waiting > 0 && this.#count >= waitingRequestsTotalMax))
      return false;
    connection.waiting += 1;
    if (waiting > 0) this.#count += 1;
    // Node reads on at the end of each request of what it has read already, so this waits until it is through.
    if (connection.waiting === waitingRequestsPauseAt) process.nextTick(pauseReading, connection);
    return true;
  }

  leave(connection: Connection): void {
    if (connection.waiting === waitingRequestsPauseAt) connection.socket.resume();
    connection.waiting -= 1;
    if (connection.waiting > 0) this.#count -= 1;
  }
}

function pauseReading({ waiting, socket }: Connection): void {
  if (waiting >= waitingRequestsPauseAt) socket.pause();
}

/** Resolves when the system has taken an answer, or its connection is gone: so that there is one answer in memory at most. */
export function answerTaken(response: ServerResponse, { socket }: Connection): Promise<void> | undefined {
  if (response.writableFinished || socket.destroyed) return undefined;
  return new Promise((resolve) => {
    function over(): void {
      response.off('finish', over);
      socket.off('close', over);
      resolve();
    }
    response.once('finish', over);
    // An answer that waits for the one before it is never told that the connection has gone.
    socket.once('close', over);
  });
}
