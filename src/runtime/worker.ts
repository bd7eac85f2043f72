import type { EventEmitter } from 'node:events';
import type { Socket } from 'node:net';
import { isFiletrackerError, localMessageOf } from '../core/errors.ts';
import type { ServerConfig } from '../config/server-config.ts';
import type { DrainTimes } from '../server/connections/connection-table.ts';
import { Log } from '../telemetry/log.ts';
import { ServerProcess } from './server-process.ts';
import { sharedRates } from '../access/shared-rates.ts';
import {
  firstWorkerVariable,
  workerNumber,
  type SupervisorMessage,
  type WorkerMessage,
} from './worker-pool.ts';

/** A worker whose supervisor was killed ends soon, so that the next server need not wait for it. */
const orphanTimeoutMs = 2000;

function tell(message: WorkerMessage): Promise<void> {
  return new Promise((resolve) => {
    if (process.send === undefined || !process.connected) resolve();
    else process.send(message, () => resolve());
  });
}

/**
 * Runs a worker until its supervisor tells it to stop or is gone, or somebody ends it.
 *
 * SIGINT is ignored: a terminal sends it to all processes of a server at once, and the supervisor decides
 * what it means.
 */
export async function runWorker(config: ServerConfig): Promise<void> {
  using log = await Log.open({ level: config.logLevel, file: config.logFile });
  let server: ServerProcess | undefined;
  process.on('SIGINT', () => undefined);
  process.on('SIGHUP', () => {
    log.reopen();
    void server?.reload();
  });
  process.on('uncaughtException', (error) => {
    log.logger.fatal({ err: error }, 'a bug: this worker stops');
    log.close();
    process.exit(1);
  });
  const stopped = stopRequest();
  const exclusive = process.env[firstWorkerVariable] === '1';
  try {
    const rates = await sharedRates();
    server = await ServerProcess.open(config, log, {
      exclusive,
      worker: workerNumber(),
      rates,
      ask: (question) => void tell(question),
    });
  } catch (error) {
    const code = isFiletrackerError(error) ? error.code : 'io';
    await tell({ type: 'failed', code, message: localMessageOf(error) });
    // What is foreseen is told by the supervisor, in one line; only a bug is worth its stack.
    if (!isFiletrackerError(error)) log.logger.error({ err: error }, 'this worker cannot start');
    process.exitCode = 1;
    if (process.connected) process.disconnect();
    return;
  }
  process.on('message', (message: SupervisorMessage, socket: Socket | undefined) => {
    // A connection that was closed on its way comes as a message without a socket.
    if (message.type === 'connection') {
      if (socket !== undefined) server?.take(socket);
    } else if (message.type === 'drain') server?.announceStop();
    else if (message.type !== 'stop') server?.takeMetrics(message);
  });
  onMissingConnection(() => server?.miss());
  await tell({ type: 'ready' });
  await server.close(await stopped);
  if (process.connected) process.disconnect();
}

/**
 * Node keeps to itself a message whose connection the system did not let in, but for an event that is not documented:
 * where it should come no more, nothing is told. The sender has let go of the connection.
 */
function onMissingConnection(miss: () => void): void {
  const channel: EventEmitter = process;
  channel.on('internalMessage', (message: { readonly cmd?: unknown }, handle: unknown) => {
    if (message.cmd === 'NODE_HANDLE' && (handle ?? undefined) === undefined) miss();
  });
}

/** Resolves when this worker shall stop, to the times that it may take. */
function stopRequest(): Promise<Partial<DrainTimes>> {
  return new Promise((resolve) => {
    process.on('SIGTERM', () => resolve({}));
    process.on('disconnect', () => resolve({ timeoutMs: orphanTimeoutMs }));
    // The supervisor may have been killed while this program was still being loaded.
    if (!process.connected) resolve({ timeoutMs: orphanTimeoutMs });
    process.on('message', (message: SupervisorMessage) => {
      if (message.type === 'stop') resolve({ idleMs: message.idleMs });
    });
  });
}
