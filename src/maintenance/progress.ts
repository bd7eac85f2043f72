import { reportItemsMax } from '../core/limits.ts';

/** Figures of a step: words to numbers or short texts. */
export type StepCounts = Readonly<Record<string, number | string>>;

export interface StepReport {
  readonly step: string;
  readonly counts: StepCounts;
  readonly milliseconds: number;
}

/** Shows the progress of maintenance. */
export interface ProgressListener {
  /** A step has begun; `title` is for people. */
  stepBegun?(step: string, title: string): void;
  /** `total` is `undefined` if unknown. */
  stepAdvanced?(done: number, total: number | undefined): void;
  stepEnded?(report: StepReport): void;
}

export type Advance = (done: number, total?: number) => void;

/** Runs named steps one after the other, reports them to a listener and keeps their figures. */
export class Steps {
  readonly reports: StepReport[] = [];
  readonly #listener: ProgressListener;

  constructor(listener: ProgressListener = {}) {
    this.#listener = listener;
  }

  /** Runs a step. @param countsOf returns the figures that are reported of its result. */
  async run<Result>(
    step: string,
    title: string,
    work: (advance: Advance) => Promise<Result>,
    countsOf: (result: Result) => StepCounts,
  ): Promise<Result> {
    const begunMs = performance.now();
    this.#listener.stepBegun?.(step, title);
    const result = await work((done, total) => this.#listener.stepAdvanced?.(done, total));
    const milliseconds = Math.round(performance.now() - begunMs);
    const report = { step, counts: countsOf(result), milliseconds };
    this.reports.push(report);
    this.#listener.stepEnded?.(report);
    return result;
  }
}

/** Counts items and keeps the first `reportItemsMax` of them. */
export class FirstItems<Item> {
  readonly items: Item[] = [];
  count = 0;

  add(item: Item): void {
    this.count += 1;
    if (this.items.length < reportItemsMax) this.items.push(item);
  }
}
