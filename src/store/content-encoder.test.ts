import { gunzipSync, gzipSync } from 'node:zlib';
import { describe, expect, it } from 'vitest';
import { asyncPieces, collected, noise, prose } from '../../test/support/contents.ts';
import { encodeBytes, encodeChunks, littleMemory, ampleMemory } from './content-encoder.ts';

const kib = 1024;

describe('encodeBytes()', () => {
  it('takes the smaller form', async () => {
    expect(await encodeBytes(prose(4 * kib), 6)).toMatchObject({ encoding: 'gzip' });
    expect(await encodeBytes(noise(4 * kib), 6)).toMatchObject({ encoding: 'identity' });
    expect(await encodeBytes(Buffer.from('a b c'), 6)).toMatchObject({ encoding: 'identity' });
    // Looks as if it could pay, but is too short to.
    expect(await encodeBytes(noise(100), 6)).toMatchObject({ encoding: 'identity' });
    expect(await encodeBytes(Buffer.alloc(0), 6)).toMatchObject({ encoding: 'identity' });
  });

  it('compresses harder at a higher level', async () => {
    const [fast, small] = [await encodeBytes(prose(50 * kib), 1), await encodeBytes(prose(50 * kib), 9)];
    expect(small.bytes.length).toBeLessThan(fast.bytes.length);
  });
});

describe('encodeChunks()', () => {
  it.each([
    ['nothing', Buffer.alloc(0), 'identity'],
    ['text', prose(300 * kib), 'gzip'],
    ['a little text', prose(kib), 'gzip'],
    ['noise', noise(900 * kib), 'identity'],
    ['a little noise', noise(100 * kib), 'identity'],
    ['an archive of a picture and text', Buffer.concat([noise(300 * kib), prose(600 * kib)]), 'gzip'],
    ['gzip, and text behind it', Buffer.concat([gzipSync(noise(200 * kib)), prose(300 * kib)]), 'identity'],
  ] as const)('gives %s back', async (_what, content, encoding) => {
    const encoded = await encodeChunks(asyncPieces(content, 10_000), 6, ampleMemory);
    expect(encoded.encoding).toBe(encoding);
    const bytes = await collected(encoded.bytes);
    expect((encoding === 'gzip' ? gunzipSync(bytes) : bytes).equals(content)).toBe(true);
  });

  it('gives the same content in little memory', async () => {
    for (const content of [prose(300 * kib), noise(300 * kib)]) {
      const encoded = await encodeChunks(asyncPieces(content, 10_000), 6, littleMemory);
      const bytes = await collected(encoded.bytes);
      expect((encoded.encoding === 'gzip' ? gunzipSync(bytes) : bytes).equals(content)).toBe(true);
      expect(bytes.length).toBeLessThanOrEqual(content.length);
    }
  });

  it('passes on the failure of its source, before and after the decision', async () => {
    for (const good of [10 * kib, 800 * kib]) {
      const source = async function* (): AsyncGenerator<Buffer> {
        yield* asyncPieces(noise(good), 10_000);
        throw new Error('the peer went away');
      };
      const encoding = async (): Promise<Buffer> =>
        collected((await encodeChunks(source(), 6, ampleMemory)).bytes);
      await expect(encoding()).rejects.toThrow('went away');
    }
  });
});
