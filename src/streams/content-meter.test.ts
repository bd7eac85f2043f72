import { Readable } from 'node:stream';
import { describe, expect, it } from 'vitest';
import { asyncPieces, collected, noise } from '../../test/support/contents.ts';
import { digestOf } from '../core/digest.ts';
import { FiletrackerError } from '../core/errors.ts';
import { blocksOf, bodyChunks } from './chunks.ts';
import { boundedChunks, ContentMeter } from './content-meter.ts';

const content = noise(10_000);

describe('ContentMeter', () => {
  it('measures what it passes on', async () => {
    const meter = new ContentMeter();
    const passed = await collected(meter.measure(asyncPieces(content, 777)));
    expect(passed.equals(content)).toBe(true);
    expect(meter.finish()).toEqual({ digest: digestOf(content), sizeBytes: 10_000 });
  });
});

describe('boundedChunks()', () => {
  const excess = (): Error => new Error('too many');
  const shortage = (sizeBytes: number): Error => new Error(`only ${sizeBytes}`);

  it('takes exactly the largest size and fails one byte beyond', async () => {
    const whole = await collected(boundedChunks(asyncPieces(content, 777), { sizeMaxBytes: 10_000, excess }));
    expect(whole.length).toBe(10_000);
    const bounds = { sizeMaxBytes: 9_999, excess };
    await expect(collected(boundedChunks(asyncPieces(content, 777), bounds))).rejects.toThrow('too many');
  });

  it('fails at the end if too little came', async () => {
    const bounds = { sizeMaxBytes: 20_000, excess, sizeMinBytes: 10_001, shortage };
    await expect(collected(boundedChunks(asyncPieces(content, 777), bounds))).rejects.toThrow('only 10000');
  });
});

describe('blocksOf()', () => {
  it.each([1, 999, 1_000, 1_001, 10_000, 20_000])('cuts blocks of %d bytes', async (blockSizeBytes) => {
    const blocks: Buffer[] = [];
    for await (const block of blocksOf(asyncPieces(content, 1_000), blockSizeBytes)) blocks.push(block);
    expect(Buffer.concat(blocks).equals(content)).toBe(true);
    expect(blocks.slice(0, -1).every((block) => block.length === blockSizeBytes)).toBe(true);
    expect(blocks.length).toBe(Math.ceil(10_000 / blockSizeBytes));
  });
});

describe('bodyChunks()', () => {
  it('leaves the stream open when its reader gives up', async () => {
    const source = Readable.from([content, content]);
    for await (const chunk of bodyChunks(source)) {
      expect(chunk.length).toBe(10_000);
      break;
    }
    expect(source.destroyed).toBe(false);
    source.destroy();
  });

  it('reports the failure of a stream as aborted, and rethrows a FiletrackerError', async () => {
    const cut = new Readable({ read: () => undefined });
    const reading = collected(bodyChunks(cut));
    cut.destroy(new Error('socket hang up'));
    await expect(reading).rejects.toMatchObject({ code: 'aborted' });

    const stalled = new Readable({ read: () => undefined });
    const waiting = collected(bodyChunks(stalled));
    stalled.destroy(new FiletrackerError('timeout', 'Cannot read the body: it stalled'));
    await expect(waiting).rejects.toMatchObject({ code: 'timeout' });
  });

  it('fails as aborted when a stream closes before its end', async () => {
    const source = new Readable({ read: () => undefined });
    const reading = collected(bodyChunks(source));
    source.push(content);
    setImmediate(() => source.destroy());
    await expect(reading).rejects.toMatchObject({ code: 'aborted' });
  });

  it('stops waiting when the signal says so', async () => {
    const controller = new AbortController();
    const source = new Readable({ read: () => undefined });
    const reading = collected(bodyChunks(source, controller.signal));
    setImmediate(() => controller.abort());
    await expect(reading).rejects.toMatchObject({ code: 'aborted' });
    source.destroy();
  });
});
