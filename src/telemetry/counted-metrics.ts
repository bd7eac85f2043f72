import { Counter, Gauge, Histogram, type Aggregator, type Registry } from 'prom-client';

// Metrics of prom-client whose values are kept elsewhere, and asked for when somebody looks.

/** Adds a counter; `show` sets all its values. */
export function addCounter(
  registry: Registry,
  name: string,
  help: string,
  labelNames: readonly string[],
  show: (counter: Counter) => void | Promise<void>,
): void {
  const counter = new Counter({
    name,
    help,
    labelNames,
    registers: [registry],
    async collect(): Promise<void> {
      this.reset();
      await show(this);
    },
  });
  void counter;
}

export interface GaugeText {
  readonly name: string;
  readonly help: string;
  /** How the values of several processes make one; their sum unless given. */
  readonly aggregator?: Aggregator;
}

/** Adds a gauge of one value; it is left out where that is undefined. */
export function addGauge(
  registry: Registry,
  text: GaugeText,
  value: () => number | undefined | Promise<number | undefined>,
): void {
  const gauge = new Gauge({
    ...text,
    registers: [registry],
    async collect(): Promise<void> {
      const current = await value();
      // What is not known is no 0: a gauge that is reset would show that one.
      if (current === undefined) this.remove({});
      else this.set(current);
    },
  });
  void gauge;
}

/** Adds a histogram of what is counted elsewhere. */
export function addHistogram(
  registry: Registry,
  text: { readonly name: string; readonly help: string; readonly labelNames?: readonly string[] },
  bounds: readonly number[],
  counts: () => readonly HistogramCounts[],
): void {
  const { name, help, labelNames = [] } = text;
  const configuration = { name, help, labelNames: [...labelNames], buckets: [...bounds], registers: [] };
  registry.registerMetric(new CountedHistogram(configuration, counts));
}

/** What a histogram has counted under one set of labels; `buckets` not cumulated, the last one without a bound. */
export interface HistogramCounts {
  readonly labels: Readonly<Record<string, string>>;
  readonly buckets: Float64Array;
  readonly sum: number;
}

/** Counts values by size; plain numbers, because they change with every request. */
export class ValueCounts {
  readonly #bounds: readonly number[];
  readonly #buckets: Float64Array;
  #sum = 0;

  /** @param bounds ascending. */
  constructor(bounds: readonly number[]) {
    this.#bounds = bounds;
    this.#buckets = new Float64Array(bounds.length + 1);
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

/**
 * A histogram that shows what was counted elsewhere. Only as JSON: the text is made of the snapshots of all
 * processes, see app/metrics-snapshot.ts.
 */
class CountedHistogram extends Histogram {
  readonly #buckets: readonly number[];
  readonly #counts: () => readonly HistogramCounts[];

  constructor(
    configuration: ConstructorParameters<typeof Histogram>[0] & { readonly buckets: number[] },
    counts: () => readonly HistogramCounts[],
  ) {
    super(configuration);
    this.#buckets = configuration.buckets;
    this.#counts = counts;
  }

  // prom-client types what this gives after its own fields; the shape is that of Histogram.get().
  override async get(): ReturnType<Histogram['get']> {
    const empty = await super.get();
    return { ...empty, values: this.#counts().flatMap((counts) => this.#values(empty.name, counts)) };
  }

  #values(
    name: string,
    { labels, buckets, sum }: HistogramCounts,
  ): Awaited<ReturnType<Histogram['get']>>['values'] {
    const values: { labels: Record<string, string | number>; value: number; metricName: string }[] = [];
    let count = 0;
    for (const [at, inBucket] of buckets.entries()) {
      count += inBucket;
      const le = this.#buckets[at] ?? '+Inf';
      values.push({ labels: { ...labels, le }, value: count, metricName: `${name}_bucket` });
    }
    values.push({ labels: { ...labels }, value: sum, metricName: `${name}_sum` });
    values.push({ labels: { ...labels }, value: count, metricName: `${name}_count` });
    return values;
  }
}
