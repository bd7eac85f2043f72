import { AggregatorRegistry, type MetricObjectWithValues, type MetricValue, Registry } from 'prom-client';

/** All metrics of one process at one moment; plain data, to be sent to another process. */
export type MetricsSnapshot = readonly MetricObjectWithValues<MetricValue<string>>[];

export const metricsContentType = Registry.PROMETHEUS_CONTENT_TYPE;

export async function snapshotOf(registry: Registry): Promise<MetricsSnapshot> {
  return registry.getMetricsAsJSON() as Promise<unknown> as Promise<MetricsSnapshot>;
}

function aggregate(snapshots: readonly MetricsSnapshot[]): Registry {
  const given = snapshots.map((snapshot) => [...snapshot]);
  return AggregatorRegistry.aggregate(given);
}

/** The metrics of several processes as one text: counts are summed, for gauges each one says what is done. */
export function mergedText(snapshots: readonly MetricsSnapshot[]): Promise<string> {
  return aggregate(snapshots).metrics();
}

/** Types are given as text by the releases of prom-client that we use, and as numbers by its declarations. */
const lastingTypes: ReadonlySet<string> = new Set(['counter', 'histogram']);

/** What must not be forgotten when a process ends: a sum that shrinks would be taken for a restart of all. */
export function lastingPart(snapshot: MetricsSnapshot): MetricsSnapshot {
  return snapshot.filter(({ type }) => lastingTypes.has(String(type)));
}

/** Snapshots that are kept for their sums alone, as one. */
export function merged(snapshots: readonly MetricsSnapshot[]): Promise<MetricsSnapshot> {
  return snapshotOf(aggregate(snapshots));
}
