/**
 * Receives a failure that must not be lost but cannot be thrown: background work, a clean-up after another failure.
 * `problem` reads "Cannot <action>".
 */
export type ReportProblem = (problem: string, error: unknown) => void;

/**
 * Called when a call to a back end (database, object store) has ended. `operation` is one of a fixed few; the duration
 * includes retries and the wait for a connection; `failure` is a short code if the call failed. Must not throw.
 */
export type CallObserver = (operation: string, durationMs: number, failure: string | undefined) => void;
