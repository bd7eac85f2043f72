import { once } from 'node:events';
import { connect, type Socket } from 'node:net';
import { errorFromWire, readFrames, writeFrame, type ChangeRequest, type ChangeResults } from './frames.ts';

interface Waiting {
  resolve(result: unknown): void;
  reject(error: unknown): void;
}

/** The error of a request whose connection ended before the response: the change may have been made or not. */
export class ConnectionLost extends Error {}

/** A connection to the leader. */
export class ChangeClient {
  readonly #socket: Socket;
  readonly #waiting = new Map<number, Waiting>();
  #nextId = 1;
  /** Resolves when the connection has ended, for any reason. */
  readonly ended: Promise<void>;

  private constructor(socket: Socket) {
    this.#socket = socket;
    this.ended = this.#receive();
  }

  /** `undefined` if no process listens. */
  static async connect(path: string): Promise<ChangeClient | undefined> {
    const socket = connect(path);
    try {
      await once(socket, 'connect');
    } catch {
      socket.destroy();
      return undefined;
    }
    return new ChangeClient(socket);
  }

  /** @throws ConnectionLost, or the error of the change itself. */
  async request<Method extends ChangeRequest['method']>(
    request: Extract<ChangeRequest, { method: Method }>,
  ): Promise<ChangeResults[Method]> {
    if (!this.#socket.writable) throw new ConnectionLost();
    const id = this.#nextId++;
    const result = new Promise<unknown>((resolve, reject) => this.#waiting.set(id, { resolve, reject }));
    const sent: ChangeRequest = request;
    if (sent.method === 'put' && sent.change.content.kind === 'inline') {
      const change = { ...sent.change, content: { kind: 'inline' } };
      writeFrame(this.#socket, { id, method: 'put', change }, sent.change.content.bytes);
    } else {
      writeFrame(this.#socket, { id, ...sent });
    }
    return (await result) as ChangeResults[Method];
  }

  close(): void {
    this.#socket.destroy();
  }

  async #receive(): Promise<void> {
    this.#socket.on('error', () => this.#socket.destroy());
    try {
      for await (const { message } of readFrames(this.#socket)) {
        const { id, result, error } = message as {
          id: number;
          result?: unknown;
          error?: Parameters<typeof errorFromWire>[0];
        };
        const waiting = this.#waiting.get(id);
        this.#waiting.delete(id);
        if (error === undefined) waiting?.resolve(result);
        else waiting?.reject(errorFromWire(error));
      }
    } catch {
      // A broken connection is an ended one.
    }
    this.#socket.destroy();
    for (const waiting of this.#waiting.values()) waiting.reject(new ConnectionLost());
    this.#waiting.clear();
  }
}
