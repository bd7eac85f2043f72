import { spawn } from 'node:child_process';
import { createServer, type Server, type Socket } from 'node:net';
import { FiletrackerError } from '../core/errors.ts';
import { pidFileVariable } from './pid-file.ts';
import { firstFreeDescriptor, WorkerPool, type WorkerEvent } from './worker-pool.ts';

/** Set in the environment of a supervisor that takes over from a running one. */
const takeoverVariable = 'FILETRACKER_TAKEOVER';

/**
 * Whether this process takes over from another. Read at the start: the predecessor closes the channel later, and the
 * variable alone may come from anywhere.
 */
const takesOver = process.env[takeoverVariable] !== undefined && process.send !== undefined;

/** Time that a connection without a request has after a takeover to send one. */
const successionIdleMs = 5000;

/** An address that the server listens on, as the system reports it; the host may be the path of a socket. */
export interface BoundAddress {
  readonly host: string;
  readonly port: number;
}

/** The sockets of the predecessor in a takeover, which the launcher of the program receives before the program is loaded. */
export interface InheritedSockets {
  readonly sockets: {
    /** Listens; `undefined` if the socket was lost on its way. */
    readonly server: Server | undefined;
    /** What it has accepted until the supervisor took it, paused. */
    readonly connections: Socket[];
    /** How many sockets follow. */
    readonly more: number;
  }[];
  /** Called after each. */
  onSocket: () => void;
}

/** Sent with each socket to a successor; `more` follow, which earlier releases leave out. */
interface ListenMessage {
  readonly type: 'listen';
  readonly more?: number;
}

/** First descriptor that systemd passes (sd_listen_fds(3)). */
const firstSystemdDescriptor = 3;

export interface SupervisorOptions {
  readonly host: string;
  readonly port: number;
  readonly workers: number;
  /** The program and its arguments, as this process was started. */
  readonly program: string;
  readonly args: readonly string[];
  readonly onEvent: (event: SupervisorEvent) => void;
  /** As in `WorkerPoolOptions`; must stay open as long as this object. */
  readonly ratesDescriptor?: number | undefined;
  /** Descriptor of the pid file, for a successor; must stay open as long as this object. */
  readonly pidFileDescriptor?: number | undefined;
}

export type SupervisorEvent =
  | WorkerEvent
  | { readonly type: 'takeover-begun'; readonly pid: number | undefined }
  | { readonly type: 'takeover-failed'; readonly message: string }
  | { readonly type: 'takeover-done' };

/**
 * Holds the listening socket, or several from systemd, and the workers.
 *
 * Invariant: from `open` to `stop` the sockets listen, even if workers die; in a takeover both the old
 * and the new supervisor listen on the same sockets until the new one has workers that are ready, so no
 * connection is ever refused.
 */
export class Supervisor {
  readonly #options: SupervisorOptions;
  readonly #servers: readonly Server[];
  readonly #pool: WorkerPool;
  /** Rejects when the workers cannot be kept running. */
  readonly failed: Promise<never>;
  #fail: (error: unknown) => void = () => undefined;
  #ready: { resolve(): void; reject(error: unknown): void } | undefined;
  #stopped: Promise<void> | undefined;
  #takeover: Promise<boolean> | undefined;
  #succeeded = false;

