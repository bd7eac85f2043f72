import { FiletrackerError, isFiletrackerError } from '../../core/errors.ts';
import type { ErrorCode } from '../../core/errors.ts';
import { pause } from '../../core/timers.ts';

/** How often and when what failed is tried again. */
export interface RetryPolicy {
  /** Tries after the first. */
  readonly retriesMax: number;
  /** Tries after time-outs alone, each of which takes as long as a time-out; 1 unless given. */
  readonly timeoutRetriesMax?: number | undefined;
  /** Pause before the first retry; doubled before each further one. */
  readonly firstPauseMs: number;
  readonly longestPauseMs: number;
  /**
   * How long a server that can't be reached, or says that it can't serve now, is tried again, beyond `retriesMax`: as long
   * as it takes to start it again.
   */
  readonly retryForMs: number;
  /** The same for a server that has never answered, whose address may be wrong; as `retryForMs` unless given. */
  readonly retryUnknownForMs?: number | undefined;
}

export const defaultRetryPolicy: RetryPolicy = {
  retriesMax: 4,
  firstPauseMs: 100,
  longestPauseMs: 10_000,
  retryForMs: 0,
};

/**
 * What programs do that run by themselves: starting a server again takes seconds, and people and scripts would rather wait
 * than begin anew. Pauses are short, so that a server that is back is soon found to be.
 */
export const patientRetries: Partial<RetryPolicy> = {
  longestPauseMs: 2000,
  retryForMs: 20_000,
  retryUnknownForMs: 5000,
};

/** Errors of a server that is away and comes back. */
const awayCodes: ReadonlySet<ErrorCode> = new Set(['unreachable', 'unavailable', 'busy']);

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
  readonly #isReached: () => boolean;
  #failures = 0;
  #timeouts = 0;
  /** When the first of the failures came. */
  #sinceMs = 0;

  /** `isReached`: whether the server has ever answered. */
  constructor(policy: RetryPolicy, signal: AbortSignal | undefined, isReached = (): boolean => true) {
    this.#policy = policy;
    this.#signal = signal;
    this.#isReached = isReached;
  }

  /** Called when some progress was made: the failures so far no longer count. */
  reset(): void {
    this.#failures = 0;
    this.#timeouts = 0;
  }

  /** Waits until the next try. @throws the given error, where it is not worth another try. */
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
    const doubled = this.#policy.firstPauseMs * 2 ** (this.#failures - 1);
    const drawnMs = Math.min(doubled, this.#policy.longestPauseMs) * (0.5 + Math.random() / 2);
    // The last try comes when the time is over.
    const pauseMs = counts ? drawnMs : Math.min(drawnMs, leftMs);
    try {
      await pause(Math.max(pauseMs, after * 1000), this.#signal);
    } catch (reason) {
      throw abortedError('wait for the server', reason);
    }
  }

  /** How long this failure is worth further tries, whatever their number. */
  #patienceMs({ code, details }: FiletrackerError): number {
    if (!awayCodes.has(code)) return 0;
    const { retryForMs, retryUnknownForMs = retryForMs } = this.#policy;
    // Who answers with a status is there.
    const reached = details.status !== undefined || this.#isReached();
    return reached ? retryForMs : retryUnknownForMs;
  }
}

/** Runs `attempt` until it succeeds or fails for good. It must be safe to repeat. `isReached`: as of Retries. */
export async function withRetries<T>(
  policy: RetryPolicy,
  signal: AbortSignal | undefined,
  attempt: () => Promise<T>,
  isReached?: () => boolean,
): Promise<T> {
  const retries = new Retries(policy, signal, isReached);
  for (;;) {
    try {
      return await attempt();
    } catch (error) {
      await retries.pauseAfter(error);
    }
  }
}
