import { execFileSync } from 'node:child_process';
import { gunzipSync, gzipSync } from 'node:zlib';
import { assert, asyncProperty, integer } from 'fast-check';
import { describe, expect, it } from 'vitest';
import { asyncPieces, collected, noise, prose } from '../../test/support/contents.ts';
import { gunzipChunks } from './gzip-decoder.ts';
import { gzipBytes, gzipChunks } from './gzip-encoder.ts';

const kib = 1024;

describe('gzipChunks()', () => {
  it('gives one member that the system gunzip reads', async () => {
    const content = prose(1_000_000);
    const encoded = await collected(gzipChunks(asyncPieces(content, 10_000), { blockSizeBytes: 64 * kib }));
    const decoded = execFileSync('gunzip', ['-c'], { input: encoded, maxBuffer: 2e6 });
    expect(decoded.equals(content)).toBe(true);
  });

  it('gives the content back for any sizes of pieces and blocks', async () => {
    const content = Buffer.concat([prose(90_000), noise(70_000), prose(50_000, 'end')]);
    const cases = asyncProperty(
      integer({ min: 0, max: content.length }),
      integer({ min: 500, max: 100_000 }),
      integer({ min: 1_000, max: 100_000 }),
      integer({ min: 1, max: 5 }),
      async (sizeBytes, pieceSizeBytes, blockSizeBytes, blocksInFlight) => {
        const part = content.subarray(0, sizeBytes);
        const options = { blockSizeBytes, blocksInFlight };
        const encoded = await collected(gzipChunks(asyncPieces(part, pieceSizeBytes), options));
        expect(gunzipSync(encoded).equals(part)).toBe(true);
      },
    );
    await assert(cases, { numRuns: 40 });
  });

  it('is within 2% of what one pass gives', async () => {
    const content = prose(2_000_000);
    const encoded = await collected(gzipChunks(asyncPieces(content, 65_536)));
    expect(encoded.length).toBeLessThan(gzipSync(content).length * 1.02);
  });

  it('stores blocks that do not compress as they are', async () => {
    const content = noise(1_000_000);
    const encoded = await collected(gzipChunks(asyncPieces(content, 65_536)));
    expect(encoded.length).toBeLessThan(content.length * 1.001 + 100);
    expect(gunzipSync(encoded).equals(content)).toBe(true);
  });

  it('compresses harder at a higher level', async () => {
    const sizes = [];
    for (const level of [1, 9]) {
      sizes.push((await collected(gzipChunks(asyncPieces(prose(500_000), 65_536), { level }))).length);
    }
    expect(sizes[1]).toBeLessThan(sizes[0] ?? 0);
  });

  it('keeps to a ratio', async () => {
    const content = Buffer.concat([Buffer.alloc(20_000_000), prose(1000)]);
    const encoded = await collected(gzipChunks(asyncPieces(content, 65_536), { ratioMax: 200 }));
    expect(encoded.length).toBeLessThan(content.length / 190);
    expect(execFileSync('gunzip', ['-c'], { input: encoded, maxBuffer: 3e7 }).equals(content)).toBe(true);
    const bounds = { sizeMaxBytes: 1e9, ratioMax: 201 };
    const decoded = await collected(gunzipChunks(asyncPieces(encoded, 1000), bounds));
    expect(decoded.equals(content)).toBe(true);
  });

  it('asks its source for no more than the blocks in flight before it is read', async () => {
    let givenBytes = 0;
    const source = async function* (): AsyncGenerator<Buffer> {
      for (;;) {
        givenBytes += 10_000;
        yield noise(10_000);
      }
    };
    const reader = gzipChunks(source(), { blockSizeBytes: 20_000, blocksInFlight: 3 });
    await reader.next();
    await reader.next();
    expect(givenBytes).toBeLessThanOrEqual(60_000);
    await reader.return(undefined);
  });

  it('passes on the failure of its source', async () => {
    const failure = new Error('the file changed');
    const source = async function* (): AsyncGenerator<Buffer> {
      yield prose(500_000);
      throw failure;
    };
    await expect(collected(gzipChunks(source()))).rejects.toBe(failure);
  });
});

describe('gzipBytes()', () => {
  it.each([0, 1, 300, 4_096, 4_097, 8_192, 16_384, 16_385, 300_000])(
    'encodes %d bytes',
    async (sizeBytes) => {
      const content = prose(sizeBytes);
      const encoded = await gzipBytes(content);
      expect(gunzipSync(encoded).equals(content)).toBe(true);
      expect(encoded.length).toBeLessThanOrEqual(gzipSync(content).length * 1.01 + 4);
    },
  );

  it('encodes what is small at once and what is large off the main thread', () => {
    expect(Buffer.isBuffer(gzipBytes(prose(4_096)))).toBe(true);
    expect(gzipBytes(prose(40_000))).toBeInstanceOf(Promise);
  });
});
