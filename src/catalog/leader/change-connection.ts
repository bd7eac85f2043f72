import type { Socket } from 'node:net';
import type { Digest } from '../../core/digest.ts';
import type { BlobPin, Catalog, PutOutcome, RemoveOutcome } from '../catalog.ts';
import { decodeChanges, encodeOutcomes, outcomeFitsBatch, type BatchedOutcome } from './batches.ts';
import {
  batchForm,
  errorToWire,
  FrameReader,
  writeFrame,
  type ChangeRequest,
  type ChangeResults,
  type Frame,
} from './frames.ts';

/**
 * The requests of one other process, and their responses. The usual outcomes of a group of changes leave as one batch.
 *
 * Invariant: the pins of a connection are released when it ends, so a process that dies holds none. `#openRequests` counts
 * the requests without a response.
 */
export class ChangeConnection {
  readonly #socket: Socket;
  readonly #catalog: Catalog;
  readonly #onRebuild: () => void;
  readonly #pins = new Map<Digest, BlobPin[]>();
  #outcomes: BatchedOutcome[] = [];
  #openRequests = 0;
  #draining = false;
  #onIdle: (() => void) | undefined;
  /** Resolves when the connection has ended, for any reason, and its pins are released. */
  readonly ended: Promise<void>;

  constructor(socket: Socket, catalog: Catalog, onRebuild: () => void) {
    this.#socket = socket;
    this.#catalog = catalog;
    this.#onRebuild = onRebuild;
    this.ended = this.#receive();
  }

  /** Receives no more; resolves when all that was received has its response. */
  async drain(): Promise<void> {
    this.#draining = true;
    if (this.#openRequests === 0) return;
    await new Promise<void>((resolve) => {
      this.#onIdle = resolve;
    });
  }

  /** Ends the connection after the last response. */
  end(): void {
    this.#sendOutcomes();
    this.#socket.destroySoon();
  }

  destroy(): void {
    this.#socket.destroy();
  }

  async #receive(): Promise<void> {
    const socket = this.#socket;
    const reader = new FrameReader((frame) => this.#onFrame(frame));
    socket.on('error', () => socket.destroy());
    socket.on('data', (chunk: Buffer) => {
      try {
        reader.push(chunk);
      } catch {
        // After a broken connection its process repeats its requests, here or at the next leader.
        socket.destroy();
      }
    });
    await new Promise<void>((resolve) => socket.once('close', () => resolve()));
    for (const held of this.#pins.values()) for (const pin of held) await pin.release();
  }

  #onFrame({ message, bytes }: Frame): void {
    if (this.#draining) return;
    if (message === undefined) this.#takeBatch(bytes);
    else void this.#respond(message as ChangeRequest & { readonly id: number }, bytes);
  }

  #takeBatch(batch: Buffer): void {
    for (const { kind, id, change } of decodeChanges(batch)) {
      const changing: Promise<PutOutcome | RemoveOutcome> =
        kind === 'put' ? this.#catalog.put(change) : this.#catalog.remove(change);
      this.#openRequests += 1;
      changing.then(
        (outcome) => this.#addOutcome(id, outcome),
        (error: unknown) => this.#send({ id, error: errorToWire(error) }),
      );
    }
  }

  #addOutcome(id: number, outcome: PutOutcome | RemoveOutcome): void {
    if (!outcomeFitsBatch(outcome)) {
      this.#send({ id, result: outcome });
      return;
    }
    // All changes of a group are settled in one turn.
    if (this.#outcomes.length === 0) process.nextTick(() => this.#sendOutcomes());
    this.#outcomes.push({ id, outcome });
    this.#endRequest();
  }

  #sendOutcomes(): void {
    if (this.#outcomes.length === 0) return;
    const outcomes = this.#outcomes;
    this.#outcomes = [];
    if (this.#socket.writable) this.#socket.write(encodeOutcomes(outcomes));
  }

  #send(response: unknown): void {
    if (this.#socket.writable) writeFrame(this.#socket, response);
    this.#endRequest();
  }

  #endRequest(): void {
    this.#openRequests -= 1;
    if (this.#openRequests === 0) this.#onIdle?.();
  }

  async #respond(request: ChangeRequest & { readonly id: number }, bytes: Buffer): Promise<void> {
    const { id } = request;
    this.#openRequests += 1;
    try {
      const result = await this.#carryOut(request, bytes);
      this.#send({ id, result });
    } catch (error) {
      this.#send({ id, error: errorToWire(error) });
    }
  }

  async #carryOut(request: ChangeRequest, bytes: Buffer): Promise<ChangeResults[ChangeRequest['method']]> {
    switch (request.method) {
      case 'put': {
        const { change } = request;
        // The bytes of an inline blob travel beside the JSON.
        const isInline = change.content.kind === 'inline';
        return this.#catalog.put(isInline ? { ...change, content: { kind: 'inline', bytes } } : change);
      }
      case 'remove':
        return this.#catalog.remove(request.change);
      case 'collect':
        return this.#catalog.collect(request.digests, request.beforeMs);
      case 'pin': {
        const pin = await this.#catalog.pin(request.digest);
        if (pin !== undefined) this.#holdPin(request.digest, pin);
        return pin !== undefined;
      }
      case 'release':
        await this.#pins.get(request.digest)?.pop()?.release();
        return request.batches === undefined ? null : { batches: Math.min(request.batches, batchForm) };
      case 'mark':
        await this.#catalog.markDamaged(request.digest, request.damaged);
        return null;
      case 'add':
        await this.#catalog.addBlobs(request.blobs);
        return null;
      case 'probe':
        await this.#catalog.probe();
        return null;
      case 'rebuild':
        this.#onRebuild();
        return null;
    }
  }

  #holdPin(digest: Digest, pin: BlobPin): void {
    const held = this.#pins.get(digest);
    if (held === undefined) this.#pins.set(digest, [pin]);
    else held.push(pin);
  }
}
