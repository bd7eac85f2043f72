import { mkdir, readdir, readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { noise } from '../../test/support/contents.ts';
import { temporaryFolder } from '../../test/support/temporary-folder.ts';
import { DurableFile, removeFile, writeFileDurably } from './durable-file.ts';
import { makeFolderDurably } from './folders.ts';

describe('DurableFile', () => {
  it('shows nothing under the target before it is published', async () => {
    const folder = await temporaryFolder();
    const target = join(folder, 'target');
    await writeFile(target, 'old');
    await using file = await DurableFile.create(join(folder, 'temporary'));
    await file.write(Buffer.from('ne'));
    await file.write(Buffer.from('w'));
    expect(await file.seal()).toBe(3);
    expect(await readFile(target, 'utf8')).toBe('old');
    await file.publish(target);
    expect(await readFile(target, 'utf8')).toBe('new');
    expect(await readdir(folder)).toEqual(['target']);
  });

  it('keeps the order of pieces that are not waited for', async () => {
    const folder = await temporaryFolder();
    const content = noise(3_000_000);
    await using file = await DurableFile.create(join(folder, 'temporary'));
    const writes: Promise<void>[] = [];
    for (let start = 0; start < content.length; start += 50_000) {
      writes.push(file.write(content.subarray(start, start + 50_000)));
    }
    await Promise.all(writes);
    await file.publish(join(folder, 'target'));
    expect((await readFile(join(folder, 'target'))).equals(content)).toBe(true);
  });

  it('leaves nothing when it is discarded, before and after sealing', async () => {
    const folder = await temporaryFolder();
    const open = await DurableFile.create(join(folder, 'open'));
    await open.write(Buffer.from('abc'));
    await open.discard();
    const sealed = await DurableFile.create(join(folder, 'sealed'));
    await sealed.seal();
    await sealed.discard();
    await sealed.discard();
    expect(await readdir(folder)).toEqual([]);
  });

  it('does not take back what is published', async () => {
    const folder = await temporaryFolder();
    const file = await DurableFile.create(join(folder, 'temporary'));
    await file.publish(join(folder, 'target'));
    await file.discard();
    expect(await readdir(folder)).toEqual(['target']);
  });

  it('reports a missing folder and a full disk as FiletrackerErrors', async () => {
    const folder = await temporaryFolder();
    await expect(DurableFile.create(join(folder, 'none', 'file'))).rejects.toMatchObject({ code: 'io' });
    await expect(DurableFile.create(join(folder, 'a'.repeat(300)))).rejects.toMatchObject({ code: 'io' });
  });
});

describe('writeFileDurably()', () => {
  it('replaces a file and leaves no temporary one', async () => {
    const folder = await temporaryFolder();
    await writeFileDurably(join(folder, 'file'), Buffer.from('one'));
    await writeFileDurably(join(folder, 'file'), Buffer.from('two'));
    expect(await readFile(join(folder, 'file'), 'utf8')).toBe('two');
    expect(await readdir(folder)).toEqual(['file']);
  });

  it('removes what a writer that was killed has left, and nothing else', async () => {
    const folder = await temporaryFolder();
    await writeFile(join(folder, 'file.0123456789ab.temporary'), 'o');
    await writeFile(join(folder, 'another.0123456789ab.temporary'), 'o');
    await writeFileDurably(join(folder, 'file'), Buffer.from('one'));
    expect((await readdir(folder)).sort()).toEqual(['another.0123456789ab.temporary', 'file']);
  });

  it('leaves no temporary file when the target cannot be replaced', async () => {
    const folder = await temporaryFolder();
    await mkdir(join(folder, 'taken'));
    await expect(writeFileDurably(join(folder, 'taken'), Buffer.from('x'))).rejects.toMatchObject({
      code: 'io',
    });
    expect(await readdir(folder)).toEqual(['taken']);
  });
});

describe('makeFolderDurably()', () => {
  it('creates what is missing and says whether it did', async () => {
    const folder = await temporaryFolder();
    expect(await makeFolderDurably(join(folder, 'a', 'b', 'c'))).toBe(true);
    expect(await makeFolderDurably(join(folder, 'a', 'b', 'c'))).toBe(false);
    expect(await readdir(join(folder, 'a', 'b'))).toEqual(['c']);
  });

  it('fails where a file is in the way', async () => {
    const folder = await temporaryFolder();
    await writeFile(join(folder, 'file'), '');
    await expect(makeFolderDurably(join(folder, 'file', 'a'))).rejects.toMatchObject({ code: 'io' });
  });
});

describe('removeFile()', () => {
  it('takes absence for success', async () => {
    const folder = await temporaryFolder();
    await writeFile(join(folder, 'file'), '');
    await removeFile(join(folder, 'file'));
    await removeFile(join(folder, 'file'));
    expect(await readdir(folder)).toEqual([]);
  });
});
