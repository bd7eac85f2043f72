import type { ClientRequest, IncomingHttpHeaders, IncomingMessage } from 'node:http';
import { Readable } from 'node:stream';
import type { Duplex } from 'node:stream';
import { pipeline } from 'node:stream/promises';
import { errnoOf, FiletrackerError, isFiletrackerError } from '../../core/errors.ts';
import type { Chunks } from '../../streams/chunks.ts';
import { fromConnectionError } from './connection-errors.ts';

/** How long a server may let us wait for its word on `Expect: 100-continue` before the body is sent all the same. */
const continueWaitMs = 1000;
/** After a failure to send a body, how long the server's answer, which may say why, is waited for. */
const lateAnswerWaitMs = 1000;

export interface HttpRequest {
  readonly method: 'GET' | 'HEAD' | 'PUT' | 'DELETE';
  /** With the query, percent-encoded, below the prefix of the address. */
  readonly path: string;
  readonly headers?: Readonly<Record<string, string | number>>;
  readonly body?: Buffer | (() => Chunks) | undefined;
  /** Headers to add if the request is sent again because a kept connection was closed. */
  readonly repeatHeaders?: (() => Readonly<Record<string, string>>) | undefined;
  /** Ask before the body is sent. */
  readonly expectContinue?: boolean | undefined;
  /** Completes "Cannot …" in errors. */
  readonly action: string;
  readonly signal?: AbortSignal | undefined;
}

export interface HttpAnswer {
  readonly status: number;
  readonly headers: IncomingHttpHeaders;
  /** Must be read to its end or destroyed. */
  readonly body: IncomingMessage;
}

export interface ExchangeTimeouts {
  readonly connectTimeoutMs: number;
  /** How long the peer may stand still while bytes are due. The whole transfer may take any time. */
  readonly stallTimeoutMs: number;
  /** How long the server may take for the head of its response once it has the whole request. */
  readonly answerTimeoutMs: number;
}

/** Reported to nobody: the request is repeated. */
export class StaleConnectionError extends Error {}

interface ExchangeParts {
  readonly sent: ClientRequest;
  readonly request: HttpRequest;
  readonly timeouts: ExchangeTimeouts;
  /** The server as messages name it. */
  readonly peer: string;
  readonly resolve: (answer: HttpAnswer) => void;
  readonly reject: (error: unknown) => void;
}

/** One request under way: the body that goes out, the answer that comes, and who gives up first. */
export class Exchange {
  readonly #parts: ExchangeParts;
  #connectTimer: NodeJS.Timeout | undefined;
  #continueTimer: NodeJS.Timeout | undefined;
  /** Ends a head that comes byte by byte, which never times out otherwise. */
  #answerTimer: NodeJS.Timeout | undefined;
  #body: IncomingMessage | undefined;
  #sending = false;

  constructor(parts: ExchangeParts) {
    this.#parts = parts;
  }

  start(): void {
    const sent = this.#parts.sent;
    this.#watchConnect();
    sent.setTimeout(this.#parts.timeouts.stallTimeoutMs);
    sent.on('timeout', () => this.#stalled());
    sent.once('error', (error) => this.#fail(error));
    sent.once('response', (answer) => this.#answer(answer));
    // Nobody asked for another protocol, and without a listener Node ends the request without a word.
    sent.once('upgrade', (_answer, socket) => this.#refuseUpgrade(socket));
    const { body, expectContinue } = this.#parts.request;
    if (body === undefined || Buffer.isBuffer(body)) {
      sent.end(body);
      this.#awaitAnswer();
      return;
    }
    if (expectContinue !== true) {
      void this.#sendBody(body);
      return;
    }
    sent.once('continue', () => void this.#sendBody(body));
    this.#continueTimer = setTimeout(() => void this.#sendBody(body), continueWaitMs);
    sent.flushHeaders();
  }

  #refuseUpgrade(socket: Duplex): void {
    const { request, peer, reject } = this.#parts;
    this.#clearTimers();
    socket.destroy();
    const state = 'it changes to another protocol, which nobody asked for';
    reject(new FiletrackerError('protocol', `Cannot ${request.action} at ${peer}: ${state}`));
  }

  #watchConnect(): void {
    const sent = this.#parts.sent;
    sent.once('socket', (socket) => {
      if (!socket.connecting) return;
      const ready = 'encrypted' in socket ? 'secureConnect' : 'connect';
      this.#connectTimer = setTimeout(() => {
        sent.destroy(this.#timeout('does not take the connection'));
      }, this.#parts.timeouts.connectTimeoutMs);
      socket.once(ready, () => clearTimeout(this.#connectTimer));
    });
  }

  async #sendBody(body: () => Chunks): Promise<void> {
    if (this.#sending) return;
    this.#sending = true;
    clearTimeout(this.#continueTimer);
    const sent = this.#parts.sent;
    try {
      await pipeline(Readable.from(body(), { objectMode: false, highWaterMark: 256 * 1024 }), sent);
      sent.setTimeout(this.#parts.timeouts.answerTimeoutMs);
      this.#awaitAnswer();
    } catch (error) {
      // Our own failure to read the body counts; a cut connection may still have brought an answer.
      if (isFiletrackerError(error)) this.#parts.reject(error);
      else setTimeout(() => this.#fail(error as Error), lateAnswerWaitMs).unref();
    }
  }

  #awaitAnswer(): void {
    if (this.#body !== undefined) return;
    const { sent, timeouts } = this.#parts;
    const giveUp = (): void => void sent.destroy(this.#timeout('does not bring its response to an end'));
    this.#answerTimer = setTimeout(giveUp, timeouts.answerTimeoutMs);
  }

  #stalled(): void {
    // What lies here unread is held up by its reader, not by the server.
    if ((this.#body?.readableLength ?? 0) > 0)
      this.#parts.sent.setTimeout(this.#parts.timeouts.stallTimeoutMs);
    else if (this.#body !== undefined) this.#body.destroy(this.#timeout('stands still'));
    else this.#parts.sent.destroy(this.#timeout('does not answer; it may be stopped or overloaded'));
  }

  #answer(answer: IncomingMessage): void {
    this.#body = answer;
    this.#clearTimers();
    this.#parts.sent.setTimeout(this.#parts.timeouts.stallTimeoutMs);
    this.#parts.resolve({ status: answer.statusCode ?? 0, headers: answer.headers, body: answer });
    const unsent = typeof this.#parts.request.body === 'function' && !this.#parts.sent.writableFinished;
    // The server waits for a body that will not come: the connection is of no more use after its answer.
    if (unsent) answer.once('end', () => this.#parts.sent.destroy());
  }

  #fail(error: Error): void {
    this.#clearTimers();
    const stale = this.#parts.sent.reusedSocket && ['ECONNRESET', 'EPIPE'].includes(errnoOf(error) ?? '');
    const repeatable = typeof this.#parts.request.body !== 'function' || !this.#sending;
    if (stale && repeatable) this.#parts.reject(new StaleConnectionError());
    else
      this.#parts.reject(
        fromConnectionError(error, this.#parts.request.action, this.#parts.peer, this.#parts.request.signal),
      );
  }

  #clearTimers(): void {
    clearTimeout(this.#connectTimer);
    clearTimeout(this.#continueTimer);
    clearTimeout(this.#answerTimer);
  }

  #timeout(state: string): FiletrackerError {
    const { action } = this.#parts.request;
    return new FiletrackerError('timeout', `Cannot ${action}: the server at ${this.#parts.peer} ${state}`);
  }
}
