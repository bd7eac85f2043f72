import { mkdir, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { describe, expect, it, onTestFinished, vi } from 'vitest';
import { IndexDatabase } from '../../src/catalog/lmdb/index/database.ts';
import { JournalLock } from '../../src/catalog/lmdb/writer/journal-lock.ts';
import { LmdbCatalog } from '../../src/catalog/lmdb/lmdb-catalog.ts';
import type { LeadershipOptions } from '../../src/catalog/leader/leadership.ts';
import { SharedCatalog } from '../../src/catalog/leader/shared-catalog.ts';
import { makeFolders } from '../../src/fs/folders.ts';
import { SharedCounter } from '../../src/fs/shared-counter.ts';
import { putOf, RecordingPlacer } from '../support/catalogs.ts';
import { present } from '../support/present.ts';
import { temporaryFolder } from '../support/temporary-folder.ts';

describe('IndexDatabase.takeOver()', () => {
  it('makes all who remember what they found look again, as the one before may have died before it said so', async () => {
    const folder = await temporaryFolder();
    const folders = { journal: join(folder, 'journal'), catalog: join(folder, 'catalog') };
    for (const path of Object.values(folders)) makeFolders(path);
    const index = await IndexDatabase.openShared(folders);
    const other = await SharedCounter.open(join(folders.journal, 'commits'));
    const before = other.value;
    index.takeOver();
    expect(other.value).not.toBe(before);
    await index.close();
  });
});

describe('SharedCatalog', () => {
  const optionsIn = (folder: string): LeadershipOptions => ({
    folders: { journal: join(folder, 'journal'), catalog: join(folder, 'catalog') },
    placer: new RecordingPlacer(),
  });

  it('gives up a process whose index is not that of the store any more, for it would read old answers for ever', async () => {
    const options = optionsIn(await temporaryFolder());
    const leader = await SharedCatalog.open(options);
    const onUnusable = vi.fn<(error: unknown) => void>();
    const follower = await SharedCatalog.open({ ...options, onUnusable });
    onTestFinished(() => follower.close());
    // The documentation allows it at rest; while the store is in use nothing can keep anyone from it.
    await rm(options.folders.catalog, { recursive: true });
    await expect(leader.close()).rejects.toThrow();
    await vi.waitUntil(() => onUnusable.mock.calls.length === 1, { timeout: 60_000 });
    const next = await SharedCatalog.open(options);
    onTestFinished(() => next.close());
    expect(next.leads).toBe(true);
    // A leader that has made the index anew is not followed with the old one.
    await vi.waitUntil(() => onUnusable.mock.calls.length === 2, { timeout: 60_000 });
    expect(onUnusable.mock.lastCall?.[0]).toMatchObject({ code: 'unavailable' });
    await expect(follower.put(putOf('/a', 1, 'text'))).rejects.toMatchObject({ code: 'unavailable' });
  });

  it('keeps no other from leading where it cannot take up its duties', async () => {
    const options = optionsIn(await temporaryFolder());
    const failure = new Error('the disk does not answer');
    const onLead = async (): Promise<void> => {
      throw failure;
    };
    await expect(SharedCatalog.open({ ...options, onLead })).rejects.toBe(failure);
    const leader = await SharedCatalog.open(options);
    expect(leader.leads).toBe(true);
    const onUnusable = vi.fn<(error: unknown) => void>();
    const follower = await SharedCatalog.open({ ...options, onLead, onUnusable });
    await leader.close();
    await vi.waitUntil(() => onUnusable.mock.calls.length > 0, { timeout: 60_000 });
    expect(onUnusable).toHaveBeenCalledWith(failure);
    await follower.close();
  });

  it('finds the next leader if the one that it joins ends meanwhile', async () => {
    const options = optionsIn(await temporaryFolder());
    const leader = await SharedCatalog.open(options);
    const openShared = IndexDatabase.openShared.bind(IndexDatabase);
    const spy = vi.spyOn(IndexDatabase, 'openShared').mockImplementationOnce(async (folders) => {
      const index = await openShared(folders);
      await leader.close();
      return index;
    });
    onTestFinished(() => spy.mockRestore());
    const joining = await SharedCatalog.open(options);
    onTestFinished(() => joining.close());
    await vi.waitUntil(() => joining.leads, { timeout: 60_000 });
    expect(await joining.put(putOf('/a', 1, 'text'))).toMatchObject({ kind: 'stored' });
  });

  it('lets go of the lock that it was given, whatever keeps it from leading', async () => {
    const options = optionsIn(await temporaryFolder());
    const { journal } = options.folders;
    await mkdir(journal, { recursive: true });
    const lock = present(await JournalLock.tryAcquire(journal));
    // A folder cannot be made below a file.
    await writeFile(join(journal, 'file'), '');
    const folders = { ...options.folders, journal: join(journal, 'file', 'journal') };
    await expect(LmdbCatalog.open({ ...options, folders, lock })).rejects.toThrow('Cannot');
    const next = present(await JournalLock.tryAcquire(journal));
    await next.release();
  });
});
