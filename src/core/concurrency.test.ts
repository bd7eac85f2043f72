import { describe, expect, it } from 'vitest';
import { Backoff, Semaphore, SingleFlight } from './concurrency.ts';

describe('Semaphore', () => {
  it('admits waiters in order of arrival, and those behind one that gives up', async () => {
    const semaphore = new Semaphore(4);
    const order: string[] = [];
    const first = await semaphore.acquire('wait', { count: 3 });
    const controller = new AbortController();
    const many = semaphore
      .acquire('wait', { count: 2, signal: controller.signal })
      .then(() => order.push('many'));
    const one = semaphore.acquire('wait').then((release) => {
      order.push('one');
      return release;
    });
    await new Promise(setImmediate);
    expect(order).toEqual([]);
    controller.abort();
    await expect(many).rejects.toMatchObject({ code: 'aborted', message: 'Cannot wait: it was aborted' });
    (await one)();
    expect(order).toEqual(['one']);
    first();
    first();
    // All permits, if more are wanted than there are; a permit returned twice counts once.
    const all = await semaphore.acquire('wait', { count: 100 });
    let taken = false;
    const next = semaphore.acquire('wait').then(() => (taken = true));
    await new Promise(setImmediate);
    expect(taken).toBe(false);
    all();
    await next;
  });
});

describe('SingleFlight', () => {
  it('shares one run among the callers that arrive while it runs', async () => {
    const flight = new SingleFlight<number>();
    let runs = 0;
    const work = async (): Promise<number> => {
      runs += 1;
      await new Promise(setImmediate);
      return runs;
    };
    expect(await Promise.all([flight.run(work), flight.run(work)])).toEqual([1, 1]);
    expect(flight.running).toBeUndefined();
    expect(await flight.run(work)).toBe(2);
  });
});

describe('Backoff', () => {
  it('grows up to its maximum, and starts again after a reset', () => {
    const backoff = new Backoff({ firstMs: 100, maxMs: 300 });
    for (const fullMs of [100, 200, 300, 300]) {
      const pauseMs = backoff.next();
      expect(pauseMs).toBeGreaterThanOrEqual(fullMs / 2);
      expect(pauseMs).toBeLessThanOrEqual(fullMs);
    }
    backoff.reset();
    expect(backoff.next()).toBeLessThanOrEqual(100);
  });
});
