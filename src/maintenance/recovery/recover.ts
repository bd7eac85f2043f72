import { FirstItems, Steps, type ProgressListener, type StepReport } from '../progress.ts';

/** What a finding is about. Reports show the kinds in this order. */
export const findingKinds = [
  'warning',
  /** Something that recovery repairs, or would repair if it were no dry run. */
  'repair',
  'note',
  'lost-file',
  'lost-blob',
  /** The disk cannot read the bytes, which may be intact; recovery leaves them as they are. */
  'unreadable-file',
  'unreadable-blob',
] as const;

export interface Finding {
  readonly kind: (typeof findingKinds)[number];
  /** One line for people. */
  readonly text: string;
}

/** The findings of one recovery: the number of each kind, and the first of them. */
export class Findings {
  readonly #byKind = new Map<Finding['kind'], FirstItems<Finding>>();

  of(kind: Finding['kind']): FirstItems<Finding> {
    const found = this.#byKind.get(kind) ?? new FirstItems<Finding>();
    this.#byKind.set(kind, found);
    return found;
  }

  add(kind: Finding['kind'], texts: readonly string[], count = texts.length): void {
    const found = this.of(kind);
    for (const text of texts) found.add({ kind, text });
    found.count += count - texts.length;
  }
}

export interface RecoveryOptions {
  /** Read every blob and check its digest, not only that it exists in its size. */
  readonly full?: boolean | undefined;
  /** Find everything, change nothing. */
  readonly dryRun?: boolean | undefined;
  readonly listener?: ProgressListener | undefined;
  readonly signal?: AbortSignal | undefined;
}

/** What each kind of store adds to the report of a recovery, in the form that `--json` prints. */
export type RecoveryReport<Details extends object> = Details & {
  readonly dryRun: boolean;
  readonly steps: readonly StepReport[];
};

/** What follows from a survey. */
export interface Decision<Details extends object> {
  readonly details: Details;
  readonly findings: Findings;
  /** Whether files are lost or unreadable, or may be. */
  readonly hasLosses: boolean;
}

export interface Recovery<Details extends object> extends Omit<Decision<Details>, 'details'> {
  readonly report: RecoveryReport<Details>;
}

/** A kind of store that `recover` can check and repair. */
export interface RecoverableStore<Survey, Details extends object> {
  /**
   * Examines the store, step by step, and compares its parts. A store that is served meanwhile repairs each thing when
   * it finds it, because it may have changed by the end.
   */
  survey(steps: Steps): Promise<Survey>;
  /** Decides what to repair and what to report; depends on the survey alone. */
  decide(survey: Survey): Decision<Details>;
  /** Repairs what the survey has not repaired, if there are findings of the kind `repair` and this is no dry run. */
  repair?(survey: Survey, details: Details, steps: Steps): Promise<Details>;
}

/** Surveys a store, decides what to repair, repairs it, and reports. A second run finds nothing to repair. */
export async function recover<Survey, Details extends object>(
  store: RecoverableStore<Survey, Details>,
  { dryRun = false, listener }: RecoveryOptions,
): Promise<Recovery<Details>> {
  const steps = new Steps(listener);
  const survey = await store.survey(steps);
  const { details, findings, hasLosses } = store.decide(survey);
  const mustRepair = !dryRun && findings.of('repair').count > 0;
  const after = (mustRepair && (await store.repair?.(survey, details, steps))) || details;
  return { report: { ...after, dryRun, steps: steps.reports }, findings, hasLosses };
}
