import { setTimeout as delay } from 'node:timers/promises';
import { FiletrackerError, isFiletrackerError } from '../core/errors.ts';

/** How often and when what failed is tried again. */
export interface RetryPolicy {
  /** Tries after the first. */
  readonly retriesMax: number;
  /** Pause before the first retry; doubled before each further one. */
  readonly firstPauseMs: number;
  readonly longestPauseMs: number;
}

export const defaultRetryPolicy: RetryPolicy = { retriesMax: 4, firstPauseMs: 100, longestPauseMs: 10_000 };

/** The longest that a server's Retry-After is followed; a longer one ends the tries. */
const retryAfterMaxSeconds = 60;

export function abortedError(action: string, cause?: unknown): FiletrackerError {
  return new FiletrackerError('aborted', `Cannot ${action}: it was cancelled`, { cause });
}

/**
 * Counts the failures of one piece of work and waits between its tries, longer each time, by a random part
 * less, so that a thousand clients do not come back in step.
 */
export class Retries {
  readonly #policy: RetryPolicy;
  readonly #signal: AbortSignal | undefined;
  #failures = 0;

  constructor(policy: RetryPolicy, signal: AbortSignal | undefined) {
    this.#policy = policy;
    this.#signal = signal;
  }

  /** Called when some progress was made: the failures so far no longer count. */
  reset(): void {
    this.#failures = 0;
  }

  /** Waits until the next try. @throws the given error, where it is not worth another try. */
  async pauseAfter(error: unknown): Promise<void> {
    if (!isFiletrackerError(error) || !error.retryable) throw error;
    this.#failures += 1;
    const after = error.details.retryAfterSeconds ?? 0;
    if (this.#failures > this.#policy.retriesMax || after > retryAfterMaxSeconds) throw error;
    const doubled = this.#policy.firstPauseMs * 2 ** (this.#failures - 1);
    const pauseMs = Math.min(doubled, this.#policy.longestPauseMs) * (0.5 + Math.random() / 2);
    const options = this.#signal === undefined ? {} : { signal: this.#signal };
    try {
      await delay(Math.max(pauseMs, after * 1000), undefined, options);
    } catch (reason) {
      throw abortedError('wait for the server', reason);
    }
  }
}

/** Runs `attempt` until it succeeds or fails for good. It must be safe to repeat. */
export async function withRetries<T>(
  policy: RetryPolicy,
  signal: AbortSignal | undefined,
  attempt: () => Promise<T>,
): Promise<T> {
  const retries = new Retries(policy, signal);
  for (;;) {
    try {
      return await attempt();
    } catch (error) {
      await retries.pauseAfter(error);
    }
  }
}
