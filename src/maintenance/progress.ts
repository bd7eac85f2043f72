/** Figures of a step, for people and programs: words to numbers or short texts. */
export type StepCounts = Readonly<Record<string, number | string>>;

export interface StepReport {
  readonly step: string;
  readonly counts: StepCounts;
  readonly milliseconds: number;
}

/** Who shows how maintenance gets on. */
export interface ProgressListener {
  /** A step has begun; `title` is for people. */
  stepBegun?(step: string, title: string): void;
  /** So much of it is done; `total` where it is known. */
  stepAdvanced?(done: number, total: number | undefined): void;
  stepEnded?(report: StepReport): void;
}

/** Runs named steps one after the other, tells a listener about them and keeps their figures. */
export class Steps {
  readonly reports: StepReport[] = [];
  readonly #listener: ProgressListener;

  constructor(listener: ProgressListener = {}) {
    this.#listener = listener;
  }

  /** Runs a step; what it returns besides the counts is the result. */
  async run<Result>(
    step: string,
    title: string,
    work: (
      advance: (done: number, total?: number) => void,
    ) => Promise<{ counts: StepCounts; result: Result }>,
  ): Promise<Result> {
    const begun = performance.now();
    this.#listener.stepBegun?.(step, title);
    const { counts, result } = await work((done, total) => this.#listener.stepAdvanced?.(done, total));
    const report = { step, counts, milliseconds: Math.round(performance.now() - begun) };
    this.reports.push(report);
    this.#listener.stepEnded?.(report);
    return result;
  }
}
