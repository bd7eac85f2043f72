import { Registry } from 'prom-client';
import { describe, expect, it } from 'vitest';
import { BackendMetrics } from './backend-metrics.ts';
import { mergedText, snapshotOf } from './metrics-hub.ts';

/** What two processes show together. */
async function shown(count: (metrics: BackendMetrics) => void): Promise<string> {
  const registries = [new Registry(), new Registry()];
  for (const registry of registries) count(new BackendMetrics(registry));
  return mergedText(await Promise.all(registries.map(snapshotOf)));
}

describe('BackendMetrics', () => {
  it('sums times and failures by back end and operation, over processes', async () => {
    const text = await shown((metrics) => {
      const postgres = metrics.observer('postgres');
      postgres('find', 2, undefined);
      postgres('find', 700, '57014');
      metrics.observer('s3')('read', 20, undefined);
    });
    const call = 'filetracker_backend_call_seconds';
    expect(text).toContain(`${call}_count{backend="postgres",operation="find"} 4\n`);
    expect(text).toContain(`${call}_bucket{backend="postgres",operation="find",le="0.0025"} 2\n`);
    expect(text).toContain(`${call}_sum{backend="s3",operation="read"} 0.04\n`);
    const errors = 'filetracker_backend_errors_total';
    expect(text).toContain(`${errors}{backend="postgres",operation="find",reason="57014"} 2\n`);
    expect(text).not.toContain(`${errors}{backend="s3"`);
  });

  it('keeps no more reasons than a few hundred', async () => {
    const text = await shown((metrics) => {
      const observe = metrics.observer('s3');
      for (let index = 0; index < 5000; index += 1) observe('read', 1, `Invented${index}`);
    });
    expect(text.match(/errors_total\{/g)?.length).toBeLessThan(300);
    expect(text).toMatch(/operation="read",reason="other"\} 9600\n/);
  });
});
