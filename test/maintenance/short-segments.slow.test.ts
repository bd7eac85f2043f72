import { copyFile, readdir, rename, rm, stat, truncate, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { beforeEach, describe, expect, it } from 'vitest';
import { segmentPath } from '../../src/catalog/journal/segment-header.ts';
import { scanSegment } from '../../src/catalog/journal/segment.ts';
import { compareIndexes } from '../../src/catalog/lmdb/index/comparison.ts';
import { parseFileName } from '../../src/core/file-name.ts';
import { backupStore } from '../../src/maintenance/backup/backup.ts';
import { restoreStore } from '../../src/maintenance/backup/restore.ts';
import { noise, prose } from '../support/contents.ts';
import { EmbeddedStore } from '../support/embedded-store.ts';
import { temporaryFolder } from '../support/temporary-folder.ts';
import { recoverFolder, type FolderReport } from '../support/recovery.ts';

const small = (path: string): Buffer => prose(300, path);
const large = (path: string): Buffer => noise(20_000, path);
const paths = [1, 2, 3].flatMap((segment) =>
  ['large-1', 'large-2', 'small'].map((name) => `/${segment}/${name}`),
);
const contentOf = (path: string): Buffer => (path.endsWith('small') ? small(path) : large(path));

let folder: string;
let journal: string;
let target: string;

/** Opens the store to write in a segment of its own, as after a crash. */
const openAnew = (): Promise<EmbeddedStore> => EmbeddedStore.open(folder, { salvage: true });

const recover = (): Promise<FolderReport> => recoverFolder(folder, { compare: compareIndexes });

beforeEach(async () => {
  const root = await temporaryFolder();
  folder = join(root, 'store');
  target = join(root, 'backup');
  journal = join(folder, 'journal');
  for (const segment of [1, 2, 3]) {
    await using store = await openAnew();
    for (const path of paths) if (path.startsWith(`/${segment}/`)) await store.put(path, 1, contentOf(path));
  }
  expect(await segments()).toEqual(['0000000001.log', '0000000002.log', '0000000003.log']);
});

async function segments(at = journal): Promise<string[]> {
  return (await readdir(at)).filter((name) => name.endsWith('.log')).sort();
}

/** Where records of the second segment begin, its header aside, and its end. */
async function bounds(): Promise<number[]> {
  const starts: number[] = [];
  for await (const batch of scanSegment(journal, 2)) starts.push(...batch.map(({ offset }) => offset));
  return [...starts, (await stat(segmentPath(journal, 2))).size];
}

/** Gives the segment a file of its own, which no backup shares, and cuts it. */
async function cut(segment: number, size: number, at = journal): Promise<void> {
  const path = segmentPath(at, segment);
  await copyFile(path, `${path}.copy`);
  await truncate(`${path}.copy`, size);
  await rename(`${path}.copy`, path);
}

/** Every file is right, or is told to be damaged, or is one of those that must be gone. */
async function checkFiles(report: FolderReport, gone: readonly string[] = []): Promise<void> {
  const damaged = new Set<string>(report.damagedFiles.map(({ name }) => name));
  await using store = await EmbeddedStore.open(folder);
  for (const path of paths) {
    const expected = damaged.has(path) ? 'damaged' : gone.includes(path) ? undefined : contentOf(path);
    expect(await store.read(path), path).toEqual(expected);
  }
  await store.close();
  expect((await recover()).actions).toEqual([]);
}

async function blobsIn(at: string): Promise<number> {
  const items = await readdir(join(at, 'blobs'), { recursive: true, withFileTypes: true });
  return items.filter((item) => item.isFile()).length;
}

/** Makes records of the second segment dead, so that compaction wants it. */
async function replace(store: EmbeddedStore, replaced: readonly string[]): Promise<void> {
  for (const path of replaced) await store.put(path, 2, small(`another ${path}`));
  const beforeMs = Date.now() + 1000;
  await store.catalog.collect(await store.catalog.listUnreferenced(beforeMs, 100), beforeMs);
}

describe('a segment that is shorter than the header of the next one says', () => {
  it('is not used to rebuild the index', async () => {
    const [first = 0, second = 0, third = 0, end = 0] = await bounds();
    for (const size of [end - 1, third, second + 40, first, 0]) {
      await cut(2, size);
      await expect(EmbeddedStore.open(folder, { rebuild: true }), `${size} bytes`).rejects.toMatchObject({
        code: 'corrupt-store',
        message: expect.stringContaining('run filetracker-recover') as string,
      });
    }
    expect(await blobsIn(folder)).toBe(6);
  });

  it.each([0, 1, 2, 3, 4])('is repaired from the catalog, wherever it was cut (%i)', async (place) => {
    const [first = 0, second = 0, third = 0] = await bounds();
    await cut(2, [0, first, second, second + 40, third + 40][place] ?? 0);
    const dry = await recoverFolder(folder, { compare: compareIndexes, dryRun: true });
    const report = await recover();
    expect(report.actions).toEqual(dry.actions);
    expect(report.damagedFiles.map(({ name }) => name)).toEqual(['/2/small']);
    expect(report.notes).toEqual([expect.stringContaining('0000000002.log')]);
    expect(report.actions.map(({ action }) => action)).not.toContain('quarantine-stray');
    await checkFiles(report);
  });

  it('is repaired without a catalog, and no bytes are lost', async () => {
    const [, , third = 0] = await bounds();
    await cut(2, third);
    await rm(join(folder, 'catalog'), { recursive: true });
    const report = await recover();
    expect(report.notes).toEqual([expect.stringContaining('0000000002.log')]);
    await checkFiles(report, ['/2/small']);
  });

  it('does not make the segment before it damaged if that was not cut when it was closed', async () => {
    await truncate(segmentPath(journal, 1), 256 * 1024);
    await cut(2, 0);
    const report = await recover();
    expect(report.notes).toEqual([expect.stringContaining('0000000002.log')]);
    await checkFiles(report);
  });

  it('is repaired from the catalog if its end is zeros and the next one says nothing', async () => {
    const [, second = 0, , end = 0] = await bounds();
    await cut(2, second);
    await truncate(segmentPath(journal, 2), end);
    await writeFile(segmentPath(journal, 3), 'no header', { flag: 'r+' });
    const report = await recover();
    expect(report.damagedFiles.map(({ name }) => name)).toEqual(['/2/small']);
    await checkFiles(report);
  });

  it('is repaired with its first bytes gone and no catalog', async () => {
    await cut(2, 0);
    await rm(join(folder, 'catalog'), { recursive: true });
    const report = await recover();
    expect(report.actions.filter(({ action }) => action === 'quarantine-stray')).toHaveLength(2);
    expect(await blobsIn(report.quarantine ?? '')).toBe(2);
    await checkFiles(report, ['/2/large-1', '/2/large-2', '/2/small']);
  });

  it('is not compacted away', async () => {
    await cut(2, 64);
    await using store = await EmbeddedStore.open(folder, { segmentSizeBytes: 64 });
    await replace(store, ['/2/large-1', '/2/large-2', '/2/small']);
    await expect(store.catalog.compact()).rejects.toMatchObject({ code: 'corrupt-store' });
    expect(await segments()).toContain('0000000002.log');
  });
});

describe('a segment that is gone', () => {
  it('is replaced from the catalog', async () => {
    await rm(segmentPath(journal, 2));
    const report = await recover();
    expect(report.damagedFiles.map(({ name }) => name)).toEqual(['/2/small']);
    await checkFiles(report);
  });
});

describe('a segment that is shorter than it was, with the next one compacted away', () => {
  beforeEach(async () => {
    await using store = await openAnew();
    // Nothing is needed of the third segment any more, so that it goes; the fourth has the names.
    for (const path of paths) if (path.startsWith('/3/')) await store.put(path, 2, contentOf(path));
    for (const path of ['/3/large-1', '/3/large-2', '/3/small']) {
      await store.catalog.remove({ name: parseFileName(path), version: 2 });
    }
    await store.catalog.collect(
      await store.catalog.listUnreferenced(Date.now() + 1000, 100),
      Date.now() + 1000,
    );
    for (const path of paths) if (path.startsWith('/3/')) await store.put(path, 3, contentOf(path));
    await store.catalog.compact();
    await store.close();
    expect(await segments()).toEqual(['0000000001.log', '0000000002.log', '0000000004.log']);
  });

  it('is repaired from the catalog', async () => {
    const [, second = 0] = await bounds();
    await cut(2, second);
    const report = await recover();
    expect(report.damagedFiles.map(({ name }) => name)).toEqual(['/2/small']);
    await checkFiles(report);
  });

  it('is neither compacted nor backed up', async () => {
    await cut(2, 64);
    await using store = await EmbeddedStore.open(folder, { segmentSizeBytes: 64 });
    await replace(store, ['/2/large-2', '/2/small']);
    await expect(store.catalog.compact()).rejects.toMatchObject({ code: 'corrupt-store' });
    expect(await segments()).toContain('0000000002.log');
    await expect(backupStore(folder, target)).rejects.toMatchObject({ code: 'corrupt-store' });
  });

  it('counts as compacted away if the catalog is gone too', async () => {
    await rm(join(folder, 'catalog'), { recursive: true });
    const report = await recover();
    expect(report.notes).toEqual([]);
    await checkFiles(report);
  });
});

describe('backupStore() of a journal that was cut short', () => {
  it('refuses to copy it, and leaves the backup as it was', async () => {
    await cut(2, 64);
    await expect(backupStore(folder, target)).rejects.toMatchObject({ code: 'corrupt-store' });
    await rm(segmentPath(journal, 2));
    await expect(backupStore(folder, target)).rejects.toMatchObject({ code: 'corrupt-store' });
    expect(await segments(join(target, 'journal'))).toEqual([]);
    await recover();
    expect(await backupStore(folder, target)).toMatchObject({ entries: paths.length });
  });

  it('copies the intact one from the backup', async () => {
    await backupStore(folder, target);
    await cut(2, 64);
    await backupStore(folder, target);
    await using store = await EmbeddedStore.open(target);
    for (const path of paths) expect(await store.read(path), path).toEqual(contentOf(path));
  });
});

describe('restoreStore() from a backup whose journal was cut short', () => {
  it.each(['cut', 'gone', 'cut at its end'])('reports what is missing: %s', async (how) => {
    await backupStore(folder, target);
    const [snapshot = ''] = await readdir(join(target, 'history'));
    const kept = join(target, 'history', snapshot);
    const segment = how === 'cut at its end' ? 3 : 2;
    if (how === 'gone') await rm(segmentPath(kept, segment));
    else await cut(segment, 64, kept);
    const restored = join(target, '..', 'restored');
    const report = await restoreStore(target, restored);
    expect(report).toMatchObject({
      entries: 6,
      gaps: [],
      damage: [expect.stringContaining(`Segment ${segment}`)],
    });
    await using store = await EmbeddedStore.open(restored);
    expect(await store.names()).toEqual(paths.filter((path) => !path.startsWith(`/${segment}/`)));
  });
});
