import { readdir, readFile, rm, stat, symlink, truncate, writeFile, lstat, mkdir } from 'node:fs/promises';
import { join } from 'node:path';
import { constants, deflateRawSync, gzipSync } from 'node:zlib';
import { beforeEach, describe, expect, it } from 'vitest';
import { parseFileName } from '../../src/core/file-name.ts';
import { adoptLegacyFolder, type AdoptionReport } from '../../src/maintenance/migration/legacy/adopt.ts';
import { EmbeddedStore } from '../support/embedded-store.ts';
import { noise, prose } from '../support/contents.ts';
import { LegacyFolder } from '../support/legacy-folder.ts';
import { temporaryFolder } from '../support/temporary-folder.ts';

let legacy: LegacyFolder;
let folder: string;

beforeEach(async () => {
  const root = await temporaryFolder();
  legacy = new LegacyFolder(join(root, 'old'));
  folder = join(root, 'new');
  await legacy.prepare();
});

const adopt = (): Promise<AdoptionReport> => adoptLegacyFolder(legacy.folder, folder);

/** Everything below a folder: kind, size, time and what it holds. */
async function pictureOf(path: string): Promise<unknown[]> {
  const items = await readdir(path, { recursive: true, withFileTypes: true });
  return Promise.all(
    items.map(async (item) => {
      const full = join(item.parentPath, item.name);
      const { mtimeMs, size, mode, ino } = await lstat(full);
      const bytes = item.isFile() ? (await readFile(full)).toString('base64') : undefined;
      return { full, mtimeMs, size, mode, ino, bytes };
    }),
  );
}

