import type { IncomingMessage } from 'node:http';
import type { Readable } from 'node:stream';
import { STATUS_CODES } from 'node:http';
import { cannot, type FiletrackerError } from '../core/errors.ts';
import { refusedBodyDrainMaxBytes } from '../core/limits.ts';
import { challenges } from '../protocol/authorization.ts';
import { problemType, textType, type Endpoint } from '../protocol/endpoints.ts';
import {
  asOneLine,
  describeProblem,
  exceptionCodeHeader,
  exceptionHeader,
  publicError,
  wantsProblem,
} from '../protocol/problems.ts';
import { defaultRetryAfterSeconds, statusOf } from '../protocol/statuses.ts';
import type { Principal, Right } from '../access/access.ts';
import type { Connection } from './connections/connection.ts';
import type { FlatHeaders, Message, RequestHead, ResponseWriter } from './connections/messages.ts';
import { announcesBody, lingerOn } from './connections/request-body.ts';
import { sendBody } from './connections/send-body.ts';

const processId = process.pid.toString(36);

/** A header as one text; Node's types allow for a list of repeated headers. */
export function singleValue(value: string | readonly string[] | undefined): string | undefined {
  return value === undefined || typeof value === 'string' ? value : value.join(', ');
}

/**
 * One request and its response. A response begins once; after that a failure can only destroy the connection, because
 * the client would take anything else for content.
 */
export class Exchange {
  readonly request: RequestHead;
  readonly response: ResponseWriter;
  /** The body of the request: a stream, or all of its bytes if they came with the head. */
  readonly body: IncomingMessage | Buffer;
  readonly connection: Connection;
  readonly number: number;
  readonly startedMs: number;
  /** Whether the client waits for a 100 before it sends the body. */
  expectsContinue: boolean;
  principal: Principal | undefined;
  /** `undefined` until it is known, and for an unknown path. */
  endpoint: Endpoint | undefined;
  /** The status of the response; 0 until there is one. */
  status = 0;
  /** Bytes of the response body. */
  sentBytes = 0;
  /** The failure, with its cause, for the log. */
  error: unknown;
  /** Present while the rest of a refused body is read. */
  lingering: Promise<void> | undefined;

  constructor(message: Message, connection: Connection, number: number) {
    this.request = message.request;
    this.response = message.response;
    this.body = message.body;
    this.connection = connection;
    this.number = number;
    this.expectsContinue = message.expectsContinue;
    this.startedMs = performance.now();
  }

  /** Identifies the request in the log and, after an internal failure, to the client. */
  get id(): string {
    return `${processId}-${this.number.toString(36)}`;
  }

  /** The sender, for rates and shares: a token's name, or an address in brackets. */
  get sender(): string {
    return this.principal?.name ?? this.connection.sender;
  }

  /** @throws FiletrackerError `forbidden`, or `unauthorized` if the client is anonymous. */
  require(right: Right, path: string): void {
    if (this.principal?.may(right, path) !== true) throw this.#missing(`${right} "${path}"`);
  }

  /** Whether the client may see totals of the store, which show whether an upload was new to it. */
  get maySeeTotals(): boolean {
    const { principal } = this;
    return principal !== undefined && (principal.may('read', '/') || principal.may('admin', '/'));
  }

  /** For responses with totals of the store. @throws FiletrackerError as `require`. */
  requireTotals(action: string): void {
    if (!this.maySeeTotals) throw this.#missing(action);
  }

  /** For responses to any token. @throws FiletrackerError as `require`. */
  requireAnyRight(action: string): void {
    if (this.principal?.name === undefined && !this.maySeeTotals) throw this.#missing(action);
  }

