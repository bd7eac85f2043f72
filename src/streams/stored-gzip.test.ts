import { randomBytes } from 'node:crypto';
import { gunzipSync, gzipSync } from 'node:zlib';
import { describe, expect, it } from 'vitest';
import { gunzipAtOnce, gunzipBytes } from './gzip-decoder.ts';
import { storedContent } from './stored-gzip.ts';

const bounds = { sizeMaxBytes: 1024 * 1024 };

/** What zlib makes of some bytes: their content, or nothing. */
function byZlib(bytes: Uint8Array): Buffer | undefined {
  try {
    return gunzipSync(bytes);
  } catch {
    return undefined;
  }
}

describe('storedContent()', () => {
  it.each([1, 2, 15, 4096, 16_000])('reads %i bytes that a compressor has only wrapped', async (size) => {
    const content = randomBytes(size);
    for (const level of [0, 1, 6, 9]) {
      const bytes = gzipSync(content, { level });
      // Of a few bytes zlib makes a block with fixed codes.
      if (size > 15 || level === 0) expect(storedContent(bytes)?.equals(content)).toBe(true);
      expect((await gunzipBytes(bytes, bounds)).equals(content)).toBe(true);
    }
  });

  it('reads content of several blocks, and at any place in memory', () => {
    const content = randomBytes(200_000);
    const bytes = gzipSync(content, { level: 0 });
    expect(storedContent(bytes)?.equals(content)).toBe(true);
    const shifted = Buffer.concat([Buffer.from('x'), bytes]).subarray(1);
    expect(storedContent(new Uint8Array(shifted))?.equals(content)).toBe(true);
  });

  it('reads empty content', () => {
    expect(storedContent(gzipSync(Buffer.alloc(0), { level: 0 }))).toEqual(Buffer.alloc(0));
  });

  it('leaves compressed content, several members and further header fields to zlib', () => {
    const stored = gzipSync(randomBytes(100), { level: 0 });
    const named = Buffer.concat([stored.subarray(0, 10), Buffer.from('name\0'), stored.subarray(10)]);
    named[3] = 8;
    for (const bytes of [gzipSync(Buffer.alloc(100)), Buffer.concat([stored, stored]), named]) {
      expect(storedContent(bytes)).toBeUndefined();
      expect(gunzipAtOnce(bytes, bounds)).toEqual(gunzipSync(bytes));
    }
  });

  it('reads nothing that zlib refuses, and nothing else than zlib, whichever bit is wrong', () => {
    const whole = gzipSync(randomBytes(64), { level: 0 });
    for (let bit = 0; bit < whole.length * 8; bit += 1) {
      const bytes = Buffer.from(whole);
      bytes[bit >> 3] = (bytes[bit >> 3] ?? 0) ^ (1 << (bit & 7));
      const read = storedContent(bytes);
      if (read !== undefined) expect(read).toEqual(byZlib(bytes));
    }
    for (let size = 0; size < whole.length; size += 1) {
      expect(storedContent(whole.subarray(0, size))).toBeUndefined();
    }
    expect(storedContent(Buffer.concat([whole, Buffer.from([0])]))).toBeUndefined();
  });

  it('keeps to the bounds of the decoder', () => {
    const bytes = gzipSync(randomBytes(1000), { level: 0 });
    expect(() => gunzipAtOnce(bytes, { sizeMaxBytes: 999 })).toThrow('it unpacks to more than 999 bytes');
    expect(gunzipAtOnce(bytes, { sizeMaxBytes: 1000 })).toHaveLength(1000);
  });
});
