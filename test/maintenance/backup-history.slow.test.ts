import { cp, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { beforeEach, describe, expect, it } from 'vitest';
import { lockJournal } from '../../src/catalog/lmdb/writer/journal-lock.ts';
import { ManualClock } from '../support/manual-clock.ts';
import { parseFileName } from '../../src/core/file-name.ts';
import { backupStore } from '../../src/maintenance/backup/backup.ts';
import { restoreStore } from '../../src/maintenance/backup/restore.ts';
import { noise, prose } from '../support/contents.ts';
import { EmbeddedStore } from '../support/embedded-store.ts';
import { temporaryFolder } from '../support/temporary-folder.ts';

let folder: string;
let target: string;
let clock: ManualClock;

beforeEach(async () => {
  const root = await temporaryFolder();
  folder = join(root, 'store');
  target = join(root, 'backup');
  clock = new ManualClock();
});

const open = (at = folder): Promise<EmbeddedStore> => EmbeddedStore.open(at, { clock });

async function namesIn(at: string): Promise<string[]> {
  await using store = await EmbeddedStore.open(at);
  return store.names();
}

describe('backupStore()', () => {
  it.each([
    { segmentSizeBytes: 16 * 1024, segments: 'many segments' },
    { segmentSizeBytes: 1024 * 1024, segments: 'one segment' },
  ])('refuses a store of $segments that was put back to an earlier state', async ({ segmentSizeBytes }) => {
    const copy = `${folder}-copy`;
    const goOn = async (names: readonly string[]): Promise<void> => {
      const store = await EmbeddedStore.open(folder, { clock, segmentSizeBytes });
      for (const name of names) {
        clock.advance(1000);
        await store.put(name, 1, noise(3000, name));
      }
      await store.close();
    };
    await goOn(['/a']);
    await backupStore(folder, target, { clock });
    await cp(folder, copy, { recursive: true });
    const kept = Array.from({ length: 12 }, (_, index) => `/old/${index}`);
    await goOn(kept);
    clock.advance(1000);
    await backupStore(folder, target, { clock });
    const refused = { code: 'invalid-argument', message: expect.stringContaining('new folder') as string };
    // As it was, then gone on by less than was backed up, by as much, and by more.
    await rm(folder, { recursive: true });
    await cp(copy, folder, { recursive: true });
    for (const count of [0, 1, 12, 24]) {
      await goOn(Array.from({ length: count }, (_, index) => `/new/${count}/${index}`));
      clock.advance(1000);
      await expect(backupStore(folder, target, { clock })).rejects.toMatchObject(refused);
    }
    await restoreStore(target, `${folder}-restored`);
    expect(await namesIn(`${folder}-restored`)).toEqual(['/a', ...kept].sort());
    await backupStore(folder, `${target}-new`, { clock });
    // What was put back to the state of the last snapshot goes on from it.
    const store = await open(copy);
    await store.close();
    await rm(folder, { recursive: true });
    await backupStore(copy, `${target}-copy`, { clock });
    await cp(copy, folder, { recursive: true });
    await goOn(['/other']);
    clock.advance(1000);
    await backupStore(folder, `${target}-copy`, { clock });
  });

  it('refuses while a server that starts has not read the journal to its end', async () => {
    const store = await open();
    await store.put('/a', 1, prose(100));
    await store.close();
    const catalog = join(folder, 'catalog');
    const begun = `${folder}-begun`;
    await cp(catalog, begun, { recursive: true });
    const again = await open();
    await again.put('/b', 1, prose(100));
    await again.close();
    await backupStore(folder, target, { clock });
    await rm(catalog, { recursive: true });
    await cp(begun, catalog, { recursive: true });
    await using _starting = await lockJournal(join(folder, 'journal'));
    clock.advance(1000);
    await expect(backupStore(folder, target, { clock })).rejects.toMatchObject({ code: 'unavailable' });
    await restoreStore(target, `${folder}-restored`);
    expect(await namesIn(`${folder}-restored`)).toEqual(['/a', '/b']);
  });
});

describe('restoreStore()', () => {
  it('restores the last snapshot even if an earlier one was taken while the clock was ahead', async () => {
    await using store = await open();
    await store.put('/a', 1, prose(100));
    const ahead = new ManualClock(clock.nowMs() + 86_400_000);
    await backupStore(folder, target, { clock: ahead });
    clock.advance(1000);
    await store.put('/b', 1, prose(100));
    const betweenMs = clock.nowMs();
    clock.advance(1000);
    await store.put('/c', 1, prose(100));
    clock.advance(1000);
    expect(await backupStore(folder, target, { clock })).toMatchObject({ putAside: undefined });
    await restoreStore(target, `${folder}-last`);
    expect(await namesIn(`${folder}-last`)).toEqual(['/a', '/b', '/c']);
    await restoreStore(target, `${folder}-first`, { atMs: ahead.nowMs() });
    expect(await namesIn(`${folder}-first`)).toEqual(['/a']);
    const { gaps } = await restoreStore(target, `${folder}-between`, { atMs: betweenMs });
    expect(gaps).toEqual([expect.stringContaining('clock')]);
    expect(await namesIn(`${folder}-between`)).toEqual(['/a', '/b']);
  });

  it('is exact for the times of the snapshots, whatever the clock of the server', async () => {
    await using store = await open();
    await store.put('/removed', 1, prose(100));
    clock.advance(1000);
    await backupStore(folder, target, { clock });
    clock.advance(7_200_000);
    await store.put('/put', 1, prose(100));
    await store.catalog.remove({ name: parseFileName('/removed'), version: 1 });
    clock.advance(-7_200_000 + 1000);
    await backupStore(folder, target, { clock });
    const takenMs = clock.nowMs();
    clock.advance(1000);
    await store.put('/last', 1, prose(100));
    clock.advance(1000);
    await backupStore(folder, target, { clock });
    const restored = async (atMs: number): Promise<unknown> => {
      const goal = `${folder}-${atMs}`;
      const { gaps } = await restoreStore(target, goal, { atMs });
      return { names: await namesIn(goal), gaps };
    };
    expect(await restored(takenMs)).toEqual({ names: ['/put'], gaps: [] });
    expect(await restored(takenMs + 500)).toEqual({ names: ['/put'], gaps: [] });
    expect(await restored(takenMs + 1500)).toEqual({ names: ['/last', '/put'], gaps: [] });
    // What was changed by a clock that was ahead has no place in between: that is told.
    const told = [expect.stringContaining('clock')];
    expect(await restored(takenMs - 500)).toEqual({ names: ['/removed'], gaps: told });
  });
});
