/** The longest delay of a Node timer, in milliseconds: 24.8 days. A timer with a longer one fires at once. */
export const timerMaxMs = 2 ** 31 - 1;

/**
 * A delay capped to what a timer supports: for time-outs, which may end after 24.8 days, and for work that may run
 * early.
 */
export function timerMs(delayMs: number): number {
  return Math.min(delayMs, timerMaxMs);
}

/** Waits for any time, in milliseconds. @throws the reason of `signal` if it is aborted first. */
export async function pause(delayMs: number, signal?: AbortSignal): Promise<void> {
  signal?.throwIfAborted();
  await new Promise<void>((resolve, reject) => {
    let leftMs = delayMs;
    let timer: NodeJS.Timeout;
    const onAbort = (): void => {
      clearTimeout(timer);
      reject(signal?.reason as Error);
    };
    const wait = (): void => {
      const partMs = timerMs(leftMs);
      leftMs -= partMs;
      timer = setTimeout(leftMs > 0 ? wait : end, partMs);
    };
    const end = (): void => {
      signal?.removeEventListener('abort', onAbort);
      resolve();
    };
    signal?.addEventListener('abort', onAbort, { once: true });
    wait();
  });
}