  private constructor(options: SupervisorOptions, listeners: readonly Listener[]) {
    this.#options = options;
    this.#servers = listeners.map(({ server }) => server);
    this.failed = new Promise((_, reject) => {
      this.#fail = reject;
    });
    // It may reject before anything waits for it.
    this.failed.catch(() => undefined);
    this.#pool = new WorkerPool({
      size: options.workers,
      program: options.program,
      args: options.args,
      exclusive: !takesOver,
      ratesDescriptor: options.ratesDescriptor,
      onEvent: (event) => this.#onEvent(event),
    });
    for (const { server, connections } of listeners) {
      for (const socket of connections) this.#pool.deal(socket);
      server.removeAllListeners('connection');
      server.on('connection', (socket) => this.#pool.deal(socket));
    }
  }

  /**
   * Listens and starts the workers; resolves when all of them are ready.
   * @throws FiletrackerError `unavailable` if a worker cannot start; the system's error if it cannot listen.
   */
  static async open(options: SupervisorOptions): Promise<Supervisor> {
    const supervisor = new Supervisor(options, await listen(options));
    const ready = new Promise<void>((resolve, reject) => {
      supervisor.#ready = { resolve, reject };
    });
    supervisor.#pool.start();
    try {
      await ready;
    } catch (error) {
      await supervisor.stop();
      throw error;
    }
    return supervisor;
  }

  /** Where it listens; an inherited socket may have another address than the configured one. */
  get addresses(): readonly BoundAddress[] {
    const { host, port } = this.#options;
    return this.#servers.map((server) => {
      const address = server.address();
      if (address === null || typeof address === 'string') return { host: address ?? host, port };
      return { host: address.address, port: address.port };
    });
  }

  /** Has all workers reopen log, keys and certificates. */
  reloadWorkers(): void {
    this.#pool.reload();
  }

  /** Has `/readyz` answer with 503, so that load balancers send new connections elsewhere; serves as before. */
  announceStop(): void {
    this.#pool.drain();
  }

  killWorkers(): void {
    this.#pool.kill();
  }

  /**
   * Accepts no new connections; resolves when the workers have finished. After a takeover, connections without a
   * request have some seconds to send one; its response closes them. Idempotent.
   */
  stop(): Promise<void> {
    for (const server of this.#servers) server.close();
    this.#stopped ??= this.#pool.stop(this.#succeeded ? successionIdleMs : 0);
    return this.#stopped;
  }

  /**
   * Starts the program again, as it is on the disk now, and passes it the listening sockets.
   * @returns whether the new process serves and this one may stop; otherwise it could not start, and this one continues.
   */
  takeOver(): Promise<boolean> {
    this.#takeover ??= this.#startSuccessor().finally(() => {
      this.#takeover = undefined;
    });
    return this.#takeover;
  }

  async #startSuccessor(): Promise<boolean> {
    const { program, args, onEvent, pidFileDescriptor } = this.#options;
    const successor = spawn(process.execPath, [...process.execArgv, program, ...args], {
      env: {
        ...process.env,
        [takeoverVariable]: '1',
        [pidFileVariable]: pidFileDescriptor === undefined ? undefined : String(firstFreeDescriptor),
      },
      stdio: [
        'ignore',
        'inherit',
        'inherit',
        'ipc',
        ...(pidFileDescriptor === undefined ? [] : [pidFileDescriptor]),
      ],
      detached: true,
    });
    onEvent({ type: 'takeover-begun', pid: successor.pid });
    const outcome = await new Promise<true | string>((resolve) => {
      successor.once('message', (message: { type: string; message?: string }) => {
        resolve(message.type === 'ready' ? true : (message.message ?? 'it failed'));
      });
      successor.once('error', (error) => resolve(error.message));
      successor.once('exit', (code) => resolve(`it ended with exit code ${code}`));
      for (const [at, server] of this.#servers.entries()) {
        successor.send(
          { type: 'listen', more: this.#servers.length - at - 1 } satisfies ListenMessage,
          server,
        );
      }
    });
    if (outcome !== true) {
      onEvent({ type: 'takeover-failed', message: outcome });
      return false;
    }
    // It closes its end of the channel, now or soon.
    if (successor.connected) successor.disconnect();
    successor.unref();
    this.#succeeded = true;
    onEvent({ type: 'takeover-done' });
    return true;
  }

  #onEvent(event: WorkerEvent): void {
    this.#options.onEvent(event);
    if (event.type === 'ready' && this.#pool.readyCount === this.#options.workers) this.#ready?.resolve();
    if (event.type === 'failed') this.#ready?.reject(new FiletrackerError(event.code, event.message));
    if (event.type === 'died' && event.restartInMs === undefined) {
      const error = workersKeepDying(event);
      this.#ready?.reject(error);
      this.#fail(error);
    }
  }
}

/** Signals that end a process that is short of memory. */
const memorySignals: ReadonlySet<NodeJS.Signals | null> = new Set([
  'SIGSEGV',
  'SIGBUS',
  'SIGABRT',
  'SIGILL',
  'SIGTRAP',
  'SIGKILL',
]);

function workersKeepDying({ code, signal }: { code: number | null; signal: NodeJS.Signals | null }): Error {
  const end = signal === null ? `with exit code ${code}` : `by ${signal}`;
  const advice = memorySignals.has(signal)
    ? 'check for a limit on memory (ulimit -v, the memory limit of a container), and the log of the system'
    : 'see the log';
  return new FiletrackerError(
    'unavailable',
    `Cannot keep the workers running: each stopped soon after it started, the last ${end}; ${advice}`,
  );
}

/** The sockets of the predecessor in a takeover, those of systemd if it passes any, otherwise a new one. */
async function listen({ host, port }: SupervisorOptions): Promise<readonly Listener[]> {
  if (takesOver) return inheritedListeners();
  const given = process.env['LISTEN_PID'] === String(process.pid) ? Number(process.env['LISTEN_FDS']) : 0;
  if (given > 0) {
    const descriptors = Array.from({ length: given }, (_, index) => firstSystemdDescriptor + index);
    return Promise.all(descriptors.map((fd) => listening((server) => server.listen({ fd }))));
  }
  return [await listening((server) => server.listen({ host, port, backlog: 4096 }))];
}

/** A server that listens, and the connections that it has accepted already. */
interface Listener {
  readonly server: Server;
  readonly connections: readonly Socket[];
}

async function inheritedListeners(): Promise<readonly Listener[]> {
  const inherited = Reflect.get(globalThis, Symbol.for('filetracker.inherited-sockets')) as InheritedSockets;
  while (inherited.sockets.at(-1)?.more !== 0) {
    await new Promise<void>((resolve) => {
      inherited.onSocket = resolve;
    });
  }
  return inherited.sockets.map(({ server, connections }) => {
    if (server !== undefined) return { server, connections };
    throw new FiletrackerError('unavailable', 'Cannot take over: no socket was received');
  });
}

function listening(begin: (server: Server) => void): Promise<Listener> {
  // Sockets are paused until a worker has them: only the worker reads from them.
  const server = createServer({ pauseOnConnect: true, allowHalfOpen: true, noDelay: true });
  return new Promise((resolve, reject) => {
    server.once('error', reject);
    server.once('listening', () => {
      server.off('error', reject);
      // From now on an error means that one connection was not accepted (EMFILE), which Node tries again.
      server.on('error', () => undefined);
      resolve({ server, connections: [] });
    });
    begin(server);
  });
}
