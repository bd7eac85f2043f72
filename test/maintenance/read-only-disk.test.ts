import { execFileSync } from 'node:child_process';
import { mkdir, readdir, readFile, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { beforeEach, describe, expect, it, onTestFinished, type TestContext } from 'vitest';
import { segmentHeaderSizeBytes } from '../../src/catalog/journal/segment-header.ts';
import { compareIndexes } from '../../src/catalog/lmdb/index/comparison.ts';
import { ManualClock } from '../support/manual-clock.ts';
import { backupStore } from '../../src/maintenance/backup/backup.ts';
import { noise, prose } from '../support/contents.ts';
import { EmbeddedStore } from '../support/embedded-store.ts';
import { temporaryFolder } from '../support/temporary-folder.ts';
import { recoverFolder } from '../support/recovery.ts';

let root: string;
let folder: string;
let target: string;

beforeEach(async () => {
  root = await temporaryFolder();
  folder = join(root, 'store');
  target = join(root, 'backup');
});

/** The store as it shows where nobody can write to it. */
async function readOnlyView(context: TestContext): Promise<string> {
  const view = join(root, 'view');
  await mkdir(view);
  try {
    execFileSync('mount', ['--bind', folder, view], { stdio: 'ignore' });
    onTestFinished(() => void execFileSync('umount', ['-l', view]));
    execFileSync('mount', ['-o', 'remount,bind,ro', view], { stdio: 'ignore' });
  } catch {
    context.skip('a read-only file system can not be mounted here: it takes root');
  }
  return view;
}

async function smallDisk(context: TestContext): Promise<string> {
  const disk = join(root, 'disk');
  await mkdir(disk);
  try {
    execFileSync('mount', ['-t', 'tmpfs', '-o', 'size=256k', 'none', disk], { stdio: 'ignore' });
    onTestFinished(() => void execFileSync('umount', ['-l', disk]));
  } catch {
    context.skip('a small disk can not be mounted here: it takes root');
  }
  return disk;
}

async function fill(): Promise<void> {
  await using store = await EmbeddedStore.open(folder);
  await store.put('/small', 1, prose(100));
  await store.put('/large', 1, noise(20_000));
}

async function namesIn(at: string): Promise<string[]> {
  await using store = await EmbeddedStore.open(at);
  return store.names();
}

describe('a store on a read-only file system', () => {
  it('is examined by a dry run of recovery', async (context) => {
    await fill();
    const view = await readOnlyView(context);
    const options = { compare: compareIndexes, full: true, dryRun: true };
    expect(await recoverFolder(view, options)).toMatchObject({ actions: [], entries: 2 });
    await using _served = await EmbeddedStore.open(folder);
    await expect(recoverFolder(view, options)).rejects.toMatchObject({ code: 'store-locked' });
  });

  it('is backed up, and still is when it is writable again', async (context) => {
    const clock = new ManualClock();
    await fill();
    const view = await readOnlyView(context);
    // As a machine leaves it that went down: the index is behind the journal, and cannot be brought up to it.
    await writeFile(join(folder, 'catalog', 'state.json'), '{}');
    const before = await readdir(folder, { recursive: true });
    expect(await backupStore(view, target, { clock })).toMatchObject({ entries: 2, blobs: { added: 1 } });
    expect(await readdir(folder, { recursive: true })).toEqual(before);
    {
      await using store = await EmbeddedStore.open(folder);
      await store.put('/more', 1, prose(100));
      await expect(backupStore(view, target, { clock })).rejects.toMatchObject({
        code: 'store-locked',
        message: expect.stringContaining('stop it first') as string,
      });
    }
    clock.advance(1000);
    expect(await backupStore(folder, target, { clock })).toMatchObject({ entries: 3, putAside: undefined });
    expect(JSON.parse(await readFile(join(target, 'backup.json'), 'utf8'))).toMatchObject({
      store: expect.any(String) as string,
    });
    clock.advance(1000);
    expect(await backupStore(view, target, { clock })).toMatchObject({ entries: 3 });
    expect(await namesIn(target)).toEqual(['/large', '/more', '/small']);
  });

  it('is not backed up with a damaged journal, and the error says what to do', async (context) => {
    await fill();
    const segment = join(folder, 'journal', '0000000001.log');
    const bytes = await readFile(segment);
    const at = segmentHeaderSizeBytes + 40;
    bytes.writeUInt8(bytes.readUInt8(at) ^ 1, at);
    await writeFile(segment, bytes);
    await expect(backupStore(await readOnlyView(context), target)).rejects.toMatchObject({
      code: 'corrupt-store',
      message: expect.stringContaining('copy the folder to another disk') as string,
    });
  });
});

describe('a disk that is full', () => {
  it('is reported with the folder that was to be written, not the one that is read', async (context) => {
    const disk = await smallDisk(context);
    for (const [kind, files, sizeBytes] of [
      ['journal', 60, 8_000],
      ['blobs', 1, 1_000_000],
    ] as const) {
      {
        await using store = await EmbeddedStore.open(folder);
        for (let at = 0; at < files; at += 1) await store.put(`/${kind}/${at}`, 1, noise(sizeBytes, `${at}`));
      }
      const to = join(disk, kind);
      await expect(backupStore(folder, to)).rejects.toMatchObject({
        code: 'no-space',
        message: `Cannot back up to "${to}": its disk is full`,
      });
      await rm(to, { recursive: true });
    }
  });
});
