import type { Registry } from 'prom-client';
import type { CallObserver } from '../core/report.ts';
import { addHistogram, addMetric, ValueCounts } from './counted-metrics.ts';

/** The back ends that a store may use besides its folder. */
export type Backend = 'postgres' | 's3';

/** Kinds of failures that are counted: a server chooses its own error codes, and must not fill the memory. */
const failuresMax = 200;

interface Call {
  readonly labels: { readonly backend: Backend; readonly operation: string };
  readonly seconds: ValueCounts;
}

/** Counts the calls to back ends. */
export class BackendMetrics {
  readonly #calls = new Map<string, Call>();
  readonly #failures = new Map<string, number>();

  constructor(registry: Registry) {
    addHistogram(registry, 'filetracker_backend_call_seconds', () =>
      [...this.#calls.values()].map(({ labels, seconds }) => seconds.counts(labels)),
    );
    addMetric(registry, 'filetracker_backend_errors_total', () =>
      Array.from(this.#failures, ([key, value]) => {
        const [backend = '', operation = '', reason = ''] = key.split(' ');
        return { labels: { backend, operation, reason }, value };
      }),
    );
  }

  /** The observer for the part of the store that makes the calls. */
  observer(backend: Backend): CallObserver {
    return (operation, durationMs, failure) => {
      const call = `${backend} ${operation}`;
      let counts = this.#calls.get(call);
      if (counts === undefined) {
        const seconds = new ValueCounts('filetracker_backend_call_seconds');
        counts = { labels: { backend, operation }, seconds };
        this.#calls.set(call, counts);
      }
      counts.seconds.add(durationMs / 1000);
      if (failure === undefined) return;
      const known = `${call} ${failure}`;
      const mayCount = this.#failures.has(known) || this.#failures.size < failuresMax;
      const key = mayCount ? known : `${call} other`;
      this.#failures.set(key, (this.#failures.get(key) ?? 0) + 1);
    };
  }
}
