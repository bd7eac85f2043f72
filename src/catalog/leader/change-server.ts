import { once } from 'node:events';
import { open, rm } from 'node:fs/promises';
import { createServer, type Server, type Socket } from 'node:net';
import { join } from 'node:path';
import type { Catalog } from '../catalog.ts';
import { ChangeConnection } from './change-connection.ts';

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

export interface ChangeServerEvents {
  /** The connection of another process has ended. */
  readonly onDisconnect: () => void;
  /** Another process has read a damaged row of the index. */
  readonly onRebuild: () => void;
}

/**
 * Makes the changes of other processes, received over a Unix socket, in the catalog of this process.
 *
 * Invariant: every request that was received gets its response, unless this process dies: without a response a client
 * cannot know whether its change was made.
 */
export class ChangeServer {
  readonly #server: Server;
  readonly #connections = new Set<ChangeConnection>();
  readonly #catalog: Catalog;
  readonly #events: ChangeServerEvents;

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
    const closed = once(this.#server, 'close');
    this.#server.close();
    await Promise.all([...this.#connections].map((connection) => connection.drain()));
    for (const connection of this.#connections) connection.end();
    const timer = setTimeout(() => {
      for (const connection of this.#connections) connection.destroy();
    }, lastResponsesMs);
    await closed;
    clearTimeout(timer);
  }

  async #serve(socket: Socket): Promise<void> {
    const connection = new ChangeConnection(socket, this.#catalog, this.#events.onRebuild);
    this.#connections.add(connection);
    await connection.ended;
    this.#connections.delete(connection);
    this.#events.onDisconnect();
  }
}
