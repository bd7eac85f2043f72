import { describe, expect, it } from 'vitest';
import { noise } from '../../test/support/contents.ts';
import { readCacheItemMaxBytes } from '../core/limits.ts';
import { ReadCache } from './read-cache.ts';

describe('ReadCache', () => {
  it('loads once what many ask for at the same time', async () => {
    const cache = new ReadCache(1_000_000);
    let loads = 0;
    const load = async (): Promise<Buffer> => {
      loads += 1;
      await new Promise((resolve) => setTimeout(resolve, 5));
      return noise(100);
    };
    const loaded = await Promise.all(Array.from({ length: 50 }, () => cache.load('a', load)));
    expect(loads).toBe(1);
    expect(new Set(loaded).size).toBe(1);
    expect(cache.get('a')).toBe(loaded[0]);
  });

  it('keeps nothing of a load that fails or finds nothing', async () => {
    const cache = new ReadCache(1_000_000);
    await expect(cache.load('a', async () => Promise.reject(new Error('no disk')))).rejects.toThrow(
      'no disk',
    );
    expect(await cache.load('a', async () => undefined)).toBeUndefined();
    expect((await cache.load('a', async () => noise(10)))?.length).toBe(10);
  });

  it('stays within its bound, and lets what was not used go first', async () => {
    const cache = new ReadCache(10_000);
    const put = (key: string): Promise<Buffer | undefined> => cache.load(key, async () => noise(2_000));
    for (const key of ['a', 'b', 'c', 'd']) await put(key);
    expect(cache.get('a')).toBeDefined();
    await put('e');
    expect(['a', 'b', 'c', 'd', 'e'].map((key) => cache.get(key) !== undefined)).toEqual([
      true,
      false,
      true,
      true,
      true,
    ]);
  });

  it('does not keep what is too large, nor anything without memory', async () => {
    const cache = new ReadCache(64 * 1024 * 1024);
    await cache.load('large', async () => noise(readCacheItemMaxBytes + 1));
    expect(cache.get('large')).toBeUndefined();
    const none = new ReadCache(0);
    expect((await none.load('a', async () => noise(10)))?.length).toBe(10);
    expect(none.get('a')).toBeUndefined();
  });
});
