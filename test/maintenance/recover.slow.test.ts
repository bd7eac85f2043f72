import { cp, mkdir, open, readdir, readFile, rm, stat, truncate, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { beforeEach, describe, expect, it } from 'vitest';
import { compareIndexes } from '../../src/catalog/lmdb/index/comparison.ts';
import type { RecoverFolderOptions } from '../../src/maintenance/recovery/recover-folder.ts';
import { EmbeddedStore } from '../support/embedded-store.ts';
import { noise, prose } from '../support/contents.ts';
import { temporaryFolder } from '../support/temporary-folder.ts';
import { recoverFolder, type FolderReport } from '../support/recovery.ts';

type Files = ReadonlyMap<string, { version: number; bytes: Buffer }>;

let folder: string;
let files: Files;

/** Small files, large ones, one content under two names, a file overwritten, one removed. */
function someFiles(): Files {
  const files = new Map<string, { version: number; bytes: Buffer }>();
  for (let index = 0; index < 24; index += 1) {
    files.set(`/small/${index}`, { version: 1000 + index, bytes: prose(200 + index * 31, `small ${index}`) });
  }
  for (let index = 0; index < 6; index += 1) {
    files.set(`/large/${index}`, { version: -5 + index, bytes: noise(20_000 + index, `large ${index}`) });
  }
  files.set('/again', { version: 7, bytes: noise(20_000, 'large 0') });
  files.set('/empty', { version: 8, bytes: Buffer.alloc(0) });
  return files;
}

async function makeStore(): Promise<void> {
  await using store = await EmbeddedStore.open(folder);
  await store.put('/overwritten', 1, prose(300, 'old'));
  await store.put('/removed', 1, prose(300, 'removed'));
  for (const [path, { version, bytes }] of files) await store.put(path, version, bytes);
  await store.put('/overwritten', 2, prose(300, 'new'));
  await store.catalog.remove({ name: '/removed' as never, version: 1 });
}

function recover(options: Partial<RecoverFolderOptions> = {}): Promise<FolderReport> {
  return recoverFolder(folder, { compare: compareIndexes, ...options });
}

/** Each file is right or among those reported, in what recovery says and in what the store then answers. */
async function checkFiles(report: FolderReport): Promise<void> {
  const reported = new Set<string>(report.damagedFiles.map(({ name }) => name));
  await using store = await EmbeddedStore.open(folder);
  for (const [path, { bytes }] of files) {
    const content = await store.read(path);
    if (reported.has(path)) expect(content, path).toBe('damaged');
    else expect(Buffer.isBuffer(content) && content.equals(bytes), path).toBe(true);
  }
}

async function checkRecovered(
  report: FolderReport,
  options: Partial<RecoverFolderOptions> = {},
): Promise<void> {
  await checkFiles(report);
  const again = await recover(options);
  expect(again.actions).toEqual([]);
  expect(again.damagedFiles).toEqual(report.damagedFiles);
}

async function filesBelow(path: string): Promise<string[]> {
  const items = await readdir(path, { recursive: true, withFileTypes: true });
  return items.filter((item) => item.isFile()).map((item) => join(item.parentPath, item.name));
}

async function overwrite(path: string, at: number, bytes: Buffer): Promise<void> {
  const file = await open(path, 'r+');
  try {
    await file.write(bytes, 0, bytes.length, at);
  } finally {
    await file.close();
  }
}

async function segmentPathOf(index = 0): Promise<string> {
  const segments = (await readdir(join(folder, 'journal'))).filter((name) => name.endsWith('.log')).sort();
  return join(folder, 'journal', segments.at(index) ?? '');
}

beforeEach(async () => {
  folder = await temporaryFolder();
  files = someFiles();
  await makeStore();
});

describe('recoverFolder()', () => {
  it('finds nothing to do in an intact store, and changes nothing', async () => {
    const before = await readFile(await segmentPathOf());
    const report = await recover({ full: true });
    expect(report).toMatchObject({ actionCount: 0, damagedFileCount: 0, notes: [], quarantine: undefined });
    expect(report.steps.map(({ step }) => step)).toEqual([
      'journal',
      'catalog',
      'blobs',
      'strays',
      'uploads',
    ]);
    expect(await readFile(await segmentPathOf())).toEqual(before);
    await checkFiles(report);
  });

  it('refuses while the store is open', async () => {
    await using _store = await EmbeddedStore.open(folder);
    await expect(recover()).rejects.toMatchObject({ code: 'store-locked' });
  });

  it('refuses a folder without a store', async () => {
    const other = await temporaryFolder();
    await expect(recoverFolder(other, { compare: compareIndexes })).rejects.toMatchObject({
      code: 'not-found',
    });
    expect(await readdir(other)).toEqual([]);
  });

  it('rebuilds a catalog that is gone', async () => {
    await rm(join(folder, 'catalog'), { recursive: true });
    const report = await recover();
    expect(report.actions).toMatchObject([{ action: 'rebuild-catalog' }]);
    expect(report.damagedFileCount).toBe(0);
    await checkRecovered(report);
  });

  it('only reports what it would do in a dry run', async () => {
    await rm(join(folder, 'catalog'), { recursive: true });
    await writeFile(join(folder, 'uploads', 'a'.repeat(24)), 'half');
    const before = await filesBelow(folder);
    const report = await recover({ dryRun: true });
    expect(report.actions.map(({ action }) => action)).toEqual(['rebuild-catalog', 'remove-upload']);
    expect(await filesBelow(folder)).toEqual(before);
  });

  it('rebuilds a catalog that cannot be read', async () => {
    const path = join(folder, 'catalog', 'data.mdb');
    const { size } = await stat(path);
    for (const length of [0, 100, 5000, Math.floor(size / 2), size - 1]) {
      await truncate(path, length);
      const report = await recover({ compare: async () => undefined });
      expect(report.damagedFileCount).toBe(0);
      await checkRecovered(report);
    }
  });

  it('rebuilds a catalog that was overwritten at 200 places', async () => {
    const path = join(folder, 'catalog', 'data.mdb');
    const { size } = await stat(path);
    for (let place = 0; place < 200; place += 1) {
      const places = noise(64, `place ${place}`);
      await overwrite(path, places.readUInt32LE(0) % (size - 16), places.subarray(8, 24));
    }
    const report = await recover({ compare: async () => undefined });
    expect(report.damagedFileCount).toBe(0);
    await checkRecovered(report);
  });

  it(
    'reports the change that is lost when the journal is cut, anywhere in its last record',
    { timeout: 300_000 },
    async () => {
      folder = await temporaryFolder();
      files = new Map([['/first', { version: 1, bytes: prose(100) }]]);
      await using store = await EmbeddedStore.open(folder);
      await store.put('/first', 1, prose(100));
      const segment = await segmentPathOf(-1);
      await store.put('/last', 9, Buffer.from('last'));
      await store.close();
      const { size } = await stat(segment);
      const start = (await readFile(segment)).indexOf('/last') - 80;
      const pristine = await temporaryFolder();
      await cp(folder, join(pristine, 'store'), { recursive: true, preserveTimestamps: true });
      for (let cut = size - 1; cut >= start; cut -= 1) {
        await rm(folder, { recursive: true });
        await cp(join(pristine, 'store'), folder, { recursive: true });
        await truncate(segment, cut);
        const report = await recover();
        expect(
          report.damagedFiles.map(({ name }) => name),
          `cut at ${cut}`,
        ).toEqual(['/last']);
        if ((size - cut) % 16 === 1) await checkRecovered(report);
        else await checkFiles(report);
      }
    },
  );
});

describe('recoverFolder() with a damaged journal', () => {
  it('salvages the records around the damage, and reports what was in it', async () => {
    const segment = await segmentPathOf();
    await overwrite(segment, (await readFile(segment)).indexOf('/small/7') + 30, Buffer.from('damage'));
    await expect(EmbeddedStore.open(folder, { rebuild: true })).rejects.toMatchObject({
      code: 'corrupt-store',
    });
    const report = await recover();
    expect(report.damagedFiles).toMatchObject([{ name: '/small/7', version: 1007 }]);
    expect(report.notes).toHaveLength(1);
    expect(report.actions.map(({ action }) => action)).toContain('retire-segment');
    expect(await filesBelow(join(folder, 'quarantine'))).toContainEqual(
      expect.stringMatching(/\d{10}\.log$/),
    );
    await checkRecovered(report);
  });

  it('salvages them without a catalog to learn names from', async () => {
    const segment = await segmentPathOf();
    const { size } = await stat(segment);
    await overwrite(segment, Math.floor(size / 3), Buffer.alloc(3000, 1));
    await rm(join(folder, 'catalog'), { recursive: true });
    const report = await recover();
    expect(report.notes).toHaveLength(1);
    await using store = await EmbeddedStore.open(folder);
    const names = new Set(await store.names());
    const missing = [...files.keys()].filter((path) => !names.has(path));
    expect(missing.length).toBeGreaterThan(0);
    expect(missing.length).toBeLessThan(16);
    for (const [path, { bytes }] of files) if (names.has(path)) expect(await store.read(path)).toEqual(bytes);
    await store.close();
    expect((await recover()).actions).toEqual([]);
  });

  it('restores names of large files from the catalog if the whole journal is gone', async () => {
    await rm(join(folder, 'journal'), { recursive: true });
    const report = await recover();
    const lost = report.damagedFiles.map(({ name }) => name as string);
    expect(lost).toContain('/small/1');
    expect(lost).not.toContain('/large/1');
    expect(lost).not.toContain('/again');
    await checkRecovered(report);
  });

  it('repairs a segment whose header is damaged', async () => {
    await overwrite(await segmentPathOf(), 3, Buffer.from('x'));
    const report = await recover();
    expect(report.actions).toMatchObject([{ action: 'retire-segment' }]);
    expect(report.damagedFileCount).toBe(0);
    await checkRecovered(report);
  });

  it('drops a write that a crash cut short', async () => {
    const segment = await segmentPathOf(-1);
    const { size } = await stat(segment);
    const torn = (await readFile(segment)).subarray(size - 300, size - 20);
    await overwrite(segment, size, torn.subarray(8));
    const report = await recover();
    expect(report.actions).toMatchObject([{ action: 'cut-journal' }]);
    await checkRecovered(report);
  });
});

describe('recoverFolder() with damaged blobs', () => {
  const blobPath = async (index: number): Promise<string> =>
    (await filesBelow(join(folder, 'blobs'))).sort()[index] ?? '';

  it('marks blobs that are gone or cut short', async () => {
    await rm(await blobPath(0));
    await truncate(await blobPath(1), 1000);
    await truncate(await blobPath(2), 0);
    const report = await recover();
    expect(report.actions.filter(({ action }) => action === 'mark-damaged')).toHaveLength(3);
    expect(report.damagedFileCount).toBeGreaterThanOrEqual(3);
    expect(await filesBelow(join(folder, 'quarantine'))).toHaveLength(3);
    await checkRecovered(report, { full: true });
  });

  it('finds a flipped bit when it reads everything', async () => {
    const path = await blobPath(2);
    const bytes = await readFile(path);
    bytes[5000] = (bytes[5000] ?? 0) ^ 4;
    await writeFile(path, bytes);
    expect((await recover()).actionCount).toBe(0);
    const report = await recover({ full: true });
    expect(report.actions.map(({ action }) => action)).toEqual(['mark-damaged', 'quarantine-blob']);
    await checkRecovered(report, { full: true });
  });

  it('accepts blobs that have returned', async () => {
    const path = await blobPath(0);
    const bytes = await readFile(path);
    await rm(path);
    expect((await recover()).damagedFileCount).toBeGreaterThan(0);
    await writeFile(path, bytes);
    const report = await recover();
    expect(report.actions).toMatchObject([{ action: 'mend-blob' }]);
    expect(report.damagedFileCount).toBe(0);
    await checkRecovered(report);
  });

  it('moves orphans away and removes uploads that were never finished', async () => {
    const digest = 'ab'.repeat(32);
    await mkdir(join(folder, 'blobs', 'ab'), { recursive: true });
    await writeFile(join(folder, 'blobs', 'ab', `${digest}.gz`), 'stray');
    await writeFile(join(folder, 'blobs', 'ab', 'note.txt'), 'stray too');
    await writeFile(join(folder, 'uploads', 'a'.repeat(24)), 'half');
    const report = await recover();
    expect(report.actions.map(({ action }) => action)).toEqual([
      'quarantine-stray',
      'quarantine-stray',
      'remove-upload',
    ]);
    expect(await filesBelow(join(folder, 'quarantine'))).toHaveLength(3);
    await checkRecovered(report);
  });
});
