import type { Connection } from './connection.ts';
import type { ServerTimeouts } from './node-server.ts';

/** What a connection does that may not go on. */
export type PaceFault = 'slow-sender' | 'slow-reader' | 'no-request';

/** What is told of a connection that was closed for it. */
export const faultTexts: Readonly<Record<PaceFault, string>> = {
  'slow-sender': 'a body came too slowly',
  'slow-reader': 'an answer was read too slowly',
  'no-request': 'no request came, but bytes of none',
};

/** Between two looks; one costs a fraction of a microsecond for each connection. */
const intervalMaxMs = 1000;

/**
 * Finds connections that move, and so never time out, but get nowhere: bodies and answers that trickle, and
 * bytes that never become a request.
 *
 * All connections are looked at now and then by one timer, so that a request costs nothing by this. What counts is
 * time in which the other side was waited for: a body that the store is slow to take is not slow. A look that comes
 * late, because the process was busy or stopped, counts as two, so that nobody is blamed for that.
 */
export class PaceWatch {
  /** 0 for no bound. */
  readonly bytesPerSecond: number;
  readonly intervalMs: number;
  readonly #windowMs: number;
  readonly #quietMaxMs: number;
  #lastMs: number | undefined;

  constructor(bytesPerSecond: number, timeouts: ServerTimeouts) {
    this.bytesPerSecond = bytesPerSecond;
    this.#windowMs = timeouts.stallMs;
    // As long as an honest client may take: to wait, and then to bring its headers.
    this.#quietMaxMs = timeouts.idleMs + timeouts.headersMs;
    this.intervalMs = Math.max(1, Math.min(intervalMaxMs, timeouts.stallMs / 4, this.#quietMaxMs / 4));
  }

  /** Begins a look at all connections; gives the time since the last one. */
  pass(nowMs: number): number {
    const passedMs = nowMs - (this.#lastMs ?? nowMs);
    this.#lastMs = nowMs;
    return Math.min(passedMs, 2 * this.intervalMs);
  }

  /** What is wrong with a connection; undefined where it gets on, or it is the store that is waited for. */
  faultOf(connection: Connection, passedMs: number): PaceFault | undefined {
    if (connection.arriving?.complete === true) connection.arriving = undefined;
    if (this.bytesPerSecond > 0) {
      if (this.#sendsTooSlowly(connection, passedMs)) return 'slow-sender';
      if (this.#readsTooSlowly(connection, passedMs)) return 'slow-reader';
    }
    return this.#bringsNoRequest(connection, passedMs) ? 'no-request' : undefined;
  }

  /** A body that is being read, or the rest of one that was refused, which Node reads and drops. */
  #sendsTooSlowly(connection: Connection, passedMs: number): boolean {
    const { pace, arriving, socket } = connection;
    const body = connection.isReading || connection.active === 0 ? arriving : undefined;
    if (body === undefined || pace.body !== body) {
      pace.body = body;
      pace.bodyMs = 0;
      pace.bodyStartBytes = socket.bytesRead;
      return false;
    }
    if (connection.isReading && !connection.waitsForSender) return false;
    pace.bodyMs += passedMs;
    if (pace.bodyMs < this.#windowMs) return false;
    const cameBytes = socket.bytesRead - pace.bodyStartBytes;
    if (cameBytes * 1000 < this.bytesPerSecond * pace.bodyMs) return true;
    pace.bodyMs = 0;
    pace.bodyStartBytes = socket.bytesRead;
    return false;
  }

  /**
   * What lies ready must be taken in the time that the rate gives it. How much of it the system has passed on is
   * not known before it has passed on all of a piece, of up to 256 KiB; so that is what is waited for.
   */
  #readsTooSlowly({ pace, socket }: Connection, passedMs: number): boolean {
    const readyBytes = socket.writableLength;
    if (readyBytes === 0) {
      pace.readyBytes = 0;
      return false;
    }
    const takenBytes = socket.bytesWritten - readyBytes;
    if (pace.readyBytes === 0 || takenBytes >= pace.takenBytes + pace.readyBytes) {
      pace.readyBytes = readyBytes;
      pace.takenBytes = takenBytes;
      pace.readyMs = 0;
      return false;
    }
    pace.readyMs += passedMs;
    return pace.readyMs > this.#windowMs + (pace.readyBytes * 1000) / this.bytesPerSecond;
  }

  /** Empty lines between requests are no requests, so that no time-out for headers begins with them. */
  #bringsNoRequest(connection: Connection, passedMs: number): boolean {
    const { pace, requests, socket } = connection;
    const answered = connection.active === 0 && socket.writableLength === 0;
    const quiet = answered && connection.arriving === undefined;
    if (!quiet || pace.quietRequests !== requests) {
      pace.quietRequests = requests;
      pace.quietMs = 0;
      return false;
    }
    pace.quietMs += passedMs;
    return pace.quietMs > this.#quietMaxMs;
  }
}
