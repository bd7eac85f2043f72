import type { Exchange } from './exchange.ts';

/** Is called when a request is over: for the log and for metrics. */
export interface RequestObserver {
  answered(exchange: Exchange): void;
  /** A connection that was closed or refused without a request; `status` is that of the response, 0 if there was none. */
  refusedConnection(remoteAddress: string, status: number, reason: string): void;
}

export const silentObserver: RequestObserver = {
  answered: () => undefined,
  refusedConnection: () => undefined,
};

/** The body of `GET /metrics`. */
export interface MetricsSource {
  readonly contentType: string;
  /** The metrics of all processes that serve this store. */
  text(): Promise<string>;
}

/** Two observers as one. */
export function bothObservers(one: RequestObserver, other: RequestObserver): RequestObserver {
  return {
    answered: (exchange) => {
      one.answered(exchange);
      other.answered(exchange);
    },
    refusedConnection: (remoteAddress, status, reason) => {
      one.refusedConnection(remoteAddress, status, reason);
      other.refusedConnection(remoteAddress, status, reason);
    },
  };
}