describe('adoptLegacyFolder()', () => {
  it('adopts names, versions and blobs, and changes nothing in the old folder', async () => {
    const shared = prose(4000, 'shared');
    await legacy.add('/plain.txt', prose(100), 1_700_000_000);
    await legacy.add('/deep/er/file', noise(30_000), 1_234_567_890);
    const digest = await legacy.addBlob(shared);
    for (const name of ['/one', '/deep/two', '/żółw/日本 🙂']) await legacy.addLink(name, digest, 5);
    await legacy.add('/fraction', prose(50, 'f'), '@1700000000.999999999');
    await legacy.add('/before 1970', prose(50, 'b'), '@-5.5');
    await legacy.add('/empty', Buffer.alloc(0), 7);
    const before = await pictureOf(legacy.folder);
    const report = await adopt();
    expect(report).toMatchObject({ names: 8, blobs: 6, problems: [] });
    expect(await pictureOf(legacy.folder)).toEqual(before);
    await using store = await EmbeddedStore.open(folder);
    const versions: Record<string, number> = {};
    for await (const batch of store.catalog.listEntries('/')) {
      for (const entry of batch) versions[entry.name] = entry.version;
    }
    expect(versions).toEqual({
      '/plain.txt': 1_700_000_000,
      '/deep/er/file': 1_234_567_890,
      '/one': 5,
      '/deep/two': 5,
      '/żółw/日本 🙂': 5,
      '/fraction': 1_700_000_000,
      '/before 1970': -6,
      '/empty': 7,
    });
    expect(await store.read('/żółw/日本 🙂')).toEqual(shared);
    expect(await store.read('/deep/er/file')).toEqual(noise(30_000));
    expect(await store.read('/empty')).toEqual(Buffer.alloc(0));
    const entry = (await store.catalog.find(parseFileName('/one')))?.entry;
    expect(entry).toMatchObject({ logicalSize: 4000, digest, encoding: 'gzip' });
    const linked = await stat(join(folder, 'blobs', digest.slice(0, 2), `${digest}.gz`));
    expect(linked.ino).toBe((await stat(legacy.blobPath(digest))).ino);
  });

  it('reports each name that cannot be adopted', async () => {
    const cut = await legacy.add('/cut', prose(5000, 'cut'), 1);
    await truncate(legacy.blobPath(cut), 10);
    const wrong = await legacy.add('/no gzip', prose(5000, 'wrong'), 2);
    await writeFile(legacy.blobPath(wrong), prose(5000, 'wrong'));
    const gone = await legacy.add('/dangling', prose(100, 'gone'), 3);
    await rm(legacy.blobPath(gone));
    await legacy.add('/new\nline', prose(100, 'line'), 4);
    await symlink('/etc/passwd', join(legacy.folder, 'links', 'elsewhere'));
    await writeFile(join(legacy.folder, 'links', 'file'), 'no link');
    await mkdir(join(legacy.folder, 'blobs', '..tmp'));
    await writeFile(join(legacy.folder, 'blobs', '..tmp', 'upload'), 'left over');
    await symlink('x', Buffer.concat([Buffer.from(`${legacy.folder}/links/`), Buffer.from([0xff, 0xfe])]));
    await legacy.add('/good', prose(100, 'good'), 5);
    const report = await adopt();
    expect(report.names).toBe(3);
    expect(
      report.problems
        .map(({ path }) => path)
        .filter((path) => path.startsWith('/') && !path.includes('/blobs/')),
    ).toEqual(expect.arrayContaining(['/cut', '/no gzip', '/dangling', '/new\nline', '/elsewhere', '/file']));
    expect(report.problemCount).toBe(10);
    await using store = await EmbeddedStore.open(folder);
    expect(await store.read('/good')).toEqual(prose(100, 'good'));
    expect(await store.read('/cut')).toBe('damaged');
    expect(await store.read('/no gzip')).toBe('damaged');
    expect(await store.names()).toEqual(['/cut', '/good', '/no gzip']);
  });

  it('resumes after an interruption, and finds nothing new when it is complete', async () => {
    for (let index = 0; index < 40; index += 1) {
      await legacy.add(`/folder/${index}`, prose(60 + index, `${index % 30}`), index);
    }
    const interruption = new AbortController();
    let steps = 0;
    const stopped = adoptLegacyFolder(legacy.folder, folder, {
      signal: interruption.signal,
      listener: {
        stepAdvanced: () => {
          steps += 1;
          if (steps === 12) interruption.abort(new Error('killed'));
        },
      },
    });
    await expect(stopped).rejects.toThrow('killed');
    expect((await adopt()).names).toBe(40);
    const again = await adopt();
    expect(again).toMatchObject({ names: 40, problems: [] });
    await using store = await EmbeddedStore.open(folder);
    expect((await store.catalog.stats()).entries).toBe(40);
    for (let index = 0; index < 40; index += 1) {
      expect(await store.read(`/folder/${index}`)).toEqual(prose(60 + index, `${index % 30}`));
    }
  });

  it('refuses a folder that is not a legacy store', async () => {
    await expect(adoptLegacyFolder(join(legacy.folder, 'db'), folder)).rejects.toMatchObject({
      code: 'not-found',
    });
  });

  it('records the right size of a blob larger than 4 GiB', { timeout: 300_000 }, async () => {
    // 2^32 + 2^20 zeros as one gzip member, put together from one block that is repeated.
    const block = deflateRawSync(Buffer.alloc(2 ** 20), { level: 9, finishFlush: constants.Z_FULL_FLUSH });
    const trailer = Buffer.alloc(8);
    trailer.writeUInt32LE(hugeChecksum, 0);
    trailer.writeUInt32LE(2 ** 20, 4);
    const header = gzipSync('').subarray(0, 10);
    const blocks = Array.from({ length: 4097 }, () => block);
    await legacy.addStored(hugeDigest, Buffer.concat([header, ...blocks, Buffer.from([3, 0]), trailer]));
    await legacy.addLink('/huge', hugeDigest, 1);
    expect((await adopt()).problems).toEqual([]);
    await using store = await EmbeddedStore.open(folder);
    expect((await store.catalog.find(parseFileName('/huge')))?.entry.logicalSize).toBe(2 ** 32 + 2 ** 20);
  });
});

const hugeDigest = '829816e339ff597ec3ada4c30fc840d3f2298444169d242952a54bcf3fcd7747';
const hugeChecksum = 0xc6a48b28;
