import type { Connection } from './connection.ts';
import type { ServerTimeouts } from './node-server.ts';

/** Why a connection is closed. */
export type SlowClientFault = 'slow-sender' | 'slow-reader' | 'no-request';

/** The reasons, as the log and the metrics show them. */
export const faultTexts: Readonly<Record<SlowClientFault, string>> = {
  'slow-sender': 'a body came too slowly',
  'slow-reader': 'an answer was read too slowly',
  'no-request': 'no request came, but bytes of none',
};

/** Between two checks; one costs a fraction of a microsecond per connection. */
const intervalMaxMs = 1000;

/**
 * Finds connections that move, and so never time out, but make no progress: bodies and responses that trickle, and bytes
 * that never become a request.
 *
 * One timer checks all connections, so that requests cost nothing. Only time spent waiting for the client counts: a body
 * that the store accepts slowly is not slow. A check that is late, because the process was busy or stopped, counts at
 * most twice, so that no client is blamed for it.
 */
export class SlowClientGuard {
  /** Minimum rate; 0 for none. */
  readonly bytesPerSecond: number;
  readonly intervalMs: number;
  readonly #windowMs: number;
  readonly #quietMaxMs: number;
  #lastMs: number | undefined;

  constructor(bytesPerSecond: number, timeouts: ServerTimeouts) {
    this.bytesPerSecond = bytesPerSecond;
    this.#windowMs = timeouts.stallMs;
    // The time of an honest client: to be idle, and then to send its headers.
    this.#quietMaxMs = timeouts.idleMs + timeouts.headersMs;
    this.intervalMs = Math.max(1, Math.min(intervalMaxMs, timeouts.stallMs / 4, this.#quietMaxMs / 4));
  }

  /** Starts a check of all connections; returns the time that counts for it. */
  pass(nowMs: number): number {
    const passedMs = nowMs - (this.#lastMs ?? nowMs);
    this.#lastMs = nowMs;
    return Math.min(passedMs, 2 * this.intervalMs);
  }

  /** The fault of a connection; `undefined` if it makes progress or waits for the store. */
  faultOf(connection: Connection, passedMs: number): SlowClientFault | undefined {
    if (connection.arriving?.complete === true) connection.arriving = undefined;
    if (this.bytesPerSecond > 0) {
      if (this.#sendsTooSlowly(connection, passedMs)) return 'slow-sender';
      if (this.#readsTooSlowly(connection, passedMs)) return 'slow-reader';
    }
    return this.#sendsNoRequest(connection, passedMs) ? 'no-request' : undefined;
  }

  /** A body that is being read, or the rest of a refused one, which Node reads and drops. */
  #sendsTooSlowly(connection: Connection, passedMs: number): boolean {
    const { progress, arriving, socket } = connection;
    const body = connection.isReading || connection.active === 0 ? arriving : undefined;
    if (body === undefined || progress.body !== body) {
      progress.body = body;
      progress.bodyMs = 0;
      progress.bodyStartBytes = socket.bytesRead;
      return false;
    }
    if (connection.isReading && !connection.waitsForSender) return false;
    progress.bodyMs += passedMs;
    if (progress.bodyMs < this.#windowMs) return false;
    const receivedBytes = socket.bytesRead - progress.bodyStartBytes;
    if (receivedBytes * 1000 < this.bytesPerSecond * progress.bodyMs) return true;
    progress.bodyMs = 0;
    progress.bodyStartBytes = socket.bytesRead;
    return false;
  }

  /**
   * Bytes that are ready must be taken in the time that the rate allows. The system reports only whole pieces of up to
   * 256 KiB as taken, so a whole piece is waited for.
   */
  #readsTooSlowly({ progress, socket }: Connection, passedMs: number): boolean {
    const readyBytes = socket.writableLength;
    if (readyBytes === 0) {
      progress.readyBytes = 0;
      return false;
    }
    const takenBytes = socket.bytesWritten - readyBytes;
    if (progress.readyBytes === 0 || takenBytes >= progress.takenBytes + progress.readyBytes) {
      progress.readyBytes = readyBytes;
      progress.takenBytes = takenBytes;
      progress.readyMs = 0;
      return false;
    }
    progress.readyMs += passedMs;
    return progress.readyMs > this.#windowMs + (progress.readyBytes * 1000) / this.bytesPerSecond;
  }

  /** Node starts no time-out for headers with empty lines between requests. */
  #sendsNoRequest(connection: Connection, passedMs: number): boolean {
    const { progress, requests, socket } = connection;
    const answered = connection.active === 0 && socket.writableLength === 0;
    const quiet = answered && connection.arriving === undefined;
    if (!quiet || progress.quietRequests !== requests) {
      progress.quietRequests = requests;
      progress.quietMs = 0;
      return false;
    }
    progress.quietMs += passedMs;
    return progress.quietMs > this.#quietMaxMs;
  }
}
