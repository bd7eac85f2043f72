import { PassThrough, Readable } from 'node:stream';
import { describe, expect, it } from 'vitest';
import { asyncPieces, collected, noise, pieces } from '../../test/support/contents.ts';
import { GatheredBytes } from '../streams/chunks.ts';
import { collectAnnounced, collectInMemory, type CollectedBody } from './body-collector.ts';
import { MemoryBudget } from '../core/memory-budget.ts';

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

describe('collectAnnounced()', () => {
  const signal = undefined;
  const streamed = (bytes: Buffer, pieceSizeBytes: number): Readable =>
    Readable.from(pieces(bytes, pieceSizeBytes), { objectMode: false });

  it.each([
    [10_000, 777, 20_777, true],
    [10_000, 10_000, 10_000, true],
    [10_000, 777, 11_000, false],
    [10_000, 777, 0, false],
    [1, 1, 1, true],
  ] as const)(
    'collects %d bytes in pieces of %d with %d free: %s',
    async (sizeBytes, pieceSizeBytes, freeBytes, whole) => {
      const budget = new MemoryBudget(freeBytes);
      const expected = content.subarray(0, sizeBytes);
      const options = { budget, freesPieces: false, signal };
      const body = await collectAnnounced(streamed(expected, pieceSizeBytes), sizeBytes, options);
      expect(isWhole(body)).toBe(whole);
      expect((await bytesOf(body)).equals(expected)).toBe(true);
      await body.release();
      await body.release();
      expect([isFull(budget, freeBytes), isFull(budget, freeBytes + 1)]).toEqual([false, true]);
    },
  );

  it('takes the memory for all of a body when a quarter of it has come, and no more than came before', async () => {
    const budget = new MemoryBudget(30_000);
    const source = new PassThrough();
    const collecting = collectAnnounced(source, 10_000, { budget, freesPieces: false, signal });
    const taken = async (bytes: Buffer): Promise<void> => {
      const drained = new Promise((resolve) => setImmediate(resolve));
      source.write(bytes);
      await drained;
    };
    await taken(content.subarray(0, 100));
    expect([isFull(budget, 29_900), isFull(budget, 29_901)]).toEqual([false, true]);
    await taken(content.subarray(100, 3_000));
    expect([isFull(budget, 20_000), isFull(budget, 20_001)]).toEqual([false, true]);
    source.end(content.subarray(3_000));
    const body = await collecting;
    expect((await bytesOf(body)).equals(content)).toBe(true);
    await body.release();
    expect(isFull(budget, 30_000)).toBe(false);
  });

  it('leaves half of the memory to small bodies when a large one comes', async () => {
    const large = noise(3_000_000);
    const budget = new MemoryBudget(5_000_000);
    const body = await collectAnnounced(streamed(large, 65_536), large.length, {
      budget,
      freesPieces: false,
      signal,
    });
    expect(isWhole(body)).toBe(false);
    expect((await bytesOf(body)).equals(large)).toBe(true);
    await body.release();
  });

  it('refuses a body that is shorter or longer than announced, and gives its share back', async () => {
    const budget = new MemoryBudget(50_000);
    const options = { budget, freesPieces: false, signal };
    await expect(collectAnnounced(streamed(content, 777), 10_001, options)).rejects.toMatchObject({
      code: 'truncated-body',
    });
    await expect(collectAnnounced(streamed(content, 777), 9_999, options)).rejects.toMatchObject({
      code: 'size-mismatch',
    });
    const stopped = new AbortController();
    const source = new PassThrough();
    source.write(content.subarray(0, 5_000));
    const aborted = collectAnnounced(source, 10_000, { ...options, signal: stopped.signal });
    stopped.abort(new Error('the sender is too slow'));
    await expect(aborted).rejects.toMatchObject({ code: 'aborted' });
    expect(isFull(budget, 50_000)).toBe(false);
  });

  it('frees the memory of a body at once only when nothing uses it', async () => {
    for (const isUnused of [true, false]) {
      const large = noise(100_000);
      const budget = new MemoryBudget(1_000_000);
      const options = { budget, freesPieces: false, signal };
      const body = await collectAnnounced(streamed(large, 30_000), large.length, options);
      const bytes = await bytesOf(body);
      await body.release(isUnused);
      expect(bytes).toHaveLength(isUnused ? 0 : 100_000);
    }
  });
});
