import { Agent, request as httpRequest } from 'node:http';
import type { ClientRequest, IncomingHttpHeaders, IncomingMessage, RequestOptions } from 'node:http';
import { Readable } from 'node:stream';
import { pipeline } from 'node:stream/promises';
import { errnoOf, FiletrackerError, isFiletrackerError, messageOf } from '../core/errors.ts';
import type { Chunks } from '../streams/chunks.ts';
import { abortedError } from './retries.ts';
import type { ServerAddress } from './server-address.ts';

/** How long a server may let us wait for its word on `Expect: 100-continue` before the body is sent all the same. */
const continueWaitMs = 1000;
/** After a failure to send a body, how long the server's answer, which may say why, is waited for. */
const lateAnswerWaitMs = 1000;

export interface ConnectionOptions {
  /** Connections kept open to the server. */
  readonly connections: number;
  readonly connectTimeoutMs: number;
  /** How long the peer may stand still while bytes are due. The whole transfer may take any time. */
  readonly stallTimeoutMs: number;
  /** How long the server may take for its answer once it has the whole body. */
  readonly answerTimeoutMs: number;
  readonly tls: TlsOptions;
}

/** Certificates for https, as PEM text. */
export interface TlsOptions {
  /** Authorities to trust besides those of the system. */
  readonly ca?: string | undefined;
  /** What this client shows to the server, and its key. */
  readonly cert?: string | undefined;
  readonly key?: string | undefined;
}

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

/**
 * Keep-alive connections to one server. Node's own client, and not a faster one, because the server is asked
 * with `Expect: 100-continue`, which others do not send, and because a program that runs for a tenth of a
 * second can't spend a third of that on loading one.
 */
export class HttpConnection {
  readonly address: ServerAddress;
  readonly #options: ConnectionOptions;
  #agent: Agent | undefined;
  #send: typeof httpRequest = httpRequest;
  #closed = false;
  #reached = false;

  constructor(address: ServerAddress, options: ConnectionOptions) {
    this.address = address;
    this.#options = options;
  }

  /**
   * Sends one request and resolves with the head of the answer.
   * @throws FiletrackerError `unreachable`, `timeout`, `aborted`, and what `body` throws.
   */
  async request(first: HttpRequest): Promise<HttpAnswer> {
    for (let request = first; ;) {
      try {
        const answer = await this.#requestOnce(request);
        this.#reached = true;
        return answer;
      } catch (error) {
        // The server closed a kept connection just when we used it: nothing was lost, ask again at once.
        if (!(error instanceof StaleConnectionError)) throw error;
        request = { ...first, headers: { ...first.headers, ...first.repeatHeaders?.() } };
      }
    }
  }

  /** Whether the server has ever answered. */
  get reached(): boolean {
    return this.#reached;
  }

  /** Idempotent. */
  close(): void {
    this.#closed = true;
    this.#agent?.destroy();
  }

  async #requestOnce(request: HttpRequest): Promise<HttpAnswer> {
    const agent = this.#agent ?? (await this.#createAgent());
    if (this.#closed) throw abortedError(request.action);
    const { address } = this;
    const headers: Record<string, string | number> = { ...request.headers };
    if (address.authorization !== undefined) headers['Authorization'] = address.authorization;
    if (request.expectContinue === true) headers['Expect'] = '100-continue';
    const options: RequestOptions = {
      agent,
      hostname: address.host,
      port: address.port,
      method: request.method,
      path: `${address.prefix}${request.path}`,
      headers,
    };
    if (request.signal !== undefined) options.signal = request.signal;
    return await new Promise<HttpAnswer>((resolve, reject) => {
      const sent = this.#send(options);
      new Exchange(sent, request, this.#options, address, resolve, reject).start();
    });
  }

  async #createAgent(): Promise<Agent> {
    const options = { keepAlive: true, maxSockets: this.#options.connections, scheduling: 'lifo' as const };
    if (!this.address.secure) {
      this.#agent = new Agent(options);
      return this.#agent;
    }
    const [https, { rootCertificates }] = await Promise.all([import('node:https'), import('node:tls')]);
    const { ca, cert, key } = this.#options.tls;
    const authorities = ca === undefined ? {} : { ca: [...rootCertificates, ca] };
    this.#agent ??= new https.Agent({
      ...options,
      ...authorities,
      ...(cert && { cert }),
      ...(key && { key }),
    });
    this.#send = https.request;
    return this.#agent;
  }
}

/** Reported to nobody: the request is repeated. */
class StaleConnectionError extends Error {}

/** One request under way: the body that goes out, the answer that comes, and who gives up first. */
class Exchange {
  readonly #sent: ClientRequest;
  readonly #request: HttpRequest;
  readonly #options: ConnectionOptions;
  readonly #address: ServerAddress;
  readonly #resolve: (answer: HttpAnswer) => void;
  readonly #reject: (error: unknown) => void;
  #connectTimer: NodeJS.Timeout | undefined;
  #continueTimer: NodeJS.Timeout | undefined;
  #body: IncomingMessage | undefined;
  #sending = false;

