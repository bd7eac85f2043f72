import { join } from 'node:path';
import { beforeEach, describe, expect, it, onTestFinished, vi } from 'vitest';
import type { EmbeddedFolders } from '../../src/catalog/lmdb/index/database.ts';
import { IndexDatabase } from '../../src/catalog/lmdb/index/database.ts';
import { LmdbCatalog } from '../../src/catalog/lmdb/lmdb-catalog.ts';
import { totalsKey } from '../../src/catalog/lmdb/index/rows.ts';
import { SharedCatalog } from '../../src/catalog/leader/shared-catalog.ts';
import { digestOf } from '../../src/core/digest.ts';
import { name, namesOf, putOf, RecordingPlacer, textOf } from '../support/catalogs.ts';
import { present } from '../support/present.ts';
import { temporaryFolder } from '../support/temporary-folder.ts';

type TableName = 'entries' | 'blobs' | 'state';

const placer = new RecordingPlacer();
const stored = putOf('/in-store', 1, 'large content', { content: { kind: 'staged', stagedId: '1' } });
let folders: EmbeddedFolders;

/** Changes a row of an index that nobody has open. */
async function spoil(table: TableName, key: Buffer, change: (row: Buffer) => Buffer): Promise<void> {
  const index = IndexDatabase.open(folders.catalog);
  await index[table].put(key, change(present(index[table].get(key))));
  await index.close();
}

/** As a release wrote it that read the key of a blob past the end of its row. */
function withMemoryBehind(row: Buffer): Buffer {
  return Buffer.concat([row, Buffer.alloc(40_000)]);
}

const open = (): Promise<LmdbCatalog> => LmdbCatalog.open({ folders, placer });

beforeEach(async () => {
  const folder = await temporaryFolder();
  folders = { journal: join(folder, 'journal'), catalog: join(folder, 'catalog') };
  const catalog = await open();
  await catalog.put(putOf('/inline', 1, 'text'));
  await catalog.put(stored);
  await catalog.close();
});

async function expectWhole(catalog: LmdbCatalog | SharedCatalog): Promise<void> {
  expect(await namesOf(catalog)).toEqual(['/in-store', '/inline']);
  expect(await textOf(catalog, '/inline')).toBe('text');
  const found = await catalog.find(stored.name);
  expect(found?.location).toEqual({ kind: 'object', key: `key-${stored.digest}` });
}

describe('a damaged row of the index', () => {
  const key = Buffer.from(stored.digest, 'hex');

  it('is neither shown nor written back, and gone after the next opening', async () => {
    await spoil('blobs', key, withMemoryBehind);
    const catalog = await open();
    const again = { ...stored, name: name('/again') };
    await expect(catalog.put(again)).rejects.toMatchObject({ code: 'unavailable', retryable: true });
    await expect(async () => catalog.find(stored.name)).rejects.toThrow('rebuilt from the journal');
    await expect(catalog.remove({ name: stored.name, version: 1 })).rejects.toMatchObject({
      code: 'unavailable',
    });
    await catalog.close();
    const healed = await open();
    expect(healed.replay).toMatchObject({ rebuilt: true, lost: [] });
    await expectWhole(healed);
    expect(await healed.put(again)).toMatchObject({ kind: 'stored', deduplicated: true });
    await healed.close();
    const last = await open();
    expect(last.replay.rebuilt).toBe(false);
    await last.close();
  });

  it('that opening meets makes it rebuild the index at once', async () => {
    await spoil('state', totalsKey, (row) => row.subarray(1));
    const catalog = await open();
    expect(catalog.replay.rebuilt).toBe(true);
    await expectWhole(catalog);
    await catalog.close();
  });

  it('that the count for quotas meets makes opening rebuild the index at once', async () => {
    await spoil('entries', Buffer.from('/inline'), withMemoryBehind);
    const limits = {
      quotas: [{ prefix: '/', filesMax: 10, logicalBytesMax: 1e6 }],
      storedBytesMax: undefined,
    };
    const catalog = await LmdbCatalog.open({ folders, placer, limits });
    expect(catalog.replay.rebuilt).toBe(true);
    await expectWhole(catalog);
    await catalog.close();
  });

  it('ends every process that has the index open, whichever meets it', async () => {
    await spoil('blobs', key, withMemoryBehind);
    const onLeaderUnusable = vi.fn<(error: unknown) => void>();
    const onFollowerUnusable = vi.fn<(error: unknown) => void>();
    const leader = await SharedCatalog.open({ folders, placer, onUnusable: onLeaderUnusable });
    const follower = await SharedCatalog.open({ folders, placer, onUnusable: onFollowerUnusable });
    onTestFinished(() => follower.close());
    await expect(async () => follower.find(stored.name)).rejects.toMatchObject({ code: 'unavailable' });
    for (const onUnusable of [onLeaderUnusable, onFollowerUnusable]) {
      await vi.waitUntil(() => onUnusable.mock.calls.length > 0, { timeout: 60_000 });
      expect(onUnusable.mock.calls[0]?.[0]).toMatchObject({ code: 'unavailable' });
    }
    await leader.close();
    const next = await SharedCatalog.open({ folders, placer });
    onTestFinished(() => next.close());
    expect(next.leads).toBe(true);
    await expectWhole(next);
    expect(await next.findBlob(digestOf(Buffer.from('text')))).toMatchObject({ references: 1 });
  });
});
