import { connect, createServer, type Server, type Socket } from 'node:net';
import { pipeline } from 'node:stream';
import { onTestFinished } from 'vitest';

/**
 * What stands between a server and an engine: passes everything on, falls silent, refuses connections, or answers
 * every request of HTTP with a status of its own.
 */
export type Fault = 'none' | 'silence' | 'refusal' | 500 | 503;

export class FaultProxy {
  readonly #server: Server;
  readonly #target: { readonly host: string; readonly port: number };
  readonly #sockets = new Set<Socket>();
  /** Connections of those that ask, and of those that they ask. */
  readonly #pairs = new Map<Socket, Socket>();
  #fault: Fault = 'none';

  private constructor(server: Server, target: { host: string; port: number }) {
    this.#server = server;
    this.#target = target;
  }

  /** Closed when the test is over. */
  static async open(targetUrl: string): Promise<FaultProxy> {
    const url = new URL(targetUrl);
    const server = createServer();
    const proxy = new FaultProxy(server, { host: url.hostname, port: Number(url.port) });
    server.on('connection', (socket) => proxy.#take(socket));
    await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
    onTestFinished(async () => {
      proxy.set('refusal');
      await new Promise((resolve) => server.close(resolve));
    });
    return proxy;
  }

  get port(): number {
    const address = this.#server.address();
    return typeof address === 'object' && address !== null ? address.port : 0;
  }

  /** Connections through it now. */
  get connections(): number {
    return this.#sockets.size;
  }

  set(fault: Fault): void {
    this.#fault = fault;
    // In a silence what is connected stays so, and hears nothing more.
    for (const socket of this.#sockets) if (fault === 'silence') socket.pause().unpipe();
    if (fault !== 'silence') for (const socket of this.#sockets) socket.destroy();
  }

  /** What is asked from now on is still carried out; its answer breaks the connection instead of passing. */
  loseAnswers(): void {
    for (const [socket, target] of this.#pairs) {
      const hangUp = (): void => {
        socket.destroy();
        target.destroy();
      };
      target.unpipe(socket).once('data', hangUp).resume();
    }
  }

  #take(socket: Socket): void {
    socket.on('error', () => undefined);
    if (this.#fault === 'refusal') {
      socket.destroy();
      return;
    }
    this.#keep(socket);
    if (this.#fault === 'silence') return;
    if (typeof this.#fault === 'number') {
      answerAll(socket, this.#fault);
      return;
    }
    const target = connect(this.#target);
    target.on('error', () => undefined);
    this.#keep(target);
    this.#pairs.set(socket, target);
    socket.on('close', () => this.#pairs.delete(socket));
    pipeline(socket, target, () => undefined);
    pipeline(target, socket, () => undefined);
  }

  #keep(socket: Socket): void {
    this.#sockets.add(socket);
    socket.on('close', () => this.#sockets.delete(socket));
  }
}

/** Answers as soon as a request's head is there, and hangs up: no body of it is waited for. */
function answerAll(socket: Socket, status: number): void {
  socket.once('readable', () => {
    socket.resume();
    socket.end(`HTTP/1.1 ${status} Fault\r\nContent-Length: 0\r\nConnection: close\r\n\r\n`);
  });
}
