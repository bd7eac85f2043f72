import type { IncomingMessage, ServerResponse } from 'node:http';
import type { Socket } from 'node:net';
import { FiletrackerError } from '../../core/errors.ts';
import { Pace } from './pace.ts';
import { senderOf } from '../../access/rate-limiter.ts';

/** A body that is being read, and how to fail that. */
interface Reading {
  readonly request: IncomingMessage;
  fail(error: FiletrackerError): void;
}

/**
 * What the server knows of one socket. At most one body is read from it at a time, because HTTP/1.1 has one
 * after the other on the wire; `interrupt` fails that reading, whatever stopped it, and nothing else.
 */
export class Connection {
  readonly socket: Socket;
  /** Asked of the system once: it costs a call each time, and is gone once the socket is closed. */
  readonly remoteAddress: string;
  /** By the clock that only goes forward. */
  readonly openedAtMs = performance.now();
  /** Requests that have begun and are not over. */
  active = 0;
  /** Of these, the ones that wait for the one before them. */
  waiting = 0;
  /** Settles when the request that came last is over. */
  last: Promise<void> = Promise.resolve();
  /** The answer to the request that came last. */
  lastResponse: ServerResponse | undefined;
  /** Bytes of the socket that have been counted to earlier requests; kept here for who counts them. */
  countedReadBytes = 0;
  /** Whether an answer said that it is the last one. */
  saidClose = false;
  /** Requests that have come. */
  requests = 0;
  /** The request that came last, until it is known to have come whole. */
  arriving: IncomingMessage | undefined;
  /** How it gets on; kept here for who watches that. */
  readonly pace = new Pace();
  #sender: string | undefined;
  #reading: Reading | undefined;
  #broken = false;
  #closing = false;

  constructor(socket: Socket) {
    this.socket = socket;
    this.remoteAddress = socket.remoteAddress ?? '';
  }

  /** Who those are of whom no more than their address is known. */
  get sender(): string {
    this.#sender ??= senderOf(this.remoteAddress);
    return this.#sender;
  }

  /** Whether a body stopped in its middle: what comes next can't be told from its rest. */
  get isBroken(): boolean {
    return this.#broken;
  }

  /**
   * Whether nothing that comes now is answered: behind an answer that says so, nothing may be carried out (RFC 9112, 9.6).
   */
  get isOver(): boolean {
    return this.saidClose || this.socket.destroyed;
  }

  /** Whether the next answer is the last. */
  get isClosing(): boolean {
    return this.#closing || this.#broken;
  }

  get isReading(): boolean {
    return this.#reading !== undefined;
  }

  /**
   * Whether a body is being read and the next move is its sender's. It is not where bytes lie here that the
   * store has not taken, or where all of them have come and the store is still at work.
   */
  get waitsForSender(): boolean {
    const request = this.#reading?.request;
    return request !== undefined && !request.complete && request.readableLength === 0;
  }

  /** A request has come; perhaps not all of it. */
  receives(request: IncomingMessage): void {
    this.requests += 1;
    this.arriving = request;
  }

  /** Ends the connection after the answers that are under way; at once where there are none. */
  closeAfterAnswers(): void {
    this.#closing = true;
    if (this.active === 0) this.socket.destroySoon();
  }

  /** Ends the connection with the next answer, whose headers tell the client. */
  closeWithNextAnswer(): void {
    this.#closing = true;
  }

  beginReading(request: IncomingMessage, fail: (error: FiletrackerError) => void): void {
    this.#reading = { request, fail };
  }

  endReading(): void {
    this.#reading = undefined;
  }

  interrupt(error: FiletrackerError): void {
    const reading = this.#reading;
    this.#reading = undefined;
    this.#broken = true;
    reading?.fail(error);
  }
}

export function truncatedBody(): FiletrackerError {
  return new FiletrackerError(
    'truncated-body',
    'Cannot read the body: it ended before all of it had come, send it again',
  );
}

export function stalledBody(timeoutMs: number): FiletrackerError {
  return new FiletrackerError(
    'timeout',
    `Cannot read the body: nothing came for ${Math.round(timeoutMs / 1000)} s, send it again`,
  );
}

export function slowBody(bytesPerSecond: number, timeMs: number): FiletrackerError {
  return new FiletrackerError(
    'timeout',
    `Cannot read the body: in ${Math.round(timeMs / 1000)} s less came than the ${bytesPerSecond} bytes a second that it must make, send it again`,
  );
}

export function brokenBody(): FiletrackerError {
  return new FiletrackerError('invalid-argument', 'Cannot read the body: its chunked framing is broken');
}
