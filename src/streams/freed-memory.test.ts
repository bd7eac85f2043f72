import { describe, expect, it } from 'vitest';
import { freeNow } from './freed-memory.ts';

describe('freeNow()', () => {
  it('empties a large buffer that has its memory alone', () => {
    const buffer = Buffer.alloc(64 * 1024, 1);
    const { buffer: memory } = buffer;
    freeNow(buffer);
    expect([buffer.length, memory.byteLength]).toEqual([0, 0]);
    freeNow(buffer);
  });

  it('leaves buffers alone that are small or share their memory', () => {
    const shared = Buffer.alloc(64 * 1024, 1);
    const untouched = [
      shared.subarray(1),
      shared.subarray(0, -1),
      Buffer.alloc(16 * 1024 - 1, 1),
      // From the pool of Node.
      Buffer.from('small'),
      Buffer.from(new SharedArrayBuffer(64 * 1024)).fill(1),
    ];
    for (const buffer of untouched) {
      const { length } = buffer;
      freeNow(buffer);
      expect(buffer).toHaveLength(length);
    }
    expect(shared[0]).toBe(1);
  });
});
