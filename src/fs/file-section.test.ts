import { openSync } from 'node:fs';
import { truncate, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { noise } from '../../test/support/contents.ts';
import { temporaryFolder } from '../../test/support/temporary-folder.ts';
import { FileSection, type FileRange } from './file-section.ts';

const pieceSizeBytes = 256 * 1024;

async function fileOf(content: Buffer): Promise<string> {
  const path = join(await temporaryFolder(), 'content');
  await writeFile(path, content);
  return path;
}

function section(path: string, range: FileRange): FileSection {
  return new FileSection(openSync(path, 'r'), range);
}

async function pieces(from: FileSection): Promise<Buffer[]> {
  const all: Buffer[] = [];
  for await (const piece of from) all.push(piece as Buffer);
  return all;
}

describe('FileSection', () => {
  it.each([
    { start: 0, length: 0 },
    { start: 5, length: 1 },
    { start: 0, length: pieceSizeBytes },
    { start: 7, length: 3 * pieceSizeBytes + 1 },
  ])('gives exactly %o', async (range) => {
    const content = noise(4 * pieceSizeBytes);
    const given = Buffer.concat(await pieces(section(await fileOf(content), range)));
    expect(given.equals(content.subarray(range.start, range.start + range.length))).toBe(true);
  });

  it('fails where the file is shorter than it was', async () => {
    const path = await fileOf(noise(1000));
    await truncate(path, 400);
    await expect(pieces(section(path, { start: 0, length: 1000 }))).rejects.toMatchObject({
      code: 'damaged-blob',
    });
  });

  it('writes again to pieces that were given back, once for each time, and to no others', async () => {
    const content = noise(6 * pieceSizeBytes);
    const path = await fileOf(content);
    const whole = { start: 0, length: content.length };
    const kept = await pieces(section(path, whole));
    const used = new Set<ArrayBufferLike>();
    const source = section(path, whole);
    for await (const piece of source as AsyncIterable<Buffer>) {
      used.add(piece.buffer);
      source.giveBack(piece);
      source.giveBack(piece);
    }
    expect(used.size).toBeLessThan(6);
    const both = await Promise.all([pieces(section(path, whole)), pieces(section(path, whole))]);
    expect(new Set(both.flat().map(({ buffer }) => buffer)).size).toBe(12);
    expect(Buffer.concat(kept).equals(content)).toBe(true);
  });

  it('has memory of its own for what is read at once, which may be kept for long', async () => {
    const path = await fileOf(noise(2 * pieceSizeBytes));
    const source = section(path, { start: 0, length: 1000 });
    const [small] = await pieces(source);
    expect(small?.buffer.byteLength).toBe(1000);
    if (small !== undefined) source.giveBack(small);
    const next = await pieces(section(path, { start: 0, length: 2 * pieceSizeBytes }));
    expect(next.map(({ buffer }) => buffer)).not.toContain(small?.buffer);
  });
});
