import { PassThrough, Readable } from 'node:stream';
import { describe, expect, it } from 'vitest';
import { collected, noise, pieces } from '../../test/support/contents.ts';
import { bodyBlocks, readPieces, type BlocksOptions } from './body-reader.ts';

const content = noise(10_000);

function streamOf(bytes: Buffer, pieceSizeBytes: number): Readable {
  return Readable.from(pieces(bytes, pieceSizeBytes), { objectMode: false });
}

function options(changes: Partial<BlocksOptions> = {}): BlocksOptions {
  return { blockSize: () => 1_000, freesPieces: false, signal: undefined, ...changes };
}

describe('readPieces()', () => {
  it('passes every piece and resolves to true at the end', async () => {
    const taken: Buffer[] = [];
    const ended = await readPieces(streamOf(content, 777), (piece) => taken.push(piece) > 0);
    expect(ended).toBe(true);
    expect(Buffer.concat(taken).equals(content)).toBe(true);
  });

  it('leaves the rest in the stream, and no listener on it, when the taker stops it', async () => {
    const source = streamOf(content, 777);
    const listeners = (): number[] =>
      ['readable', 'error', 'end', 'close'].map((name) => source.listenerCount(name));
    const before = listeners();
    const taken: Buffer[] = [];
    expect(await readPieces(source, (piece) => taken.push(piece) < 1)).toBe(false);
    expect(listeners()).toEqual(before);
    expect(source.destroyed).toBe(false);
    expect(Buffer.concat([...taken, await collected(source)]).equals(content)).toBe(true);
  });

  it('fails as the stream fails, as the signal says, and as the taker does', async () => {
    const failing = new PassThrough();
    const reading = readPieces(failing, () => true);
    failing.destroy(new Error('the peer went away'));
    await expect(reading).rejects.toMatchObject({ code: 'aborted' });
    const { signal, abort } = controlled();
    const silent = new PassThrough();
    const waiting = readPieces(silent, () => true, signal);
    abort();
    await expect(waiting).rejects.toMatchObject({
      code: 'aborted',
      message: expect.stringContaining('slow'),
    });
    await expect(readPieces(silent, () => true, signal)).rejects.toMatchObject({ code: 'aborted' });
    expect(silent.destroyed).toBe(false);
    const refusal = new Error('too much');
    const refused = readPieces(streamOf(content, 777), () => {
      throw refusal;
    });
    await expect(refused).rejects.toBe(refusal);
  });

  it('fails for a stream that was destroyed before, and ends for one that has ended', async () => {
    const destroyed = new PassThrough();
    destroyed.destroy();
    await expect(readPieces(destroyed, () => true)).rejects.toMatchObject({ code: 'aborted' });
    const empty = Readable.from([]);
    expect(await readPieces(empty, () => true)).toBe(true);
    expect(await readPieces(empty, () => true)).toBe(true);
  });
});

function controlled(): { readonly signal: AbortSignal; readonly abort: () => void } {
  const controller = new AbortController();
  return { signal: controller.signal, abort: () => controller.abort(new Error('the sender is too slow')) };
}

describe('bodyBlocks()', () => {
  it.each([1, 333, 999, 1_000, 1_001, 2_000, 2_500, 10_000])(
    'cuts pieces of %d bytes to blocks of 1,000',
    async (pieceSizeBytes) => {
      const source = streamOf(content, pieceSizeBytes);
      const blocks: Buffer[] = [];
      for await (const block of bodyBlocks(source, options())) blocks.push(block);
      expect(blocks.map((block) => block.length)).toEqual(Array.from({ length: 10 }, () => 1_000));
      expect(Buffer.concat(blocks).equals(content)).toBe(true);
    },
  );

  it('passes pieces as they come until the size of blocks is known', async () => {
    let asked = 0;
    const blockSize = (): number | undefined => (++asked > 2 ? 3_000 : undefined);
    const sizes: number[] = [];
    for await (const piece of bodyBlocks(streamOf(content, 777), options({ blockSize }))) {
      sizes.push(piece.length);
    }
    expect(sizes).toEqual([777, 777, 3_000, 3_000, 10_000 - 2 * 777 - 6_000]);
    expect(asked).toBe(3);
  });

  it('passes nothing of an empty body', async () => {
    expect(await collected(bodyBlocks(Readable.from([]), options()))).toHaveLength(0);
  });

  it('throws a failure that came between two steps', async () => {
    const source = new PassThrough();
    const blocks = bodyBlocks(source, options());
    source.write(content.subarray(0, 1_000));
    expect((await blocks.next()).value).toHaveLength(1_000);
    source.destroy(new Error('the peer went away'));
    await new Promise((resolve) => source.once('close', resolve));
    await expect(blocks.next()).rejects.toMatchObject({ code: 'aborted' });
    expect(source.listenerCount('error')).toBe(0);
  });

  it('frees pieces only if they are its own', async () => {
    for (const freesPieces of [true, false]) {
      const given = Array.from({ length: 4 }, (_, index) => Buffer.alloc(64 * 1024, index));
      const source = Readable.from(given, { objectMode: false });
      const blockSize = (): number => 128 * 1024;
      const whole = await collected(bodyBlocks(source, options({ freesPieces, blockSize })));
      expect(whole).toHaveLength(256 * 1024);
      expect([0, 1, 2, 3].every((index) => whole[index * 64 * 1024] === index)).toBe(true);
      expect(given.map((piece) => piece.length)).toEqual(given.map(() => (freesPieces ? 0 : 64 * 1024)));
    }
  });
});
