import { fork, type ChildProcess } from 'node:child_process';
import type { Socket } from 'node:net';
import { MetricsHub, type MetricsAnswer, type MetricsQuestion } from '../telemetry/metrics-hub.ts';
import { ratesVariable } from '../access/rate-table.ts';
import type { Clock } from '../core/clock.ts';
import type { ErrorCode } from '../core/errors.ts';

/** Set in the environment of a process that is a worker. */
const workerVariable = 'FILETRACKER_WORKER';

/** Whether this process was started as a worker. */
export function isWorker(): boolean {
  return process.env[workerVariable] !== undefined && process.send !== undefined;
}

/** Which of its supervisor's workers this process is, from 0. */
export function workerNumber(): number {
  return Number(process.env[workerVariable] ?? 0);
}

/** Set to 1 for the first worker of a supervisor that did not take over from another. */
export const firstWorkerVariable = 'FILETRACKER_FIRST_WORKER';

/**
 * Half of V8's default space for new objects: a worker under load takes 25 MB less, and no more processor time (measured with
 * PUT, DELETE and mixed requests of 4 KiB).
 */
const newSpaceFlag = '--max-semi-space-size=8';

/** The flags of Node for the workers, given those of this process and `NODE_OPTIONS`, which win. */
export function nodeFlagsOfWorkers(
  flags: readonly string[],
  nodeOptions: string | undefined,
): readonly string[] {
  const isSet = [...flags, nodeOptions ?? ''].some((text) => /semi[-_]space[-_]size/.test(text));
  return isSet ? flags : [...flags, newSpaceFlag];
}

/** Sent by a worker to its supervisor. */
export type WorkerMessage =
  | MetricsQuestion
  | { readonly type: 'ready' }
  /** The worker cannot start, and another attempt would fail in the same way. */
  | { readonly type: 'failed'; readonly code: ErrorCode; readonly message: string };

/** Sent by the supervisor to a worker; a connection is the handle of its message. */
export type SupervisorMessage =
  | { readonly type: 'connection' }
  /** Serve as before, but answer `/readyz` with 503. */
  | { readonly type: 'drain' }
  /** `idleMs`: how long connections without a request may stay. */
  | { readonly type: 'stop'; readonly idleMs: number }
  | MetricsAnswer;

/** The number in the child of a descriptor that is passed after the three streams and the channel. */
export const firstFreeDescriptor = 4;

/** Connections that wait while no worker runs; further ones are closed. */
const waitingConnectionsMax = 4096;
const firstPauseMs = 50;
const longestPauseMs = 10_000;
/** A worker that has been ready for this long is not dying of the cause that killed the one before it. */
const steadyAfterMs = 10_000;
/** If every worker has died this often at its start, the next one will too. With the pauses, this takes about 3 s. */
const earlyDeathsMax = 8;

/** The time of day may be set while a worker runs. */
const steadyClock: Clock = { nowMs: () => performance.now() };

export interface WorkerPoolOptions {
  readonly size: number;
  /** The program and its arguments, as this process was started. */
  readonly program: string;
  readonly args: readonly string[];
  /** Whether no other process uses the store when the first worker starts; false in a takeover. */
  readonly exclusive: boolean;
  readonly onEvent: (event: WorkerEvent) => void;
  /** Descriptor of the memory in which the workers share request rates. */
  readonly ratesDescriptor?: number | undefined;
  readonly clock?: Clock;
}

export type WorkerEvent =
  | { readonly type: 'started' | 'ready'; readonly slot: number; readonly pid: number | undefined }
  | {
      readonly type: 'failed';
      readonly slot: number;
      readonly code: ErrorCode;
      readonly message: string;
    }
  | {
      readonly type: 'died';
      readonly slot: number;
      readonly pid: number | undefined;
      readonly code: number | null;
      readonly signal: NodeJS.Signals | null;
      /** `undefined` if it is not started again, because all workers keep dying. */
      readonly restartInMs: number | undefined;
    };

interface Slot {
  readonly number: number;
  child: ChildProcess | undefined;
  ready: boolean;
  mustReload: boolean;
  /** `undefined` until it is ready. */
  readyMs: number | undefined;
  pauseMs: number;
  /** Consecutive deaths, each soon after the start and without a `failed` message. */
  earlyDeaths: number;
  gaveReason: boolean;
  timer: NodeJS.Timeout | undefined;
  /**
   * Connections that the channel has not sent yet. It sends one at a time and waits for the worker in between; if
   * the worker dies, the channel drops the others, which would then stay open without a worker.
   */
  readonly unsent: Set<Socket>;
}

