import type { Exchange } from './exchange.ts';

/** Is told of every request when it is over: for the log and for metrics. */
export interface RequestObserver {
  answered(exchange: Exchange): void;
  /** A connection whose bytes were no request; `status` is what it was answered. */
  refusedConnection(remoteAddress: string, status: number, reason: string): void;
}

export const silentObserver: RequestObserver = {
  answered: () => undefined,
  refusedConnection: () => undefined,
};
