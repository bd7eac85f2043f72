import type { Socket } from 'node:net';
import type { Connection } from '../connections/connection.ts';
import type { ConnectionFaults } from '../connections/connection-faults.ts';
import type { Message } from '../connections/messages.ts';
import type { ServerTimeouts } from '../connections/node-server.ts';
import { LaneResponse, ResponseMemory, type ResponseOwner } from './lane-response.ts';
import { RequestReader } from './request-grammar.ts';

/** What the lane needs of the server, which serves its requests as it serves those of node:http. */
export interface LaneServer {
  /** Prefix of every path, such as `/ft`; empty if there is none. */
  readonly basePath: string;
  readonly timeouts: ServerTimeouts;
  /** Time until an idle connection is closed: the announced time, and what node:http adds to it. */
  readonly idleCloseMs: number;
  /** Ends connections as it does for node:http. */
  readonly faults: ConnectionFaults;
  serve(message: Message, connection: Connection): void;
  /** Gives the connection to node:http. */
  handOver(socket: Socket): void;
}

const noBody = Buffer.alloc(0);
const carriageReturn = 0x0d;

/**
 * Serves small, plain requests without node:http, which costs half of the processor time of a small GET. The grammar of
 * request-grammar.ts decides by the bytes alone; at the first bytes that are not exactly one such request, the connection goes
 * to node:http with all of them, and stays there.
 */
export class FastLane {
  readonly server: LaneServer;
  readonly memory = new ResponseMemory();
  readonly keepAliveLines: string;

  constructor(server: LaneServer) {
    this.server = server;
    const seconds = Math.floor(server.timeouts.idleMs / 1000);
    this.keepAliveLines = `Connection: keep-alive\r\nKeep-Alive: timeout=${seconds}\r\n`;
  }

  /** Serves a new connection. */
  take(connection: Connection): void {
    new LaneConnection(connection, this).begin();
  }
}

/**
 * One connection of the lane.
 *
 * Invariants: the lane has at most one request in progress. Every byte of the client is part of a request of the lane, or
 * of a line end after one, or goes to node:http, in order. A connection that node:http has got may still wait for its response of the lane: the server
 * serves the requests of one connection one after the other, so nothing is written before it.
 */
class LaneConnection implements ResponseOwner {
  readonly socket: Socket;
  readonly memory: ResponseMemory;
  readonly keepAliveLines: string;
  readonly #connection: Connection;
  readonly #server: LaneServer;
  readonly #reader: RequestReader;
  /** Whether a response is in progress. */
  #busy = false;
  /** Whether the client has shut down its side. */
  #ended = false;
  #handedOver = false;
  #timeoutMs = 0;

  constructor(connection: Connection, lane: FastLane) {
    this.#connection = connection;
    this.socket = connection.socket;
    this.memory = lane.memory;
    this.keepAliveLines = lane.keepAliveLines;
    this.#server = lane.server;
    this.#reader = new RequestReader(this.socket, lane.server.basePath);
  }

  begin(): void {
    const { headersMs, stallMs } = this.#server.timeouts;
    this.#setTimeout(Math.min(headersMs, stallMs));
    this.socket
      .on('error', this.#onError)
      .on('timeout', this.#onTimeout)
      .on('end', this.#onEnd)
      .on('data', this.#onData);
  }

  readonly #onData = (bytes: Buffer): void => {
    // After a final response nothing may be carried out.
    if (this.#connection.isOver || !this.socket.writable) return;
    // Every reader ignores line ends between requests (RFC 9112, 2.2); to node:http they would begin the next one.
    if (this.#connection.requests > 0 && isLineEnds(bytes)) return;
    const request = this.#busy ? undefined : this.#reader.read(bytes);
    if (request === undefined) {
      this.#handOver(bytes);
      return;
    }
    this.#busy = true;
    this.#connection.requests += 1;
    const response = new LaneResponse(this);
    this.#server.serve({ request, response, body: noBody, expectsContinue: false }, this.#connection);
  };

  #handOver(bytes: Buffer): void {
    const { socket } = this;
    this.#handedOver = true;
    socket.off('data', this.#onData).off('end', this.#onEnd).off('timeout', this.#onTimeout);
    // In the buffer, the bytes are before all that comes later, and before the end of what the client sends.
    socket.pause();
    socket.unshift(bytes);
    this.#server.handOver(socket);
    socket.off('error', this.#onError);
    socket.resume();
  }

  wrote(): void {
    if (this.socket.writableLength > 0) this.#setTimeout(this.#server.timeouts.stallMs);
  }

  written(response: LaneResponse): void {
    this.#busy = false;
    if (!response.shouldKeepAlive || this.#ended) this.socket.destroySoon();
    else this.#setTimeout(this.#server.idleCloseMs);
  }

  readonly #onEnd = (): void => {
    this.#ended = true;
    // The response in progress is the last one.
    if (!this.#busy) this.socket.end();
  };

  readonly #onTimeout = (): void => {
    const { timeouts, faults } = this.#server;
    const isNew = this.#connection.requests === 0;
    // node:http counts the time for the headers of the first request from the beginning of the connection.
    if (isNew && timeouts.headersMs < timeouts.stallMs) faults.onClientError(overdueHeaders(), this.socket);
    else faults.onTimeout(this.socket);
  };

  readonly #onError = (error: Error): void => this.#server.faults.onClientError(error, this.socket);

  /** Setting a time-out costs more than the activity of the socket, which starts it again. */
  #setTimeout(timeoutMs: number): void {
    if (this.#timeoutMs === timeoutMs || this.#handedOver) return;
    this.#timeoutMs = timeoutMs;
    this.socket.setTimeout(timeoutMs);
  }
}

function isLineEnds(bytes: Buffer): boolean {
  return bytes[0] === carriageReturn && /^(?:\r\n)+$/.test(bytes.toString('latin1'));
}

/** The error by which node:http reports headers that did not arrive in time. */
function overdueHeaders(): Error {
  return Object.assign(new Error('Request timeout'), { code: 'ERR_HTTP_REQUEST_TIMEOUT' });
}
