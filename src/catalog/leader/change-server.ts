import { once } from 'node:events';
import { open, rm } from 'node:fs/promises';
import { createServer, type Server, type Socket } from 'node:net';
import { join } from 'node:path';
import type { Digest } from '../../core/digest.ts';
import type { BlobPin, Catalog } from '../catalog.ts';
import {
  errorToWire,
  readFrames,
  writeFrame,
  type ChangeRequest,
  type ChangeResults,
  type Frame,
} from './frames.ts';

const socketFileName = 'leader.sock';
/** The system accepts 107 bytes. */
const pathSizeMaxBytes = 104;

export interface SocketPath extends AsyncDisposable {
  readonly path: string;
}

/**
 * The path of the leader's socket, in the folder of the journal, so that access to the store is access to the socket. A
 * path that is too long for the system is replaced by one through a descriptor of the folder, which stays open.
 */
export async function socketPathIn(folder: string): Promise<SocketPath> {
  const path = join(folder, socketFileName);
  if (Buffer.byteLength(path) <= pathSizeMaxBytes) {
    return { path, [Symbol.asyncDispose]: async () => undefined };
  }
  const handle = await open(folder, 'r');
  const short = `/proc/self/fd/${handle.fd}/${socketFileName}`;
  return { path: short, [Symbol.asyncDispose]: () => handle.close() };
}

/** How long a process that does not read its last responses is waited for. */
const lastResponsesMs = 1000;

type Pins = Map<Digest, BlobPin[]>;

export interface ChangeServerEvents {
  /** The connection of another process has ended. */
  readonly onDisconnect: () => void;
  /** Another process has read a damaged row of the index. */
  readonly onRebuild: () => void;
}

/**
 * Makes the changes of other processes, received over a Unix socket, in the catalog of this process.
 *
 * Invariant: the pins of a connection are released when it ends, so a process that dies holds none. Every request
 * that was received gets its response, unless this process dies: without a response a client cannot know whether its
 * change was made.
 */
export class ChangeServer {
  readonly #server: Server;
  readonly #connections = new Set<Socket>();
  readonly #underWay = new Set<Promise<void>>();
  readonly #catalog: Catalog;
  readonly #events: ChangeServerEvents;
  #closing = false;

  private constructor(catalog: Catalog, events: ChangeServerEvents) {
    this.#catalog = catalog;
    this.#events = events;
    this.#server = createServer((socket) => void this.#serve(socket));
  }

  /** Listens at `path`, replacing the socket of a process that died. */
  static async listen(path: string, catalog: Catalog, events: ChangeServerEvents): Promise<ChangeServer> {
    await rm(path, { force: true });
    const server = new ChangeServer(catalog, events);
    server.#server.listen(path);
    await once(server.#server, 'listening');
    return server;
  }

  /** Responds to what it has received, then cuts all connections; their processes look for the next leader. */
  async close(): Promise<void> {
    this.#closing = true;
    const closed = once(this.#server, 'close');
    this.#server.close();
    await Promise.all(this.#underWay);
    for (const socket of this.#connections) socket.destroySoon();
    const timer = setTimeout(() => {
      for (const socket of this.#connections) socket.destroy();
    }, lastResponsesMs);
    await closed;
    clearTimeout(timer);
  }

  async #serve(socket: Socket): Promise<void> {
    const pins: Pins = new Map();
    this.#connections.add(socket);
    socket.on('error', () => socket.destroy());
    try {
      for await (const frame of readFrames(socket)) {
        if (this.#closing) continue;
        const responding = this.#respond(socket, frame, pins);
        this.#underWay.add(responding);
        void responding.finally(() => this.#underWay.delete(responding));
      }
    } catch {
      // After a broken connection its process repeats its requests, here or at the next leader.
    } finally {
      socket.destroy();
      this.#connections.delete(socket);
      for (const held of pins.values()) for (const pin of held) await pin.release();
      this.#events.onDisconnect();
    }
  }

  async #respond(socket: Socket, { message, bytes }: Frame, pins: Pins): Promise<void> {
    const request = message as ChangeRequest & { readonly id: number };
    const { id } = request;
    try {
      const result = await this.#carryOut(request, bytes, pins);
      if (socket.writable) writeFrame(socket, { id, result });
    } catch (error) {
      if (socket.writable) writeFrame(socket, { id, error: errorToWire(error) });
    }
  }

  async #carryOut(
    request: ChangeRequest,
    bytes: Buffer,
    pins: Pins,
  ): Promise<ChangeResults[ChangeRequest['method']]> {
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
        if (pin !== undefined) pins.set(request.digest, [...(pins.get(request.digest) ?? []), pin]);
        return pin !== undefined;
      }
      case 'release':
        await pins.get(request.digest)?.pop()?.release();
        return null;
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
        this.#events.onRebuild();
        return null;
    }
  }
}
