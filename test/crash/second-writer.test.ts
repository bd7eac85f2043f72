import { execFileSync, spawn } from 'node:child_process';
import { once } from 'node:events';
import { rmSync } from 'node:fs';
import { rename, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { beforeEach, describe, expect, it, onTestFinished } from 'vitest';
import { segmentPath } from '../../src/catalog/journal/segment-header.ts';
import { compareIndexes } from '../../src/catalog/lmdb/index/comparison.ts';
import { JournalLock } from '../../src/catalog/lmdb/writer/journal-lock.ts';
import { backupStore } from '../../src/maintenance/backup/backup.ts';
import { noise } from '../support/contents.ts';
import { EmbeddedStore } from '../support/embedded-store.ts';
import { temporaryFolder } from '../support/temporary-folder.ts';
import { recoverFolder } from '../support/recovery.ts';

let root: string;
let folder: string;
let journal: string;

beforeEach(async () => {
  root = await temporaryFolder();
  folder = join(root, 'store');
  journal = join(folder, 'journal');
});

/** A server of release 3.0, as far as locks go: it holds flock(2) on the lock file alone. */
async function oldServer(): Promise<void> {
  const child = spawn('flock', ['--no-fork', join(journal, 'lock'), 'sh', '-c', 'echo held; exec sleep 60'], {
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  onTestFinished(() => void child.kill('SIGKILL'));
  await once(child.stdout, 'data');
}

async function open(segmentSizeBytes?: number): Promise<EmbeddedStore> {
  const store = await EmbeddedStore.open(folder, { segmentSizeBytes });
  onTestFinished(() => store.close());
  return store;
}

const refused = {
  code: 'unavailable',
  message: expect.stringContaining('Cannot change the store') as string,
};

describe('the lock of a store', () => {
  it('keeps a second writer out after the lock file was removed', async () => {
    const first = await open();
    await rm(join(journal, 'lock'));
    await expect(EmbeddedStore.open(folder)).rejects.toMatchObject({ code: 'store-locked' });
    await expect(recoverFolder(folder, { compare: compareIndexes })).rejects.toMatchObject({
      code: 'store-locked',
    });
    await rm(join(journal, 'lock'), { force: true });
    const dryRun = { compare: compareIndexes, dryRun: true };
    await expect(recoverFolder(folder, dryRun)).rejects.toMatchObject({ code: 'store-locked' });
    await first.close();
    await (await open()).put('/a', 1, noise(100));
  });

  it('keeps a server of release 3.0 out, and is kept out by one', async () => {
    await (await open()).close();
    await oldServer();
    await expect(EmbeddedStore.open(folder)).rejects.toMatchObject({ code: 'store-locked' });
  });

  it('stops the writer when the lock file is removed or replaced', async () => {
    const store = await open();
    await store.put('/a', 1, noise(100));
    await rm(join(journal, 'lock'));
    await expect(store.put('/b', 1, noise(100))).rejects.toMatchObject(refused);
    await expect(store.catalog.probe()).rejects.toMatchObject(refused);
    await writeFile(join(journal, 'lock'), '');
    await expect(store.put('/b', 1, noise(100))).rejects.toMatchObject(refused);
    expect(await store.names()).toEqual(['/a']);
  });

  it('is let go of whole where a part of it can not be had', async () => {
    await (await open()).close();
    await oldServer();
    expect(await JournalLock.tryAcquire(journal)).toBeUndefined();
    await rm(join(journal, 'lock'));
    await using lock = await JournalLock.tryAcquire(journal);
    expect(lock?.isInPlace).toBe(true);
  });
});

describe('a store under a running writer', () => {
  it('is not written to after it was moved, and is again when it is back', async () => {
    const store = await open();
    await store.put('/a', 1, noise(20_000, 'a'));
    await rename(folder, join(root, 'moved'));
    await expect(store.put('/b', 1, noise(100))).rejects.toMatchObject(refused);
    await expect(store.catalog.probe()).rejects.toMatchObject(refused);
    await expect(store.catalog.collect([], Number.MAX_SAFE_INTEGER)).rejects.toMatchObject(refused);
    await rename(join(root, 'moved'), folder);
    await store.catalog.probe();
    await store.put('/b', 1, noise(100));
    expect(await store.names()).toEqual(['/a', '/b']);
  });

  it('is not written to after another took its place, and nothing is removed from that one', async () => {
    const content = noise(20_000, 'content');
    const store = await open();
    await store.put('/a', 1, noise(100));
    await rename(folder, join(root, 'moved'));
    const other = await EmbeddedStore.open(folder);
    await other.put('/b', 1, content);
    await expect(store.put('/c', 1, content)).rejects.toMatchObject(refused);
    expect(await other.read('/b')).toEqual(content);
    await other.close();
    await rm(folder, { recursive: true });
    await rename(join(root, 'moved'), folder);
  });

  it('is not written to after a copy by hard links took its place', async () => {
    const store = await open();
    await store.put('/a', 1, noise(100));
    execFileSync('cp', ['-al', folder, join(root, 'copy')]);
    await rename(folder, join(root, 'moved'));
    await rename(join(root, 'copy'), folder);
    await expect(store.catalog.collect([], Number.MAX_SAFE_INTEGER)).rejects.toMatchObject(refused);
    await expect(store.catalog.probe()).rejects.toMatchObject(refused);
    await rm(folder, { recursive: true });
    await rename(join(root, 'moved'), folder);
  });

  it('loses no segment to another writer: one that is there already is not written over', async () => {
    const store = await open(16 * 1024);
    await store.put('/a', 1, noise(9000, 'a'));
    await writeFile(segmentPath(journal, 2), 'of another');
    await expect(store.put('/b', 1, noise(9000, 'b'))).rejects.toMatchObject({ code: 'unavailable' });
    await rm(segmentPath(journal, 2));
    await store.put('/b', 1, noise(9000, 'b'));
    expect(await store.names()).toEqual(['/a', '/b']);
  });

  it('is not backed up as whole when its locks are removed meanwhile', async () => {
    const store = await open();
    await store.put('/a', 1, noise(20_000, 'a'));
    const listener = {
      stepBegun: (step: string): void => {
        if (step === 'journal') rmSync(join(journal, 'retention.lock'));
      },
    };
    await expect(backupStore(folder, join(root, 'backup'), { listener })).rejects.toMatchObject({
      code: 'unavailable',
    });
    expect(await backupStore(folder, join(root, 'backup'))).toMatchObject({ entries: 1 });
  });
});
