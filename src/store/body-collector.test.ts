import { describe, expect, it } from 'vitest';
import { asyncPieces, collected, noise } from '../../test/support/contents.ts';
import { GatheredBytes } from '../streams/chunks.ts';
import { collectInMemory, MemoryBudget, type CollectedBody } from './body-collector.ts';

const content = noise(10_000);

function isWhole(body: CollectedBody): boolean {
  return body.received instanceof GatheredBytes;
}

async function bytesOf({ received }: CollectedBody): Promise<Buffer> {
  return received instanceof GatheredBytes ? received.join() : await collected(received);
}

function isFull(budget: MemoryBudget, freeBytes: number): boolean {
  const fits = budget.tryTake(freeBytes);
  if (fits) budget.giveBack(freeBytes);
  return !fits;
}

describe('collectInMemory()', () => {
  it.each([
    [10_000, 20_000, true],
    [9_999, 20_000, false],
    [10_000, 9_999, false],
    [0, 0, false],
  ] as const)('collects up to %d bytes with %d free: %s', async (sizeMaxBytes, freeBytes, whole) => {
    const budget = new MemoryBudget(freeBytes);
    const body = await collectInMemory(asyncPieces(content, 777), { sizeMaxBytes, budget });
    expect(isWhole(body)).toBe(whole);
    expect((await bytesOf(body)).equals(content)).toBe(true);
    await body.release();
    expect(isFull(budget, freeBytes)).toBe(false);
  });

  it('takes no more of the budget than is left', async () => {
    const budget = new MemoryBudget(15_000);
    const limits = { sizeMaxBytes: 20_000, budget };
    const first = await collectInMemory(asyncPieces(content, 777), limits);
    expect(isFull(budget, 5_001)).toBe(true);
    expect(isFull(budget, 5_000)).toBe(false);
    const second = await collectInMemory(asyncPieces(content, 777), limits);
    expect([isWhole(first), isWhole(second)]).toEqual([true, false]);
    expect((await bytesOf(second)).equals(content)).toBe(true);
    await first.release();
    await second.release();
    expect(isFull(budget, 15_000)).toBe(false);
  });

  it('gives its share back when a large body passes as a stream', async () => {
    const budget = new MemoryBudget(10_000);
    const { received, release } = await collectInMemory(asyncPieces(content, 777), {
      sizeMaxBytes: 5_000,
      budget,
    });
    if (received instanceof GatheredBytes) throw new Error('expected a stream');
    for await (const chunk of received) {
      expect(chunk.length).toBeGreaterThan(0);
      expect(isFull(budget, 10_000)).toBe(false);
    }
    await release();
  });

  it('gives its share back after a failure of the body, and once at release', async () => {
    const budget = new MemoryBudget(10_000);
    const failing = async function* (): AsyncGenerator<Buffer> {
      yield content.subarray(0, 5_000);
      throw new Error('the peer went away');
    };
    const limits = { sizeMaxBytes: 20_000, budget };
    await expect(collectInMemory(failing(), limits)).rejects.toThrow('went away');
    expect(isFull(budget, 10_000)).toBe(false);
    const body = await collectInMemory(asyncPieces(content, 777), limits);
    expect(isFull(budget, 10_000)).toBe(true);
    await body.release();
    await body.release();
    expect(isFull(budget, 10_000)).toBe(false);
    expect(isFull(budget, 10_001)).toBe(true);
  });
});
