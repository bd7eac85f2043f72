import { describe, expect, it } from 'vitest';
import { mergedText } from './metrics-hub.ts';
import { ServerMetrics, type ObservedServer } from './server-metrics.ts';

/** A server whose store answers so. */
function observedWith(stats: () => Promise<object>): ObservedServer {
  return {
    store: { stats },
    uploads: { putCounts: {}, uploadCount: 3 },
    limits: {},
    verification: { recorded: stats },
    connectionCount: () => 5,
  } as unknown as ObservedServer;
}

describe('ServerMetrics.snapshot()', () => {
  const failing = (): Promise<object> => Promise.reject(new Error('the database is away'));
  const silent = (): Promise<object> => new Promise(() => undefined);

  it.each([
    ['fails', failing],
    ['does not answer', silent],
  ])('shows what does not come from a store that %s', async (_fault, stats) => {
    const metrics = new ServerMetrics();
    metrics.observe(observedWith(() => Promise.resolve({ entries: 7 })));
    expect(await mergedText([await metrics.snapshot()])).toMatch(/^filetracker_entries 7$/m);
    metrics.observe(observedWith(stats));
    metrics.backends.observer('postgres')('stats', 10_000, 'timeout');
    const text = await mergedText([await metrics.snapshot()]);
    expect(text).toMatch(/^filetracker_uploads 3$/m);
    expect(text).toMatch(/^filetracker_backend_errors_total\{.*reason="timeout"\} 1$/m);
    expect(text).not.toMatch(/^filetracker_entries /m);
  });
});
