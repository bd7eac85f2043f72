import type { Socket } from 'node:net';
import type { Duplex } from 'node:stream';
import { timerMs } from '../../core/timers.ts';
import { Connection, truncatedBody } from './connection.ts';

/** What the socket that speaks TLS has in common with the one below it. */
function peerOf(socket: Socket): string {
  return `${socket.remoteAddress} ${socket.remotePort}`;
}

/** How long connections may stay when a server stops, in milliseconds. */
export interface DrainTimes {
  /** For what is under way; then it is broken off. */
  readonly timeoutMs: number;
  /** Without a request; 0 for not at all. */
  readonly idleMs: number;
  /** From its beginning until its first request. */
  readonly firstRequestMs: number;
}

/**
 * The sockets of a server, from when they are accepted, and what is known of each from when it can bring requests:
 * with TLS, after its handshake. Ends them when the server stops.
 */
export class ConnectionTable {
  readonly #sockets = new Set<Socket>();
  readonly #connections = new Map<Duplex, Connection>();
  #draining = false;
  #onEmpty: (() => void) | undefined;

  /** Sockets that are open, as the system counts them: those in a handshake too. */
  get size(): number {
    return this.#sockets.size;
  }

  /** A socket has been accepted. */
  addSocket(socket: Socket): void {
    this.#sockets.add(socket);
    socket.once('close', () => {
      this.#sockets.delete(socket);
      this.#lookIfEmpty();
    });
  }

  /** Requests may come from here on; `socket` is one that was accepted, or what speaks TLS over it. */
  add(socket: Socket): void {
    const connection = new Connection(socket);
    this.#connections.set(socket, connection);
    if (this.#draining) connection.closeWithNextAnswer();
    socket.once('close', () => {
      connection.interrupt(truncatedBody());
      this.#connections.delete(socket);
      this.#lookIfEmpty();
    });
  }

  /** Undefined where it was closed while its bytes were still being read, or its handshake has failed. */
  get(socket: Duplex): Connection | undefined {
    return this.#connections.get(socket);
  }

  values(): Iterable<Connection> {
    return this.#connections.values();
  }

  /**
   * Resolves when all are closed: those with requests under way after their answers, those that have just come
   * after their first, and the others in time. None may be added to an empty table after this.
   */
  async drain({ timeoutMs, idleMs, firstRequestMs }: DrainTimes): Promise<void> {
    if (this.#sockets.size === 0) return;
    this.#draining = true;
    const empty = new Promise<void>((resolve) => {
      this.#onEmpty = resolve;
    });
    const nowMs = performance.now();
    for (const connection of this.#connections.values()) {
      // Its client could not know that the server stops, and a request of its own is most likely on its way.
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

  /** With TLS a connection and its socket are closed one after the other, in any order. */
  #lookIfEmpty(): void {
    if (this.#sockets.size === 0 && this.#connections.size === 0) this.#onEmpty?.();
  }

  /** Closes what has no request under way, and what has not come that far. */
  #endIdle(): void {
    const come = new Set<string>();
    for (const connection of this.#connections.values()) {
      come.add(peerOf(connection.socket));
      connection.closeAfterAnswers();
    }
    for (const socket of this.#sockets) if (!come.has(peerOf(socket))) socket.destroy();
  }

  #destroy(): void {
    for (const { socket } of this.#connections.values()) socket.destroy();
    for (const socket of this.#sockets) socket.destroy();
  }
}
