// The workers of a server count for themselves; the supervisor sums their counts. Any worker can serve the sum.
import { AggregatorRegistry, Registry, type MetricObjectWithValues, type MetricValue } from 'prom-client';
import { SingleFlight } from '../core/concurrency.ts';
import { cannot } from '../core/errors.ts';
import type { MetricsSource } from '../server/observer.ts';
import { addMetric } from './counted-metrics.ts';

/** All metrics of one process at one moment; plain data that another process can receive. */
export type MetricsSnapshot = readonly MetricObjectWithValues<MetricValue<string>>[];

export async function snapshotOf(registry: Registry): Promise<MetricsSnapshot> {
  return registry.getMetricsAsJSON() as Promise<unknown> as Promise<MetricsSnapshot>;
}

function aggregate(snapshots: readonly MetricsSnapshot[]): Registry {
  return AggregatorRegistry.aggregate(snapshots.map((snapshot) => [...snapshot]));
}

/** The metrics of several processes as one text, combined as their aggregators define. */
export function mergedText(snapshots: readonly MetricsSnapshot[]): Promise<string> {
  return aggregate(snapshots).metrics();
}

/** Sums that outlive their process: one that shrinks looks like a restart. prom-client reports types as text. */
const lastingTypes: ReadonlySet<string> = new Set(['counter', 'histogram']);

/** From a worker: a request for the metrics of all workers, or its own snapshot. */
export type MetricsQuestion =
  | { readonly type: 'metrics-wanted'; readonly id: number }
  | { readonly type: 'metrics-snapshot'; readonly round: number; readonly snapshot: MetricsSnapshot };

/** To a worker: a request for its snapshot, or the response to its own request. */
export type MetricsAnswer =
  | { readonly type: 'metrics-snapshot-wanted'; readonly round: number }
  | { readonly type: 'metrics-text'; readonly id: number; readonly text: string };

/** A worker that takes longer is shown with its previous values. */
const answerTimeoutMs = 2000;

interface Member {
  send(message: MetricsAnswer): void;
  last: MetricsSnapshot | undefined;
}

/**
 * Sums the counts of the workers; belongs to the supervisor.
 *
 * Invariant: no counter in the text is ever below its value in an earlier text: the last shown counts of a worker that
 * has ended are kept.
 */
export class MetricsHub {
  readonly #members = new Map<number, Member>();
  readonly #own = new Registry();
  readonly #collection = new SingleFlight<void>();
  #deaths = 0;
  #departed: Promise<readonly MetricsSnapshot[]> = Promise.resolve([]);
  #round = 0;
  #missing = new Set<number>();
  #complete: () => void = () => undefined;

  constructor() {
    addMetric(this.#own, 'filetracker_worker_deaths_total', () => [{ value: this.#deaths }]);
  }

  /** A worker has started and can answer. */
  join(worker: number, send: (message: MetricsAnswer) => void): void {
    this.#members.set(worker, { send, last: undefined });
  }

  /** A worker has ended. */
  leave(worker: number): void {
    this.#deaths += 1;
    const last = this.#members.get(worker)?.last;
    this.#members.delete(worker);
    this.#answered(worker);
    if (last === undefined) return;
    const lasting = last.filter(({ type }) => lastingTypes.has(String(type)));
    this.#departed = this.#departed.then(async (before) => [
      await snapshotOf(aggregate([...before, lasting])),
    ]);
  }

  receive(worker: number, message: MetricsQuestion): void {
    if (message.type === 'metrics-wanted') {
      void this.#answer(worker, message.id);
      return;
    }
    const member = this.#members.get(worker);
    if (member !== undefined) member.last = message.snapshot;
    if (message.round === this.#round) this.#answered(worker);
  }

  /** The metrics of all workers. */
  async text(): Promise<string> {
    await this.#collection.run(() => this.#collect());
    const departed = await this.#departed;
    const present = [...this.#members.values()].flatMap(({ last }) => (last === undefined ? [] : [last]));
    return mergedText([...present, ...departed, await snapshotOf(this.#own)]);
  }

  async #answer(worker: number, id: number): Promise<void> {
    // Snapshots that cannot be merged are a bug; the worker then reports that no response came.
    const text = await this.text().catch(() => '');
    this.#members.get(worker)?.send({ type: 'metrics-text', id, text });
  }

  #collect(): Promise<void> {
    this.#round += 1;
    this.#missing = new Set(this.#members.keys());
    return new Promise((resolve) => {
      const timer = setTimeout(resolve, answerTimeoutMs);
      this.#complete = () => {
        clearTimeout(timer);
        resolve();
      };
      for (const member of this.#members.values()) {
        member.send({ type: 'metrics-snapshot-wanted', round: this.#round });
      }
      if (this.#missing.size === 0) this.#complete();
    });
  }

  #answered(worker: number): void {
    this.#missing.delete(worker);
    if (this.#missing.size === 0) this.#complete();
  }
}

/** The worker's end: sends its snapshot, and serves the metrics of all. */
export class MetricsLink implements MetricsSource {
  readonly contentType = Registry.PROMETHEUS_CONTENT_TYPE;
  readonly #snapshot: () => Promise<MetricsSnapshot>;
  readonly #send: (message: MetricsQuestion) => void;
  readonly #waiting = new Map<number, (text: string) => void>();
  #questions = 0;

  constructor(snapshot: () => Promise<MetricsSnapshot>, send: (message: MetricsQuestion) => void) {
    this.#snapshot = snapshot;
    this.#send = send;
  }

  receive(message: MetricsAnswer): void {
    if (message.type === 'metrics-text') {
      this.#waiting.get(message.id)?.(message.text);
      return;
    }
    const { round } = message;
    void this.#snapshot()
      .then((snapshot) => this.#send({ type: 'metrics-snapshot', round, snapshot }))
      // The store may be closing; the supervisor continues without this snapshot.
      .catch(() => undefined);
  }

  /** @throws FiletrackerError `unavailable` if the supervisor does not respond in time. */
  async text(): Promise<string> {
    this.#questions += 1;
    const id = this.#questions;
    const text = await new Promise<string>((resolve) => {
      const timer = setTimeout(() => resolve(''), 2 * answerTimeoutMs);
      this.#waiting.set(id, (response) => {
        clearTimeout(timer);
        resolve(response);
      });
      this.#send({ type: 'metrics-wanted', id });
    });
    this.#waiting.delete(id);
    if (text !== '') return text;
    throw cannot('unavailable', 'show metrics', 'the supervisor did not respond in time; retry');
  }
}
