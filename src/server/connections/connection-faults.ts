import type { Socket } from 'node:net';
import type { Duplex } from 'node:stream';
import { bodyBytesPerSecondMin } from '../../core/limits.ts';
import type { RequestObserver } from '../observer.ts';
import { brokenBody, slowBody, stalledBody, truncatedBody } from './connection.ts';
import type { ConnectionTable } from './connection-table.ts';
import type { ServerTimeouts } from './node-server.ts';
import { rawResponse, refusalOf } from './refusals.ts';
import { faultTexts, SlowClientGuard } from './slow-client-guard.ts';

interface FaultOptions {
  readonly connections: ConnectionTable;
  readonly observer: RequestObserver;
  readonly timeouts: ServerTimeouts;
  /** Minimum rate of bodies, in bytes per second; 0 for none. */
  readonly bodyBytesPerSecondMin: number | undefined;
}

/** Ends connections that break, send no request, stall, or trickle; a body in progress fails with the reason. */
export class ConnectionFaults {
  readonly #connections: ConnectionTable;
  readonly #observer: RequestObserver;
  readonly #timeouts: ServerTimeouts;
  readonly #guard: SlowClientGuard;
  #guardTimer: NodeJS.Timeout | undefined;

  constructor(options: FaultOptions) {
    this.#connections = options.connections;
    this.#observer = options.observer;
    this.#timeouts = options.timeouts;
    this.#guard = new SlowClientGuard(options.bodyBytesPerSecondMin ?? bodyBytesPerSecondMin, this.#timeouts);
  }

  /** Looks for slow clients from now on. */
  watch(): void {
    this.#guardTimer = setInterval(() => this.#closeSlowClients(), this.#guard.intervalMs).unref();
  }

  stopWatching(): void {
    clearInterval(this.#guardTimer);
  }

  /** Bytes that are not a request, or a body that broke off. */
  onClientError(error: Error, socket: Duplex): void {
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
  onTimeout(socket: Socket): void {
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
}
