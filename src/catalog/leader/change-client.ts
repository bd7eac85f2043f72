import { once } from 'node:events';
import { connect, type Socket } from 'node:net';
import type { Digest } from '../../core/digest.ts';
import type { PutChange, PutOutcome, RemoveChange, RemoveOutcome } from '../catalog.ts';
import {
  batchedSizeBytes,
  batchSizeMaxBytes,
  decodeOutcomes,
  encodeChanges,
  fitsBatch,
  type BatchedChange,
} from './batches.ts';
import {
  batchForm,
  errorFromWire,
  FrameReader,
  writeFrame,
  type ChangeRequest,
  type ChangeResults,
  type Frame,
} from './frames.ts';

interface Waiting {
  resolve(result: unknown): void;
  reject(error: unknown): void;
}

/** Ids are 32-bit numbers in batches. The ids of requests that wait are far closer together. */
const idLimit = 2 ** 32;

/** The error of a request whose connection ended before the response: the change may have been made or not. */
export class ConnectionLost extends Error {}

/**
 * A connection to the leader. The usual changes of one turn of the event loop leave as one batch: one message, one system
 * call, no JSON.
 *
 * Invariant: a request waits until its response arrives or the connection has ended.
 */
export class ChangeClient {
  readonly #socket: Socket;
  readonly #waiting = new Map<number, Waiting>();
  #nextId = 1;
  /** Whether the leader reads batches. */
  #batches = false;
  #batch: BatchedChange[] = [];
  #batchSizeBytes = 0;
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

  /** Waits for a response of the leader, and finds out whether it reads batches. @throws as `request`. */
  async greet(): Promise<void> {
    const agreed = await this.request({ method: 'release', digest: '' as Digest, batches: batchForm });
    this.#batches = agreed?.batches === batchForm;
  }

  /** @throws as `request`. */
  put(change: PutChange): Promise<PutOutcome> {
    if (!this.#batches || !fitsBatch(change)) return this.request({ method: 'put', change });
    return this.#addToBatch<PutOutcome>({ kind: 'put', id: this.#takeId(), change });
  }

  /** @throws as `request`. */
  remove(change: RemoveChange): Promise<RemoveOutcome> {
    if (!this.#batches || !fitsBatch(change)) return this.request({ method: 'remove', change });
    return this.#addToBatch<RemoveOutcome>({ kind: 'remove', id: this.#takeId(), change });
  }

  /** @throws ConnectionLost, or the error of the change itself. */
  async request<Method extends ChangeRequest['method']>(
    request: Extract<ChangeRequest, { method: Method }>,
  ): Promise<ChangeResults[Method]> {
    if (!this.#socket.writable) throw new ConnectionLost();
    const id = this.#takeId();
    const result = new Promise<unknown>((resolve, reject) => this.#waiting.set(id, { resolve, reject }));
    const sent: ChangeRequest = request;
    // A request must not overtake those before it.
    this.#sendBatch();
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

  #takeId(): number {
    const id = this.#nextId;
    this.#nextId = (id + 1) % idLimit;
    return id;
  }

  #addToBatch<Outcome>(batched: BatchedChange): Promise<Outcome> {
    if (!this.#socket.writable) return Promise.reject(new ConnectionLost());
    const sizeBytes = batchedSizeBytes(batched);
    if (this.#batchSizeBytes + sizeBytes > batchSizeMaxBytes) this.#sendBatch();
    // After the input of this turn: the changes of all connections that had something to read share the batch.
    if (this.#batch.length === 0) setImmediate(() => this.#sendBatch());
    this.#batch.push(batched);
    this.#batchSizeBytes += sizeBytes;
    return new Promise<unknown>((resolve, reject) =>
      this.#waiting.set(batched.id, { resolve, reject }),
    ) as Promise<Outcome>;
  }

  #sendBatch(): void {
    if (this.#batch.length === 0) return;
    const batch = this.#batch;
    const sizeBytes = this.#batchSizeBytes;
    this.#batch = [];
    this.#batchSizeBytes = 0;
    if (this.#socket.writable) this.#socket.write(encodeChanges(batch, sizeBytes));
  }

  async #receive(): Promise<void> {
    const socket = this.#socket;
    const reader = new FrameReader((frame) => this.#onFrame(frame));
    socket.on('error', () => socket.destroy());
    socket.on('data', (chunk: Buffer) => {
      try {
        reader.push(chunk);
      } catch {
        // A malformed message breaks the connection, which is an ended one.
        socket.destroy();
      }
    });
    if (!socket.closed) await new Promise<void>((resolve) => socket.once('close', () => resolve()));
    for (const waiting of this.#waiting.values()) waiting.reject(new ConnectionLost());
    this.#waiting.clear();
  }

  #onFrame({ message, bytes }: Frame): void {
    if (message === undefined) {
      for (const { id, outcome } of decodeOutcomes(bytes)) this.#take(id)?.resolve(outcome);
      return;
    }
    const { id, result, error } = message as {
      id: number;
      result?: unknown;
      error?: Parameters<typeof errorFromWire>[0];
    };
    const waiting = this.#take(id);
    if (error === undefined) waiting?.resolve(result);
    else waiting?.reject(errorFromWire(error));
  }

  #take(id: number): Waiting | undefined {
    const waiting = this.#waiting.get(id);
    this.#waiting.delete(id);
    return waiting;
  }
}
