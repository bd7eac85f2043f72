import { cannot } from '../core/errors.ts';
import { endpointMethods, type Endpoint } from '../protocol/endpoints.ts';
import type { Route } from '../protocol/request-target.ts';
import type { Exchange } from './exchange.ts';
import {
  startVerification,
  sendHealth,
  sendMetrics,
  sendReadiness,
  sendStatus,
  sendVersion,
} from './handlers/about-server.ts';
import { deleteFile, putFile } from './handlers/change-file.ts';
import type { ServerContext } from './handlers/context.ts';
import { listFiles } from './handlers/list-files.ts';
import { getFile, headFile } from './handlers/read-file.ts';

function refuseMethod(exchange: Exchange, endpoint: Endpoint): void {
  const allowed = endpointMethods[endpoint].join(', ');
  const action = `${exchange.request.method ?? ''} at /${endpoint}`;
  exchange.sendError(cannot('invalid-argument', action, `the methods are ${allowed}`), 405, [
    'Allow',
    allowed,
  ]);
}

function handleFile(
  exchange: Exchange,
  route: Extract<Route, { endpoint: 'files' }>,
  context: ServerContext,
): Promise<void> | void {
  switch (exchange.request.method) {
    case 'GET':
      return getFile(exchange, route.name, context);
    case 'HEAD':
      return headFile(exchange, route.name, context);
    case 'PUT':
      return putFile(exchange, route.name, route.query, context);
    case 'DELETE':
      return deleteFile(exchange, route.name, route.query, context);
    case undefined:
    default:
      return refuseMethod(exchange, 'files');
  }
}

/** A 404 with a code of its own, so that a client with a wrong path in its URL does not take files for missing. */
function refuseEndpoint(exchange: Exchange): void {
  const state = 'the paths are /files/{name}, /list/{directory}, /version and /status';
  exchange.sendError(cannot('protocol', 'find the endpoint', state), 404);
}

/** Passes a request to its handler. @throws the handler's errors. */
export function handle(
  exchange: Exchange,
  route: Route | undefined,
  context: ServerContext,
): Promise<void> | void {
  if (route === undefined) return refuseEndpoint(exchange);
  if (route.endpoint === 'files') return handleFile(exchange, route, context);
  const { method } = exchange.request;
  if (route.endpoint === 'admin') {
    return method === 'POST' ? startVerification(exchange, context) : refuseMethod(exchange, 'admin');
  }
  if (method !== 'GET' && method !== 'HEAD') return refuseMethod(exchange, route.endpoint);
  switch (route.endpoint) {
    case 'list':
      return listFiles(exchange, route.directory, route.query, context);
    case 'version':
      return sendVersion(exchange, context);
    case 'status':
      return sendStatus(exchange, context);
    case 'healthz':
      return sendHealth(exchange);
    case 'readyz':
      return sendReadiness(exchange, context);
    case 'metrics':
      return sendMetrics(exchange, context);
  }
}
