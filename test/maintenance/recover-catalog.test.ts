import { cp, mkdir, open, readdir, readFile, rename, rm, truncate } from 'node:fs/promises';
import { join } from 'node:path';
import { beforeEach, describe, expect, it } from 'vitest';
import { compareIndexes } from '../../src/catalog/lmdb/index/comparison.ts';
import { ManualClock } from '../support/manual-clock.ts';
import { parseFileName } from '../../src/core/file-name.ts';
import type { RecoverFolderOptions } from '../../src/maintenance/recovery/recover-folder.ts';
import { putOf } from '../support/catalogs.ts';
import { noise, prose } from '../support/contents.ts';
import { EmbeddedStore } from '../support/embedded-store.ts';
import { temporaryFolder } from '../support/temporary-folder.ts';
import { recoverFolder, type FolderReport } from '../support/recovery.ts';

const dayMs = 86_400_000;
const large = noise(30_000, 'gone');

let folder: string;

beforeEach(async () => {
  folder = await temporaryFolder();
});

function recover(options: Partial<RecoverFolderOptions> = {}): Promise<FolderReport> {
  return recoverFolder(folder, { compare: compareIndexes, ...options });
}

async function removeFile(store: EmbeddedStore, path: string, version: number): Promise<void> {
  expect(await store.catalog.remove({ name: parseFileName(path), version })).toMatchObject({
    kind: 'removed',
  });
}

/** A store that has removed a small and a large file, and collected what they held. */
async function makeStoreWithRemovals(): Promise<void> {
  await using store = await EmbeddedStore.open(folder);
  await store.put('/kept', 1, prose(300, 'kept'));
  await store.put('/small', 1, prose(300, 'small'));
  await store.put('/gone', 5, large);
  await removeFile(store, '/small', 1);
  await removeFile(store, '/gone', 5);
  await store.put('/small/below', 1, prose(300, 'below'));
  const unnamed = await store.catalog.listUnreferenced(Date.now() + 1, 10);
  await store.catalog.collect(unnamed, Date.now() + 1);
}

async function segmentNames(): Promise<string[]> {
  return (await readdir(join(folder, 'journal'))).filter((name) => name.endsWith('.log')).sort();
}

/** Where the last record of a name lies in the last segment. */
async function recordOf(path: string): Promise<{ segment: string; offset: number }> {
  const segment = join(folder, 'journal', (await segmentNames()).at(-1) ?? '');
  return { segment, offset: (await readFile(segment)).lastIndexOf(path) - 80 };
}

async function damageRecordOf(path: string): Promise<void> {
  const { segment, offset } = await recordOf(path);
  const file = await open(segment, 'r+');
  await file.write(Buffer.from('X'), 0, 1, offset + 80);
  await file.close();
}

async function checkNamesAndRepeat(names: readonly string[]): Promise<void> {
  {
    await using store = await EmbeddedStore.open(folder);
    expect(await store.names()).toEqual(names);
    expect(await store.read('/kept')).toEqual(prose(300, 'kept'));
  }
  expect(await recover({ full: true })).toMatchObject({ actions: [], changesMayBeMissing: false });
}

describe('recoverFolder() with removals that only the catalog has', () => {
  it('restores the removals, and reports none of their files as lost', async () => {
    await makeStoreWithRemovals();
    await damageRecordOf('/gone');
    const report = await recover({ full: true });
    expect(report.actions).toContainEqual(
      expect.objectContaining({ action: 'restore-removal', target: '/gone@5' }),
    );
    expect(report).toMatchObject({ entries: 2, damagedFileCount: 0, changesMayBeMissing: false });
    await checkNamesAndRepeat(['/kept', '/small/below']);
    await using store = await EmbeddedStore.open(folder);
    await store.catalog.put(putOf('/gone', 4, 'sent before the removal', { firstSentMs: 0 }));
    expect(await store.names()).not.toContain('/gone');
    // The file of its content is gone: storing it again must bring it anew.
    await store.put('/gone', 6, large);
    expect(await store.read('/gone')).toEqual(large);
  });

  it('restores removals before files if the journal has lost its end', async () => {
    await makeStoreWithRemovals();
    // The removals of both, and what was stored below one of them.
    const { segment, offset } = await recordOf('/gone');
    await truncate(segment, offset - 88);
    const report = await recover();
    expect(report.actions.filter(({ action }) => action === 'restore-removal')).toHaveLength(2);
    expect(report.damagedFiles).toMatchObject([{ name: '/small/below' }]);
    expect(report.notes).toEqual([]);
    await using store = await EmbeddedStore.open(folder);
    expect(await store.names()).toEqual(['/kept', '/small/below']);
    expect(await store.read('/small/below')).toBe('damaged');
  });

  it('reports that changes may be missing if no catalog covers the damaged records', async () => {
    await makeStoreWithRemovals();
    await damageRecordOf('/gone');
    const aside = join(await temporaryFolder(), 'store');
    await cp(folder, aside, { recursive: true, preserveTimestamps: true });
    await rm(join(folder, 'catalog'), { recursive: true });
    expect(await recover()).toMatchObject({ changesMayBeMissing: true });
    // A catalog that was not closed before the system went down may have lost anything.
    await rm(folder, { recursive: true });
    await cp(aside, folder, { recursive: true });
    await rm(join(folder, 'catalog', 'state.json'));
    expect(await recover()).toMatchObject({ changesMayBeMissing: true });
    // So may one that a recovery which was killed had made of the damaged journal.
    await rm(folder, { recursive: true });
    await cp(aside, folder, { recursive: true });
    await mkdir(join(folder, 'recovery-scratch'));
    expect(await recover()).toMatchObject({ changesMayBeMissing: true });
    expect(await recover()).toMatchObject({ actions: [], changesMayBeMissing: false });
  });
});