  constructor(
    sent: ClientRequest,
    request: HttpRequest,
    options: ConnectionOptions,
    address: ServerAddress,
    resolve: (answer: HttpAnswer) => void,
    reject: (error: unknown) => void,
  ) {
    this.#sent = sent;
    this.#request = request;
    this.#options = options;
    this.#address = address;
    this.#resolve = resolve;
    this.#reject = reject;
  }

  start(): void {
    const sent = this.#sent;
    this.#watchConnect();
    sent.setTimeout(this.#options.stallTimeoutMs);
    sent.on('timeout', () => this.#stalled());
    sent.once('error', (error) => this.#fail(error));
    sent.once('response', (answer) => this.#answer(answer));
    const { body, expectContinue } = this.#request;
    if (body === undefined || Buffer.isBuffer(body)) {
      sent.end(body);
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

  #watchConnect(): void {
    const sent = this.#sent;
    sent.once('socket', (socket) => {
      if (!socket.connecting) return;
      const ready = this.#address.secure ? 'secureConnect' : 'connect';
      this.#connectTimer = setTimeout(() => {
        sent.destroy(this.#timeout('does not take the connection'));
      }, this.#options.connectTimeoutMs);
      socket.once(ready, () => clearTimeout(this.#connectTimer));
    });
  }

  async #sendBody(body: () => Chunks): Promise<void> {
    if (this.#sending) return;
    this.#sending = true;
    clearTimeout(this.#continueTimer);
    const sent = this.#sent;
    try {
      await pipeline(Readable.from(body(), { objectMode: false, highWaterMark: 256 * 1024 }), sent);
      sent.setTimeout(this.#options.answerTimeoutMs);
    } catch (error) {
      // Our own failure to read the body counts; a cut connection may still have brought an answer.
      if (isFiletrackerError(error)) this.#reject(error);
      else setTimeout(() => this.#fail(error as Error), lateAnswerWaitMs).unref();
    }
  }

  #stalled(): void {
    // What lies here unread is held up by its reader, not by the server.
    if ((this.#body?.readableLength ?? 0) > 0) this.#sent.setTimeout(this.#options.stallTimeoutMs);
    else (this.#body ?? this.#sent).destroy(this.#timeout('stands still'));
  }

  #answer(answer: IncomingMessage): void {
    this.#body = answer;
    this.#clearTimers();
    this.#sent.setTimeout(this.#options.stallTimeoutMs);
    this.#resolve({ status: answer.statusCode ?? 0, headers: answer.headers, body: answer });
    const unsent = typeof this.#request.body === 'function' && !this.#sent.writableFinished;
    // The server waits for a body that will not come: the connection is of no more use after its answer.
    if (unsent) answer.once('end', () => this.#sent.destroy());
  }

  #fail(error: Error): void {
    this.#clearTimers();
    const stale = this.#sent.reusedSocket && ['ECONNRESET', 'EPIPE'].includes(errnoOf(error) ?? '');
    const repeatable = typeof this.#request.body !== 'function' || !this.#sending;
    if (stale && repeatable) this.#reject(new StaleConnectionError());
    else this.#reject(fromConnectionError(error, this.#request.action, this.#address, this.#request.signal));
  }

  #clearTimers(): void {
    clearTimeout(this.#connectTimer);
    clearTimeout(this.#continueTimer);
  }

  #timeout(state: string): FiletrackerError {
    const { action } = this.#request;
    return new FiletrackerError(
      'timeout',
      `Cannot ${action}: the server at "${this.#address.shown}" ${state}`,
    );
  }
}

const states: Readonly<Record<string, string>> = {
  ECONNREFUSED: 'no server answers there',
  ENOTFOUND: 'there is no host of this name',
  EAI_AGAIN: 'the name of the host can not be looked up now',
  ECONNRESET: 'the connection was cut',
  EPIPE: 'the connection was cut',
  ETIMEDOUT: 'the host does not answer',
  ERR_STREAM_PREMATURE_CLOSE: 'the connection was cut',
  EHOSTUNREACH: 'the host can not be reached',
  ENETUNREACH: 'the network can not be reached',
};

/** Translates what Node throws about a connection; what is ours already comes back as it is. */
export function fromConnectionError(
  error: unknown,
  action: string,
  address: ServerAddress,
  signal: AbortSignal | undefined,
): unknown {
  if (isFiletrackerError(error)) return error;
  if (signal?.aborted === true) return abortedError(action, error);
  const code = codeOf(error) ?? (error instanceof AggregateError ? codeOf(error.errors[0]) : undefined) ?? '';
  const fail = (ours: 'unreachable' | 'protocol', state: string, retryable: boolean): FiletrackerError =>
    new FiletrackerError(ours, `Cannot ${action} at "${address.shown}": ${state}`, {
      cause: error,
      retryable,
    });
  if (code.startsWith('HPE_')) return fail('protocol', 'what answers there does not speak HTTP', false);
  // The code, EPROTO, stands for other faults of TLS too.
  if (messageOf(error).includes('wrong version number'))
    return fail('protocol', 'what answers there does not speak TLS', false);
  const state = states[code];
  return fail('unreachable', state ?? messageOf(error), state !== undefined);
}

function codeOf(error: unknown): string | undefined {
  return error instanceof Error && 'code' in error && typeof error.code === 'string' ? error.code : undefined;
}
