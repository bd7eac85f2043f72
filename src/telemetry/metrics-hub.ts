import { Counter, Registry } from 'prom-client';
import { FiletrackerError } from '../core/errors.ts';
import type { MetricsSource } from '../server/observer.ts';
import {
  lastingPart,
  merged,
  mergedText,
  metricsContentType,
  snapshotOf,
  type MetricsSnapshot,
} from './metrics-snapshot.ts';

/** From a worker: "what do all of you count?", and "this is what I count". */
export type MetricsQuestion =
  | { readonly type: 'metrics-wanted'; readonly id: number }
  | { readonly type: 'metrics-snapshot'; readonly round: number; readonly snapshot: MetricsSnapshot };

/** To a worker: "what do you count?", and the answer to its own question. */
export type MetricsAnswer =
  | { readonly type: 'metrics-snapshot-wanted'; readonly round: number }
  | { readonly type: 'metrics-text'; readonly id: number; readonly text: string };

/** A worker that is busy for longer is shown as it was when it was last asked. */
const answerTimeoutMs = 2000;

interface Member {
  send(message: MetricsAnswer): void;
  last: MetricsSnapshot | undefined;
}

/**
 * Sums what the workers of one supervisor count; lives with the supervisor.
 *
 * Invariant: no counter in the text is ever below what an earlier text had: of a worker that has ended the
 * counts are kept as they were last shown.
 */
export class MetricsHub {
  readonly #members = new Map<number, Member>();
  readonly #own = new Registry();
  readonly #restarts: Counter;
  #departed: Promise<readonly MetricsSnapshot[]> = Promise.resolve([]);
  #round = 0;
  #collection: Promise<void> | undefined;
  #missing = new Set<number>();
  #complete: () => void = () => undefined;

  constructor() {
    this.#restarts = new Counter({
      name: 'filetracker_worker_deaths_total',
      help: 'Workers that ended without being told to.',
      registers: [this.#own],
    });
  }

  /** A worker is there and can be asked. */
  join(worker: number, send: (message: MetricsAnswer) => void): void {
    this.#members.set(worker, { send, last: undefined });
  }

  /** A worker has ended. */
  leave(worker: number): void {
    this.#restarts.inc();
    const last = this.#members.get(worker)?.last;
    this.#members.delete(worker);
    this.#answered(worker);
    if (last === undefined) return;
    this.#departed = this.#departed.then(async (before) => [await merged([...before, lastingPart(last)])]);
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

  /** The text of all metrics of all workers. */
  async text(): Promise<string> {
    this.#collection ??= this.#collect().finally(() => {
      this.#collection = undefined;
    });
    await this.#collection;
    const departed = await this.#departed;
    const present = [...this.#members.values()].flatMap(({ last }) => (last === undefined ? [] : [last]));
    return mergedText([...present, ...departed, await snapshotOf(this.#own)]);
  }

  async #answer(worker: number, id: number): Promise<void> {
    // What can't be merged is a bug of ours; the worker that asked says that nothing came.
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

/** The worker's end: shows the metrics of all, and tells its own. */
export class MetricsLink implements MetricsSource {
  readonly contentType = metricsContentType;
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
      // The store may be closing; the supervisor goes on without these.
      .catch(() => undefined);
  }

  /** @throws FiletrackerError `unavailable` where the supervisor does not answer in time. */
  async text(): Promise<string> {
    this.#questions += 1;
    const id = this.#questions;
    const text = await new Promise<string>((resolve) => {
      const timer = setTimeout(() => resolve(''), 2 * answerTimeoutMs);
      this.#waiting.set(id, (answer) => {
        clearTimeout(timer);
        resolve(answer);
      });
      this.#send({ type: 'metrics-wanted', id });
    });
    this.#waiting.delete(id);
    if (text !== '') return text;
    throw new FiletrackerError(
      'unavailable',
      'Cannot show metrics: the other processes did not answer in time',
    );
  }
}
