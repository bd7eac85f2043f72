import { waitingRequestsMax, waitingRequestsPauseAt, waitingRequestsTotalMax } from '../../core/limits.ts';
import type { Connection } from './connection.ts';
import type { ResponseWriter } from './messages.ts';

/**
 * Bounds the requests that wait for the previous one on their connection.
 *
 * Invariant: at most `waitingRequestsMax` wait on one connection. All connections together have at most
 * `waitingRequestsTotalMax` besides the first of each, which a client may send just before this process sees the end of a
 * response. Reading pauses long before the first bound, so that only a client that sends very many at once reaches it.
 */
export class WaitingRequests {
  #count = 0;

  /** Counts a request of a connection; false if there are too many. */
  enter(connection: Connection): boolean {
    const { waiting } = connection;
    if (waiting >= waitingRequestsMax || (waiting > 0 && this.#count >= waitingRequestsTotalMax))
      return false;
    connection.waiting += 1;
    if (waiting > 0) this.#count += 1;
    // Node resumes reading at the end of each parsed request, so the pause comes after them.
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

/** Resolves when the system has taken a response, or its connection is closed: at most one response is in memory. */
export function answerTaken(response: ResponseWriter, { socket }: Connection): Promise<void> | undefined {
  if (response.writableFinished || socket.destroyed) return undefined;
  return new Promise((resolve) => {
    function over(): void {
      response.off('finish', over);
      socket.off('close', over);
      resolve();
    }
    response.once('finish', over);
    // A response that waits for the previous one gets no event when the connection is closed.
    socket.once('close', over);
  });
}
