import type { Socket } from 'node:net';
import type { RateTable } from '../access/rate-table.ts';
import type { DrainTimes } from '../server/connections/connection-table.ts';
import { HttpServer } from '../server/http-server.ts';
import type { ServerConfig } from '../config/server-config.ts';
import { usesFolder } from '../config/engine-config.ts';
import { capacityOf } from '../config/guard-config.ts';
import { Guard } from './guard.ts';
import type { Log } from '../telemetry/log.ts';
import { LostConnections } from '../telemetry/lost-connections.ts';
import { openStore, type OpenStore } from './open-store.ts';
import { release } from '../core/release.ts';
import { MetricsLink, type MetricsAnswer, type MetricsQuestion } from '../telemetry/metrics-hub.ts';
import { storeToServe } from './store-to-serve.ts';
import { RequestLog } from '../telemetry/request-log.ts';
import { bothObservers, ServerMetrics } from '../telemetry/server-metrics.ts';

/**
 * What a worker runs: a store and a server on top of it. Owns both, and closes the server first, so that
 * no request finds its store closed.
 */
export class ServerProcess {
  readonly #store: OpenStore;
  readonly #server: HttpServer;
  readonly #guard: Guard;
  readonly #metrics: MetricsLink;
  readonly #lost: LostConnections;
  #closing: Promise<void> | undefined;

  private constructor(parts: {
    readonly store: OpenStore;
    readonly server: HttpServer;
    readonly guard: Guard;
    readonly metrics: MetricsLink;
    readonly lost: LostConnections;
  }) {
    this.#metrics = parts.metrics;
    this.#store = parts.store;
    this.#server = parts.server;
    this.#guard = parts.guard;
    this.#lost = parts.lost;
  }

  /** @throws FiletrackerError where the store can't be opened. */
  static async open(
    config: ServerConfig,
    log: Log,
    options: {
      readonly exclusive: boolean;
      readonly ask: (question: MetricsQuestion) => void;
      /** Which of the workers this is, from 0. */
      readonly worker?: number | undefined;
      /** Where all workers keep the rates of requests, if they do so together. */
      readonly rates?: RateTable | undefined;
    },
  ): Promise<ServerProcess> {
    const { logger } = log;
    const { folder, workers, engines } = config;
    const { fileSizeMaxBytes, decodingRatioMax } = config.guard;
    const { storedBytesMax = Number.POSITIVE_INFINITY, filesMax: entriesMax = Number.POSITIVE_INFINITY } =
      config.guard;
    const limits = { fileSizeMaxBytes, decodingRatioMax, storedBytesMax, entriesMax };
    const capacity = capacityOf(config.guard);
    const metrics = new ServerMetrics();
    const store = await openStore(
      { ...config, limits, capacity, metrics, exclusive: options.exclusive },
      logger,
    );
    let guard: Guard | undefined;
    try {
      const { rates, worker } = options;
      const storesElsewhere = !usesFolder(config.engines);
      guard = await Guard.open({
        config: config.guard,
        folder,
        engines,
        storesElsewhere,
        workers,
        worker,
        rates,
        logger,
      });
      const limited = guard.limit(store.files);
      const served = await storeToServe(limited, config, logger);
      const link = new MetricsLink(() => metrics.snapshot(), options.ask);
      const observer = bothObservers(new RequestLog(log), metrics.requests);
      const server = await HttpServer.open({
        ...guard.serverOptions,
        store: served,
        metrics: link,
        listen: undefined,
        release,
        basePath: config.basePath,
        fallbackUrl: config.fallbackMode === 'redirect' ? config.fallbackUrl : undefined,
        redirectDownloads: config.engines.redirectDownloads,
        observer,
        verification: store.verification,
      });
      metrics.observe({
        store: limited,
        limited,
        limits: guard.limits,
        verification: store.verification,
        connectionCount: () => server.connectionCount,
      });
      const lost = new LostConnections(logger, observer);
      return new ServerProcess({ store, server, guard, metrics: link, lost });
    } catch (error) {
      await guard?.close();
      await store.close();
      throw error;
    }
  }

  /** Serves a connection that the supervisor has accepted. */
  take(socket: Socket): void {
    this.#server.take(socket);
  }

  /** Counts a connection that the supervisor has accepted and that did not get here. */
  miss(): void {
    this.#lost.note();
  }

  /** Has `/readyz` answer 503 from now on; all else is served as before. */
  announceStop(): void {
    this.#server.announceStop();
  }

  /** Takes what the supervisor has to say of metrics. */
  takeMetrics(message: MetricsAnswer): void {
    this.#metrics.receive(message);
  }

  /** Reads tokens, keys and certificates anew. */
  async reload(): Promise<void> {
    await this.#guard.reload(this.#server);
  }

  /** Lets running requests finish, for a bounded time, and closes the store. Idempotent. */
  close(times: Partial<DrainTimes> = {}): Promise<void> {
    this.#closing ??= this.#close(times);
    return this.#closing;
  }

  async #close(times: Partial<DrainTimes>): Promise<void> {
    try {
      await this.#server.close(times);
    } finally {
      await this.#guard.close();
      await this.#store.close();
    }
  }
}
