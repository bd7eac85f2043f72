// The listener: sockets, requests and time-outs of node:http become Exchanges, which router.ts passes to the handlers.
//
// Processor time of a GET of 4 KiB over 16 kept-open connections, one process on the embedded store (Node 20, both
// cores busy): 12 to 13 microseconds for a bare node:http server with the same response, 18 to 19 here with the log at
// "warn", 20 with a line per request. Two thirds of it is the system's writev. A PUT of 4 KiB into a store that does
// nothing costs as much as a bare server takes to read it.
import type { IncomingMessage, Server, ServerResponse } from 'node:http';
import {
  createServer as createNetServer,
  Server as NetServer,
  type AddressInfo,
  type Socket,
} from 'node:net';
import type { TLSSocket } from 'node:tls';
import { systemClock } from '../core/clock.ts';
import { cannot } from '../core/errors.ts';
import {
  connectionsMax,
  firstRequestTimeMs,
  headersTimeoutMs,
  idleTimeoutMs,
  shutdownTimeoutMs,
  stallTimeoutMs,
} from '../core/limits.ts';
import { parseTarget } from '../protocol/request-target.ts';
import { SenderSlots } from '../store/sender-slots.ts';
import { UploadGate } from '../store/upload-gate.ts';
import { openAccess, type Access } from '../access/access.ts';
import type { TlsMaterial } from '../access/tls-files.ts';
import { admitAll, type RequestAdmission } from '../access/rate-limiter.ts';
import { ConnectionTable, type DrainTimes } from './connections/connection-table.ts';
import type { Connection } from './connections/connection.ts';
import { ConnectionFaults } from './connections/connection-faults.ts';
import type { Message, ResponseWriter } from './connections/messages.ts';
import { Exchange } from './exchange.ts';
import { FastLane } from './fast-lane/fast-lane.ts';
import type { ServerContext } from './handlers/context.ts';
import {
  createNodeServer,
  idleCloseMs,
  replaceTlsMaterial,
  type ServerTimeouts,
} from './connections/node-server.ts';
import { silentObserver, type RequestObserver } from './observer.ts';
import type { HttpServerOptions } from './options.ts';
import { rawResponse, requireUnambiguous } from './connections/refusals.ts';
import { handle } from './router.ts';
import { SeekQueue } from './seek-queue.ts';
import { answerTaken, WaitingRequests } from './connections/waiting-requests.ts';

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
  /** Accepts connections: `#server` with TLS; otherwise one of its own, because not all connections go to node:http. */
  readonly #listener: NetServer;
  readonly #lane: FastLane | undefined;
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
  readonly #faults: ConnectionFaults;
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
    this.#faults = new ConnectionFaults({
      connections: this.#connections,
      observer: this.#observer,
      timeouts: this.#timeouts,
      bodyBytesPerSecondMin: options.bodyBytesPerSecondMin,
    });
    this.#server = createNodeServer(this.#timeouts, options.tls);
    this.#addListeners(this.#server);
    this.#listener = this.#tls
      ? this.#server
      : createNetServer({ allowHalfOpen: true, noDelay: true }, (socket) => this.#accept(socket));
    this.#lane = this.#tls || options.fastLane === false ? undefined : this.#openLane();
  }

  /**
   * Starts to listen. The server does not own the store: its opener closes it after the server.
   * @throws system errors (EADDRINUSE, EACCES …).
   */
  static async open(options: HttpServerOptions): Promise<HttpServer> {
    const opened = new HttpServer(options);
    const listener = opened.#listener;
    const { listen } = options;
    // Node starts its check for overdue headers when it listens, which a server that gets its connections does not.
    if (listen === undefined || listener !== opened.#server) opened.#server.emit('listening');
    if (listen !== undefined) {
      await new Promise<void>((resolve, reject) => {
        listener.once('error', reject);
        listener.listen(listen, () => {
          listener.off('error', reject);
          resolve();
        });
      });
    }
    opened.#faults.watch();
    return opened;
  }

  #addListeners(server: Server): void {
    if (this.#tls) {
      server.on('connection', (socket) => this.#onTlsSocket(socket));
      server.on('secureConnection', (socket: TLSSocket) => this.#onSecureConnection(socket));
    }
    server.on('request', (request, response) => this.#onRequest(request, response, false));
    server.on('checkContinue', (request, response) => this.#onRequest(request, response, true));
    server.on('checkExpectation', (request, response) => this.#onRequest(request, response, true, true));
    server.on('clientError', (error: Error, socket) => this.#faults.onClientError(error, socket));
    server.on('timeout', (socket) => this.#faults.onTimeout(socket));
  }

  /** The address and port of the listener. */
  get address(): { readonly host: string; readonly port: number } {
    const address: AddressInfo | string | null = this.#listener.address();
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
    if (this.#tls) this.#handOver(socket);
    else this.#accept(socket);
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

  /** A connection without TLS. */
  #accept(socket: Socket): void {
    const isRefused = this.#connections.size >= this.#connectionsMax;
    const lane = isRefused ? undefined : this.#lane;
    if (lane === undefined) this.#handOver(socket);
    this.#connections.addSocket(socket);
    if (isRefused) this.#refuseConnection(socket);
    else {
      const connection = this.#connections.add(socket);
      lane?.take(connection);
    }
  }

  /** Gives a connection to node:http. */
  #handOver(socket: Socket): void {
    this.#server.emit('connection', socket);
  }

  /** Node has begun the TLS handshake. */
  #onTlsSocket(socket: Socket): void {
    this.#connections.addSocket(socket);
    if (this.#connections.size > this.#connectionsMax) this.#refuseConnection(socket);
  }

  #openLane(): FastLane {
    return new FastLane({
      basePath: this.#basePath,
      timeouts: this.#timeouts,
      idleCloseMs: idleCloseMs(this.#server),
      serve: (message, connection) => this.#serve(message, connection),
      handOver: (socket) => this.#handOver(socket),
      faults: this.#faults,
    });
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
    connection.receives(request);
    this.#serve({ request, response, body: request, expectsContinue }, connection, unmet);
  }

  /** Serves a request after the earlier ones of its connection. */
  #serve(message: Message, connection: Connection, unmet = false): void {
    const previous = connection.active > 0 ? connection.lastResponse : undefined;
    if (previous !== undefined && !this.#waiting.enter(connection)) {
      this.#observer.refusedConnection(connection.remoteAddress, 0, 'too many requests were waiting');
      connection.socket.destroy();
      return;
    }
    this.#requests += 1;
    const exchange = new Exchange(message, connection, this.#requests);
    connection.active += 1;
    connection.lastResponse = message.response;
    // A pipelined request may depend on the previous one, as a GET does on a PUT.
    connection.last =
      previous === undefined
        ? this.#answer(exchange, unmet)
        : connection.last.then(() => this.#answerAfter(previous, exchange, unmet));
  }

  /** Serves a request that had to wait, unless its connection is over. */
  async #answerAfter(previous: ResponseWriter, exchange: Exchange, unmet: boolean): Promise<void> {
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
    if (this.#listener.listening) NetServer.prototype.close.call(this.#listener);
    await this.#connections.drain(times);
    this.#faults.stopWatching();
    this.#server.closeAllConnections();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.close();
  }
}
