import { mkdir } from 'node:fs/promises';
import { join } from 'node:path';
import { afterEach, describe, expect, it, vi } from 'vitest';
import type { EmbeddedFolders } from '../../src/catalog/lmdb/index/database.ts';
import type { PlacedRecord } from '../../src/catalog/journal/record.ts';
import { IndexDatabase } from '../../src/catalog/lmdb/index/database.ts';
import { FolderLock } from '../../src/fs/locks/folder-lock.ts';
import { name, putOf } from '../support/catalogs.ts';
import { builtProgram, startNode } from '../support/proof/child-program.ts';
import type { OpeningOrder } from '../support/proof/opening-child.ts';
import { temporaryFolder } from '../support/temporary-folder.ts';

// LMDB puts the number of the last commit back to what it has read, when a process opens a file that another changes.

const timeMs = 2000;

async function emptyFolders(): Promise<EmbeddedFolders> {
  const folder = await temporaryFolder();
  const folders = { journal: join(folder, 'journal'), catalog: join(folder, 'catalog') };
  for (const path of Object.values(folders)) await mkdir(path);
  return folders;
}

function putAt(version: number): PlacedRecord {
  const content = { kind: 'inline', bytes: Buffer.from('text') } as const;
  const change = putOf('/a', version, 'text');
  const record = { ...change, content, type: 'put', timeMs: 1, damaged: false } as const;
  return { record, segment: 1, offset: version, length: 0 };
}

/** Lets those who wait for a lock believe that time flies. */
function hurry(): void {
  let nowMs = 0;
  vi.spyOn(performance, 'now').mockImplementation(() => (nowMs += 6000));
}

afterEach(() => {
  vi.restoreAllMocks();
});

describe('the index', () => {
  it('is opened while nobody changes it, and changed while nobody opens it', async () => {
    const folders = await emptyFolders();
    const fileName = 'data.mdb';
    const index = await IndexDatabase.openShared(folders);
    const opening = await FolderLock.tryAcquire(folders.catalog, { mode: 'exclusive', fileName });
    hurry();
    expect(() => index.apply([putAt(1)], putAt(1))).toThrow(
      expect.objectContaining({ code: 'busy' }) as Error,
    );
    await opening?.release();
    index.apply([putAt(1)], putAt(1));
    await index.close();
    const changing = await FolderLock.tryAcquire(folders.catalog, { mode: 'shared', fileName });
    await expect(IndexDatabase.openShared(folders)).rejects.toMatchObject({ code: 'busy' });
    await expect(IndexDatabase.openToRead(folders.catalog)).rejects.toMatchObject({ code: 'busy' });
    await changing?.release();
    const again = await IndexDatabase.openShared(folders);
    expect(again.entry(name('/a'))?.version).toBe(1);
    await again.close();
  });

  it('loses no change while other processes open it', async () => {
    const folders = await emptyFolders();
    const index = await IndexDatabase.openShared(folders);
    const order: OpeningOrder = { folders, timeMs };
    const program = await builtProgram('./opening-child.ts');
    const openers = [1, 2].map(() => startNode([program, JSON.stringify(order)], {}));
    const ended = Promise.all(openers.map((opener) => opener.ended));
    const opening = { over: false };
    void ended.then(() => (opening.over = true));
    let version = 0;
    while (!opening.over) {
      version += 1;
      index.apply([putAt(version)], putAt(version));
      // What a new snapshot shows, as all processes see it.
      index.root.resetReadTxn();
      if (index.entry(name('/a'))?.version !== version || index.readTotals().offset !== version) break;
      if (version % 20 === 0) await new Promise((resolve) => setImmediate(resolve));
    }
    expect(opening.over, `change ${version} is lost`).toBe(true);
    expect(await ended).toMatchObject([{ code: 0 }, { code: 0 }]);
    expect(version).toBeGreaterThan(100);
    await index.close();
  });
});
