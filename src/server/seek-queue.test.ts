import { describe, expect, it } from 'vitest';
import { seeksMax, seeksWaitingMax } from '../core/limits.ts';
import { SeekQueue } from './seek-queue.ts';

/** Senders that run, in the order in which they were let in; `end` ends the first of a sender. */
function started(queue: SeekQueue): {
  readonly order: string[];
  readonly ask: (sender: string) => void;
  readonly end: (sender: string) => Promise<void>;
} {
  const order: string[] = [];
  const ends = new Map<string, () => void>();
  return {
    order,
    ask: (sender) =>
      void queue.enter(sender).then((end) => {
        order.push(sender);
        ends.set(sender, end);
      }),
    end: async (sender) => {
      ends.get(sender)?.();
      await new Promise(setImmediate);
    },
  };
}

describe('SeekQueue', () => {
  it('lets senders take turns, one seek of each and as many as may run at once', async () => {
    const { order, ask, end } = started(new SeekQueue());
    for (const sender of ['a', 'a', 'a', 'b', 'b', 'c']) ask(sender);
    await end('nobody');
    expect(seeksMax).toBe(2);
    expect(order).toEqual(['a', 'b']);
    await end('a');
    // Not b, which has one running; a would be next only if no other sender waited.
    expect(order).toEqual(['a', 'b', 'a']);
    await end('b');
    await end('a');
    await end('b');
    await end('c');
    expect(order.toSorted()).toEqual(['a', 'a', 'a', 'b', 'b', 'c']);
  });

  it('refuses a sender with too many waiting seeks, and no other', async () => {
    const queue = new SeekQueue();
    const end = await queue.enter('a');
    const waiting = Array.from({ length: seeksWaitingMax }, () => queue.enter('a'));
    await expect(queue.enter('a')).rejects.toMatchObject({ code: 'rate-limited' });
    (await queue.enter('b'))();
    end();
    for (const next of waiting) (await next)();
    (await queue.enter('a'))();
  });
});