  #missing(action: string): FiletrackerError {
    const { principal } = this;
    if (principal?.name !== undefined)
      return cannot('forbidden', action, 'the token lacks the right to do so');
    const needed = 'a token is needed, as "Authorization: Bearer TOKEN" or as the password in the URL';
    return cannot('unauthorized', action, principal?.refusal ?? needed);
  }

  /** Sends 100 Continue if the client waits for it. */
  continue(): void {
    if (!this.expectsContinue) return;
    this.expectsContinue = false;
    this.response.writeContinue?.();
  }

  /**
   * Unless a handler forbids caching, an HTTP cache must revalidate before each use: names get new versions at any time,
   * and without Cache-Control caches keep a response for weeks.
   */
  #begin(status: number, headers: FlatHeaders): void {
    if (!headers.includes('Cache-Control')) headers.push('Cache-Control', 'no-cache');
    this.response.writeHead(status, headers);
  }

  /** Responds with a body in memory. This ends the exchange. */
  send(status: number, headers: FlatHeaders, body?: Buffer): void {
    const { request, response, connection, body: incoming } = this;
    this.status = status;
    if (connection.isClosing) response.shouldKeepAlive = false;
    if (!Buffer.isBuffer(incoming) && !incoming.complete && announcesBody(incoming)) {
      this.#sendUnread(incoming, status, headers, body);
      return;
    }
    this.#begin(status, headers);
    if (body === undefined || request.method === 'HEAD') {
      response.end();
      return;
    }
    this.sentBytes = body.length;
    response.end(body);
  }

  /**
   * Responds to a request whose body has not been read. Node drops the rest of a short body and the connection stays
   * open; otherwise the response is written in full, and the connection lingers and is closed.
   */
  #sendUnread(
    request: IncomingMessage,
    status: number,
    headers: FlatHeaders,
    body: Buffer | undefined,
  ): void {
    const { response } = this;
    const { isBroken } = this.connection;
    const rest = Number(request.headers['content-length'] ?? Infinity);
    const staysOpen = rest <= refusedBodyDrainMaxBytes && !this.expectsContinue && !isBroken;
    if (!staysOpen) response.shouldKeepAlive = false;
    this.#begin(status, headers);
    const sent = request.method === 'HEAD' ? undefined : body;
    this.sentBytes = sent?.length ?? 0;
    if (staysOpen) {
      response.end(sent);
      return;
    }
    if (sent === undefined) response.flushHeaders?.();
    else response.write(sent);
    this.lingering = lingerOn(request).finally(() => response.end());
  }

  /** Responds with one line of text. */
  sendText(status: number, text: string, headers: FlatHeaders = []): void {
    const body = Buffer.from(`${text}\n`);
    this.send(status, ['Content-Type', textType, 'Content-Length', body.length, ...headers], body);
  }

  /** Responds with JSON. */
  sendJson(status: number, type: string, value: unknown, headers: FlatHeaders = []): void {
    const body = Buffer.from(`${JSON.stringify(value)}\n`);
    this.send(status, ['Content-Type', type, 'Content-Length', body.length, ...headers], body);
  }

  /** Responds with the bytes of a stream, which it destroys. Rejects if not all of them were sent. */
  async stream(status: number, headers: FlatHeaders, body: Readable): Promise<void> {
    this.status = status;
    if (this.connection.isClosing) this.response.shouldKeepAlive = false;
    this.#begin(status, headers);
    const startBytes = this.connection.socket.bytesWritten;
    try {
      await sendBody(body, this.response, this.connection.socket);
    } finally {
      this.sentBytes = this.connection.socket.bytesWritten - startBytes;
    }
  }

  /** Responds with an error, or destroys the connection if a response has begun. */
  fail(error: unknown, headers: FlatHeaders = []): void {
    const { response } = this;
    if (response.headersSent) response.destroy();
    else {
      const shown = publicError(error, this.id);
      this.sendError(shown, statusOf(shown.code), headers);
    }
    this.error = error;
  }

  /** Responds with an error and the given status. */
  sendError(error: FiletrackerError, status: number, headers: FlatHeaders = []): void {
    this.error = error;
    const line = asOneLine(error.message);
    const all: FlatHeaders = [exceptionHeader, line, exceptionCodeHeader, error.code, ...headers];
    const retryAfterSeconds = error.details.retryAfterSeconds ?? defaultRetryAfterSeconds[error.code];
    if (retryAfterSeconds !== undefined) all.push('Retry-After', retryAfterSeconds);
    if (status === 401) for (const challenge of challenges) all.push('WWW-Authenticate', challenge);
    if (error.code === 'unsupported-encoding') all.push('Accept-Encoding', 'gzip, identity');
    if (wantsProblem(this.request.headers.accept)) {
      const title = STATUS_CODES[status] ?? 'Error';
      this.sendJson(status, problemType, describeProblem(error, status, title), all);
    } else this.sendText(status, line, all);
  }
}
