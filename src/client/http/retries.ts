import { abortedError, Backoff } from '../../core/concurrency.ts';
import { isFiletrackerError, type ErrorCode, type FiletrackerError } from '../../core/errors.ts';
import { pause } from '../../core/timers.ts';

/**
 * How failed requests are retried. All times are in milliseconds.
 *
 * @example
 * ```ts
 * import { Client } from 'filetracker';
 * import type { RetryPolicy } from 'filetracker';
 *
 * // Wait a minute for a server that restarts, but five seconds for an address that may be wrong.
 * const retries: Partial<RetryPolicy> = { retryForMs: 60_000, retryUnknownForMs: 5000 };
 * const client = Client.fromEnvironment({ retries });
 * await client.close();
 * ```
 */
export interface RetryPolicy {
  /** Tries after the first. */
  readonly retriesMax: number;
  /** Tries after time-outs alone, each of which takes as long as a time-out; 1 unless given. */
  readonly timeoutRetriesMax?: number | undefined;
  /** Pause before the first retry; doubled before each further one. */
  readonly firstPauseMs: number;
  readonly longestPauseMs: number;
  /** How long a server that is unreachable or unavailable is retried beyond `retriesMax`: the time that a restart takes. */
  readonly retryForMs: number;
  /** The same for a server that has never responded and whose address may be wrong; `retryForMs` unless given. */
  readonly retryUnknownForMs?: number | undefined;
}

export const defaultRetryPolicy: RetryPolicy = {
  retriesMax: 4,
  firstPauseMs: 100,
  longestPauseMs: 10_000,
  retryForMs: 0,
};

/**
 * The policy of programs that run unattended: a restart of the server takes seconds, and people and scripts would rather
 * wait than start over. Short pauses find the server soon after it is back.
 */
export const patientRetries: Partial<RetryPolicy> = {
  longestPauseMs: 2000,
  retryForMs: 20_000,
  retryUnknownForMs: 5000,
};

/** Errors of a server that is away and comes back. */
const awayCodes: ReadonlySet<ErrorCode> = new Set(['unreachable', 'unavailable', 'busy']);

/** A longer Retry-After ends the tries. */
const retryAfterMaxSeconds = 60;

/** Counts the failures of one piece of work and pauses between its tries. */
export class Retries {
  readonly #policy: RetryPolicy;
  readonly #signal: AbortSignal | undefined;
  readonly #isReached: () => boolean;
  readonly #backoff: Backoff;
  #failures = 0;
  #timeouts = 0;
  /** Time of the first failure. */
  #sinceMs = 0;

  /** `isReached`: whether the server has ever responded. */
  constructor(policy: RetryPolicy, signal: AbortSignal | undefined, isReached = (): boolean => true) {
    this.#policy = policy;
    this.#signal = signal;
    this.#isReached = isReached;
    const { firstPauseMs, longestPauseMs } = policy;
    this.#backoff = new Backoff({ firstMs: Math.min(firstPauseMs, longestPauseMs), maxMs: longestPauseMs });
  }

  /** To be called after progress: the failures so far no longer count. */
  reset(): void {
    this.#failures = 0;
    this.#timeouts = 0;
    this.#backoff.reset();
  }

  /** Waits until the next try. @throws `error` if it is not worth another try; FiletrackerError `aborted`. */
  async pauseAfter(error: unknown): Promise<void> {
    if (!isFiletrackerError(error) || !error.retryable) throw error;
    const nowMs = performance.now();
    if (this.#failures === 0) this.#sinceMs = nowMs;
    this.#failures += 1;
    const after = error.details.retryAfterSeconds ?? 0;
    const leftMs = this.#sinceMs + this.#patienceMs(error) - nowMs;
    const { retriesMax, timeoutRetriesMax = 1 } = this.#policy;
    if (error.code === 'timeout') this.#timeouts += 1;
    const counts = this.#failures <= retriesMax && this.#timeouts <= timeoutRetriesMax;
    if ((!counts && leftMs <= 0) || after > retryAfterMaxSeconds) throw error;
    const drawnMs = this.#backoff.next();
    // The last try comes when the time is over.
    const pauseMs = counts ? drawnMs : Math.min(drawnMs, leftMs);
    try {
      await pause(Math.max(pauseMs, after * 1000), this.#signal);
    } catch (reason) {
      throw abortedError('wait for the server', reason);
    }
  }

  /** How long this failure is retried, whatever the number of tries. */
  #patienceMs({ code, details }: FiletrackerError): number {
    if (!awayCodes.has(code)) return 0;
    const { retryForMs, retryUnknownForMs = retryForMs } = this.#policy;
    // A status proves that the server is there.
    const reached = details.status !== undefined || this.#isReached();
    return reached ? retryForMs : retryUnknownForMs;
  }
}

/** Runs `attempt`, which must be safe to repeat, until it succeeds or fails for good. `isReached`: as for Retries. */
export async function withRetries<T>(
  policy: RetryPolicy,
  signal: AbortSignal | undefined,
  attempt: () => Promise<T>,
  isReached?: () => boolean,
): Promise<T> {
  let retries: Retries | undefined;
  for (;;) {
    try {
      return await attempt();
    } catch (error) {
      retries ??= new Retries(policy, signal, isReached);
      await retries.pauseAfter(error);
    }
  }
}
