import { createServer, type Server, type Socket } from 'node:net';
import { once } from 'node:events';
import { rm } from 'node:fs/promises';
import type { Digest } from '../../core/digest.ts';
import type { BlobPin, Catalog, PutChange } from '../catalog.ts';
import { carryOut, errorToWire, readFrames, writeFrame, type ChangeRequest, type Frame } from './frames.ts';

type Numbered = ChangeRequest & { readonly id: number };

/** How long a process that does not take its last answers is waited for. */
const lastAnswersMs = 1000;

export interface ChangeServerEvents {
  /** A connection of another process has ended. */
  readonly onDisconnect: () => void;
  /** Another process has met a damaged row in the index. */
  readonly onRebuild: () => void;
}

/**
 * Takes changes of other processes over a Unix socket and makes them in this process's catalog.
 *
 * Invariant: what a connection has pinned is released when it ends, so a process that dies holds nothing. What was
 * taken is answered, unless this process dies: who gets no answer cannot know whether its change was made.
 */
export class ChangeServer {
  readonly #server: Server;
  readonly #connections = new Set<Socket>();
  readonly #underWay = new Set<Promise<void>>();
  readonly #catalog: Catalog;
  readonly #onDisconnect: () => void;
  readonly #onRebuild: () => void;
  #closing = false;

  private constructor(catalog: Catalog, { onDisconnect, onRebuild }: ChangeServerEvents) {
    this.#catalog = catalog;
    this.#onDisconnect = onDisconnect;
    this.#onRebuild = onRebuild;
    this.#server = createServer((socket) => void this.#serve(socket));
  }

  /** Listens at `path`, replacing what a process that died has left there. */
  static async listen(path: string, catalog: Catalog, events: ChangeServerEvents): Promise<ChangeServer> {
    await rm(path, { force: true });
    const server = new ChangeServer(catalog, events);
    server.#server.listen(path);
    await once(server.#server, 'listening');
    return server;
  }

  /** Answers what it has taken, and nothing more, and cuts all connections; their processes look for the next leader. */
  async close(): Promise<void> {
    this.#closing = true;
    const closed = once(this.#server, 'close');
    this.#server.close();
    await Promise.all(this.#underWay);
    for (const socket of this.#connections) socket.destroySoon();
    const timer = setTimeout(() => {
      for (const socket of this.#connections) socket.destroy();
    }, lastAnswersMs);
    await closed;
    clearTimeout(timer);
  }

  async #serve(socket: Socket): Promise<void> {
    const pins = new Map<Digest, BlobPin[]>();
    this.#connections.add(socket);
    socket.on('error', () => socket.destroy());
    try {
      for await (const frame of readFrames(socket)) {
        if (this.#closing) continue;
        const answering = this.#answer(socket, frame, pins);
        this.#underWay.add(answering);
        void answering.finally(() => this.#underWay.delete(answering));
      }
    } catch {
      // A connection that breaks has nothing more to say; its process asks again, here or elsewhere.
    } finally {
      socket.destroy();
      this.#connections.delete(socket);
      for (const held of pins.values()) for (const pin of held) await pin.release();
      this.#onDisconnect();
    }
  }

  async #answer(socket: Socket, frame: Frame, pins: Map<Digest, BlobPin[]>): Promise<void> {
    const request = frame.message as Numbered;
    const { id } = request;
    try {
      const result = await this.#carryOut(request, frame.bytes, pins);
      if (socket.writable) writeFrame(socket, { id, result });
    } catch (error) {
      if (socket.writable) writeFrame(socket, { id, error: errorToWire(error) });
    }
  }

  async #carryOut(request: Numbered, bytes: Buffer, pins: Map<Digest, BlobPin[]>): Promise<unknown> {
    if (request.method === 'pin') {
      const pin = await this.#catalog.pin(request.digest);
      if (pin !== undefined) pins.set(request.digest, [...(pins.get(request.digest) ?? []), pin]);
      return pin !== undefined;
    }
    if (request.method === 'release') {
      await pins.get(request.digest)?.pop()?.release();
      return null;
    }
    if (request.method === 'rebuild') {
      this.#onRebuild();
      return null;
    }
    if (request.method !== 'put') return carryOut(this.#catalog, request);
    return carryOut(this.#catalog, { method: 'put', change: withBytes(request.change, bytes) });
  }
}

/** Inline content travels beside the JSON. */
function withBytes(change: PutChange, bytes: Buffer): PutChange {
  return change.content.kind === 'inline' ? { ...change, content: { kind: 'inline', bytes } } : change;
}
