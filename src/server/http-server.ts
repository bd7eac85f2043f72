// The one place that knows node:http.
//
// Processor time of a GET of 4 KiB over 16 kept-open connections, one process on the embedded store (Node 20, both
// cores busy with other work): a bare node:http server with the same answer 12 to 13 microseconds, ours 18 to 19
// with the log at "warn", 20 with a line per request. Two thirds of it is the system's writev. A PUT of 4 KiB
// into a store that does nothing costs what a bare server takes to read it.
import type { IncomingMessage, Server, ServerResponse } from 'node:http';
import { Server as NetServer, type AddressInfo, type ListenOptions, type Socket } from 'node:net';
import type { Duplex } from 'node:stream';
import type { TLSSocket } from 'node:tls';
import { systemClock, type Clock } from '../core/clock.ts';
import { FiletrackerError } from '../core/errors.ts';
import {
  bodyBytesPerSecondMin,
  connectionsMax,
  firstRequestTimeMs,
  headersTimeoutMs,
  idleTimeoutMs,
  shutdownTimeoutMs,
  stallTimeoutMs,
} from '../core/limits.ts';
import { parseTarget } from '../protocol/request-target.ts';
import type { FileStore } from '../store/file-store.ts';
import { SenderSlots } from '../store/sender-slots.ts';
import { UploadGate } from '../store/upload-gate.ts';
import { openAccess, type Access } from '../access/access.ts';
import type { TlsMaterial } from '../access/tls-files.ts';
import { admitAll, type RequestAdmission } from '../access/rate-limiter.ts';
import { ConnectionTable, type DrainTimes } from './connections/connection-table.ts';
import { brokenBody, slowBody, stalledBody, truncatedBody } from './connections/connection.ts';
import { Exchange } from './exchange.ts';
import type { ServerContext, VerificationControl } from './handlers/context.ts';
import { createNodeServer, replaceTlsMaterial, type ServerTimeouts } from './connections/node-server.ts';
import { silentObserver, type MetricsSource, type RequestObserver } from './observer.ts';
import { faultTexts, PaceWatch } from './connections/pace-watch.ts';
import { rawAnswer, refusalOf } from './connections/raw-response.ts';
import { requireTrusted } from './request-faults.ts';
import { handle } from './router.ts';
import { SeekQueue } from './seek-queue.ts';
import { answerTaken, WaitingRequests } from './connections/waiting-requests.ts';

export interface HttpServerOptions {
  readonly store: FileStore;
  /** Admits uploads; by default all of them. */
  readonly uploads?: UploadGate | undefined;
  /** Admits lists; by default all of them. */
  readonly lists?: SenderSlots | undefined;
  /** Where to listen: host and port, a path, or a handle that was opened elsewhere; undefined where connections are given with `take`. */
  readonly listen: ListenOptions | undefined;
  readonly release: string;
  /** Prefix of every path, as `/ft`; empty where there is none. */
  readonly basePath?: string | undefined;
  /** Base URL, without a slash at the end, of the server that files are being moved from. */
  readonly fallbackUrl?: string | undefined;
  /** Send readers to where the bytes are, if the store knows such a place (307). */
  readonly redirectDownloads?: boolean | undefined;
  readonly access?: Access;
  readonly observer?: RequestObserver;
  readonly clock?: Clock;
  readonly timeouts?: Partial<ServerTimeouts> | undefined;
  /** Bytes a second that bodies must make; 0 for none. */
  readonly bodyBytesPerSecondMin?: number | undefined;
  readonly admission?: RequestAdmission | undefined;
  readonly metrics?: MetricsSource | undefined;
  readonly verification?: VerificationControl | undefined;
  /** Speaks TLS where it is given. */
  readonly tls?: TlsMaterial | undefined;
  /** Connections at once; more are refused. */
  readonly connectionsMax?: number | undefined;
}

const defaultTimeouts: ServerTimeouts = {
  headersMs: headersTimeoutMs,
  stallMs: stallTimeoutMs,
  idleMs: idleTimeoutMs,
};

const defaultDrainTimes: DrainTimes = {
  timeoutMs: shutdownTimeoutMs,
  idleMs: 0,
  firstRequestMs: firstRequestTimeMs,
};

