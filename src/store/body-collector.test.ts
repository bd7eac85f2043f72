import { describe, expect, it } from 'vitest';
import { asyncPieces, collected, noise } from '../../test/support/contents.ts';
import { MemoryBudget, withCollectedBody, type CollectedBody } from './body-collector.ts';

const content = noise(10_000);

async function bytesOf(body: CollectedBody): Promise<Buffer> {
  return body.kind === 'whole' ? body.bytes.join() : await collected(body.chunks);
}

function isFull(budget: MemoryBudget, freeBytes: number): boolean {
  const fits = budget.tryTake(freeBytes);
  if (fits) budget.giveBack(freeBytes);
  return !fits;
}

describe('withCollectedBody()', () => {
  it.each([
    [10_000, 20_000, 'whole'],
    [9_999, 20_000, 'too-large'],
    [10_000, 9_999, 'too-large'],
    [0, 0, 'too-large'],
  ] as const)('collects up to %d bytes with %d free: %s', async (sizeMaxBytes, freeBytes, kind) => {
    const budget = new MemoryBudget(freeBytes);
    const limits = { sizeMaxBytes, budget };
    await withCollectedBody(asyncPieces(content, 777), limits, async (body) => {
      expect(body.kind).toBe(kind);
      expect((await bytesOf(body)).equals(content)).toBe(true);
    });
    expect(isFull(budget, freeBytes)).toBe(false);
  });

  it('holds its share of the budget while the body is used', async () => {
    const budget = new MemoryBudget(15_000);
    const limits = { sizeMaxBytes: 20_000, budget };
    await withCollectedBody(asyncPieces(content, 777), limits, async () => {
      expect(isFull(budget, 5_001)).toBe(true);
      expect(isFull(budget, 5_000)).toBe(false);
      await withCollectedBody(asyncPieces(content, 777), limits, async (second) => {
        expect(second.kind).toBe('too-large');
        expect((await bytesOf(second)).equals(content)).toBe(true);
      });
    });
    expect(isFull(budget, 15_000)).toBe(false);
  });

  it('gives its share back when a large body goes on as a stream', async () => {
    const budget = new MemoryBudget(10_000);
    await withCollectedBody(asyncPieces(content, 777), { sizeMaxBytes: 5_000, budget }, async (body) => {
      if (body.kind === 'whole') throw new Error('expected a stream');
      for await (const chunk of body.chunks) {
        expect(chunk.length).toBeGreaterThan(0);
        expect(isFull(budget, 10_000)).toBe(false);
      }
    });
  });

  it('gives its share back after a failure of the body or of its use', async () => {
    const budget = new MemoryBudget(10_000);
    const failing = async function* (): AsyncGenerator<Buffer> {
      yield content.subarray(0, 5_000);
      throw new Error('the peer went away');
    };
    const limits = { sizeMaxBytes: 20_000, budget };
    await expect(withCollectedBody(failing(), limits, bytesOf)).rejects.toThrow('went away');
    const use = async (): Promise<void> => {
      throw new Error('no use');
    };
    await expect(withCollectedBody(asyncPieces(content, 777), limits, use)).rejects.toThrow('no use');
    expect(isFull(budget, 10_000)).toBe(false);
  });
});
