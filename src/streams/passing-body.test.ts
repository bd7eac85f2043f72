import { PassThrough, Readable } from 'node:stream';
import { describe, expect, it } from 'vitest';
import { noise, pieces } from '../../test/support/contents.ts';
import { MemoryBudget } from '../core/memory-budget.ts';
import { PassingBody } from './passing-body.ts';

const mib = 1024 * 1024;
const content = noise(3 * mib + 1);

function isFull(budget: MemoryBudget, freeBytes: number): boolean {
  const fits = budget.tryTake(freeBytes);
  if (fits) budget.giveBack(freeBytes);
  return !fits;
}

function passing(
  budget: MemoryBudget,
  source: Readable = Readable.from(pieces(content, 65_536), { objectMode: false }),
): PassingBody {
  return new PassingBody(source, { budget, freesPieces: false, signal: undefined });
}

describe('PassingBody', () => {
  it('passes its first mebibyte as it comes and the rest in blocks', async () => {
    const budget = new MemoryBudget(64 * mib);
    const body = passing(budget);
    await body.begin();
    const sizes: number[] = [];
    const copies: Buffer[] = [];
    for await (const piece of body.chunks(async () => Promise.resolve(true))) {
      sizes.push(piece.length);
      copies.push(Buffer.from(piece));
    }
    expect(sizes).toEqual([
      ...Array.from({ length: 16 }, () => 65_536),
      ...Array.from({ length: 4 }, () => mib / 2),
      1,
    ]);
    expect(Buffer.concat(copies).equals(content)).toBe(true);
    body.release();
    expect(isFull(budget, 64 * mib)).toBe(false);
  });

  it('frees a block only when it is written', async () => {
    const body = passing(new MemoryBudget(64 * mib));
    await body.begin();
    let isWritten = false;
    const blocks: Buffer[] = [];
    for await (const piece of body.chunks(async () => Promise.resolve(isWritten))) {
      if (piece.length === mib / 2) blocks.push(piece);
      isWritten = blocks.length > 2;
    }
    body.release();
    expect(blocks.map((block) => block.length)).toEqual([mib / 2, mib / 2, 0, 0]);
  });

  it('takes no memory before the first piece comes', async () => {
    const budget = new MemoryBudget(64 * mib);
    const source = new PassThrough();
    const body = passing(budget, source);
    const beginning = body.begin();
    expect(isFull(budget, 64 * mib)).toBe(false);
    source.write(content.subarray(0, 100));
    await beginning;
    expect(isFull(budget, 62 * mib)).toBe(true);
    body.release();
    body.release();
    expect(isFull(budget, 64 * mib)).toBe(false);
    expect(isFull(budget, 64 * mib + 1)).toBe(true);
  });

  it('leaves half of the memory to others', async () => {
    const budget = new MemoryBudget(8 * mib);
    const [first, second] = [passing(budget), passing(budget)];
    await first.begin();
    await second.begin();
    expect([first, second].map((body) => body.decodedPieces.sizeBytes)).toEqual([mib / 2, 65_536]);
    expect(isFull(budget, 5 * mib)).toBe(false);
    for await (const piece of second.chunks(async () => Promise.resolve(true))) {
      expect(piece.length).toBeLessThanOrEqual(65_536);
    }
    first.release();
    second.release();
  });
});
