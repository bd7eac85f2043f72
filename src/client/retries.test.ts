import { expect, test } from 'vitest';
import { FiletrackerError } from '../core/errors.ts';
import { Retries, withRetries } from './retries.ts';

const policy = { retriesMax: 2, firstPauseMs: 10, longestPauseMs: 15 };
const passing = new FiletrackerError('unavailable', 'Cannot do it: not now');

test('withRetries() tries again what may pass, and no more often than it is told', async () => {
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
