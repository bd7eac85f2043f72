import type { ClientRequest, IncomingHttpHeaders, IncomingMessage } from 'node:http';
import { Readable } from 'node:stream';
import { pipeline } from 'node:stream/promises';
import type { CallOptions } from '../../core/concurrency.ts';
import { cannot, errnoOf, isFiletrackerError, type FiletrackerError } from '../../core/errors.ts';
import type { Chunks } from '../../streams/chunks.ts';
import { fromConnectionError } from './connection-errors.ts';
import type { ConnectionOptions } from './transport-options.ts';

/** How long the client waits for `100 Continue` before it sends the body anyway. */
const continueWaitMs = 1000;
/** After sending a body failed, how long the client waits for a response, which may say why. */
const lateResponseWaitMs = 1000;
/** An unwanted body is read up to this size, so that its connection can be reused; beyond it a new connection is cheaper. */
const discardMaxBytes = 64 * 1024;

export interface HttpRequest extends CallOptions {
  readonly method: 'GET' | 'HEAD' | 'PUT' | 'DELETE';
  /** With the query, percent-encoded, below the prefix of the address. */
  readonly path: string;
  readonly headers?: Readonly<Record<string, string | number>>;
  readonly body?: Buffer | (() => Chunks) | undefined;
  /** Headers to add if the request is sent again. */
  readonly repeatHeaders?: (() => Readonly<Record<string, string>>) | undefined;
  /** Send `Expect: 100-continue` and wait for the server's consent before the body. */
  readonly expectContinue?: boolean | undefined;
  /** Completes "Cannot …" in errors. */
  readonly action: string;
}

export interface HttpResponse {
  readonly request: HttpRequest;
  /** The server that sent the response, as messages name it. */
  readonly peer: string;
  /** The server that redirected to `peer`, if any. */
  readonly redirectedBy?: string | undefined;
  /** Whether the body comes from a place where the server stores its blobs. The headers that describe the file are the server's. */
  readonly direct?: boolean;
  readonly status: number;
  readonly headers: IncomingHttpHeaders;
  /** Must be read to its end, discarded or destroyed. */
  readonly body: IncomingMessage;
}

/** The same request again, with the headers of a repeat. */
export function repeated(request: HttpRequest): HttpRequest {
  const { headers, repeatHeaders } = request;
  return repeatHeaders === undefined ? request : { ...request, headers: { ...headers, ...repeatHeaders() } };
}

/** Drops the body of a response, however long the server makes it. */
export function discard({ body }: HttpResponse): void {
  let readBytes = 0;
  body.on('data', (piece: Buffer) => {
    readBytes += piece.length;
    if (readBytes > discardMaxBytes) body.destroy();
  });
}

/** The server closed a kept connection just as it was used. Handled by HttpConnection, which repeats the request. */
export class StaleConnectionError extends Error {}

interface Attempt {
  readonly sent: ClientRequest;
  readonly request: HttpRequest;
  readonly options: ConnectionOptions;
  /** The server as messages name it. */
  readonly peer: string;
  readonly resolve: (response: HttpResponse) => void;
  readonly reject: (error: unknown) => void;
}

/** One request under way: sends the body, receives the head of the response, and enforces the time limits. */
export class RequestAttempt {
  readonly #own: Attempt;
  #connectTimer: NodeJS.Timeout | undefined;
  #continueTimer: NodeJS.Timeout | undefined;
  /** Ends a head that comes byte by byte, which would never stall. */
  #responseTimer: NodeJS.Timeout | undefined;
  #body: IncomingMessage | undefined;
  #sending = false;

  constructor(attempt: Attempt) {
    this.#own = attempt;
  }

