import type { IncomingMessage } from 'node:http';
import type { Socket } from 'node:net';
import { senderOf } from '../../access/rate-limiter.ts';
import { cannot, type FiletrackerError } from '../../core/errors.ts';
import type { ResponseWriter } from './messages.ts';

/** What the slow-client guard remembers of a connection between two checks. */
class Progress {
  /** The request whose body is awaited, since when, and the bytes that had come then. */
  body: IncomingMessage | undefined;
  bodyMs = 0;
  bodyStartBytes = 0;
  /** The bytes that the client has to take, since when, and the bytes that it had taken then. */
  readyBytes = 0;
  takenBytes = 0;
  readyMs = 0;
  /** The number of requests when the connection became quiet, and since when it is. */
  quietRequests = 0;
  quietMs = 0;
}

/**
 * The server's view of one socket. At most one body is read from it at a time, because HTTP/1.1 sends them one after the
 * other; `interrupt` fails that reading, whatever stopped it, and nothing else.
 */
export class Connection {
  readonly socket: Socket;
  /** Read once: it costs a system call, and is gone when the socket is closed. */
  readonly remoteAddress: string;
  /** By the monotonic clock. */
  readonly openedAtMs = performance.now();
  /** Requests that have begun and are not over. */
  active = 0;
  /** Of these, the requests that wait for the previous one. */
  waiting = 0;
  /** Settles when the last request is over. */
  last: Promise<void> = Promise.resolve();
  /** The response to the last request. */
  lastResponse: ResponseWriter | undefined;
  /** Bytes of the socket that the metrics have counted for earlier requests. */
  countedReadBytes = 0;
  /** Whether a response announced that it is the last one. */
  saidClose = false;
  /** Requests that have come. */
  requests = 0;
  /** The last request of node:http, until it is known to be complete. */
  arriving: IncomingMessage | undefined;
  readonly progress = new Progress();
  #sender: string | undefined;
  #reading: ((error: FiletrackerError) => void) | undefined;
  #readRequest: IncomingMessage | undefined;
  #broken = false;
  #closing = false;

  constructor(socket: Socket) {
    this.socket = socket;
    this.remoteAddress = socket.remoteAddress ?? '';
  }

  /** The sender of requests of which only the address is known. */
  get sender(): string {
    this.#sender ??= senderOf(this.remoteAddress);
    return this.#sender;
  }

  /** Whether a body stopped in the middle, so that the following bytes may belong to it. */
  get isBroken(): boolean {
    return this.#broken;
  }

  /** Whether further requests are ignored: after a final response nothing may be carried out (RFC 9112, 9.6). */
  get isOver(): boolean {
    return this.saidClose || this.socket.destroyed;
  }

  /** Whether the next response is the last. */
  get isClosing(): boolean {
    return this.#closing || this.#broken;
  }

  get isReading(): boolean {
    return this.#reading !== undefined;
  }

  /** Whether a body is being read and more of it must come: neither the store nor this process is behind. */
  get waitsForSender(): boolean {
    const request = this.#readRequest;
    return request !== undefined && !request.complete && request.readableLength === 0;
  }

  /** A request of node:http has come, perhaps not all of it. */
  receives(request: IncomingMessage): void {
    this.requests += 1;
    this.arriving = request;
  }

  /** Closes the connection after the current responses; at once if there are none. */
  closeAfterAnswers(): void {
    this.#closing = true;
    if (this.active === 0) this.socket.destroySoon();
  }

  /** Closes the connection with the next response, whose headers announce it. */
  closeWithNextAnswer(): void {
    this.#closing = true;
  }

  beginReading(request: IncomingMessage, fail: (error: FiletrackerError) => void): void {
    this.#reading = fail;
    this.#readRequest = request;
  }

  endReading(): void {
    this.#reading = undefined;
    this.#readRequest = undefined;
  }

  interrupt(error: FiletrackerError): void {
    const fail = this.#reading;
    this.endReading();
    this.#broken = true;
    fail?.(error);
  }
}

export function truncatedBody(): FiletrackerError {
  return cannot('truncated-body', 'read the body', 'it ended early; send it again');
}

export function stalledBody(timeoutMs: number): FiletrackerError {
  return cannot('timeout', 'read the body', `no data for ${Math.round(timeoutMs / 1000)} s; send it again`);
}

export function slowBody(bytesPerSecond: number, timeMs: number): FiletrackerError {
  const state = `upload slower than ${bytesPerSecond} bytes/s for ${Math.round(timeMs / 1000)} s`;
  return cannot('timeout', 'read the body', `${state}; send it again`);
}

export function brokenBody(): FiletrackerError {
  return cannot('invalid-argument', 'read the body', 'its chunked framing is broken');
}
