import { cp, mkdir, readdir, rm, symlink, utimes, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { Readable } from 'node:stream';
import { beforeEach, describe, expect, it } from 'vitest';
import { compareIndexes } from '../../src/catalog/lmdb/index/comparison.ts';
import {
  checkAdoptionTarget,
  findStore,
  folderKind,
  folderToOpen,
} from '../../src/maintenance/folder-kind.ts';
import { Client } from '../../src/client/client.ts';
import { adoptLegacyFolder } from '../../src/maintenance/migration/legacy/adopt.ts';
import { adoptPlainFiles } from '../../src/maintenance/migration/legacy/adopt-plain-files.ts';
import { writeAdoptionState } from '../../src/maintenance/migration/legacy/adoption-state.ts';
import { backupStore } from '../../src/maintenance/backup/backup.ts';
import { restoreStore } from '../../src/maintenance/backup/restore.ts';
import { noise, prose } from '../support/contents.ts';
import { EmbeddedStore } from '../support/embedded-store.ts';
import { LegacyFolder } from '../support/legacy-folder.ts';
import { temporaryFolder } from '../support/temporary-folder.ts';
import { recoverFolder } from '../support/recovery.ts';

let root: string;
let legacy: LegacyFolder;

beforeEach(async () => {
  root = await temporaryFolder();
  legacy = new LegacyFolder(join(root, 'old'));
  await legacy.prepare();
  const digest = await legacy.add('/f', noise(20_000), 1000);
  await utimes(legacy.blobPath(digest), 1000, 1000);
});

async function everything(folder: string): Promise<string[]> {
  return (await readdir(folder, { recursive: true })).sort();
}

/** A store with a large file and a small one. */
async function makeStore(folder: string): Promise<void> {
  await using store = await EmbeddedStore.open(folder);
  await store.put('/small', 1, prose(100));
  await store.put('/large', 1, noise(20_000, 'large'));
}

const recover = (folder: string, dryRun = false): ReturnType<typeof recoverFolder> =>
  recoverFolder(folder, { compare: compareIndexes, dryRun });

describe('folderKind()', () => {
  it('recognizes an old folder by its links, whatever our programs have left there', async () => {
    const { folder } = legacy;
    const store = join(folder, 'store-3');
    const toAdopt = { kind: 'to-adopt', source: folder, store, begun: false };
    expect(await folderKind(folder)).toEqual(toAdopt);
    for (const part of ['journal', 'uploads', 'catalog']) await mkdir(join(folder, part));
    await writeFile(join(folder, 'journal', 'lock'), '');
    expect(await folderKind(folder)).toEqual(toAdopt);
    // As opening it as a store leaves it: a journal with a segment, an index, and no change in either.
    await (await EmbeddedStore.open(folder)).close();
    expect(await folderKind(folder)).toEqual(toAdopt);
    await mkdir(store);
    expect(await folderKind(folder)).toEqual({ ...toAdopt, begun: true });
  });

  it('recognizes an old folder in which files of this version were stored as mixed', async () => {
    await makeStore(legacy.folder);
    expect(await folderKind(legacy.folder)).toEqual({ kind: 'mixed' });
    await mkdir(join(legacy.folder, 'store-3'));
    expect(await folderKind(legacy.folder)).toEqual({ kind: 'mixed' });
    await expect(findStore(legacy.folder)).rejects.toMatchObject({ code: 'invalid-argument' });
    await expect(folderToOpen(legacy.folder)).rejects.toMatchObject({ code: 'invalid-argument' });
  });

  it('finds the store of an adopted folder, even if the old files are gone or programs ran in it', async () => {
    const { folder } = legacy;
    const store = join(folder, 'store-3');
    await adoptLegacyFolder(folder, store);
    expect(await folderKind(folder)).toMatchObject({ kind: 'store', folders: { root: store } });
    await mkdir(join(folder, 'journal'));
    expect((await findStore(folder)).root).toBe(store);
    expect(await folderToOpen(folder)).toBe(store);
    for (const part of ['links', 'blobs', 'db', 'locks', 'journal'])
      await rm(join(folder, part), { recursive: true });
    expect((await findStore(folder)).root).toBe(store);
  });

  it('recognizes an adoption into another folder until it is complete', async () => {
    const store = join(root, 'new');
    await adoptLegacyFolder(legacy.folder, store);
    await writeAdoptionState(store, { format: 1, source: legacy.folder, complete: false, verified: false });
    expect(await folderKind(store)).toEqual({ kind: 'to-adopt', source: legacy.folder, store, begun: true });
    await expect(findStore(store)).rejects.toThrow('is unfinished');
    await rm(legacy.folder, { recursive: true });
    expect(await folderKind(store)).toMatchObject({ kind: 'store', folders: { root: store } });
  });

  it('does not treat an unreadable folder as absent', async () => {
    const folder = join(root, 'store');
    await makeStore(folder);
    // A link to itself: what a lookup fails at for every user, root too.
    await symlink('links', join(folder, 'links'));
    await expect(folderKind(folder)).rejects.toMatchObject({ code: 'io' });
  });

  it('recognizes empty folders, folders of version 1, and other ones', async () => {
    const folder = join(root, 'some');
    expect(await folderKind(folder)).toEqual({ kind: 'absent' });
    await mkdir(join(folder, 'lost+found'), { recursive: true });
    await writeFile(join(folder, 'tokens.json'), '');
    expect(await folderKind(folder)).toEqual({ kind: 'empty' });
    expect(await folderToOpen(folder)).toBe(folder);
    // A store whose making was cut short before it had a journal.
    for (const begun of ['blobs', 'uploads']) await mkdir(join(folder, begun));
    expect(await folderKind(folder)).toEqual({ kind: 'empty' });
    await checkAdoptionTarget(legacy.folder, folder);
    await writeFile(join(folder, 'notes'), '');
    expect(await folderKind(folder)).toEqual({ kind: 'other' });
    await expect(findStore(folder)).rejects.toMatchObject({ code: 'not-found' });
    await mkdir(join(folder, 'files'));
    expect(await folderKind(folder)).toEqual({ kind: 'plain-files' });
    await expect(folderToOpen(folder)).rejects.toThrow('--adopt-1x');
    await expect(findStore(folder)).rejects.toThrow('--adopt-1x');
  });

  it('does not treat the cache of a client as a store, nor its files as orphans', async () => {
    const cache = join(root, 'cache');
    await using client = new Client({ cacheDir: cache, cacheMinFree: 0 });
    await client.putStream('/only', Readable.from([noise(100_000)]));
    const before = await everything(cache);
    expect(await folderKind(cache)).toEqual({ kind: 'cache' });
    const refusal = { code: 'invalid-argument', message: expect.stringContaining('the cache of a client') };
    await expect(recover(cache)).rejects.toMatchObject(refusal);
    await expect(findStore(cache)).rejects.toMatchObject(refusal);
    await expect(folderToOpen(cache)).rejects.toMatchObject(refusal);
    await expect(folderToOpen(cache, { catalogElsewhere: true })).rejects.toMatchObject(refusal);
    await expect(backupStore(cache, join(root, 'backup'), {})).rejects.toMatchObject(refusal);
    await expect(adoptPlainFiles(cache, join(root, 'new'))).rejects.toMatchObject(refusal);
    await expect(checkAdoptionTarget(legacy.folder, cache)).rejects.toMatchObject({
      code: 'invalid-argument',
    });
    expect(await everything(cache)).toEqual(before);

    // As it came where both were started in one folder: served as before, but not recovered.
    const both = join(root, 'both');
    await makeStore(both);
    await cp(cache, both, { recursive: true });
    expect(await folderToOpen(both)).toBe(both);
    await expect(recover(both)).rejects.toThrow('it also holds the cache of a client');
    expect((await everything(both)).filter((name) => name.startsWith('quarantine'))).toEqual([]);
  });

  it('serves no blobs without a journal, and lets recovery move them aside', async () => {
    const folder = join(root, 'store');
    await makeStore(folder);
    await rm(join(folder, 'journal'), { recursive: true });
    expect(await folderKind(folder)).toMatchObject({ kind: 'store' });
    await rm(join(folder, 'catalog'), { recursive: true });
    await expect(folderToOpen(folder)).rejects.toThrow('no journal');
    await expect(findStore(folder)).rejects.toThrow('no journal');
    expect(await folderToOpen(folder, { catalogElsewhere: true })).toBe(folder);
    expect((await recover(folder)).actionCount).toBe(2);
    expect(
      (await everything(join(folder, 'quarantine'))).filter((path) => path.endsWith('.gz')),
    ).toHaveLength(1);
    expect(await folderToOpen(folder)).toBe(folder);
  });
});

describe('an old folder that was not adopted', () => {
  it('is refused by recovery and backup, which change nothing in it', async () => {
    const before = await everything(legacy.folder);
    const refused = { code: 'invalid-argument', message: expect.stringContaining('filetracker 2') as string };
    await expect(recover(legacy.folder)).rejects.toMatchObject(refused);
    await expect(recover(legacy.folder, true)).rejects.toMatchObject(refused);
    await expect(backupStore(legacy.folder, join(root, 'backup'))).rejects.toMatchObject(refused);
    expect(await everything(legacy.folder)).toEqual(before);
  });

  it('is never adopted as plain files', async () => {
    await expect(adoptPlainFiles(legacy.folder, join(root, 'new'))).rejects.toMatchObject({
      code: 'invalid-argument',
      message: expect.stringContaining('use --adopt') as string,
    });
    await makeStore(join(root, 'store'));
    await expect(adoptPlainFiles(join(root, 'store'), join(root, 'new'))).rejects.toMatchObject({
      code: 'invalid-argument',
    });
    expect(await readdir(root)).toEqual(['old', 'store']);
  });
});

describe('checkAdoptionTarget()', () => {
  it('refuses the old folder itself, folders inside or around it, and folders that hold something else', async () => {
    const { folder } = legacy;
    const other = join(root, 'other');
    await mkdir(other);
    await writeFile(join(other, 'notes'), '');
    await mkdir(join(root, 'plain', 'files'), { recursive: true });
    await symlink(folder, join(root, 'alias'));
    const second = new LegacyFolder(join(root, 'second'));
    await second.prepare();
    const targets = [folder, join(folder, 'new'), root, other, join(root, 'alias', 'x'), second.folder];
    for (const target of [...targets, join(root, 'plain')]) {
      const before = await everything(root);
      const refused = adoptLegacyFolder(folder, target);
      await expect(refused, target).rejects.toMatchObject({ code: 'invalid-argument' });
      expect(await everything(root)).toEqual(before);
    }
  });

  it('accepts an empty folder, a missing one, a store, and the place of the server', async () => {
    const { folder } = legacy;
    await mkdir(join(root, 'empty', 'lost+found'), { recursive: true });
    await makeStore(join(root, 'store'));
    for (const target of ['empty', 'new', 'store', 'old/store-3']) {
      await checkAdoptionTarget(folder, join(root, target));
      await adoptLegacyFolder(folder, join(root, target));
      await adoptLegacyFolder(folder, join(root, target));
    }
  });
});

describe('recoverFolder() with dryRun', () => {
  it('creates nothing, not even missing folders', async () => {
    const folder = join(root, 'store');
    await makeStore(folder);
    for (const missing of ['uploads', 'catalog', 'journal/lock', 'blobs']) {
      await rm(join(folder, missing), { recursive: true });
      const before = await everything(folder);
      await recover(folder, true);
      expect(await everything(folder), missing).toEqual(before);
    }
    await cp(folder, join(root, 'copy'), { recursive: true });
    await rm(join(root, 'copy', 'journal'), { recursive: true });
    await mkdir(join(root, 'copy', 'journal'));
    await recover(join(root, 'copy'), true);
    expect(await everything(join(root, 'copy'))).toEqual(['journal']);
  });
});

describe('restoreStore()', () => {
  it('refuses a folder within the backup', async () => {
    await makeStore(join(root, 'store'));
    await backupStore(join(root, 'store'), join(root, 'backup'));
    await expect(restoreStore(join(root, 'backup'), join(root, 'backup', 'x'))).rejects.toMatchObject({
      code: 'invalid-argument',
    });
  });
});
