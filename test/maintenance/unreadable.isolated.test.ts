import { readlinkSync } from 'node:fs';
import { readdir, readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { beforeEach, describe, expect, it, vi } from 'vitest';
import { compareIndexes } from '../../src/catalog/lmdb/index/comparison.ts';
import { digestOf } from '../../src/core/digest.ts';
import { localMessageOf } from '../../src/core/errors.ts';
import { backupStore } from '../../src/maintenance/backup/backup.ts';
import type { RecoverFolderOptions } from '../../src/maintenance/recovery/recover-folder.ts';
import { restoreStore } from '../../src/maintenance/backup/restore.ts';
import { Verification } from '../../src/store/verification.ts';
import { noise, prose } from '../support/contents.ts';
import { EmbeddedStore } from '../support/embedded-store.ts';
import { temporaryFolder } from '../support/temporary-folder.ts';
import { recoverFolder, type FolderReport } from '../support/recovery.ts';

/** What the disk does not give: files whose path holds this. */
const disk = vi.hoisted(() => ({ bad: 'nothing' }));

const failure = (): Error => Object.assign(new Error('EIO: i/o error, read'), { code: 'EIO' });
const isBad = (path: unknown): boolean => String(path).includes(disk.bad);

vi.mock(import('node:fs'), async (importOriginal) => {
  const original = await importOriginal();
  const read = (descriptor: number, ...rest: unknown[]): void => {
    const done = rest.at(-1);
    if (typeof done === 'function' && isBad(readlinkSync(`/proc/self/fd/${descriptor}`))) done(failure(), 0);
    else Reflect.apply(original.read, original, [descriptor, ...rest]);
  };
  return { ...original, read: read as typeof original.read };
});

vi.mock(import('node:fs/promises'), async (importOriginal) => {
  const original = await importOriginal();
  const open: typeof original.open = async (path, ...rest) => {
    const handle = await original.open(path, ...rest);
    if (isBad(path)) handle.read = () => Promise.reject(failure());
    return handle;
  };
  // Contents come from another file system, to which nothing can be linked.
  const link: typeof original.link = async (path, ...rest) => {
    await original.access(path);
    if (String(path).includes('/blobs/')) throw Object.assign(new Error('EXDEV'), { code: 'EXDEV' });
    await original.link(path, ...rest);
  };
  const copyFile: typeof original.copyFile = async (source, ...rest) => {
    if (isBad(source)) throw failure();
    await original.copyFile(source, ...rest);
  };
  return { ...original, open, link, copyFile };
});

const bad = noise(20_000, 'bad');
const good = noise(20_000, 'good');

let folder: string;

beforeEach(async () => {
  disk.bad = 'nothing';
  folder = join(await temporaryFolder(), 'store');
  await using store = await EmbeddedStore.open(folder);
  await store.put('/bad', 1, bad);
  await store.put('/again', 2, bad);
  await store.put('/good', 1, good);
  await store.put('/small', 1, prose(100));
});

async function checkGood(at: string): Promise<void> {
  await using store = await EmbeddedStore.open(at);
  expect(await store.read('/good')).toEqual(good);
  expect(await store.read('/small')).toEqual(prose(100));
}

async function checkWhole(at: string): Promise<void> {
  await checkGood(at);
  await using store = await EmbeddedStore.open(at);
  expect(await store.read('/bad')).toEqual(bad);
  expect(await store.read('/again')).toEqual(bad);
}

describe('recoverFolder() on a disk that cannot read a file', () => {
  function recover(options: Partial<RecoverFolderOptions> = {}): Promise<FolderReport> {
    return recoverFolder(folder, { compare: compareIndexes, full: true, ...options });
  }

  it('names the files of an unreadable blob, checks the rest, and changes nothing', async () => {
    disk.bad = `/blobs/${digestOf(bad).slice(0, 2)}/`;
    for (let times = 0; times < 2; times += 1) {
      const report = await recover();
      expect(report).toMatchObject({ actionCount: 0, damagedFileCount: 0, unreadableFileCount: 2 });
      expect(report.unreadableFiles.map(({ name }) => name)).toEqual(['/again', '/bad']);
      expect(report.notes).toEqual([expect.stringMatching(`${digestOf(bad)}.*EIO`)]);
      expect(report.steps).toContainEqual(
        expect.objectContaining({ counts: expect.objectContaining({ checked: 3, unreadable: 1 }) as object }),
      );
    }
    disk.bad = 'nothing';
    expect(await recover()).toMatchObject({ actionCount: 0, unreadableFileCount: 0 });
    await checkWhole(folder);
  });

  it('leaves a blob that is already marked where it is', async () => {
    {
      await using store = await EmbeddedStore.open(folder);
      await store.catalog.markDamaged(digestOf(bad), true);
    }
    disk.bad = `/blobs/${digestOf(bad).slice(0, 2)}/`;
    expect(await recover()).toMatchObject({ actionCount: 0, unreadableFileCount: 2 });
    disk.bad = 'nothing';
    expect(await recover()).toMatchObject({ actions: [{ action: 'mend-blob' }] });
    await checkWhole(folder);
  });

  it('fails with the name of the segment', async () => {
    const segment = join(folder, 'journal', '0000000001.log');
    const before = await readFile(segment);
    disk.bad = '0000000001.log';
    await expect(recover()).rejects.toMatchObject({
      code: 'io',
      message: 'Cannot read journal/0000000001.log: the disk reports EIO',
    });
    disk.bad = 'nothing';
    expect(await readFile(segment)).toEqual(before);
    await checkWhole(folder);
  });
});

describe('Verification on a disk that cannot read a file', () => {
  it('counts it as damaged, reports its digest, continues, and marks nothing', async () => {
    await using store = await EmbeddedStore.open(folder);
    const { catalog, blobs } = store;
    const problems: string[] = [];
    const reportProblem = (problem: string, error: unknown): void => {
      problems.push(`${problem}: ${localMessageOf(error)}`);
    };
    disk.bad = `/blobs/${digestOf(bad).slice(0, 2)}/`;
    const verification = new Verification({ folder, catalog, blobs, bytesPerSecond: 2 ** 30, reportProblem });
    expect(await verification.start()).toBe(true);
    await verification.idle();
    expect(await verification.status()).toMatchObject({
      state: 'finished',
      checkedBlobs: 3,
      damagedBlobs: 1,
      foundDamaged: [digestOf(bad)],
    });
    expect(problems).toEqual([expect.stringMatching(`^Cannot read the blob ${digestOf(bad)}: .*EIO`)]);
    disk.bad = 'nothing';
    expect(await store.read('/bad')).toEqual(bad);
    await verification.stop();
  });
});

describe('a backup from a disk that cannot read a file', () => {
  it('copies the rest, as a store of its own, and the file when it can be read', async () => {
    const target = join(await temporaryFolder(), 'backup');
    disk.bad = `store/blobs/${digestOf(bad).slice(0, 2)}/`;
    const { blobs } = await backupStore(folder, target);
    expect(blobs).toMatchObject({ added: 1, missing: [], unreadable: [digestOf(bad)] });
    expect(await readdir(join(target, 'uploads'))).toEqual([]);
    const restored = join(await temporaryFolder(), 'restored');
    expect((await restoreStore(target, restored)).blobs).toMatchObject({ missing: [digestOf(bad)] });
    await checkGood(restored);
    disk.bad = 'nothing';
    expect((await backupStore(folder, target)).blobs).toMatchObject({ added: 1, unreadable: [] });
    const whole = join(await temporaryFolder(), 'whole');
    await restoreStore(target, whole);
    await checkWhole(whole);
  });

  it('is restored without what its own disk cannot read', async () => {
    const target = join(await temporaryFolder(), 'backup');
    await backupStore(folder, target);
    disk.bad = `backup/blobs/${digestOf(bad).slice(0, 2)}/`;
    const restored = join(await temporaryFolder(), 'restored');
    expect((await restoreStore(target, restored)).blobs).toMatchObject({ unreadable: [digestOf(bad)] });
    await checkGood(restored);
    await using store = await EmbeddedStore.open(restored);
    expect(await store.read('/bad')).toBe('damaged');
    await store.put('/new', 1, bad);
    expect(await store.read('/bad')).toEqual(bad);
  });
});
