import { existsSync } from 'node:fs';
import { mkdir, readdir, readFile, rename, rm, stat, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { pino } from 'pino';
import { beforeEach, describe, expect, it } from 'vitest';
import { openStore } from '../../src/runtime/open-store.ts';
import { TokenFileEditor } from '../../src/access/token-store.ts';
import { compareIndexes } from '../../src/catalog/lmdb/index/comparison.ts';
import { ManualClock } from '../support/manual-clock.ts';
import { digestOf } from '../../src/core/digest.ts';
import { parseFileName } from '../../src/core/file-name.ts';
import { backupStore } from '../../src/maintenance/backup/backup.ts';
import { restoreStore } from '../../src/maintenance/backup/restore.ts';
import { EmbeddedStore } from '../support/embedded-store.ts';
import { noise, prose } from '../support/contents.ts';
import { temporaryFolder } from '../support/temporary-folder.ts';
import { recoverFolder } from '../support/recovery.ts';

let folder: string;
let target: string;
let clock: ManualClock;

beforeEach(async () => {
  const root = await temporaryFolder();
  folder = join(root, 'store');
  target = join(root, 'backup');
  clock = new ManualClock();
});

const open = (at = folder): Promise<EmbeddedStore> =>
  EmbeddedStore.open(at, { clock, segmentSizeBytes: 16 * 1024 });

async function contentsOf(at: string): Promise<Record<string, string>> {
  await using store = await EmbeddedStore.open(at);
  const contents: Record<string, string> = {};
  for (const path of await store.names()) {
    const content = await store.read(path);
    contents[path] = Buffer.isBuffer(content) ? digestOf(content) : String(content);
  }
  return contents;
}

async function fill(store: EmbeddedStore, from: number, to: number): Promise<void> {
  for (let index = from; index < to; index += 1) {
    await store.put(`/small/${index}`, index, prose(3000, `small ${index}`));
    if (index % 4 === 0) await store.put(`/large/${index}`, index, noise(20_000, `large ${index}`));
  }
}

describe('backupStore()', () => {
  it('takes a snapshot that is an intact store while the source is open', async () => {
    await using store = await open();
    await fill(store, 0, 40);
    const report = await backupStore(folder, target, { clock });
    expect(report).toMatchObject({ entries: 50, blobs: { blobs: 10, added: 10, missing: [] } });
    await store.put('/later', 1, prose(10));
    await store.close();
    const wanted = await contentsOf(folder);
    delete wanted['/later'];
    expect(await contentsOf(target)).toEqual(wanted);
    expect((await recoverFolder(target, { compare: compareIndexes, full: true })).actions).toEqual([]);
  });

  it('copies only what is new the next time, and drops what is gone', async () => {
    await using store = await open();
    await fill(store, 0, 40);
    await backupStore(folder, target, { clock });
    const first = (await readdir(join(target, 'journal'))).filter((name) => name.endsWith('.log')).sort();
    await fill(store, 40, 60);
    await store.catalog.remove({ name: parseFileName('/small/1'), version: 1 });
    clock.advance(1000);
    const report = await backupStore(folder, target, { clock });
    expect(report).toMatchObject({ entries: 74, blobs: { blobs: 15, added: 5 }, putAside: undefined });
    const [one = ''] = first;
    const left = await readdir(target, { recursive: true });
    expect(left.filter((name) => name.includes('temporary'))).toEqual([]);
    expect((await stat(join(target, 'journal', one))).ino).toBe(
      (await stat(join(folder, 'journal', one))).ino,
    );
    await store.close();
    expect(await contentsOf(target)).toEqual(await contentsOf(folder));
  });

  it('keeps one copy of a segment for all snapshots that have it', async () => {
    await using store = await open();
    for (let round = 0; round < 4; round += 1) {
      await store.put(`/file/${round}`, round, prose(2000, `${round}`));
      clock.advance(1000);
      await backupStore(folder, target, { clock });
    }
    const inodes = new Set<number>();
    for (const snapshot of await readdir(join(target, 'history'))) {
      inodes.add((await stat(join(target, 'history', snapshot, '0000000001.log'))).ino);
    }
    expect(inodes.size).toBe(1);
    const restored = join(folder, '..', 'restored');
    await restoreStore(target, restored, { atMs: clock.nowMs() - 2000 });
    expect(Object.keys(await contentsOf(restored))).toEqual(['/file/0', '/file/1']);
  });

  it('recovery of a backup keeps what older snapshots need', async () => {
    await using store = await open();
    await store.put('/old', 1, noise(20_000, 'old'));
    await backupStore(folder, target, { clock });
    const firstMs = clock.nowMs();
    clock.advance(1000);
    // The old record goes from the journal too, so that the last snapshot knows nothing of its content.
    for (let index = 0; index < 12; index += 1) await store.put('/again', index, noise(12_000, `${index}`));
    await store.catalog.remove({ name: parseFileName('/old'), version: 1 });
    const unnamed = await store.catalog.listUnreferenced(clock.nowMs() + 1, 100);
    await store.catalog.collect(unnamed, clock.nowMs() + 1);
    await store.catalog.compact();
    await backupStore(folder, target, { clock });
    const report = await recoverFolder(target, { compare: compareIndexes });
    expect(report).toMatchObject({ notes: [expect.stringContaining('history/')], quarantine: undefined });
    const restored = join(target, '..', 'restored');
    await restoreStore(target, restored, { atMs: firstMs });
    expect(await contentsOf(restored)).toEqual({ '/old': digestOf(noise(20_000, 'old')) });
  });

  it('is consistent under a load of changes, collections and compactions', async () => {
    await using store = await open();
    await fill(store, 0, 20);
    const stop = new AbortController();
    const churn = (async () => {
      for (let round = 0; !stop.signal.aborted; round += 1) {
        clock.advance(10);
        await store.put(`/churn/${round % 7}`, round, noise(18_000, `churn ${round}`));
        await store.put(`/pair/a`, round, prose(2000, `pair ${round}`));
        await store.put(`/pair/b`, round, prose(2000, `pair ${round}`));
        const unnamed = await store.catalog.listUnreferenced(clock.nowMs(), 100);
        await store.catalog.collect(unnamed, clock.nowMs());
        await store.catalog.compact();
      }
    })();
    for (let round = 0; round < 6; round += 1) {
      const report = await backupStore(folder, target, { clock });
      expect(report.blobs.missing).toEqual([]);
      const contents = await contentsOf(target);
      expect(Object.values(contents)).not.toContain('damaged');
      expect(Object.values(contents)).not.toContain('undefined');
      // What was stored earlier is there if what was stored later is.
      if (contents['/pair/b'] !== undefined) expect(contents['/pair/a']).toBeDefined();
      for (let index = 0; index < 20; index += 1) expect(contents[`/small/${index}`]).toBeDefined();
    }
    stop.abort();
    await churn;
  });

  it('moves the changes of a server that served the backup aside, and takes the snapshot', async () => {
    await using store = await open();
    await fill(store, 0, 10);
    await backupStore(folder, target, { clock });
    const other = await open(target);
    await other.put('/made/there', 1, prose(10));
    await other.close();
    clock.advance(1000);
    const report = await backupStore(folder, target, { clock });
    expect(report.putAside).toMatch(/-changed$/);
    await store.close();
    expect(await contentsOf(target)).toEqual(await contentsOf(folder));
  });

  it('accepts a target whose first backup was killed before it wrote its state', async () => {
    await using store = await open();
    await fill(store, 0, 4);
    await mkdir(target, { recursive: true });
    await writeFile(join(target, 'backup.json.0123456789ab.temporary'), '{"for');
    await backupStore(folder, target, { clock });
    await store.close();
    expect(await contentsOf(target)).toEqual(await contentsOf(folder));
  });

  it('refuses a target that holds backups of another store', async () => {
    const other = join(folder, '..', 'other');
    await using store = await open();
    await fill(store, 0, 4);
    await backupStore(folder, target, { clock });
    {
      await using another = await open(other);
      await another.put('/other', 1, prose(10));
    }
    const before = await readdir(target, { recursive: true });
    const refused = { code: 'invalid-argument', message: expect.stringContaining(folder) as string };
    await expect(backupStore(other, target)).rejects.toMatchObject(refused);
    expect(await readdir(target, { recursive: true })).toEqual(before);
    // Nor is a store that was made from a backup the one that was backed up: its journal is another.
    const restored = join(folder, '..', 'restored');
    await restoreStore(target, restored);
    await expect(backupStore(restored, target)).rejects.toMatchObject(refused);
    await backupStore(target, join(folder, '..', 'backup of the backup'));
    clock.advance(1000);
    await backupStore(folder, target, { clock });
  });

  it('recognizes a store that was moved, in backups of early releases too', async () => {
    {
      await using store = await open();
      await fill(store, 0, 4);
    }
    await backupStore(folder, target, { clock });
    const moved = join(folder, '..', 'moved');
    await rename(folder, moved);
    clock.advance(1000);
    await backupStore(moved, target, { clock });
    const state = join(target, 'backup.json');
    const early = { format: 1, source: folder };
    await writeFile(state, JSON.stringify(early));
    clock.advance(1000);
    await backupStore(moved, target, { clock });
    expect(JSON.parse(await readFile(state, 'utf8'))).toMatchObject({
      source: moved,
      store: expect.any(String) as string,
    });
    const other = join(folder, '..', 'other');
    {
      await using another = await open(other);
      await another.put('/other', 1, prose(10));
    }
    await writeFile(state, JSON.stringify(early));
    await expect(backupStore(other, target)).rejects.toMatchObject({ code: 'invalid-argument' });
  });

  it('refuses targets that hold something else, are open, or are inside the store', async () => {
    await using store = await open();
    await fill(store, 0, 4);
    await expect(backupStore(folder, join(folder, 'backup'))).rejects.toMatchObject({
      code: 'invalid-argument',
    });
    const other = await temporaryFolder();
    await using _taken = await EmbeddedStore.open(other);
    await expect(backupStore(folder, other)).rejects.toMatchObject({ code: 'invalid-argument' });
    await backupStore(folder, target, { clock });
    await using _served = await open(target);
    await expect(backupStore(folder, target)).rejects.toMatchObject({ code: 'store-locked' });
  });
});

describe('restoreStore()', () => {
  it('restores the tokens, so that a protected store stays protected', async () => {
    const store = await open();
    await fill(store, 0, 2);
    await store.close();
    const tokens = new TokenFileEditor(folder, clock);
    await tokens.add({ name: 'judge', prefixes: ['/p'], rights: ['read'] });
    await backupStore(folder, target, { clock });
    const restored = join(folder, '..', 'restored');
    await restoreStore(target, restored);
    expect(await new TokenFileEditor(restored, clock).list()).toEqual(await tokens.list());
    await rm(join(restored, 'tokens.json'));
    expect(await new TokenFileEditor(restored, clock).isOpenToAll()).toBe(false);
  });

  it('restores the last snapshot, intact and without anything else', async () => {
    await using store = await open();
    await fill(store, 0, 30);
    await store.catalog.remove({ name: parseFileName('/small/2'), version: 2 });
    await backupStore(folder, target, { clock });
    await store.close();
    const restored = join(folder, '..', 'restored');
    const report = await restoreStore(target, restored);
    expect(report).toMatchObject({ entries: 37, gaps: [], blobs: { missing: [] } });
    expect(await contentsOf(restored)).toEqual(await contentsOf(folder));
    expect((await recoverFolder(restored, { compare: compareIndexes, full: true })).actions).toEqual([]);
  });

  it('restores the state at any time that the segments cover', async () => {
    await using store = await open();
    const times: number[] = [];
    for (let version = 1; version <= 6; version += 1) {
      clock.advance(10_000);
      await store.put('/file', version, noise(20_000, `version ${version}`));
      await store.put(`/only/${version}`, version, prose(500, `${version}`));
      if (version === 4) await store.catalog.remove({ name: parseFileName('/only/1'), version: 1 });
      times.push(clock.nowMs());
      if (version % 3 === 0) {
        clock.advance(100);
        await backupStore(folder, target, { clock });
      }
    }
    for (const [at, atMs] of times.entries()) {
      const restored = join(folder, '..', `restored-${at}`);
      const report = await restoreStore(target, restored, { atMs });
      expect(report.gaps).toEqual([]);
      const contents = await contentsOf(restored);
      expect(contents['/file'], `version ${at + 1}`).toBe(digestOf(noise(20_000, `version ${at + 1}`)));
      const only = Array.from({ length: at + 1 }, (_, index) => `/only/${index + 1}`);
      const wanted = at >= 3 ? only.slice(1) : only;
      expect(Object.keys(contents)).toEqual(['/file', ...wanted]);
    }
    for (const atMs of [clock.nowMs() + 1, (times[0] ?? 0) - 1]) {
      await expect(restoreStore(target, `${folder}-x`, { atMs })).rejects.toMatchObject({
        code: 'not-found',
      });
      expect(existsSync(`${folder}-x`)).toBe(false);
    }
  });

  it('refuses folders that are not a backup, and targets that are not empty', async () => {
    await using store = await open();
    await fill(store, 0, 2);
    await expect(restoreStore(folder, target)).rejects.toMatchObject({ code: 'not-found' });
    await backupStore(folder, target, { clock });
    await expect(restoreStore(target, folder)).rejects.toMatchObject({ code: 'invalid-argument' });
  });

  it('an unfinished restore is neither served nor repaired, and starts over in what a killed one has left', async () => {
    await using store = await open();
    await fill(store, 0, 8);
    await backupStore(folder, target, { clock });
    const goal = join(target, '..', 'restored');
    await restoreStore(target, goal);
    // As if it had been killed: its mark, and things that are not as they should be.
    await writeFile(join(goal, 'unfinished-restore'), '');
    await rm(join(goal, 'catalog'), { recursive: true });
    await writeFile(join(goal, 'journal', '0000000009.log'), 'half a head');
    const refused = /a restore to it is unfinished/;
    const settings = { folder: goal, collectionGraceMs: 0, exclusive: true };
    await expect(openStore(settings, pino({ level: 'silent' }))).rejects.toThrow(refused);
    await expect(recoverFolder(goal, { compare: compareIndexes })).rejects.toThrow(refused);
    await expect(backupStore(goal, join(goal, '..', 'second'), { clock })).rejects.toThrow(refused);
    expect(await restoreStore(target, goal)).toMatchObject({ entries: 10, gaps: [] });
    expect(await readdir(goal)).not.toContain('unfinished-restore');
    expect(await contentsOf(goal)).toEqual(await contentsOf(target));
  });

  it('marks files whose blob the backup has lost', async () => {
    await using store = await open();
    await store.put('/large', 1, noise(20_000));
    await backupStore(folder, target, { clock });
    await rm(join(target, 'blobs'), { recursive: true });
    const restored = join(folder, '..', 'restored');
    expect((await restoreStore(target, restored)).blobs.missing).toHaveLength(1);
    expect(await contentsOf(restored)).toEqual({ '/large': 'damaged' });
  });
});