/**
 * Keeps a number of worker processes running and deals connections out to them in turn.
 *
 * Invariant: from the first `ready` until `stop`, every slot has a process, or a timer that will start one, unless all workers
 * keep dying, which is reported. A connection belongs to one worker, or waits in order for the first that is ready; none is
 * refused because workers have died.
 *
 * Connections are passed as sockets. If the workers accepted them from a shared socket, the kernel would favour the
 * worker that wakes up first, and clients hold few connections for a long time.
 */
export class WorkerPool {
  readonly #options: WorkerPoolOptions;
  readonly #clock: Clock;
  readonly #slots: Slot[];
  readonly #waiting: Socket[] = [];
  readonly #metrics = new MetricsHub();
  #next = 0;
  #stopping = false;
  #draining = false;
  /** Whether all slots have been started. */
  #complete = false;

  constructor(options: WorkerPoolOptions) {
    this.#options = options;
    this.#clock = options.clock ?? steadyClock;
    this.#slots = Array.from({ length: options.size }, (_, number) => ({
      number,
      child: undefined,
      ready: false,
      mustReload: false,
      readyMs: undefined,
      pauseMs: 0,
      earlyDeaths: 0,
      gaveReason: false,
      timer: undefined,
      unsent: new Set(),
    }));
  }

  /** Starts the first worker, and the others when it is ready. */
  start(): void {
    const [first] = this.#slots;
    if (first !== undefined) this.#start(first);
  }

  get readyCount(): number {
    return this.#slots.filter((slot) => slot.ready).length;
  }

  /** Passes a paused connection to the next worker. */
  deal(socket: Socket): void {
    const slot = this.#pick();
    if (slot?.child !== undefined) {
      slot.unsent.add(socket);
      send(slot.child, { type: 'connection' }, socket, () => slot.unsent.delete(socket));
      return;
    }
    if (this.#waiting.length < waitingConnectionsMax && !this.#stopping) this.#waiting.push(socket);
    else socket.destroy();
  }

  /** Has the workers reopen logs, keys and certificates. A worker that is starting does it when it is ready: the signal could end it. */
  reload(): void {
    for (const slot of this.#slots) {
      if (slot.ready) slot.child?.kill('SIGHUP');
      else slot.mustReload = true;
    }
  }

  /** Has all workers, and later ones, answer `/readyz` with 503. */
  drain(): void {
    this.#draining = true;
    for (const { ready, child } of this.#slots)
      if (ready && child !== undefined) send(child, { type: 'drain' });
  }

  kill(): void {
    for (const { child } of this.#slots) child?.kill('SIGKILL');
  }

  /**
   * Lets all workers finish their requests; resolves when they have ended. Connections without a request are
   * closed after `idleMs`. Idempotent.
   */
  async stop(idleMs: number): Promise<void> {
    this.#stopping = true;
    for (const socket of this.#waiting.splice(0)) socket.destroy();
    const ended = this.#slots.map((slot) => {
      clearTimeout(slot.timer);
      const { child } = slot;
      if (child === undefined) return undefined;
      send(child, { type: 'stop', idleMs });
      return new Promise<void>((resolve) => child.once('exit', () => resolve()));
    });
    await Promise.all(ended.filter((end) => end !== undefined));
  }

  #pick(): Slot | undefined {
    for (let tries = 0; tries < this.#slots.length; tries++) {
      const slot = this.#slots[this.#next++ % this.#slots.length];
      if (slot?.ready === true && slot.child?.connected === true) return slot;
    }
    return undefined;
  }

  #start(slot: Slot): void {
    const { program, args, onEvent, ratesDescriptor } = this.#options;
    const child = fork(program, args, {
      execArgv: [...nodeFlagsOfWorkers(process.execArgv, process.env['NODE_OPTIONS'])],
      env: {
        ...process.env,
        [workerVariable]: String(slot.number),
        [firstWorkerVariable]: this.#options.exclusive && !this.#complete ? '1' : '',
        [ratesVariable]: ratesDescriptor === undefined ? undefined : String(firstFreeDescriptor),
      },
      stdio: [
        'ignore',
        'inherit',
        'inherit',
        'ipc',
        ...(ratesDescriptor === undefined ? [] : [ratesDescriptor]),
      ],
    });
    slot.child = child;
    slot.ready = false;
    slot.mustReload = false;
    slot.gaveReason = false;
    slot.readyMs = undefined;
    onEvent({ type: 'started', slot: slot.number, pid: child.pid });
    child.on('message', (message) => this.#onMessage(slot, message as WorkerMessage));
    child.on('error', () => child.kill('SIGKILL'));
    child.once('exit', (code, signal) => this.#onExit(slot, child, code, signal));
  }

  #onMessage(slot: Slot, message: WorkerMessage): void {
    if (message.type === 'failed') {
      const { code, message: text } = message;
      slot.gaveReason = true;
      this.#options.onEvent({ type: 'failed', slot: slot.number, code, message: text });
      return;
    }
    if (message.type !== 'ready') {
      this.#metrics.receive(slot.number, message);
      return;
    }
    slot.ready = true;
    slot.readyMs = this.#clock.nowMs();
    if (slot.mustReload) slot.child?.kill('SIGHUP');
    if (this.#draining && slot.child !== undefined) send(slot.child, { type: 'drain' });
    this.#metrics.join(slot.number, (answer) => {
      if (slot.child !== undefined) send(slot.child, answer);
    });
    this.#startOthers();
    this.#options.onEvent({ type: 'ready', slot: slot.number, pid: slot.child?.pid });
    for (const socket of this.#waiting.splice(0)) this.deal(socket);
  }

  /** Called at the first `ready`; later each slot is restarted on its own. */
  #startOthers(): void {
    if (this.#complete || this.#stopping) return;
    this.#complete = true;
    for (const slot of this.#slots.slice(1)) this.#start(slot);
  }

  #onExit(slot: Slot, child: ChildProcess, code: number | null, signal: NodeJS.Signals | null): void {
    slot.child = undefined;
    slot.ready = false;
    const unsent = [...slot.unsent];
    slot.unsent.clear();
    for (const socket of unsent) this.deal(socket);
    if (this.#stopping) return;
    this.#metrics.leave(slot.number);
    const steady = this.#isSteady(slot);
    if (steady) slot.earlyDeaths = 0;
    // A cause that a worker reports, such as a full disk, may pass.
    else if (!slot.gaveReason) slot.earlyDeaths += 1;
    // A single death is made good at once; a loop of deaths must not load the machine.
    const restartInMs = this.#isHopeless() ? undefined : steady ? 0 : slot.pauseMs;
    slot.pauseMs = steady ? firstPauseMs : Math.min(Math.max(slot.pauseMs * 2, firstPauseMs), longestPauseMs);
    const { pid } = child;
    this.#options.onEvent({ type: 'died', slot: slot.number, pid, code, signal, restartInMs });
    if (restartInMs !== undefined) slot.timer = setTimeout(() => this.#start(slot), restartInMs);
  }

  #isSteady({ readyMs }: Slot): boolean {
    return readyMs !== undefined && this.#clock.nowMs() - readyMs >= steadyAfterMs;
  }

  /** Whether every worker keeps dying at its start, and none runs steadily. */
  #isHopeless(): boolean {
    const started = this.#complete ? this.#slots : this.#slots.slice(0, 1);
    return started.every(
      (slot) => slot.earlyDeaths >= earlyDeathsMax && (slot.child === undefined || !this.#isSteady(slot)),
    );
  }
}

/** macOS loses a socket that its sender closes before it is received. */
const closesEarly = process.platform !== 'darwin';

/** Calls `done` when the connection has left this process, or is closed. */
function send(child: ChildProcess, message: SupervisorMessage, socket?: Socket, done?: () => void): void {
  const sent = (error: Error | null): void => {
    done?.();
    if (error !== null || closesEarly) socket?.destroy();
  };
  try {
    // By default the channel closes the socket here when the worker has received it, and never if the worker dies
    // before. With `keepOpen`, this process closes it as soon as it is sent.
    if (socket === undefined) child.send(message, sent);
    else child.send(message, socket, { keepOpen: closesEarly }, sent);
  } catch {
    // The channel has just closed: the worker is dying, and this connection with it.
    done?.();
    socket?.destroy();
  }
}