  start(): void {
    const { sent, request, options, peer, reject } = this.#own;
    this.#watchConnect();
    sent.setTimeout(options.stallTimeoutMs);
    sent.on('timeout', () => this.#onStall());
    sent.once('error', (error) => this.#fail(error));
    sent.once('response', (message) => this.#respond(message));
    // Without a listener Node ends the request silently.
    sent.once('upgrade', (_message, socket) => {
      this.#clearTimers();
      socket.destroy();
      const state = 'it switches to another protocol without being requested to';
      reject(cannot('protocol', `${request.action} at ${peer}`, state));
    });
    const { body, expectContinue } = request;
    if (body === undefined || Buffer.isBuffer(body)) {
      sent.end(body);
      this.#awaitResponse();
      return;
    }
    const sendBody = (): void => void this.#sendBody(body);
    if (expectContinue !== true) {
      sendBody();
      return;
    }
    sent.once('continue', sendBody);
    this.#continueTimer = setTimeout(sendBody, continueWaitMs);
    sent.flushHeaders();
  }

  #watchConnect(): void {
    const { sent, options } = this.#own;
    sent.once('socket', (socket) => {
      if (!socket.connecting) return;
      const giveUp = (): void => void sent.destroy(this.#timeout('does not accept the connection'));
      this.#connectTimer = setTimeout(giveUp, options.connectTimeoutMs);
      const ready = 'encrypted' in socket ? 'secureConnect' : 'connect';
      socket.once(ready, () => clearTimeout(this.#connectTimer));
    });
  }

  async #sendBody(body: () => Chunks): Promise<void> {
    if (this.#sending) return;
    this.#sending = true;
    clearTimeout(this.#continueTimer);
    const { sent, options, reject } = this.#own;
    try {
      await pipeline(Readable.from(body(), { objectMode: false, highWaterMark: 256 * 1024 }), sent);
      sent.setTimeout(options.answerTimeoutMs);
      this.#awaitResponse();
    } catch (error) {
      // Our own failure to read the body counts; over a cut connection a response may still have come.
      if (isFiletrackerError(error)) reject(error);
      else setTimeout(() => this.#fail(error as Error), lateResponseWaitMs).unref();
    }
  }

  #awaitResponse(): void {
    if (this.#body !== undefined) return;
    const { sent, options } = this.#own;
    const giveUp = (): void => void sent.destroy(this.#timeout('does not complete the head of its response'));
    this.#responseTimer = setTimeout(giveUp, options.answerTimeoutMs);
  }

  #onStall(): void {
    const { sent, options } = this.#own;
    // Unread bytes here mean that the reader is slow, not the server.
    if ((this.#body?.readableLength ?? 0) > 0) sent.setTimeout(options.stallTimeoutMs);
    else if (this.#body !== undefined) this.#body.destroy(this.#timeout('stalls'));
    else sent.destroy(this.#timeout('does not respond; it may be stopped or overloaded'));
  }

  #respond(body: IncomingMessage): void {
    const { sent, request, options, peer, resolve } = this.#own;
    this.#body = body;
    this.#clearTimers();
    sent.setTimeout(options.stallTimeoutMs);
    resolve({ request, peer, status: body.statusCode ?? 0, headers: body.headers, body });
    // The server expects a body that will not come, so the connection cannot be reused.
    const unsent = typeof request.body === 'function' && !sent.writableFinished;
    if (unsent) body.once('end', () => sent.destroy());
  }

  #fail(error: Error): void {
    const { sent, request, peer, reject } = this.#own;
    this.#clearTimers();
    const stale = sent.reusedSocket && ['ECONNRESET', 'EPIPE'].includes(errnoOf(error) ?? '');
    const repeatable = typeof request.body !== 'function' || !this.#sending;
    reject(stale && repeatable ? new StaleConnectionError() : fromConnectionError(error, request, peer));
  }

  #clearTimers(): void {
    clearTimeout(this.#connectTimer);
    clearTimeout(this.#continueTimer);
    clearTimeout(this.#responseTimer);
  }

  #timeout(state: string): FiletrackerError {
    const { request, peer } = this.#own;
    return cannot('timeout', request.action, `the server at ${peer} ${state}`);
  }
}
