import { cannot, type FiletrackerError } from './errors.ts';

/** The options that every asynchronous call takes. */
export interface CallOptions {
  /** Aborts the call, which then rejects with the code `aborted`. */
  readonly signal?: AbortSignal | undefined;
}

/** The error of an aborted operation. `action` completes "Cannot …". */
export function abortedError(action: string, cause: unknown): FiletrackerError {
  return cannot('aborted', action, 'it was aborted', { cause });
}

/** @throws FiletrackerError `aborted` if `signal` is aborted. `action` completes "Cannot …". */
export function throwIfAborted(signal: AbortSignal | undefined, action: string): void {
  if (signal?.aborted === true) throw abortedError(action, signal.reason);
}

/**
 * As `Promise.all`, but a rejection waits until every promise has settled: for disk operations that must not be
 * running when the caller continues.
 */
export async function allSettledOrThrow<Value>(promises: readonly Promise<Value>[]): Promise<Value[]> {
  await Promise.allSettled(promises);
  return Promise.all(promises);
}

/**
 * A counting semaphore. Waiters are admitted in order of arrival, so that one that wants many permits is not starved.
 *
 * Invariant: the permits held and the free ones add up to `permits`.
 */
export class Semaphore {
  readonly #permits: number;
  readonly #waiting: { readonly wanted: number; readonly enter: () => void }[] = [];
  #free: number;

  constructor(permits: number) {
    this.#permits = permits;
    this.#free = permits;
  }

  /**
   * Waits for `count` permits, or for all if `count` exceeds them. Resolves to a function that returns them; its
   * second call does nothing. `action` completes "Cannot …". @throws FiletrackerError `aborted`.
   */
  async acquire(
    action: string,
    { count = 1, signal }: { readonly count?: number; readonly signal?: AbortSignal | undefined } = {},
  ): Promise<() => void> {
    const wanted = Math.min(count, this.#permits);
    if (this.#waiting.length === 0 && this.#free >= wanted) this.#free -= wanted;
    else await this.#wait(wanted, signal, action);
    let held = true;
    return () => {
      if (!held) return;
      held = false;
      this.#free += wanted;
      this.#admit();
    };
  }

  #admit(): void {
    for (
      let next = this.#waiting[0];
      next !== undefined && this.#free >= next.wanted;
      next = this.#waiting[0]
    ) {
      this.#waiting.shift();
      this.#free -= next.wanted;
      next.enter();
    }
  }

  #wait(wanted: number, signal: AbortSignal | undefined, action: string): Promise<void> {
    return new Promise((resolve, reject) => {
      const enter = (): void => {
        signal?.removeEventListener('abort', leave);
        resolve();
      };
      const waiter = { wanted, enter };
      const leave = (): void => {
        const at = this.#waiting.indexOf(waiter);
        if (at !== -1) this.#waiting.splice(at, 1);
        // A later waiter that wants fewer permits may have been waiting for this one only.
        this.#admit();
        reject(abortedError(action, signal?.reason));
      };
      signal?.addEventListener('abort', leave, { once: true });
      this.#waiting.push(waiter);
      if (signal?.aborted === true) leave();
    });
  }
}

/** Runs one piece of work at a time: callers that arrive while it runs share its result. */
export class SingleFlight<Result> {
  #running: Promise<Result> | undefined;

  /** The run under way; `undefined` if there is none. */
  get running(): Promise<Result> | undefined {
    return this.#running;
  }

  run(work: () => Promise<Result>): Promise<Result> {
    this.#running ??= work().finally(() => {
      this.#running = undefined;
    });
    return this.#running;
  }
}

/** Pauses between attempts, in milliseconds. */
export interface BackoffPolicy {
  readonly firstMs: number;
  readonly maxMs: number;
  /** Growth from one pause to the next; 2 by default. */
  readonly factor?: number;
}

/** The growing pauses between the attempts of one operation. */
export class Backoff {
  readonly #policy: BackoffPolicy;
  #nextMs: number;

  constructor(policy: BackoffPolicy) {
    this.#policy = policy;
    this.#nextMs = policy.firstMs;
  }

  /** The next pause, shortened by up to half at random, so that many waiters do not retry in step. */
  next(): number {
    const pauseMs = this.#nextMs;
    this.#nextMs = Math.min(pauseMs * (this.#policy.factor ?? 2), this.#policy.maxMs);
    return pauseMs * (0.5 + Math.random() / 2);
  }

  /** Starts again with the first pause. */
  reset(): void {
    this.#nextMs = this.#policy.firstMs;
  }
}
