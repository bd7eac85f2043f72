/**
 * Takes notice of a failure that must not be lost but has nobody to be thrown at: work in the background, a
 * clean-up after another failure. `problem` says what could not be done, as "Cannot <action>".
 */
export type ReportProblem = (problem: string, error: unknown) => void;
