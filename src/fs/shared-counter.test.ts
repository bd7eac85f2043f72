import { readFile, stat, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { temporaryFolder } from '../../test/support/temporary-folder.ts';
import { SharedCounter } from './shared-counter.ts';

describe('SharedCounter', () => {
  it('shows every increment to all who have opened it', async () => {
    const path = join(await temporaryFolder(), 'count');
    const one = await SharedCounter.open(path);
    const other = await SharedCounter.open(path);
    const before = other.value;
    one.increment();
    expect(other.value).toBe(before + 1);
    other.increment();
    expect(one.value).toBe(before + 2);
  });

  it('is stored in the file, so that other processes share it', async () => {
    const path = join(await temporaryFolder(), 'count');
    const counter = await SharedCounter.open(path);
    counter.increment();
    expect((await readFile(path)).readInt32LE(0)).toBe(counter.value);
    await writeFile(path, Buffer.from([1, 2, 3, 4]), { flag: 'r+' });
    expect(counter.value).toBe(0x04030201);
  });

  it('keeps the number that an earlier process has left', async () => {
    const path = join(await temporaryFolder(), 'count');
    const { value } = await SharedCounter.open(path);
    expect((await SharedCounter.open(path)).value).toBe(value);
  });

  it('has its place on the disk before it is mapped', async () => {
    const path = join(await temporaryFolder(), 'count');
    await writeFile(path, Buffer.alloc(0));
    await SharedCounter.open(path);
    expect((await stat(path)).size).toBeGreaterThanOrEqual(4);
  });

  it('says what it could not share where the folder is missing', async () => {
    const path = join(await temporaryFolder(), 'missing', 'count');
    await expect(SharedCounter.open(path)).rejects.toThrow(/Cannot share a counter/);
  });
});
