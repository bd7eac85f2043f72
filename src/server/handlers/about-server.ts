import { FiletrackerError } from '../../core/errors.ts';
import { features, jsonType, protocolVersions, type VersionAnswer } from '../../protocol/endpoints.ts';
import { publicError } from '../../protocol/problems.ts';
import type { Exchange } from '../exchange.ts';
import type { ServerContext } from './context.ts';

/** GET /version. */
export function sendVersion(exchange: Exchange, context: ServerContext): void {
  const version: VersionAnswer = {
    protocol_versions: protocolVersions,
    server: context.serverName,
    features,
  };
  exchange.sendJson(200, jsonType, version);
}

/**
 * GET /status, for probes and people. Any token is sufficient, but the totals of the store need the right to read all of
 * it: totals that do not grow with an upload reveal that its content was stored already.
 */
export async function sendStatus(exchange: Exchange, context: ServerContext): Promise<void> {
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

/** POST /admin/verify: starts a verification in the background; /status shows its progress. */
export async function startVerification(exchange: Exchange, context: ServerContext): Promise<void> {
  exchange.require('admin', '/');
  if (context.verification === undefined) {
    throw new FiletrackerError('not-found', 'Cannot verify the store: this server does not offer it');
  }
  const started = await context.verification.start();
  exchange.sendJson(started ? 202 : 200, jsonType, { verification: started ? 'started' : 'running' });
}

/** GET /metrics, in the text format of Prometheus, for clients that may see the totals. */
export async function sendMetrics(exchange: Exchange, context: ServerContext): Promise<void> {
  exchange.requireTotals('show the metrics');
  if (context.metrics === undefined) {
    throw new FiletrackerError('not-found', 'Cannot show metrics: this server collects none');
  }
  const body = Buffer.from(await context.metrics.text());
  exchange.send(200, ['Content-Type', context.metrics.contentType, 'Content-Length', body.length], body);
}

/** GET /healthz: the process runs its event loop. */
export function sendHealth(exchange: Exchange): void {
  exchange.sendText(200, 'ok');
}

/** GET /readyz: whether the server accepts requests; else 503 with the obstacle, whatever status that has elsewhere. */
export async function sendReadiness(exchange: Exchange, context: ServerContext): Promise<void> {
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
