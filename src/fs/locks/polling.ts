import { abortedError, Backoff, throwIfAborted } from '../../core/concurrency.ts';
import { pause } from '../../core/timers.ts';

/** Pauses between two attempts to take a lock. */
const pauses = { firstMs: 1, maxMs: 25, factor: 1.5 };

/**
 * Tries until a lock is free: at most every 25 ms, with random pauses, so that waiters do not try in step.
 * `action` completes "Cannot …". @throws FiletrackerError `aborted`.
 */
export async function polled<Lock>(
  action: string,
  signal: AbortSignal | undefined,
  tryAcquire: () => Promise<Lock | undefined> | Lock | undefined,
): Promise<Lock> {
  const backoff = new Backoff(pauses);
  for (;;) {
    throwIfAborted(signal, action);
    const lock = await tryAcquire();
    if (lock !== undefined) return lock;
    await pause(backoff.next(), signal).catch((error: unknown) => {
      throw abortedError(action, error);
    });
  }
}
