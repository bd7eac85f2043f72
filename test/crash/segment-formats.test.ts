import { readFile, rm, stat, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { crc32 } from 'node:zlib';
import { beforeEach, describe, expect, it } from 'vitest';
import { readSegmentHeader, segmentPath } from '../../src/catalog/journal/segment-header.ts';
import { compareIndexes } from '../../src/catalog/lmdb/index/comparison.ts';
import { backupStore } from '../../src/maintenance/backup/backup.ts';
import { restoreStore } from '../../src/maintenance/backup/restore.ts';
import { name } from '../support/catalogs.ts';
import { noise } from '../support/contents.ts';
import { EmbeddedStore } from '../support/embedded-store.ts';
import { makeOldStore, putRecord } from '../support/old-journal.ts';
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

const contentOf = (path: string): Buffer => noise(3000, path);
const oldNames = Array.from({ length: 10 }, (_, at) => `/old/${at}`);
const newNames = Array.from({ length: 10 }, (_, at) => `/new/${at}`);
const allNames = [...newNames, ...oldNames];

/** A store that release 3.0 has written, and this release after it. */
async function makeMixedStore(): Promise<void> {
  await makeOldStore(
    folder,
    oldNames.map((path) => putRecord(path, 1, contentOf(path))),
  );
  await using store = await EmbeddedStore.open(folder);
  for (const path of newNames) await store.put(path, 1, contentOf(path));
}

async function checkWhole(at: string, names: readonly string[] = allNames): Promise<void> {
  await using store = await EmbeddedStore.open(at);
  expect(await store.names()).toEqual(names);
  for (const path of names) expect((await store.read(path)) as Buffer, path).toEqual(contentOf(path));
}

describe('a store of release 3.0', () => {
  it('opens, and what is stored since lies in segments of format 2', async () => {
    await makeMixedStore();
    expect(await readSegmentHeader(journal, 1)).toMatchObject({ format: 1 });
    expect(await readSegmentHeader(journal, 2)).toMatchObject({ format: 2, seed: { segment: 2 } });
    await checkWhole(folder);
    await rm(join(folder, 'catalog'), { recursive: true });
    await checkWhole(folder);
  });

  it('is compacted: what lives in a segment of format 1 is written again in format 2', async () => {
    await makeMixedStore();
    {
      await using store = await EmbeddedStore.open(folder, { segmentSizeBytes: 16 * 1024 });
      for (const path of oldNames.slice(2)) await store.catalog.remove({ name: name(path), version: 1 });
      const beforeMs = Date.now() + 1000;
      await store.catalog.collect(await store.catalog.listUnreferenced(beforeMs, 100), beforeMs);
      await store.catalog.compact();
    }
    await expect(stat(segmentPath(journal, 1))).rejects.toMatchObject({ code: 'ENOENT' });
    const left = [...newNames, ...oldNames.slice(0, 2)];
    await checkWhole(folder, left);
    await rm(join(folder, 'catalog'), { recursive: true });
    await checkWhole(folder, left);
  });

  it('is backed up, restored and recovered with segments of both formats', async () => {
    await makeMixedStore();
    const backup = join(root, 'backup');
    await backupStore(folder, backup);
    const restored = join(root, 'restored');
    expect(await restoreStore(backup, restored)).toMatchObject({ damage: [], gaps: [] });
    await checkWhole(restored);
    expect(await readSegmentHeader(join(restored, 'journal'), 1)).toMatchObject({ format: 2 });
    await checkWhole(backup);
    expect(await recoverFolder(folder, { compare: compareIndexes, full: true })).toMatchObject({
      actions: [],
    });
  });
});

describe('a segment whose header is damaged', () => {
  it('is read with what stands beside it, and taken out by recovery', async () => {
    {
      await using store = await EmbeddedStore.open(folder);
      for (const path of newNames) await store.put(path, 1, contentOf(path));
    }
    const bytes = await readFile(segmentPath(journal, 1));
    await writeFile(segmentPath(journal, 1), bytes.fill(0, 0, 64));
    const report = await recoverFolder(folder, { compare: compareIndexes });
    expect(report.actions).toMatchObject([{ action: 'retire-segment', target: '0000000001.log' }]);
    await checkWhole(folder, newNames);
    expect(await recoverFolder(folder, { compare: compareIndexes })).toMatchObject({ actions: [] });
  });

  it('is not written over by release 3.0, which finds a record of its own behind what it cannot read', async () => {
    await makeMixedStore();
    const bytes = await readFile(segmentPath(journal, 2));
    expect(bytes.readUInt32LE(72)).toBe(crc32(bytes.subarray(76, 152), 2));
    expect(bytes.readUInt32LE(76)).toBe(80);
    expect(bytes.readUInt32LE(64 + 4)).toBe(0);
    expect(bytes.readUInt32LE(72 + 12)).toBeGreaterThan(64);
    expect(JSON.parse(await readFile(join(folder, 'catalog', 'state.json'), 'utf8'))).toMatchObject({
      format: 2,
    });
  });
});
