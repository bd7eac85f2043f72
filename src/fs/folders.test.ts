import { mkdir, readdir, realpath, stat, symlink, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { temporaryFolder } from '../../test/support/temporary-folder.ts';
import { makeFolderDurably, makeFolders, namesIn, realPathOf } from './folders.ts';

describe('makeFolders()', () => {
  it('creates the missing folders and returns them', async () => {
    const folder = await temporaryFolder();
    const wanted = [join(folder, 'a'), join(folder, 'a', 'b')];
    expect(makeFolders(join(folder, 'a', 'b'), 0o700)).toEqual(wanted);
    expect((await stat(join(folder, 'a'))).mode & 0o777).toBe(0o700);
    expect(makeFolders(join(folder, 'a', 'b'))).toEqual([]);
    await symlink(join(folder, 'a'), join(folder, 'link'));
    expect(makeFolders(join(folder, 'link', 'c'))).toEqual([join(folder, 'link', 'c')]);
    expect(await readdir(join(folder, 'a'))).toEqual(['b', 'c']);
  });

  it('fails if a file has the name, or the file system allows no folders', async () => {
    const folder = await temporaryFolder();
    await writeFile(join(folder, 'file'), '');
    expect(() => makeFolders(join(folder, 'file'))).toThrow(expect.objectContaining({ code: 'EEXIST' }));
    expect(() => makeFolders(join(folder, 'file', 'x'))).toThrow(
      expect.objectContaining({ code: expect.stringMatching(/EEXIST|ENOTDIR/) as string }),
    );
    // Node's own never returns here.
    expect(() => makeFolders('/proc/x')).toThrow(expect.objectContaining({ code: 'ENOENT' }));
    expect(() => makeFolders('/proc/x/y')).toThrow(expect.objectContaining({ code: 'ENOENT' }));
  });
});

describe('makeFolderDurably()', () => {
  it('creates the same folder for several callers at once', async () => {
    const folder = await temporaryFolder();
    const path = join(folder, 'a', 'b', 'c', 'd');
    const made = await Promise.all(Array.from({ length: 8 }, () => makeFolderDurably(path)));
    expect(made.filter(Boolean)).toHaveLength(1);
    expect(await readdir(join(folder, 'a', 'b', 'c'))).toEqual(['d']);
  });

  it('ends if the file system allows no folders', async () => {
    await expect(makeFolderDurably('/proc/x/y')).rejects.toMatchObject({ code: 'io' });
  });
});

describe('namesIn()', () => {
  it('returns the sorted names in a folder, and undefined if there is none', async () => {
    const folder = await temporaryFolder();
    for (const name of ['b', 'a']) await writeFile(join(folder, name), '');
    expect(await namesIn(folder)).toEqual(['a', 'b']);
    expect(await namesIn(join(folder, 'missing'))).toBeUndefined();
    await expect(namesIn(join(folder, 'a'))).rejects.toMatchObject({ code: 'io' });
  });
});

describe('realPathOf()', () => {
  it('follows links, also in paths with a missing end', async () => {
    const folder = await realpath(await temporaryFolder());
    await mkdir(join(folder, 'real'));
    await symlink('real', join(folder, 'link'));
    expect(await realPathOf(join(folder, 'link'))).toBe(join(folder, 'real'));
    expect(await realPathOf(join(folder, 'link', 'a', 'b'))).toBe(join(folder, 'real', 'a', 'b'));
    expect(await realPathOf(join(folder, 'link', '..', 'c'))).toBe(join(folder, 'c'));
  });
});
