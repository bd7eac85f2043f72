import { FiletrackerError } from '../../core/errors.ts';
import { features, jsonType, protocolVersions, type VersionAnswer } from '../../protocol/endpoints.ts';
import { publicError } from '../../protocol/problems.ts';
import type { Exchange } from '../exchange.ts';
import type { ServerContext } from './context.ts';

/** GET /version. */
export function tellVersion(exchange: Exchange, context: ServerContext): void {
  const answer: VersionAnswer = { protocol_versions: protocolVersions, server: context.serverName, features };
  exchange.sendJson(200, jsonType, answer);
}

/**
 * GET /status: what workers probe, and people look at. Any token will do, but the totals of the store are for
 * those who may read all of it: that they did not grow with an upload tells that its content was there.
 */
export async function tellStatus(exchange: Exchange, context: ServerContext): Promise<void> {
  exchange.requireAnyRight('show the status');
  exchange.sendJson(200, jsonType, {
    version: context.release,
    uptimeSeconds: Math.floor((context.clock.nowMs() - context.startedAtMs) / 1000),
    draining: context.isDraining(),
    ...(exchange.maySeeTotals && {
      ...(await context.store.stats()),
      verification: await context.verification?.status(),
    }),
  });
}

/** POST /admin/verify: lets the store be read and checked in the background; how it gets on is in /status. */
export async function startVerification(exchange: Exchange, context: ServerContext): Promise<void> {
  exchange.require('admin', '/');
  if (context.verification === undefined) {
    throw new FiletrackerError('not-found', 'Cannot verify the store: this server does not do so');
  }
  const started = await context.verification.start();
  exchange.sendJson(started ? 202 : 200, jsonType, { verification: started ? 'started' : 'running' });
}

/** GET /metrics, in the text form of Prometheus; for whom the totals in /status are. */
export async function tellMetrics(exchange: Exchange, context: ServerContext): Promise<void> {
  exchange.requireTotals('show the metrics');
  if (context.metrics === undefined) {
    throw new FiletrackerError('not-found', 'Cannot show metrics: this server collects none');
  }
  const body = Buffer.from(await context.metrics.text());
  exchange.send(200, ['Content-Type', context.metrics.contentType, 'Content-Length', body.length], body);
}

/** GET /healthz: the process lives and turns its event loop. */
export function tellHealth(exchange: Exchange): void {
  exchange.sendText(200, 'ok');
}

/** GET /readyz: requests may be sent here; 503 with what stands in the way, whatever status that has elsewhere. */
export async function tellReadiness(exchange: Exchange, context: ServerContext): Promise<void> {
  if (context.isDraining()) {
    exchange.sendText(503, 'The server is stopping');
    return;
  }
  if (exchange.principal?.unknowable === true) {
    exchange.sendText(503, 'The tokens cannot be read yet');
    return;
  }
  try {
    await context.store.probe();
  } catch (error) {
    exchange.sendError(publicError(error, exchange.id), 503);
    return;
  }
  exchange.sendText(200, 'ready');
}
