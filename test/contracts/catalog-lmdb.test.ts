import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { beforeEach, describe, expect, it } from 'vitest';
import { IndexDatabase } from '../../src/catalog/lmdb/index/database.ts';
import { LmdbCatalog } from '../../src/catalog/lmdb/lmdb-catalog.ts';
import { totalsKey } from '../../src/catalog/lmdb/index/rows.ts';
import { ManualClock } from '../support/manual-clock.ts';
import { digestOf } from '../../src/core/digest.ts';
import { name, putOf, RecordingPlacer, textOf } from '../support/catalogs.ts';
import { temporaryFolder } from '../support/temporary-folder.ts';
import { describeCatalog } from './catalog.contract.ts';

describeCatalog('LmdbCatalog', async (placer, clock) => {
  const folder = await mkdtemp(join(tmpdir(), 'filetracker-'));
  const folders = { journal: join(folder, 'journal'), catalog: join(folder, 'catalog') };
  const catalog = await LmdbCatalog.open({ folders, placer, clock });
  return {
    catalog,
    dispose: async () => {
      await catalog.close();
      await rm(folder, { recursive: true });
    },
  };
});

describe('LmdbCatalog.stats()', () => {
  let folder: string;
  beforeEach(async () => {
    folder = await temporaryFolder();
  });

  const open = (clock = new ManualClock(1000)): Promise<LmdbCatalog> => {
    const folders = { journal: join(folder, 'journal'), catalog: join(folder, 'catalog') };
    return LmdbCatalog.open({ folders, placer: new RecordingPlacer(), clock });
  };
  const uniqueBytes = async (catalog: LmdbCatalog): Promise<number | undefined> =>
    (await catalog.stats()).uniqueLogicalBytes;

  it('counts the logical bytes of each content once, until it is collected', async () => {
    const clock = new ManualClock(1000);
    const catalog = await open(clock);
    await catalog.put(putOf('/a', 1, 'four', { logicalSize: 400 }));
    await catalog.put(putOf('/b', 1, 'four', { logicalSize: 400 }));
    await catalog.put(putOf('/c', 1, 'other', { logicalSize: 50 }));
    expect(await catalog.stats()).toMatchObject({ logicalBytes: 850, uniqueLogicalBytes: 450 });
    await catalog.remove({ name: name('/c'), version: 1 });
    expect(await catalog.stats()).toMatchObject({ logicalBytes: 800, uniqueLogicalBytes: 450 });
    clock.advance(1000);
    await catalog.collect([digestOf(Buffer.from('other'))], clock.nowMs());
    expect(await uniqueBytes(catalog)).toBe(400);
    await catalog.close();
  });

  it('counts an index of an older release when it is opened, and goes on from there', async () => {
    const before = await open();
    for (let index = 0; index < 20; index += 1) {
      await before.put(putOf(`/${index}`, 1, `content ${index % 5}`, { logicalSize: 100 }));
    }
    await before.close();
    const index = IndexDatabase.open(join(folder, 'catalog'));
    const totals = index.state.get(totalsKey) ?? expect.unreachable();
    await index.state.put(totalsKey, totals.subarray(0, 56));
    expect(index.readTotals().uniqueLogicalBytes).toBeUndefined();
    await index.close();
    const catalog = await open();
    expect(catalog.replay.rebuilt).toBe(false);
    expect(await uniqueBytes(catalog)).toBe(500);
    await catalog.put(putOf('/new', 1, 'new', { logicalSize: 7 }));
    expect(await uniqueBytes(catalog)).toBe(507);
    await catalog.close();
    const again = await open();
    expect(await uniqueBytes(again)).toBe(507);
    await again.close();
  });
});

describe('a content that no record has brought', () => {
  it('counts as damaged, so that a put of it brings it', async () => {
    const folder = await temporaryFolder();
    const folders = { journal: join(folder, 'journal'), catalog: join(folder, 'catalog') };
    const open = (): Promise<LmdbCatalog> => LmdbCatalog.open({ folders, placer: new RecordingPlacer() });
    await (await open()).close();
    const index = IndexDatabase.open(folders.catalog);
    const change = putOf('/a', 1, 'text');
    const record = { ...change, type: 'put', timeMs: 1, content: { kind: 'none' }, damaged: false } as const;
    const { segment, offset } = index.totals;
    index.apply([{ record, segment, offset, length: 0 }], { segment, offset });
    await index.close();
    const catalog = await open();
    expect(await catalog.find(change.name)).toMatchObject({ damaged: true });
    const known = { ...change, content: { kind: 'stored' } } as const;
    expect(await catalog.put({ ...known, name: name('/b') })).toEqual({ kind: 'content-missing' });
    expect(await catalog.put(change)).toEqual({ kind: 'stored', version: 1, deduplicated: false });
    expect(await textOf(catalog, '/a')).toBe('text');
    await catalog.close();
  });
});

it('LmdbCatalog lets others have their turn while a list passes names by', async () => {
  const folder = await temporaryFolder();
  const folders = { journal: join(folder, 'journal'), catalog: join(folder, 'catalog') };
  const catalog = await LmdbCatalog.open({ folders, placer: new RecordingPlacer() });
  await Promise.all(Array.from({ length: 2100 }, (_, at) => catalog.put(putOf(`/d/${at}`, 9, 'text'))));
  for (const list of [catalog.listNames('/', { upTo: 1 }), catalog.listEntries('/', { upTo: 1 })]) {
    let turns = 0;
    const count = (): void => {
      turns += 1;
      immediate = setImmediate(count);
    };
    let immediate = setImmediate(count);
    for await (const batch of list) expect(batch).toEqual([]);
    clearImmediate(immediate);
    expect(turns).toBeGreaterThanOrEqual(2);
  }
  await catalog.close();
});
