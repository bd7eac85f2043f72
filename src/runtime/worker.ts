import type { EventEmitter } from 'node:events';
import type { Socket } from 'node:net';
import { sharedRates } from '../access/rate-table.ts';
import { capacityOf } from '../config/guard-config.ts';
import type { ServerConfig } from '../config/server-config.ts';
import { isFiletrackerError, localMessageOf } from '../core/errors.ts';
import { release } from '../core/release.ts';
import type { DrainTimes } from '../server/connections/connection-table.ts';
import { HttpServer } from '../server/http-server.ts';
import { Log } from '../telemetry/log.ts';
import { LostConnections } from '../telemetry/lost-connections.ts';
import { MetricsLink } from '../telemetry/metrics-hub.ts';
import { RequestLog } from '../telemetry/request-log.ts';
import { bothObservers } from '../server/observer.ts';
import { ServerMetrics } from '../telemetry/server-metrics.ts';
import { Guard } from './guard.ts';
import { openStore, type OpenStore } from './open-store.ts';
import {
  firstWorkerVariable,
  workerNumber,
  type SupervisorMessage,
  type WorkerMessage,
} from './worker-pool.ts';

/** Time that a worker has for its requests after its supervisor was killed: the next server waits for its end. */
const orphanTimeoutMs = 2000;

function send(message: WorkerMessage): Promise<void> {
  return new Promise((resolve) => {
    if (process.send === undefined || !process.connected) resolve();
    else process.send(message, () => resolve());
  });
}

/** A store, the server on top of it, and what protects them. */
interface Serving {
  readonly store: OpenStore;
  readonly guard: Guard;
  readonly server: HttpServer;
  readonly metrics: MetricsLink;
  readonly lost: LostConnections;
}

/**
 * Runs a worker until its supervisor stops it or is gone, or a signal ends it.
 *
 * SIGINT is ignored: a terminal sends it to all processes of a server at once, and the supervisor decides
 * what it means.
 */
export async function runWorker(config: ServerConfig): Promise<void> {
  using log = await Log.open({ level: config.logLevel, file: config.logFile });
  let serving: Serving | undefined;
  process.on('SIGINT', () => undefined);
  process.on('SIGHUP', () => {
    log.reopen();
    void serving?.guard.reload(serving.server);
  });
  process.on('uncaughtException', (error) => {
    log.logger.fatal({ err: error }, 'a bug: this worker stops');
    log.close();
    process.exit(1);
  });
  const stopped = stopRequest();
  try {
    serving = await openServing(config, log);
  } catch (error) {
    const code = isFiletrackerError(error) ? error.code : 'io';
    await send({ type: 'failed', code, message: localMessageOf(error) });
    // The supervisor reports a foreseen error in one line; only a bug is worth its stack.
    if (!isFiletrackerError(error)) log.logger.error({ err: error }, 'this worker cannot start');
    process.exitCode = 1;
    if (process.connected) process.disconnect();
    return;
  }
  const { server, metrics, lost } = serving;
  process.on('message', (message: SupervisorMessage, socket: Socket | undefined) => {
    // A connection that was closed on its way arrives as a message without a socket.
    if (message.type === 'connection') {
      if (socket !== undefined) server.take(socket);
    } else if (message.type === 'drain') server.announceStop();
    else if (message.type !== 'stop') metrics.receive(message);
  });
  onMissingConnection(() => lost.note());
  await send({ type: 'ready' });
  await close(serving, await stopped);
  if (process.connected) process.disconnect();
}

/** @throws FiletrackerError if the store cannot be opened. */
async function openServing(config: ServerConfig, log: Log): Promise<Serving> {
  const { logger } = log;
  const { fileSizeMaxBytes, decodingRatioMax } = config.guard;
  const { storedBytesMax = Number.POSITIVE_INFINITY, filesMax: entriesMax = Number.POSITIVE_INFINITY } =
    config.guard;
  const limits = { fileSizeMaxBytes, decodingRatioMax, storedBytesMax, entriesMax };
  const rates = await sharedRates();
  const metrics = new ServerMetrics();
  const exclusive = process.env[firstWorkerVariable] === '1';
  const settings = { ...config, limits, capacity: capacityOf(config.guard), metrics, exclusive };
  const store = await openStore(settings, logger);
  let guard: Guard | undefined;
  try {
    guard = await Guard.open(config, { worker: workerNumber(), rates, logger });
    const { uploads } = guard;
    const { fallbackUrl, fallbackMode } = config;
    const imports = fallbackUrl !== undefined && fallbackMode === 'import';
    const files = imports
      ? await (
          await import('./old-server.ts')
        ).importingStore(fallbackUrl, { store: store.files, uploads }, config, logger)
      : store.files;
    const link = new MetricsLink(
      () => metrics.snapshot(),
      (question) => void send(question),
    );
    const observer = bothObservers(new RequestLog(log), metrics.requests);
    const { verification } = store;
    const server = await HttpServer.open({
      ...guard.serverOptions,
      store: files,
      metrics: link,
      listen: undefined,
      release,
      basePath: config.basePath,
      fastLane: config.fastLane,
      fallbackUrl: imports ? undefined : fallbackUrl,
      redirectDownloads: config.backEnds.redirectDownloads,
      observer,
      verification,
    });
    const connectionCount = (): number => server.connectionCount;
    metrics.observe({ store: store.files, uploads, limits: guard.limits, verification, connectionCount });
    return { store, guard, server, metrics: link, lost: new LostConnections(logger, observer) };
  } catch (error) {
    await guard?.close();
    await store.close();
    throw error;
  }
}

/** Lets running requests finish, for a bounded time. The store is closed last, so that no request finds it closed. */
async function close({ server, guard, store }: Serving, times: Partial<DrainTimes>): Promise<void> {
  try {
    await server.close(times);
  } finally {
    await guard.close();
    await store.close();
  }
}

/**
 * Node drops a message whose connection the system did not let in, and emits only an undocumented event; if a later
 * Node does not emit it, these connections are not counted. The sender has already closed its end.
 */
function onMissingConnection(miss: () => void): void {
  const channel: EventEmitter = process;
  channel.on('internalMessage', (message: { readonly cmd?: unknown }, handle: unknown) => {
    if (message.cmd === 'NODE_HANDLE' && (handle ?? undefined) === undefined) miss();
  });
}

/** Resolves when this worker must stop, to the times that it may take. */
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
