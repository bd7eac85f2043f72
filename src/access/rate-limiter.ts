import { randomBytes } from 'node:crypto';
import type { Clock } from '../core/clock.ts';
import { cannot } from '../core/errors.ts';
import { RateTable, type RateRule } from './rate-table.ts';

/** The sender of a request, as rates count it. */
export interface RequestSender {
  /** The name of the token, or the address of a request without one. */
  readonly sender: string;
  readonly connection: { readonly sender: string };
}

/** Decides whether a request is served now. Called once per request, after its author is known. */
export interface RequestAdmission {
  /** @throws FiletrackerError `rate-limited`. */
  admit(request: RequestSender): void;
  /** The error for a request whose author could not be identified: `error`, or `rate-limited`. */
  refusalOf(request: RequestSender, error: unknown): unknown;
}

export const admitAll: RequestAdmission = { admit: () => undefined, refusalOf: (_request, error) => error };

/** Groups of an IPv6 address that name a network; its holder chooses the rest. */
const networkGroups = 4;
const addressGroups = 8;

/**
 * The sender at an address, in brackets: no token can have such a name. IPv6 addresses count by network (/64), because
 * the holder of one has 2^64 addresses.
 */
export function senderOf(address: string): string {
  // IPv4, also as a dual-stack socket reports it (::ffff:192.0.2.1).
  if (!address.includes(':') || address.includes('.')) return `[${address}]`;
  const [plain = ''] = address.split('%');
  const [head = '', tail] = plain.split('::');
  const first = head === '' ? [] : head.split(':');
  const last = tail === undefined || tail === '' ? [] : tail.split(':');
  const zeros = Array.from({ length: Math.max(0, addressGroups - first.length - last.length) }, () => '0');
  return `[${[...first, ...zeros, ...last].slice(0, networkGroups).join(':')}::/64]`;
}

const secondUs = 1_000_000;

export interface RateLimiterOptions {
  /** Sustained requests per second of one sender; as many may come at once. */
  readonly requestsPerSecond: number;
  readonly clock: Clock;
  /** The table that the processes of one server share; a new one by default. */
  readonly table?: RateTable | undefined;
}

/**
 * Bounds the requests per second of each token and, without one, of each address.
 *
 * Invariant: all processes that share the table together admit at most one second's worth at once, and then the rate.
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

  /** @throws FiletrackerError `rate-limited`, with the time after which a retry is admitted. */
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
    const state = `the limit is ${requestsPerSecond} requests per second; try again in ${retryAfterSeconds} s`;
    throw cannot('rate-limited', 'serve the request', state, { details: { retryAfterSeconds } });
  }
}