/** `Expect` with anything but 100-continue. */
function refuseExpectation(exchange: Exchange): void {
  const error = new FiletrackerError(
    'invalid-argument',
    'Cannot meet the expectation of the request: only 100-continue is known here',
  );
  exchange.sendError(error, 417);
}

/**
 * The server on one port. Each request becomes an Exchange, which is answered exactly once or has its
 * connection destroyed; requests of one connection are answered one after the other, in the order in which they came.
 */
export class HttpServer {
  readonly #server: Server;
  readonly #context: ServerContext;
  readonly #access: Access;
  readonly #observer: RequestObserver;
  readonly #admission: RequestAdmission;
  readonly #connectionsMax: number;
  readonly #tls: boolean;
  readonly #basePath: string;
  readonly #timeouts: ServerTimeouts;
  readonly #connections = new ConnectionTable();
  readonly #waiting = new WaitingRequests();
  readonly #pace: PaceWatch;
  #paceTimer: NodeJS.Timeout | undefined;
  #requests = 0;
  /** Whether the server is about to stop, so that `/readyz` answers 503; it may serve for a while yet. */
  #draining = false;
  #closing: Promise<void> | undefined;

  private constructor(options: HttpServerOptions) {
    this.#access = options.access ?? openAccess;
    this.#observer = options.observer ?? silentObserver;
    this.#admission = options.admission ?? admitAll;
    this.#connectionsMax = options.connectionsMax ?? connectionsMax;
    this.#tls = options.tls !== undefined;
    this.#basePath = options.basePath ?? '';
    this.#timeouts = { ...defaultTimeouts, ...options.timeouts };
    const clock = options.clock ?? systemClock;
    this.#context = {
      store: options.store,
      uploads: options.uploads ?? UploadGate.open(),
      lists: options.lists ?? new SenderSlots({ what: 'lists', max: Infinity }),
      clock,
      serverName: `filetracker/${options.release}`,
      release: options.release,
      fallbackUrl: options.fallbackUrl,
      redirectDownloads: options.redirectDownloads ?? false,
      seeks: new SeekQueue(),
      metrics: options.metrics,
      verification: options.verification,
      startedAtMs: clock.nowMs(),
      isDraining: () => this.#draining,
    };
    this.#server = createNodeServer(this.#timeouts, options.tls);
    this.#prepare(this.#server);
    this.#pace = new PaceWatch(options.bodyBytesPerSecondMin ?? bodyBytesPerSecondMin, this.#timeouts);
  }

  /**
   * Listens. The server does not own the store: who opened it closes it, after this.
   * @throws the system's error (EADDRINUSE, EACCES …) where the address can't be taken.
   */
  static async open(options: HttpServerOptions): Promise<HttpServer> {
    const opened = new HttpServer(options);
    const server = opened.#server;
    const { listen } = options;
    // Node begins to look for headers that are overdue when its server listens, which one that is given connections never does.
    if (listen === undefined) server.emit('listening');
    else {
      await new Promise<void>((resolve, reject) => {
        server.once('error', reject);
        server.listen(listen, () => {
          server.off('error', reject);
          resolve();
        });
      });
    }
    opened.#paceTimer = setInterval(() => opened.#watchPace(), opened.#pace.intervalMs).unref();
    return opened;
  }

  #prepare(server: Server): void {
    server.on('connection', (socket) => this.#onSocket(socket));
    if (this.#tls) server.on('secureConnection', (socket: TLSSocket) => this.#onSecureConnection(socket));
    server.on('request', (request, response) => this.#onRequest(request, response, false));
    server.on('checkContinue', (request, response) => this.#onRequest(request, response, true));
    server.on('checkExpectation', (request, response) => this.#onRequest(request, response, true, true));
    server.on('clientError', (error: Error, socket) => this.#onClientError(error, socket));
    server.on('timeout', (socket) => this.#onTimeout(socket));
  }

  /** The port and address listened on. */
  get address(): { readonly host: string; readonly port: number } {
    const address: AddressInfo | string | null = this.#server.address();
    if (address === null || typeof address === 'string') return { host: address ?? '', port: 0 };
    return { host: address.address, port: address.port };
  }

  /** Base URL for a client on this machine. */
  get url(): string {
    const { host, port } = this.address;
    const known = host === '::' || host === '0.0.0.0' ? '127.0.0.1' : host;
    return `${this.#tls ? 'https' : 'http'}://${known.includes(':') ? `[${known}]` : known}:${port}${this.#basePath}`;
  }

  /** Serves a connection that another process has accepted. */
  take(socket: Socket): void {
    // As node:http has it for what it accepts itself: a client that shuts down its side still wants its answer.
    socket.allowHalfOpen = true;
    this.#server.emit('connection', socket);
    socket.resume();
  }

  /** Replaces what TLS is spoken with; for connections to come. */
  replaceTls(tls: TlsMaterial): void {
    if (this.#tls) replaceTlsMaterial(this.#server, tls);
  }

  /** Connections that are open; with TLS, those in a handshake too. */
  get connectionCount(): number {
    return this.#connections.size;
  }

  #onSocket(socket: Socket): void {
    this.#connections.addSocket(socket);
    if (this.#connections.size > this.#connectionsMax) this.#refuseConnection(socket);
    else if (!this.#tls) this.#connections.add(socket);
  }

  #onSecureConnection(socket: TLSSocket): void {
    // An authority for clients is what makes Node look: without one it finds no fault with any.
    const shown = socket.authorizationError !== undefined && socket.getPeerCertificate().raw !== undefined;
    if (shown && !socket.authorized) {
      this.#observer.refusedConnection(socket.remoteAddress ?? '', 0, 'the certificate is not valid');
      socket.destroy();
    } else this.#connections.add(socket);
  }

  #refuseConnection(socket: Socket): void {
    this.#observer.refusedConnection(socket.remoteAddress ?? '', 503, 'too many connections');
    if (this.#tls) {
      socket.destroy();
      return;
    }
    socket.write(
      rawAnswer('503 Service Unavailable', 'Cannot take the connection: there are too many', [
        'Retry-After: 1',
      ]),
    );
    socket.destroySoon();
  }

  /** @param unmet whether it expects something that is not done here. */
  #onRequest(
    request: IncomingMessage,
    response: ServerResponse,
    expectsContinue: boolean,
    unmet = false,
  ): void {
    const connection = this.#connections.get(request.socket);
    if (connection === undefined) {
      request.socket.destroy(); // It was closed while its bytes were still being read.
      return;
    }
    if (connection.isOver) return;
    const previous = connection.active > 0 ? connection.lastResponse : undefined;
    if (previous !== undefined && !this.#waiting.enter(connection)) {
      this.#observer.refusedConnection(connection.remoteAddress, 0, 'too many requests were waiting');
      request.socket.destroy();
      return;
    }
    this.#requests += 1;
    const exchange = new Exchange(request, response, connection, this.#requests, expectsContinue);
    connection.receives(request);
    connection.active += 1;
    connection.lastResponse = response;
    // A pipelined request may depend on the one before it, as a GET does on a PUT.
    connection.last =
      previous === undefined
        ? this.#answer(exchange, unmet)
        : connection.last.then(() => this.#answerAfter(previous, exchange, unmet));
  }

  /** Answers a request that had to wait, unless its connection is over by now. */
  async #answerAfter(previous: ServerResponse, exchange: Exchange, unmet: boolean): Promise<void> {
    const { connection } = exchange;
    await answerTaken(previous, connection);
    this.#waiting.leave(connection);
    if (connection.isOver) connection.active -= 1;
    else await this.#answer(exchange, unmet);
  }

  /** Answers one request; never rejects. */
  async #answer(exchange: Exchange, unmet: boolean): Promise<void> {
    const { request, response, connection } = exchange;
    try {
      requireTrusted(request, response);
      const principal = this.#access.identify(request);
      exchange.principal = principal instanceof Promise ? await principal : principal;
      this.#admission.admit(exchange);
      if (unmet) refuseExpectation(exchange);
      else {
        const route = parseTarget(request.url ?? '/', this.#basePath);
        exchange.endpoint = route?.endpoint;
        const handled = handle(exchange, route, this.#context);
        if (handled !== undefined) await handled;
      }
    } catch (error) {
      // What was refused before it was counted is counted against its address.
      const uncounted = exchange.principal === undefined;
      exchange.fail(uncounted ? this.#admission.refusalOf(exchange, error) : error);
    }
    if (exchange.lingering !== undefined) await exchange.lingering;
    connection.active -= 1;
    if (!response.shouldKeepAlive) connection.saidClose = true;
    if (connection.active === 0) connection.lastResponse = undefined;
    if (connection.isClosing) connection.closeAfterAnswers();
    this.#observer.answered(exchange);
  }

  /** Bytes that are no request, or a body that broke off. */
  #onClientError(error: Error, socket: Duplex): void {
    const connection = this.#connections.get(socket);
    const code = 'code' in error && typeof error.code === 'string' ? error.code : '';
    if (connection?.isReading === true) {
      const ended = code === 'HPE_INVALID_EOF_STATE' || code === 'ECONNRESET';
      connection.interrupt(ended ? truncatedBody() : brokenBody());
      return;
    }
    if (connection === undefined) {
      // A handshake that failed.
      socket.destroy();
      return;
    }
    // What follows a request that said `Connection: close` counts for nothing; its answer is the last one.
    if (connection.isBroken || connection.isOver || code === 'HPE_CLOSED_CONNECTION') return;
    if (code === 'HPE_INVALID_TRANSFER_ENCODING' && connection.active > 0) {
      // Node has handed the request over before it found that its body has no end; the answer is the last one.
      connection.interrupt(brokenBody());
      return;
    }
    if (!socket.writable || code === 'ECONNRESET' || connection.active > 0) {
      socket.destroy();
      return;
    }
    const [status, text] = refusalOf(code);
    socket.end(rawAnswer(status, `Cannot read the request: ${text}`));
    this.#observer.refusedConnection(connection.remoteAddress, Number.parseInt(status, 10), text);
  }

  /** Nothing has passed through the socket for the time-out in force (between requests, or within one). */
  #onTimeout(socket: Socket): void {
    const connection = this.#connections.get(socket);
    if (connection?.isReading === true) {
      if (connection.waitsForSender) connection.interrupt(stalledBody(this.#timeouts.stallMs));
      return;
    }
    // With an answer under way of which nothing has been written yet, it is the store that takes its time.
    if (connection !== undefined && connection.active > 0 && socket.writableLength === 0) return;
    if (socket.writableLength > 0) {
      this.#observer.refusedConnection(connection?.remoteAddress ?? '', 0, 'the answer was not read');
    }
    socket.destroy();
  }

  /** Gives up what goes on without getting anywhere: a byte now and then keeps every time-out from passing. */
  #watchPace(): void {
    const passedMs = this.#pace.pass(performance.now());
    for (const connection of this.#connections.values()) {
      const fault = this.#pace.faultOf(connection, passedMs);
      if (fault === undefined) continue;
      if (fault === 'slow-sender' && connection.isReading) {
        connection.interrupt(slowBody(this.#pace.bytesPerSecond, this.#timeouts.stallMs));
        continue;
      }
      this.#observer.refusedConnection(connection.remoteAddress, 0, faultTexts[fault]);
      connection.socket.destroy();
    }
  }

  /**
   * Stops: takes no new connection, lets running requests finish for at most `timeoutMs`, and destroys what
   * is left. A connection with nothing to do is closed at once, or after `idleMs`: in that time it may still
   * bring a request, whose answer tells the client to close, so that none is cut off by a close it did not
   * expect. One that has only just come has a second in which to bring its first. Idempotent; a later call with a
   * shorter time does not shorten the first.
   */
  close(times: Partial<DrainTimes> = {}): Promise<void> {
    this.#closing ??= this.#close({ ...defaultDrainTimes, ...times });
    return this.#closing;
  }

  /** Has `/readyz` answer 503, so that load balancers send new requests elsewhere; all else is served as before. */
  announceStop(): void {
    this.#draining = true;
  }

  async #close(times: DrainTimes): Promise<void> {
    this.#draining = true;
    // Not http.Server's own close: it destroys sockets that have not yet sent the end of their answer.
    if (this.#server.listening) NetServer.prototype.close.call(this.#server);
    await this.#connections.drain(times);
    clearInterval(this.#paceTimer);
    this.#server.closeAllConnections();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.close();
  }
}
