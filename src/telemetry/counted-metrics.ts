// Metrics of prom-client whose values are counted elsewhere, in plain numbers, and read when metrics are collected.
import { Counter, Gauge, Histogram, type Registry } from 'prom-client';
import { metricTable, type MetricName } from './metric-table.ts';

/** A value of a counter or gauge; an unknown one is left out. */
export interface Sample {
  readonly value: number | undefined;
  readonly labels?: Readonly<Record<string, string | number>>;
}

/** Adds a counter or gauge. */
export function addMetric(registry: Registry, name: MetricName, samples: () => Iterable<Sample>): void {
  const { type, help, labels, aggregator } = metricTable[name];
  const configuration = { name, help, labelNames: [...labels], aggregator, registers: [registry] };
  const fill = (metric: Counter | Gauge): void => {
    for (const { value, labels = {} } of samples()) if (value !== undefined) metric.inc(labels, value);
  };
  const added =
    type === 'counter'
      ? new Counter({
          ...configuration,
          collect(): void {
            this.reset();
            fill(this);
          },
        })
      : new Gauge({
          ...configuration,
          collect(): void {
            // An unknown value is not the 0 that a reset gauge shows.
            this.reset();
            this.remove({});
            fill(this);
          },
        });
  void added;
}

/** Adds a histogram. */
export function addHistogram(
  registry: Registry,
  name: MetricName,
  counts: () => readonly HistogramCounts[],
): void {
  const { help, labels, buckets } = metricTable[name];
  const configuration = { name, help, labelNames: [...labels], buckets: [...buckets], registers: [] };
  registry.registerMetric(new CountedHistogram(configuration, counts));
}

/** The counts of a histogram under one set of labels; `buckets` are not cumulative, and the last has no bound. */
export interface HistogramCounts {
  readonly labels: Readonly<Record<string, string>>;
  readonly buckets: Float64Array;
  readonly sum: number;
}

/** Counts the values of a histogram in plain numbers, because they change with every request. */
export class ValueCounts {
  readonly #bounds: readonly number[];
  readonly #buckets: Float64Array;
  #sum = 0;

  constructor(name: MetricName) {
    this.#bounds = metricTable[name].buckets;
    this.#buckets = new Float64Array(this.#bounds.length + 1);
  }

  add(value: number): void {
    let bucket = 0;
    while (value > (this.#bounds[bucket] ?? Number.POSITIVE_INFINITY)) bucket += 1;
    this.#buckets[bucket] = (this.#buckets[bucket] ?? 0) + 1;
    this.#sum += value;
  }

  counts(labels: Readonly<Record<string, string>> = {}): HistogramCounts {
    return { labels, buckets: this.#buckets, sum: this.#sum };
  }
}

type HistogramValues = Awaited<ReturnType<Histogram['get']>>['values'];

/** A histogram that shows counts from elsewhere; only as JSON, which metrics-hub.ts merges into the text. */
class CountedHistogram extends Histogram {
  readonly #bounds: readonly number[];
  readonly #counts: () => readonly HistogramCounts[];

  constructor(
    configuration: ConstructorParameters<typeof Histogram>[0] & { readonly buckets: number[] },
    counts: () => readonly HistogramCounts[],
  ) {
    super(configuration);
    this.#bounds = configuration.buckets;
    this.#counts = counts;
  }

  // prom-client derives the type of this from its own fields; the shape is that of Histogram.get().
  override async get(): ReturnType<Histogram['get']> {
    const empty = await super.get();
    return { ...empty, values: this.#counts().flatMap((counts) => this.#values(empty.name, counts)) };
  }

  #values(name: string, { labels, buckets, sum }: HistogramCounts): HistogramValues {
    let count = 0;
    const values: HistogramValues = Array.from(buckets, (inBucket, at) => {
      count += inBucket;
      const le = this.#bounds[at] ?? '+Inf';
      return { labels: { ...labels, le }, value: count, metricName: `${name}_bucket` };
    });
    values.push({ labels: { ...labels }, value: sum, metricName: `${name}_sum` });
    values.push({ labels: { ...labels }, value: count, metricName: `${name}_count` });
    return values;
  }
}
