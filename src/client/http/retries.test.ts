import { expect, test } from 'vitest';
import { FiletrackerError } from '../../core/errors.ts';
import { Retries, withRetries } from './retries.ts';

const policy = { retriesMax: 2, firstPauseMs: 10, longestPauseMs: 15, retryForMs: 0 };
const passing = new FiletrackerError('unavailable', 'Cannot do it: not now');

test('withRetries() tries again what may pass, and no more often than its policy allows', async () => {
  let tries = 0;
  const failing = (error: Error) => (): Promise<never> => {
    tries += 1;
    return Promise.reject(error);
  };
  const began = performance.now();
  await expect(withRetries(policy, undefined, failing(passing))).rejects.toBe(passing);
  expect(tries).toBe(3);
  expect(performance.now() - began).toBeGreaterThanOrEqual(12);
  for (const final of [new FiletrackerError('forbidden', 'Cannot do it: no'), new Error('a bug')]) {
    tries = 0;
    await expect(withRetries(policy, undefined, failing(final))).rejects.toBe(final);
    expect(tries).toBe(1);
  }
});

test('withRetries() waits for a server that is away, less long for one that it never reached', async () => {
  const away = new FiletrackerError('unreachable', 'Cannot do it: no server answers there', {
    retryable: true,
  });
  const told = new FiletrackerError('unavailable', 'Cannot do it: it starts', { details: { status: 503 } });
  const patient = { ...policy, retryForMs: 400, retryUnknownForMs: 100 };
  const waitedMs = async (failure: Error, isReached: boolean, waiting = patient): Promise<number> => {
    const began = performance.now();
    const attempt = (): Promise<never> => Promise.reject(failure);
    const put = withRetries(waiting, undefined, attempt, () => isReached);
    await expect(put).rejects.toBe(failure);
    return performance.now() - began;
  };
  expect(await waitedMs(away, true)).toBeGreaterThanOrEqual(395);
  expect(await waitedMs(told, false)).toBeGreaterThanOrEqual(395);
  expect(await waitedMs(away, false)).toBeGreaterThanOrEqual(95);
  expect(await waitedMs(away, false, { ...patient, retryForMs: 600_000 })).toBeLessThan(60_000);
  // Another failure, which waiting does not cure, is only counted.
  const slow = new FiletrackerError('timeout', 'Cannot do it: it stands still');
  expect(await waitedMs(slow, true, { ...patient, retryForMs: 600_000 })).toBeLessThan(60_000);
});

test('withRetries() tries once more after a time-out, or as often as the policy says', async () => {
  const slow = new FiletrackerError('timeout', 'Cannot do it: it stands still');
  const triesWith = async (timeoutRetriesMax?: number): Promise<number> => {
    let tries = 0;
    const attempt = (): Promise<never> => {
      tries += 1;
      return Promise.reject(slow);
    };
    await expect(withRetries({ ...policy, timeoutRetriesMax }, undefined, attempt)).rejects.toBe(slow);
    return tries;
  };
  expect(await triesWith()).toBe(2);
  expect(await triesWith(0)).toBe(1);
  expect(await triesWith(9)).toBe(3);
});

test('Retries waits as long as the server asks for, but not for ever', async () => {
  const asking = (retryAfterSeconds: number): FiletrackerError =>
    new FiletrackerError('rate-limited', 'Cannot do it: later', { details: { retryAfterSeconds } });
  const began = performance.now();
  await new Retries(policy, undefined).pauseAfter(asking(0.2));
  expect(performance.now() - began).toBeGreaterThanOrEqual(195);
  const tooLong = asking(3600);
  await expect(new Retries(policy, undefined).pauseAfter(tooLong)).rejects.toBe(tooLong);
});

test('Retries stops waiting when it is aborted', async () => {
  const stop = new AbortController();
  const waiting = new Retries(
    { ...policy, firstPauseMs: 5000, longestPauseMs: 5000 },
    stop.signal,
  ).pauseAfter(passing);
  stop.abort();
  await expect(waiting).rejects.toMatchObject({ code: 'aborted' });
});