describe('recoverFolder() with a catalog that is older than the journal', () => {
  const clock = new ManualClock();
  const segmentSizeBytes = 32 * 1024;

  function openStore(): Promise<EmbeddedStore> {
    return EmbeddedStore.open(folder, { clock, segmentSizeBytes });
  }

  /** Overwrites ten names until nothing of what the journal holds now is in a segment of its own any more. */
  async function overwriteAll(store: EmbeddedStore, round: number): Promise<void> {
    for (let index = 0; index < 60; index += 1) {
      await store.put(`/x${index % 10}`, round * 100 + index, noise(4000, `${round} ${index}`));
    }
    const untilMs = clock.nowMs() + 1;
    await store.catalog.collect(await store.catalog.listUnreferenced(untilMs, 1000), untilMs);
    await store.catalog.compact();
  }

  /** Makes the segment that is written one that compaction leaves alone, as all in it is needed. */
  async function fillSegment(store: EmbeddedStore): Promise<void> {
    const { length } = await segmentNames();
    let begun = 0;
    for (let index = 0; begun < 5; index += 1) {
      await store.put(`/stays${index}`, 1, noise(6000, `stays ${index}`));
      if ((await segmentNames()).length > length) begun += 1;
    }
  }

  async function makeStoreWithOldCatalog(afterMs: number, endStays: boolean): Promise<void> {
    const old = join(await temporaryFolder(), 'catalog');
    {
      await using store = await openStore();
      await store.put('/kept', 1, prose(300, 'kept'));
      await store.put('/dead', 1, prose(300, 'dead'));
      await overwriteAll(store, 1);
      if (endStays) await fillSegment(store);
    }
    const [end = ''] = (await segmentNames()).slice(-1);
    await cp(join(folder, 'catalog'), old, { recursive: true, preserveTimestamps: true });
    {
      await using store = await openStore();
      await removeFile(store, '/dead', 1);
      await overwriteAll(store, 2);
    }
    clock.advance(afterMs);
    {
      await using store = await openStore();
      await overwriteAll(store, 3);
    }
    expect((await segmentNames()).includes(end)).toBe(endStays);
    await rm(join(folder, 'catalog'), { recursive: true });
    await cp(old, join(folder, 'catalog'), { recursive: true });
  }

  it.each([
    { when: 'lately', afterMs: 0, endStays: true },
    { when: 'in a segment that is gone', afterMs: 0, endStays: false },
    { when: 'so long ago that removals made since are forgotten', afterMs: 40 * dayMs, endStays: false },
  ])('follows the journal, compacted since; written $when', async ({ afterMs, endStays }) => {
    await makeStoreWithOldCatalog(afterMs, endStays);
    const report = await recover({ clock });
    expect(report.actions).toMatchObject([
      { action: 'rebuild-catalog', reason: 'it ends before the journal does' },
    ]);
    expect(report).toMatchObject({ damagedFileCount: 0, notes: [], quarantine: undefined });
    await using store = await EmbeddedStore.open(folder);
    expect(await store.names()).not.toContain('/dead');
    for (let index = 0; index < 10; index += 1) {
      expect(await store.read(`/x${index}`)).toEqual(noise(4000, `3 ${50 + index}`));
    }
    await store.close();
    expect(await recover({ full: true })).toMatchObject({ actions: [] });
  });

  it('restores from it the records of a segment that was lost since', async () => {
    const saved = join(await temporaryFolder(), 'catalog');
    {
      await using store = await openStore();
      await store.put('/kept', 1, prose(300, 'kept'));
      await store.put('/lost', 1, prose(300, 'lost'));
      for (let index = 0; index < 10; index += 1) await store.put(`/y${index}`, 1, noise(6000, `${index}`));
    }
    await cp(join(folder, 'catalog'), saved, { recursive: true, preserveTimestamps: true });
    {
      await using store = await openStore();
      await store.put('/later', 1, prose(300, 'later'));
    }
    await rm(join(folder, 'catalog'), { recursive: true });
    await rename(saved, join(folder, 'catalog'));
    await rm(join(folder, 'journal', '0000000001.log'));
    const report = await recover({ clock });
    expect(report.damagedFiles.map(({ name }) => name)).toContain('/lost');
    await using store = await EmbeddedStore.open(folder);
    expect(await store.read('/later')).toEqual(prose(300, 'later'));
  });
});
