import type { Socket } from 'node:net';
import type { Duplex } from 'node:stream';
import { timerMs } from '../../core/timers.ts';
import { Connection, truncatedBody } from './connection.ts';

/** Identifies a TLS socket and the TCP socket below it. */
function peerOf(socket: Socket): string {
  return `${socket.remoteAddress} ${socket.remotePort}`;
}

/** How long connections may stay open when a server stops, in milliseconds. */
export interface DrainTimes {
  /** With a request in progress; then they are destroyed. */
  readonly timeoutMs: number;
  /** Without a request; 0 closes them at once. */
  readonly idleMs: number;
  /** Before their first request. */
  readonly firstRequestMs: number;
}

/** The accepted sockets of a server, and the connections among them: with TLS, the sockets after their handshake. */
export class ConnectionTable {
  readonly #sockets = new Set<Socket>();
  readonly #connections = new Map<Duplex, Connection>();
  #draining = false;
  #onEmpty: (() => void) | undefined;

  /** Open sockets, including those in a handshake. */
  get size(): number {
    return this.#sockets.size;
  }

  /** A socket has been accepted. */
  addSocket(socket: Socket): void {
    this.#sockets.add(socket);
    socket.once('close', () => {
      this.#sockets.delete(socket);
      this.#checkEmpty();
    });
  }

  /** Adds a connection: an accepted socket, or the TLS socket over it. Requests may come from now on. */
  add(socket: Socket): Connection {
    const connection = new Connection(socket);
    this.#connections.set(socket, connection);
    if (this.#draining) connection.closeWithNextAnswer();
    socket.once('close', () => {
      connection.interrupt(truncatedBody());
      this.#connections.delete(socket);
      this.#checkEmpty();
    });
    return connection;
  }

  /** `undefined` if the socket was closed while Node still parsed its bytes, or its handshake failed. */
  get(socket: Duplex): Connection | undefined {
    return this.#connections.get(socket);
  }

  values(): Iterable<Connection> {
    return this.#connections.values();
  }

  /**
   * Resolves when all connections are closed: those with requests in progress after their responses, new ones after their
   * first, and the others in time. None may be added to an empty table afterwards.
   */
  async drain({ timeoutMs, idleMs, firstRequestMs }: DrainTimes): Promise<void> {
    if (this.#sockets.size === 0) return;
    this.#draining = true;
    const empty = new Promise<void>((resolve) => {
      this.#onEmpty = resolve;
    });
    const nowMs = performance.now();
    for (const connection of this.#connections.values()) {
      // The client of a new connection does not know that the server stops; its request is probably on its way.
      const isNew = connection.requests === 0 && nowMs - connection.openedAtMs < firstRequestMs;
      if (idleMs > 0 || isNew) connection.closeWithNextAnswer();
      else connection.closeAfterAnswers();
    }
    const timers = [
      setTimeout(() => this.#endIdle(), timerMs(Math.max(idleMs, firstRequestMs))),
      setTimeout(() => this.#destroy(), timerMs(timeoutMs)),
    ];
    await empty;
    for (const timer of timers) clearTimeout(timer);
  }

  /** With TLS, a connection and its socket close one after the other, in any order. */
  #checkEmpty(): void {
    if (this.#sockets.size === 0 && this.#connections.size === 0) this.#onEmpty?.();
  }

  /** Closes idle connections, and sockets that have not become connections. */
  #endIdle(): void {
    const connected = new Set<string>();
    for (const connection of this.#connections.values()) {
      connected.add(peerOf(connection.socket));
      connection.closeAfterAnswers();
    }
    for (const socket of this.#sockets) if (!connected.has(peerOf(socket))) socket.destroy();
  }

  #destroy(): void {
    for (const { socket } of this.#connections.values()) socket.destroy();
    for (const socket of this.#sockets) socket.destroy();
  }
}
