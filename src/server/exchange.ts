import type { IncomingMessage, OutgoingHttpHeader, ServerResponse } from 'node:http';
import type { Readable } from 'node:stream';
import { STATUS_CODES } from 'node:http';
import { FiletrackerError } from '../core/errors.ts';
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
import { announcesBody, lingerOn } from './connections/request-body.ts';
import { sendBody } from './connections/send-body.ts';

/** Asked of the system once. */
const processId = process.pid.toString(36);

/** Header names and values one after the other, as writeHead takes them: the cheapest form it knows. */
export type FlatHeaders = OutgoingHttpHeader[];

/**
 * One request and its answer. An answer is begun once; after that a failure can only destroy the connection,
 * because a client would take anything else for content.
 */
export class Exchange {
  readonly request: IncomingMessage;
  readonly response: ServerResponse;
  readonly connection: Connection;
  readonly number: number;
  readonly startedMs: number;
  /** Whether the client waits for a 100 before it sends the body. */
  expectsContinue: boolean;
  principal: Principal | undefined;
  /** Undefined until it is known, and where there is none of the path. */
  endpoint: Endpoint | undefined;
  /** What was answered; 0 until then. */
  status = 0;
  /** Bytes of the answer's body. */
  sentBytes = 0;
  /** What went wrong, if anything did; with its cause, for the log. */
  error: unknown;
  /** Set while the rest of a refused body is read. */
  lingering: Promise<void> | undefined;

  constructor(
    request: IncomingMessage,
    response: ServerResponse,
    connection: Connection,
    number: number,
    expectsContinue: boolean,
  ) {
    this.request = request;
    this.response = response;
    this.connection = connection;
    this.number = number;
    this.expectsContinue = expectsContinue;
    this.startedMs = performance.now();
  }

  /** Names the request in the log and, where the server failed, to the client. */
  get id(): string {
    return `${processId}-${this.number.toString(36)}`;
  }

  /** Whose the request is, for bounds on what one may do: a token's name, or an address in brackets. */
  get sender(): string {
    // A token's name begins with a letter or digit, so that none can be taken for an address.
    return this.principal?.name ?? this.connection.sender;
  }

  /** @throws FiletrackerError `forbidden`, or `unauthorized` where the client has not said who it is. */
  require(right: Right, path: string): void {
    if (this.principal?.may(right, path) !== true) throw this.#missing(`${right} "${path}"`);
  }

  /** Whether the sender may learn of the store as a whole: its totals show whether an upload was new to it. */
  get maySeeTotals(): boolean {
    const { principal } = this;
    return principal !== undefined && (principal.may('read', '/') || principal.may('admin', '/'));
  }

  /** For what tells about the store as a whole. @throws FiletrackerError as `require`. */
  requireTotals(action: string): void {
    if (!this.maySeeTotals) throw this.#missing(action);
  }

  /** For what any token will do. @throws FiletrackerError as `require`. */
  requireAnyRight(action: string): void {
    if (this.principal?.name === undefined && !this.maySeeTotals) throw this.#missing(action);
  }

  #missing(action: string): FiletrackerError {
    if (this.principal?.name !== undefined) {
      return new FiletrackerError('forbidden', `Cannot ${action}: the token lacks the right to do so`);
    }
    const state =
      this.principal?.refusal ??
      'a token is needed, as "Authorization: Bearer TOKEN" or as the password in the URL';
    return new FiletrackerError('unauthorized', `Cannot ${action}: ${state}`);
  }

  /** Asks for the body, if the client waits to be asked. */
  continue(): void {
    if (!this.expectsContinue) return;
    this.expectsContinue = false;
    this.response.writeContinue();
  }

  /**
   * A cache on the way asks here before each use of an answer: names get new contents at any time, and without a word
   * caches guess, for weeks. What may be kept nowhere says so itself.
   */
  #begin(status: number, headers: FlatHeaders): void {
    if (!headers.includes('Cache-Control')) headers.push('Cache-Control', 'no-cache');
    this.response.writeHead(status, headers);
  }

  /** Answers with a body that lies in memory; the last thing that happens in an exchange. */
  send(status: number, headers: FlatHeaders, body?: Buffer): void {
    const { request, response, connection } = this;
    this.status = status;
    if (connection.isClosing) response.shouldKeepAlive = false;
    if (!request.complete && announcesBody(request)) {
      this.#sendUnread(status, headers, body);
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
   * Answers a request whose body has not been read. Node reads and drops the rest of a short body, and the
   * connection goes on; otherwise the answer is written in full, the connection lingers and is closed.
   */
  #sendUnread(status: number, headers: FlatHeaders, body: Buffer | undefined): void {
    const { request, response } = this;
    const { isBroken } = this.connection;
    const rest = Number(request.headers['content-length'] ?? Infinity);
    const goesOn = rest <= refusedBodyDrainMaxBytes && !this.expectsContinue && !isBroken;
    if (!goesOn) response.shouldKeepAlive = false;
    this.#begin(status, headers);
    const sent = request.method === 'HEAD' ? undefined : body;
    this.sentBytes = sent?.length ?? 0;
    if (goesOn) {
      response.end(sent);
      return;
    }
    if (sent === undefined) response.flushHeaders();
    else response.write(sent);
    this.lingering = lingerOn(request).finally(() => response.end());
  }

  /** Answers with one line of text. */
  sendText(status: number, text: string, headers: FlatHeaders = []): void {
    const body = Buffer.from(`${text}\n`);
    this.send(status, ['Content-Type', textType, 'Content-Length', body.length, ...headers], body);
  }

  /** Answers with JSON. */
  sendJson(status: number, type: string, value: unknown, headers: FlatHeaders = []): void {
    const body = Buffer.from(`${JSON.stringify(value)}\n`);
    this.send(status, ['Content-Type', type, 'Content-Length', body.length, ...headers], body);
  }

  /** Answers with bytes that come from a stream, which it owns. Rejects where it did not get to its end. */
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

  /** Answers with what went wrong, or, once an answer has begun, breaks it off. */
  fail(error: unknown, headers: FlatHeaders = []): void {
    this.error = error;
    const { response } = this;
    if (response.headersSent) {
      response.destroy();
      return;
    }
    const told = publicError(error, this.id);
    this.sendError(told, statusOf(told.code), headers);
    this.error = error;
  }

  /** Answers with an error and a status of the caller's choice. */
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
