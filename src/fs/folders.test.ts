import { mkdir, readdir, realpath, stat, symlink, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { temporaryFolder } from '../../test/support/temporary-folder.ts';
import { makeFolderDurably, makeFolders, makeFoldersSync, realPathOf } from './folders.ts';

type Maker = (path: string, mode?: number) => Promise<readonly string[]>;

describe.each<[string, Maker]>([
  ['makeFolders', makeFolders],
  ['makeFoldersSync', async (path, mode) => makeFoldersSync(path, mode)],
])('%s()', (_name, make) => {
  it('makes what is missing and gives that', async () => {
    const folder = await temporaryFolder();
    const wanted = [join(folder, 'a'), join(folder, 'a', 'b')];
    expect(await make(join(folder, 'a', 'b'), 0o700)).toEqual(wanted);
    expect((await stat(join(folder, 'a'))).mode & 0o777).toBe(0o700);
    expect(await make(join(folder, 'a', 'b'))).toEqual([]);
    await symlink(join(folder, 'a'), join(folder, 'link'));
    expect(await make(join(folder, 'link', 'c'))).toEqual([join(folder, 'link', 'c')]);
    expect(await readdir(join(folder, 'a'))).toEqual(['b', 'c']);
  });

  it('makes the same folder from several places at once', async () => {
    const folder = await temporaryFolder();
    await Promise.all(Array.from({ length: 8 }, () => make(join(folder, 'a', 'b', 'c', 'd'))));
    expect(await readdir(join(folder, 'a', 'b', 'c'))).toEqual(['d']);
  });

  it('fails where something else has the name, or no folder can be', async () => {
    const folder = await temporaryFolder();
    await writeFile(join(folder, 'file'), '');
    await expect(make(join(folder, 'file'))).rejects.toMatchObject({ code: 'EEXIST' });
    await expect(make(join(folder, 'file', 'x'))).rejects.toMatchObject({
      code: expect.stringMatching(/EEXIST|ENOTDIR/) as string,
    });
    // Node's own asks for ever here.
    await expect(make('/proc/x')).rejects.toMatchObject({ code: 'ENOENT' });
    await expect(make('/proc/x/y')).rejects.toMatchObject({ code: 'ENOENT' });
  });
});

describe('makeFolderDurably()', () => {
  it('ends where the file system takes no folders', async () => {
    await expect(makeFolderDurably('/proc/x/y')).rejects.toMatchObject({ code: 'io' });
  });
});

describe('realPathOf()', () => {
  it('follows links, in paths too whose end is not there', async () => {
    const folder = await realpath(await temporaryFolder());
    await mkdir(join(folder, 'real'));
    await symlink('real', join(folder, 'link'));
    expect(await realPathOf(join(folder, 'link'))).toBe(join(folder, 'real'));
    expect(await realPathOf(join(folder, 'link', 'a', 'b'))).toBe(join(folder, 'real', 'a', 'b'));
    expect(await realPathOf(join(folder, 'link', '..', 'c'))).toBe(join(folder, 'c'));
  });
});
