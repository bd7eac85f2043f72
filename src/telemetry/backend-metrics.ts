import type { Registry } from 'prom-client';
import type { CallObserver } from '../core/report.ts';
import { addCounter, addHistogram, ValueCounts } from './counted-metrics.ts';

/** What a store may rest on besides its folder. */
export type Backend = 'postgres' | 's3';

/** Seconds; from a look-up in a database next door to a part of an upload over a slow line. */
const durationBuckets = [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1, 5, 30];

/** A server names its refusals itself; one that invents names must not fill the memory. */
const failuresMax = 200;

interface CallCounts {
  readonly labels: { readonly backend: Backend; readonly operation: string };
  readonly seconds: ValueCounts;
}

/** Counts the calls of other programs, for prom-client to show; plain numbers, as in server/request-metrics.ts. */
export class BackendMetrics {
  readonly #calls = new Map<string, CallCounts>();
  readonly #failures = new Map<string, number>();

  constructor(registry: Registry) {
    addHistogram(
      registry,
      {
        name: 'filetracker_backend_call_seconds',
        help: 'Time of a call of PostgreSQL or S3, with waiting for a connection and retries; of a read until it begins.',
        labelNames: ['backend', 'operation'],
      },
      durationBuckets,
      () => [...this.#calls.values()].map(({ labels, seconds }) => seconds.counts(labels)),
    );
    addCounter(
      registry,
      'filetracker_backend_errors_total',
      'Calls that failed, by SQLSTATE or the name that S3 gives its refusal.',
      ['backend', 'operation', 'reason'],
      (shown) => {
        for (const [key, count] of this.#failures) {
          const [backend = '', operation = '', reason = ''] = key.split(' ');
          shown.inc({ backend, operation, reason }, count);
        }
      },
    );
  }

  /** For the part of the store that makes the calls. */
  observer(backend: Backend): CallObserver {
    return (operation, durationMs, failure) => {
      this.#countsOf(backend, operation).seconds.add(durationMs / 1000);
      if (failure === undefined) return;
      const known = `${backend} ${operation} ${failure}`;
      const key =
        this.#failures.has(known) || this.#failures.size < failuresMax
          ? known
          : `${backend} ${operation} other`;
      this.#failures.set(key, (this.#failures.get(key) ?? 0) + 1);
    };
  }

  #countsOf(backend: Backend, operation: string): CallCounts {
    const key = `${backend} ${operation}`;
    let counts = this.#calls.get(key);
    if (counts === undefined) {
      counts = { labels: { backend, operation }, seconds: new ValueCounts(durationBuckets) };
      this.#calls.set(key, counts);
    }
    return counts;
  }
}
