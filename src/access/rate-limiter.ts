import { randomBytes } from 'node:crypto';
import type { Clock } from '../core/clock.ts';
import { FiletrackerError } from '../core/errors.ts';
import type { RequestAdmission, RequestSender } from './admission.ts';
import { RateTable, type RateRule } from './rate-table.ts';

const secondUs = 1_000_000;

export interface RateLimiterOptions {
  /** Requests a second that one holder of a token may send, in the long run; a second's worth at once. */
  readonly requestsPerSecond: number;
  readonly clock: Clock;
  /** What other processes share that serve the same; a table of its own unless given. */
  readonly table?: RateTable | undefined;
}

/**
 * Bounds the requests a second of each token and, where there is none, of each address.
 *
 * Invariant: at most a second's worth is let in at once, and then as many as the rate says, by all processes together
 * that share the table.
 */
export class RateLimiter implements RequestAdmission {
  readonly #options: RateLimiterOptions;
  readonly #rule: RateRule;
  readonly #table: RateTable;

  constructor(options: RateLimiterOptions) {
    this.#options = options;
    const intervalUs = Math.max(1, Math.floor(secondUs / options.requestsPerSecond));
    this.#rule = { intervalUs, burstUs: Math.max(secondUs, intervalUs) };
    this.#table = options.table ?? new RateTable(RateTable.initialBytes(randomBytes(8)).buffer);
  }

  /** @throws FiletrackerError `rate-limited`, with the time after which there is room again. */
  admit(request: RequestSender): void {
    this.take(request.sender);
  }

  /** Counts a failed authentication against its address, whatever token it names. */
  refusalOf(request: RequestSender, error: unknown): unknown {
    try {
      this.take(request.connection.sender);
      return error;
    } catch (refusal) {
      return refusal;
    }
  }

  take(holder: string): void {
    const { requestsPerSecond, clock } = this.#options;
    const waitUs = this.#table.take(holder, clock.nowMs(), this.#rule);
    if (waitUs === 0) return;
    const retryAfterSeconds = Math.max(1, Math.ceil(waitUs / secondUs));
    throw new FiletrackerError(
      'rate-limited',
      `Cannot take the request: ${requestsPerSecond} requests a second are allowed, try again in ${retryAfterSeconds} s`,
      { details: { retryAfterSeconds } },
    );
  }
}
