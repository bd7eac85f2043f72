import { stat } from 'node:fs/promises';
import { join } from 'node:path';
import { beforeEach, describe, expect, it, onTestFinished } from 'vitest';
import { LmdbCatalog } from '../../src/catalog/lmdb/lmdb-catalog.ts';
import { namesOf, putOf, RecordingPlacer } from '../support/catalogs.ts';
import { temporaryFolder } from '../support/temporary-folder.ts';

// What a reader that is slow, or never comes back, may hold of the index: nothing.

let catalog: LmdbCatalog;
let folder: string;
const names = 2000;

/** Puts every name in a version. */
async function putAll(version: number): Promise<void> {
  await Promise.all(
    Array.from({ length: names }, (_, index) => catalog.put(putOf(`/d/${index}`, version, 'x'))),
  );
}

beforeEach(async () => {
  folder = await temporaryFolder();
  const folders = { journal: join(folder, 'journal'), catalog: join(folder, 'catalog') };
  catalog = await LmdbCatalog.open({ folders, placer: new RecordingPlacer() });
  onTestFinished(() => catalog.close());
  await putAll(0);
});

async function indexSizeBytes(): Promise<number> {
  return (await stat(join(folder, 'catalog', 'data.mdb'))).size;
}

/** Begins to read, and leaves it at that. */
async function begin<Batch>(list: AsyncIterable<Batch>): Promise<AsyncIterator<Batch>> {
  const iterator = list[Symbol.asyncIterator]();
  expect((await iterator.next()).done).toBe(false);
  return iterator;
}

describe('a list of the embedded catalog that is not read on', () => {
  it('does not make the index grow with what is written meanwhile', { timeout: 300_000 }, async () => {
    const rounds = 30;
    for (let version = 1; version <= rounds; version += 1) await putAll(version);
    const withoutReaders = await indexSizeBytes();
    const held = [
      await begin(catalog.listNames('/')),
      await begin(catalog.listNames('/', { upTo: 1e9 })),
      await begin(catalog.listEntries('/')),
    ];
    for (let version = 1; version <= rounds; version += 1) await putAll(rounds + version);
    // A snapshot that was held would keep every page that was written since: many times the size.
    expect(await indexSizeBytes()).toBeLessThan(1.5 * withoutReaders);
    for (const iterator of held) await iterator.return?.();
  });

  it('takes no place for readers, of which LMDB has 1,024', async () => {
    const held: AsyncIterator<unknown>[] = [];
    for (let count = 0; count < 1100; count += 1) {
      held.push(await begin(catalog.listNames('/')));
      // Readers of the same state would share a place.
      await catalog.put(putOf('/d/0', count, 'x'));
    }
    expect(await namesOf(catalog)).toHaveLength(names);
    expect(await catalog.find('/d/0' as never)).toBeDefined();
    for (const iterator of held) await iterator.return?.();
  });

  it('goes on after its last name, whatever has changed', async () => {
    const iterator = await begin(catalog.listNames('/d/', { limit: names }));
    for (let index = 0; index < names; index += 2) {
      await catalog.remove({ name: `/d/${index}` as never, version: 9 });
    }
    const seen: string[] = [];
    for (let next = await iterator.next(); next.done !== true; next = await iterator.next()) {
      seen.push(...next.value);
    }
    expect(seen).toEqual(seen.toSorted());
    for (const name of seen) expect(Number(name.slice('/d/'.length)) % 2).toBe(1);
  });
});
