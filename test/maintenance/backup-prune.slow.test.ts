import { cp, readFile, readdir, rm, truncate, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { beforeEach, describe, expect, it } from 'vitest';
import { lockJournal } from '../../src/catalog/lmdb/writer/journal-lock.ts';
import { retainAll } from '../../src/catalog/lmdb/writer/retention.ts';
import { digestOf } from '../../src/core/digest.ts';
import { parseFileName } from '../../src/core/file-name.ts';
import { backupStore } from '../../src/maintenance/backup/backup.ts';
import { listSnapshots } from '../../src/maintenance/backup/backup-layout.ts';
import { checkBackup } from '../../src/maintenance/backup/check.ts';
import { pruneBackup } from '../../src/maintenance/backup/prune.ts';
import { restoreStore } from '../../src/maintenance/backup/restore.ts';
import { noise } from '../support/contents.ts';
import { EmbeddedStore } from '../support/embedded-store.ts';
import { ManualClock } from '../support/manual-clock.ts';
import { temporaryFolder } from '../support/temporary-folder.ts';

let root: string;
let folder: string;
let target: string;
let clock: ManualClock;

/** Too large for the journal. */
const large = (name: string): Buffer => noise(100_000, name);
const digestIn = (name: string): string => digestOf(large(name));

beforeEach(async () => {
  root = await temporaryFolder();
  folder = join(root, 'store');
  target = join(root, 'backup');
  clock = new ManualClock(Date.parse('2026-06-01T12:00:00Z'));
});

async function backUp(): Promise<number> {
  clock.advance(1000);
  const { timeMs } = await backupStore(folder, target, { clock });
  clock.advance(86_400_000);
  return timeMs;
}

/** Three snapshots: of /old and /kept; of /kept and /middle; of /kept and /new. */
async function threeSnapshots(): Promise<readonly number[]> {
  await using store = await EmbeddedStore.open(folder, { clock });
  const times: number[] = [];
  for (const [names, removed] of [
    [['/old', '/kept'], undefined],
    [['/middle'], '/old'],
    [['/new'], '/middle'],
  ] as const) {
    for (const name of names) {
      await store.put(name, 1, large(name));
      await store.put(`/small${name}`, 1, noise(500, `small ${name}`));
    }
    if (removed !== undefined) await store.catalog.remove({ name: parseFileName(removed), version: 1 });
    times.push(await backUp());
  }
  return times;
}

async function blobsInBackup(): Promise<string[]> {
  const names = await readdir(join(target, 'blobs'), { recursive: true });
  return names.map((name) => /([0-9a-f]{64})/.exec(name)?.[1] ?? '').filter((digest) => digest !== '');
}

/** What a restored store holds, with each content read and compared. */
async function restored(atMs: number | undefined): Promise<string[]> {
  const goal = join(root, `restored-${atMs ?? 'last'}`);
  const report = await restoreStore(target, goal, { atMs });
  expect(report).toMatchObject({ damage: [], gaps: [] });
  expect(report.blobs).toMatchObject({ missing: [], unreadable: [] });
  await using store = await EmbeddedStore.open(goal);
  const names = (await store.names()).filter((name) => !name.startsWith('/small'));
  for (const name of names) expect(await store.read(name)).toEqual(large(name));
  return names;
}

describe('pruneBackup()', () => {
  it('removes snapshots and their blobs, and leaves the others whole', async () => {
    const [first = 0, second = 0, third = 0] = await threeSnapshots();
    const preview = await pruneBackup(target, { last: 2 }, { dryRun: true });
    expect(preview).toMatchObject({ dryRun: true, removedMs: [first], keptMs: [second, third] });
    expect(await blobsInBackup()).toHaveLength(4);
    // /middle and /old are named by the journal of the second snapshot: /old was removed there.
    expect(preview.blobs).toMatchObject({ removed: 0, kept: 4 });
    expect(await pruneBackup(target, { last: 2 })).toEqual({
      ...preview,
      dryRun: false,
      steps: expect.anything() as unknown,
    });
    expect((await listSnapshots(target)).map(({ timeMs }) => timeMs)).toEqual([second, third]);
    expect(await restored(second)).toEqual(['/kept', '/middle']);
    expect(await restored(undefined)).toEqual(['/kept', '/new']);
    expect(await checkBackup(target, { full: true })).toMatchObject({ intact: true });
  });

  it('removes the blobs that no journal names any more', async () => {
    await threeSnapshots();
    await rm(folder, { recursive: true });
    folder = join(root, 'other');
    const other = target;
    target = join(root, 'other-backup');
    await using store = await EmbeddedStore.open(folder, { clock });
    await store.put('/new', 1, large('/new'));
    await backUp();
    // Of snapshots that were removed by hand.
    await cp(join(other, 'blobs'), join(target, 'blobs'), { recursive: true });
    expect(await blobsInBackup()).toHaveLength(4);
    const { blobs } = await pruneBackup(target, { last: 1 });
    expect(blobs).toMatchObject({ removed: 3, kept: 1 });
    expect(blobs.removedBytes).toBeGreaterThan(300_000);
    expect(await blobsInBackup()).toEqual([digestIn('/new')]);
    expect(await restored(undefined)).toEqual(['/new']);
  });

  it('lets the next backup copy again what it removed', async () => {
    await threeSnapshots();
    await pruneBackup(target, { last: 1 });
    await rm(join(target, 'blobs'), { recursive: true });
    await backUp();
    expect(await restored(undefined)).toEqual(['/kept', '/new']);
  });

  it('finishes what a killed prune has begun', async () => {
    const [first = 0, second = 0, third = 0] = await threeSnapshots();
    const history = join(target, 'history');
    const [folderOfFirst = ''] = (await readdir(history)).sort();
    await rm(join(history, folderOfFirst, 'snapshot.json'));
    const report = await pruneBackup(target, { last: 5 });
    expect(report).toMatchObject({ removedMs: [], keptMs: [second, third] });
    expect(await readdir(history)).toHaveLength(2);
    expect(first).toBeLessThan(second);
    expect(await restored(undefined)).toEqual(['/kept', '/new']);
  });

  it('removes nothing if a journal that stays is damaged', async () => {
    await threeSnapshots();
    const [, , last] = await listSnapshots(target);
    const path = join(last?.folder ?? '', '0000000001.log');
    const bytes = await readFile(path);
    bytes.fill(0xff, 1000, 1100);
    await writeFile(path, bytes);
    const before = await blobsInBackup();
    await expect(pruneBackup(target, { last: 1 })).rejects.toMatchObject({ code: 'corrupt-store' });
    expect(await listSnapshots(target)).toHaveLength(3);
    expect(await blobsInBackup()).toEqual(before);
  });

  it('removes nothing if it cannot tell what a snapshot holds', async () => {
    await threeSnapshots();
    const [first] = await listSnapshots(target);
    await writeFile(join(first?.folder ?? '', 'snapshot.json'), '{ "format": 1, ');
    const before = await blobsInBackup();
    await expect(pruneBackup(target, { last: 1 })).rejects.toMatchObject({ code: 'corrupt-store' });
    expect(await listSnapshots(target)).toHaveLength(2);
    expect(await blobsInBackup()).toEqual(before);
    // A backup does not take it for an unfinished one either.
    await backUp();
    expect(await readdir(join(target, 'history'))).toHaveLength(4);
  });

  it('refuses without a rule, in a folder that is no backup, and while the backup is in use', async () => {
    await threeSnapshots();
    const prune = (): Promise<unknown> => pruneBackup(target, { last: 1 });
    await expect(pruneBackup(target, {})).rejects.toMatchObject({ code: 'invalid-argument' });
    await expect(pruneBackup(folder, { last: 1 })).rejects.toMatchObject({ code: 'not-found' });
    const journal = join(target, 'journal');
    {
      await using _served = await lockJournal(journal);
      await expect(prune()).rejects.toMatchObject({ code: 'store-locked' });
    }
    {
      await using _restoring = await retainAll(journal);
      await expect(prune()).rejects.toMatchObject({ code: 'unavailable' });
    }
    expect(await listSnapshots(target)).toHaveLength(3);
    await prune();
    expect(await listSnapshots(target)).toHaveLength(1);
  });

  it('keeps what a server changed in the backup itself', async () => {
    await threeSnapshots();
    {
      await using served = await EmbeddedStore.open(target, { clock });
      await served.put('/served', 1, large('/served'));
    }
    // The next backup moves the changed journal aside.
    await backUp();
    await pruneBackup(target, { last: 1 });
    expect(await blobsInBackup()).toContain(digestIn('/served'));
  });
});

describe('checkBackup()', () => {
  it('finds every snapshot of an intact backup intact, also when later ones continue its last segment', async () => {
    const times = await threeSnapshots();
    const report = await checkBackup(target, { full: true });
    expect(report.snapshots.map(({ timeMs, entries, blobs }) => [timeMs, entries, blobs])).toEqual([
      [times[0], 4, 2],
      [times[1], 5, 2],
      [times[2], 6, 2],
    ]);
    expect(report).toMatchObject({ intact: true, damagedBlobs: [] });
    const listed = (await listSnapshots(target)).map(({ entries }) => entries);
    expect(listed).toEqual([4, 5, 6]);
  });

  it('names the snapshots that miss a blob, or have one that is cut short', async () => {
    await threeSnapshots();
    const pathOf = (name: string): string =>
      join(target, 'blobs', digestIn(name).slice(0, 2), `${digestIn(name)}.gz`);
    await rm(pathOf('/old'));
    // Other names of the file are in the store.
    const bytes = await readFile(pathOf('/new'));
    await rm(pathOf('/new'));
    await writeFile(pathOf('/new'), bytes);
    await truncate(pathOf('/new'), 1000);
    const { intact, snapshots } = await checkBackup(target);
    expect(intact).toBe(false);
    expect(snapshots.map(({ badBlobs }) => badBlobs)).toEqual([
      [expect.stringContaining(digestIn('/old'))],
      [],
      [expect.stringContaining(digestIn('/new'))],
    ]);
  });

  it('reads every blob only if asked to', async () => {
    await threeSnapshots();
    const path = join(target, 'blobs', digestIn('/kept').slice(0, 2), `${digestIn('/kept')}.gz`);
    const bytes = await readFile(path);
    bytes[50_000] = (bytes[50_000] ?? 0) ^ 1;
    await rm(path);
    await writeFile(path, bytes);
    expect(await checkBackup(target)).toMatchObject({ intact: true });
    const { intact, damagedBlobs } = await checkBackup(target, { full: true });
    expect(intact).toBe(false);
    expect(damagedBlobs).toEqual([expect.stringContaining(digestIn('/kept'))]);
  });

  it('finds a last segment that was cut short', async () => {
    await threeSnapshots();
    const last = (await listSnapshots(target)).at(-1);
    const path = join(last?.folder ?? '', '0000000001.log');
    const bytes = await readFile(path);
    await rm(path);
    await writeFile(path, bytes.subarray(0, bytes.length - 100));
    const { intact, snapshots } = await checkBackup(target);
    expect(intact).toBe(false);
    expect(snapshots.map(({ damage }) => damage)).toEqual([[], [], [expect.stringContaining('ends early')]]);
  });

  it('reports damage in a journal, and a segment that is gone', async () => {
    await threeSnapshots();
    const [first, second] = await listSnapshots(target);
    const path = join(second?.folder ?? '', '0000000001.log');
    const bytes = await readFile(path);
    bytes.fill(0xff, 1000, 1100);
    await rm(path);
    await writeFile(path, bytes);
    await rm(join(first?.folder ?? '', '0000000001.log'));
    const { intact, snapshots } = await checkBackup(target);
    expect(intact).toBe(false);
    expect(snapshots.map(({ damage }) => damage.length)).toEqual([1, 1, 0]);
  });
});
