// The listener: sockets, requests and time-outs of node:http become Exchanges, which router.ts passes to the handlers.
//
// Processor time of a GET of 4 KiB over 16 kept-open connections, one process on the embedded store (Node 20, both
// cores busy): 12 to 13 microseconds for a bare node:http server with the same response, 18 to 19 here with the log at
// "warn", 20 with a line per request. Two thirds of it is the system's writev. A PUT of 4 KiB into a store that does
// nothing costs as much as a bare server takes to read it.
import type { IncomingMessage, Server, ServerResponse } from 'node:http';
import { Server as NetServer, type AddressInfo, type ListenOptions, type Socket } from 'node:net';
import type { Duplex } from 'node:stream';
import type { TLSSocket } from 'node:tls';
import { systemClock, type Clock } from '../core/clock.ts';
import { cannot } from '../core/errors.ts';
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
import { rawResponse, refusalOf, requireUnambiguous } from './connections/refusals.ts';
import { faultTexts, SlowClientGuard } from './connections/slow-client-guard.ts';
import { handle } from './router.ts';
import { SeekQueue } from './seek-queue.ts';
import { answerTaken, WaitingRequests } from './connections/waiting-requests.ts';

export interface HttpServerOptions {
  readonly store: FileStore;
  /** Admits uploads; by default all of them. */
  readonly uploads?: UploadGate | undefined;
  /** Admits lists; by default all of them. */
  readonly lists?: SenderSlots | undefined;
  /** Host and port, a path, or a handle that was opened elsewhere; `undefined` if connections come through `take`. */
  readonly listen: ListenOptions | undefined;
  readonly release: string;
  /** Prefix of every path, such as `/ft`; empty by default. */
  readonly basePath?: string | undefined;
  /** Base URL, without a trailing slash, of the server that files are imported from. */
  readonly fallbackUrl?: string | undefined;
  /** Redirect readers (307) to the blob's own URL, if the store has one. */
  readonly redirectDownloads?: boolean | undefined;
  readonly access?: Access;
  readonly observer?: RequestObserver;
  readonly clock?: Clock;
  readonly timeouts?: Partial<ServerTimeouts> | undefined;
  /** Minimum rate of bodies, in bytes per second; 0 for none. */
  readonly bodyBytesPerSecondMin?: number | undefined;
  readonly admission?: RequestAdmission | undefined;
  readonly metrics?: MetricsSource | undefined;
  readonly verification?: VerificationControl | undefined;
  /** Serves HTTPS if present. */
  readonly tls?: TlsMaterial | undefined;
  /** Maximum concurrent connections. */
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

/**
 * The server on one port.
 *
 * Invariant: each request becomes an Exchange that gets exactly one response, or its connection is destroyed; requests of
 * one connection are served one after the other, in order of arrival.
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
  readonly #guard: SlowClientGuard;
  #guardTimer: NodeJS.Timeout | undefined;
  #requests = 0;
  /** Whether the server is about to stop, so that `/readyz` returns 503; it may serve for a while longer. */
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
    this.#addListeners(this.#server);
    this.#guard = new SlowClientGuard(options.bodyBytesPerSecondMin ?? bodyBytesPerSecondMin, this.#timeouts);
  }

  /**
   * Starts to listen. The server does not own the store: its opener closes it after the server.
   * @throws system errors (EADDRINUSE, EACCES …).
   */
  static async open(options: HttpServerOptions): Promise<HttpServer> {
    const opened = new HttpServer(options);
    const server = opened.#server;
    const { listen } = options;
    // Node starts its check for overdue headers when it listens, which a server whose connections come through `take` never does.
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
    opened.#guardTimer = setInterval(() => opened.#closeSlowClients(), opened.#guard.intervalMs).unref();
    return opened;
  }

  #addListeners(server: Server): void {
    server.on('connection', (socket) => this.#onSocket(socket));
    if (this.#tls) server.on('secureConnection', (socket: TLSSocket) => this.#onSecureConnection(socket));
    server.on('request', (request, response) => this.#onRequest(request, response, false));
    server.on('checkContinue', (request, response) => this.#onRequest(request, response, true));
    server.on('checkExpectation', (request, response) => this.#onRequest(request, response, true, true));
    server.on('clientError', (error: Error, socket) => this.#onClientError(error, socket));
    server.on('timeout', (socket) => this.#onTimeout(socket));
  }

  /** The address and port of the listener. */
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
    // As node:http sets it for sockets that it accepts: a client that shuts down its side still expects its response.
    socket.allowHalfOpen = true;
    this.#server.emit('connection', socket);
    socket.resume();
  }

  /** Replaces the TLS key and certificates, for new connections. */
  replaceTls(tls: TlsMaterial): void {
    if (this.#tls) replaceTlsMaterial(this.#server, tls);
  }

  /** Open connections, including those in a TLS handshake. */
  get connectionCount(): number {
    return this.#connections.size;
  }

  #onSocket(socket: Socket): void {
    this.#connections.addSocket(socket);
    if (this.#connections.size > this.#connectionsMax) this.#refuseConnection(socket);
    else if (!this.#tls) this.#connections.add(socket);
  }

  #onSecureConnection(socket: TLSSocket): void {
    // Node verifies client certificates only if it has an authority for them.
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
    const line = 'Cannot accept the connection: there are too many; retry';
    socket.write(rawResponse('503 Service Unavailable', line, ['Retry-After: 1']));
    socket.destroySoon();
  }

  /** @param unmet whether the request has an `Expect` other than 100-continue. */
  #onRequest(
    request: IncomingMessage,
    response: ServerResponse,
    expectsContinue: boolean,
    unmet = false,
  ): void {
    const connection = this.#connections.get(request.socket);
    if (connection === undefined) {
      request.socket.destroy(); // It was closed while Node still parsed its bytes.
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
    // A pipelined request may depend on the previous one, as a GET does on a PUT.
    connection.last =
      previous === undefined
        ? this.#answer(exchange, unmet)
        : connection.last.then(() => this.#answerAfter(previous, exchange, unmet));
  }

  /** Serves a request that had to wait, unless its connection is over. */
  async #answerAfter(previous: ServerResponse, exchange: Exchange, unmet: boolean): Promise<void> {
    const { connection } = exchange;
    await answerTaken(previous, connection);
    this.#waiting.leave(connection);
    if (connection.isOver) connection.active -= 1;
    else await this.#answer(exchange, unmet);
  }

  /** Serves one request; never rejects. */
  async #answer(exchange: Exchange, unmet: boolean): Promise<void> {
    const { request, response, connection } = exchange;
    try {
      requireUnambiguous(request, response);
      const principal = this.#access.identify(request);
      exchange.principal = principal instanceof Promise ? await principal : principal;
      this.#admission.admit(exchange);
      if (unmet) {
        const state = 'only 100-continue is supported';
        exchange.sendError(cannot('invalid-argument', 'meet the expectation of the request', state), 417);
      } else {
        const route = parseTarget(request.url ?? '/', this.#basePath);
        exchange.endpoint = route?.endpoint;
        const handled = handle(exchange, route, this.#context);
        if (handled !== undefined) await handled;
      }
    } catch (error) {
      // A request that is refused before it was counted counts against its address.
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

  /** Bytes that are not a request, or a body that broke off. */
  #onClientError(error: Error, socket: Duplex): void {
    const connection = this.#connections.get(socket);
    const code = 'code' in error && typeof error.code === 'string' ? error.code : '';
    if (connection?.isReading === true) {
      const ended = code === 'HPE_INVALID_EOF_STATE' || code === 'ECONNRESET';
      connection.interrupt(ended ? truncatedBody() : brokenBody());
      return;
    }
    if (connection === undefined) {
      // The TLS handshake failed.
      socket.destroy();
      return;
    }
    // Bytes after a request with `Connection: close` are ignored; its response is the last one.
    if (connection.isBroken || connection.isOver || code === 'HPE_CLOSED_CONNECTION') return;
    if (code === 'HPE_INVALID_TRANSFER_ENCODING' && connection.active > 0) {
      // Node passed the request on before it found that its body has no end; its response is the last one.
      connection.interrupt(brokenBody());
      return;
    }
    if (!socket.writable || code === 'ECONNRESET' || connection.active > 0) {
      socket.destroy();
      return;
    }
    const [status, text] = refusalOf(code);
    socket.end(rawResponse(status, `Cannot read the request: ${text}`));
    this.#observer.refusedConnection(connection.remoteAddress, Number.parseInt(status, 10), text);
  }

  /** The socket was idle for the time-out in force (between requests, or within one). */
  #onTimeout(socket: Socket): void {
    const connection = this.#connections.get(socket);
    if (connection?.isReading === true) {
      if (connection.waitsForSender) connection.interrupt(stalledBody(this.#timeouts.stallMs));
      return;
    }
    // If nothing of the current response has been written, the client waits for the store.
    if (connection !== undefined && connection.active > 0 && socket.writableLength === 0) return;
    if (socket.writableLength > 0) {
      this.#observer.refusedConnection(connection?.remoteAddress ?? '', 0, 'the answer was not read');
    }
    socket.destroy();
  }

  /** Ends connections without progress: an occasional byte keeps them from timing out. */
  #closeSlowClients(): void {
    const passedMs = this.#guard.pass(performance.now());
    for (const connection of this.#connections.values()) {
      const fault = this.#guard.faultOf(connection, passedMs);
      if (fault === undefined) continue;
      if (fault === 'slow-sender' && connection.isReading) {
        connection.interrupt(slowBody(this.#guard.bytesPerSecond, this.#timeouts.stallMs));
        continue;
      }
      this.#observer.refusedConnection(connection.remoteAddress, 0, faultTexts[fault]);
      connection.socket.destroy();
    }
  }

  /**
   * Stops: accepts no connection, lets running requests finish for at most `timeoutMs`, and destroys the remaining
   * connections. An idle connection is closed at once, or after `idleMs`: until then it may send one more request, whose
   * response announces the close, so that no client is surprised by it. A new connection has a second for its first
   * request. Idempotent; a later call does not change the times of the first.
   */
  close(times: Partial<DrainTimes> = {}): Promise<void> {
    this.#closing ??= this.#close({ ...defaultDrainTimes, ...times });
    return this.#closing;
  }

  /** Makes `/readyz` return 503, so that load balancers send new requests elsewhere; everything else is served as before. */
  announceStop(): void {
    this.#draining = true;
  }

  async #close(times: DrainTimes): Promise<void> {
    this.#draining = true;
    // Not http.Server's own close, which destroys sockets that have not sent the end of their response.
    if (this.#server.listening) NetServer.prototype.close.call(this.#server);
    await this.#connections.drain(times);
    clearInterval(this.#guardTimer);
    this.#server.closeAllConnections();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.close();
  }
}
