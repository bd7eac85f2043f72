import type { Registry } from 'prom-client';
import { isFiletrackerError } from '../core/errors.ts';
import { addCounter, addHistogram, ValueCounts } from './counted-metrics.ts';
import type { Exchange } from '../server/exchange.ts';
import type { RequestObserver } from '../server/observer.ts';

/** What a request does, as the metrics tell it. */
export type Operation = 'get' | 'head' | 'put' | 'delete' | 'list' | 'other';

const operations: readonly Operation[] = ['get', 'head', 'put', 'delete', 'list', 'other'];
const methodOperations: Readonly<Record<string, Operation>> = {
  GET: 'get',
  HEAD: 'head',
  PUT: 'put',
  DELETE: 'delete',
};
/** The names that `method` may have: a client must not be able to make metrics by inventing methods. */
const otherMethod = 'other';

/** Seconds; from a small file out of memory to a large one over a slow line. */
const durationBuckets = [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1, 5, 30, 300];

const statusMax = 600;

/** Counts of one operation; plain numbers, because they change with every request. */
class OperationCounts {
  readonly statuses = new Float64Array(statusMax);
  readonly durations = new ValueCounts(durationBuckets);
  receivedBytes = 0;
  sentBytes = 0;

  add(status: number, seconds: number, receivedBytes: number, sentBytes: number): void {
    const at = status < statusMax ? status : 0;
    this.statuses[at] = (this.statuses[at] ?? 0) + 1;
    this.durations.add(seconds);
    this.receivedBytes += receivedBytes;
    this.sentBytes += sentBytes;
  }
}

/**
 * Counts requests, for prom-client to show.
 *
 * The counters of prom-client look up their labels with every change (0.5 µs each, several a request), so what
 * changes with every request is counted in arrays here and given to prom-client when somebody looks. A request
 * costs 0.3 µs by that; `npm run bench` has the whole.
 */
export class RequestMetrics implements RequestObserver {
  readonly #counts: Readonly<Record<Operation, OperationCounts>>;
  readonly #refusals = new Map<string, number>();
  readonly #refusedConnections = new Map<string, number>();

  constructor(registry: Registry) {
    const counts = Object.fromEntries(operations.map((name) => [name, new OperationCounts()]));
    this.#counts = counts as Record<Operation, OperationCounts>;
    this.#register(registry);
  }

  answered(exchange: Exchange): void {
    const { connection, error, status } = exchange;
    const operation = operationOf(exchange);
    const readBytes = connection.socket.bytesRead;
    const receivedBytes = Math.max(0, readBytes - connection.countedReadBytes);
    connection.countedReadBytes = readBytes;
    const seconds = (performance.now() - exchange.startedMs) / 1000;
    this.#counts[operation].add(status, seconds, receivedBytes, exchange.sentBytes);
    if (error !== undefined) {
      const reason = isFiletrackerError(error) ? error.code : 'failure';
      add(this.#refusals, `${operation} ${reason}`);
    }
  }

  refusedConnection(_remoteAddress: string, _status: number, reason: string): void {
    add(this.#refusedConnections, reason);
  }

  #register(registry: Registry): void {
    const counts = this.#counts;
    addCounter(
      registry,
      'filetracker_requests_total',
      'Requests answered.',
      ['operation', 'status'],
      (shown) => {
        for (const operation of operations) {
          for (const [status, count] of counts[operation].statuses.entries()) {
            if (count > 0) shown.inc({ operation, status }, count);
          }
        }
      },
    );
    addCounter(
      registry,
      'filetracker_received_bytes_total',
      'Bytes received, headers included.',
      ['operation'],
      (shown) => {
        for (const operation of operations) shown.inc({ operation }, counts[operation].receivedBytes);
      },
    );
    addCounter(
      registry,
      'filetracker_sent_bytes_total',
      'Bytes of the bodies of answers.',
      ['operation'],
      (shown) => {
        for (const operation of operations) shown.inc({ operation }, counts[operation].sentBytes);
      },
    );
    this.#registerRefusals(registry);
    this.#registerDurations(registry);
  }

  #registerRefusals(registry: Registry): void {
    addCounter(
      registry,
      'filetracker_refused_requests_total',
      'Requests answered with an error, by its code.',
      ['operation', 'reason'],
      (shown) => {
        for (const [key, count] of this.#refusals) {
          const [operation = '', reason = ''] = key.split(' ');
          shown.inc({ operation, reason }, count);
        }
      },
    );
    addCounter(
      registry,
      'filetracker_refused_connections_total',
      'Connections closed because what came was no request, or was too slow or too much.',
      ['reason'],
      (shown) => {
        for (const [reason, count] of this.#refusedConnections) shown.inc({ reason }, count);
      },
    );
  }

  #registerDurations(registry: Registry): void {
    const counts = this.#counts;
    addHistogram(
      registry,
      {
        name: 'filetracker_request_duration_seconds',
        help: 'Time from the headers of a request to the end of its answer.',
        labelNames: ['operation'],
      },
      durationBuckets,
      () => operations.map((operation) => counts[operation].durations.counts({ operation })),
    );
  }
}

function operationOf(exchange: Exchange): Operation {
  const { endpoint, request } = exchange;
  if (endpoint === 'files') return methodOperations[request.method ?? ''] ?? otherMethod;
  return endpoint === 'list' ? 'list' : otherMethod;
}

function add(counts: Map<string, number>, key: string): void {
  counts.set(key, (counts.get(key) ?? 0) + 1);
}
