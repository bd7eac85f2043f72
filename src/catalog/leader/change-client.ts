import { connect, type Socket } from 'node:net';
import { once } from 'node:events';
import { errorFromWire, readFrames, writeFrame, type ChangeAnswers, type ChangeRequest } from './frames.ts';

interface Waiting {
  resolve(result: unknown): void;
  reject(error: unknown): void;
}

/** What a request rejects with when the connection ended before its answer: the change may have been made or not. */
export class ConnectionLost extends Error {}

/** A connection to the process that makes the changes. */
export class ChangeClient {
  readonly #socket: Socket;
  readonly #waiting = new Map<number, Waiting>();
  #nextId = 1;
  /** Resolves when the connection has ended, for whatever reason. */
  readonly ended: Promise<void>;

  private constructor(socket: Socket) {
    this.#socket = socket;
    this.ended = this.#receive();
  }

  /** Undefined where nobody listens. */
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
  ): Promise<ChangeAnswers[Method]> {
    if (!this.#socket.writable) throw new ConnectionLost();
    const id = this.#nextId++;
    const result = new Promise<unknown>((resolve, reject) => this.#waiting.set(id, { resolve, reject }));
    const asked: ChangeRequest = request;
    if (asked.method === 'put' && asked.change.content.kind === 'inline') {
      const { bytes } = asked.change.content;
      const change = { ...asked.change, content: { kind: 'inline' } };
      writeFrame(this.#socket, { id, method: 'put', change }, bytes);
    } else {
      writeFrame(this.#socket, { id, ...asked });
    }
    return (await result) as ChangeAnswers[Method];
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
