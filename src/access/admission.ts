import type { Exchange } from '../server/exchange.ts';

/** Decides whether a request is dealt with now. Asked once a request, when it is known who sent it. */
export interface RequestAdmission {
  /** @throws FiletrackerError `rate-limited` and the like. */
  admit(exchange: Exchange): void;
  /** What a request is refused with whose sender could not be told: `error`, or that there are too many of them. */
  refusalOf(exchange: Exchange, error: unknown): unknown;
}

export const admitAll: RequestAdmission = { admit: () => undefined, refusalOf: (_exchange, error) => error };

/** What `GET /metrics` shows. */
export interface MetricsSource {
  readonly contentType: string;
  /** The text of all metrics, of all processes that serve this store. */
  text(): Promise<string>;
}
