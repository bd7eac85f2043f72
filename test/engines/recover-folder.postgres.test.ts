import { readdir, truncate, utimes, writeFile, mkdir, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { beforeEach, expect, it, onTestFinished } from 'vitest';
import { DiskBlobStore } from '../../src/blobs/disk/disk-blob-store.ts';
import { PostgresCatalog } from '../../src/catalog/postgres/postgres-catalog.ts';
import { digestOf } from '../../src/core/digest.ts';
import { noise } from '../support/contents.ts';
import { freshSchema, postgresUrl } from '../support/engines.ts';
import { composed, put, read, type FileStoreParts } from '../support/file-stores.ts';
import { present } from '../support/present.ts';
import { Program, type ProgramEnd } from '../support/program.ts';
import { temporaryFolder } from '../support/temporary-folder.ts';

// Recovery of a store whose catalog is in PostgreSQL and whose contents are in a folder that its servers share.

const contents = [0, 1, 2].map((index) => noise(40_000, `large ${index}`));
const dayMs = 24 * 3_600_000;

let folder: string;
let schema: string;
let parts: FileStoreParts;

beforeEach(async () => {
  folder = join(await temporaryFolder(), 'shared');
  await mkdir(folder);
  const fresh = freshSchema();
  schema = fresh.schema;
  const blobs = await DiskBlobStore.open(folder, { uniqueKeys: true });
  const catalog = await PostgresCatalog.open({ url: postgresUrl(), schema, placer: blobs });
  parts = composed(catalog, blobs, {}, fresh.drop);
  onTestFinished(() => parts.close());
  for (const [index, bytes] of contents.entries()) await put(parts.store, `/large/${index}`, 5, bytes);
  await put(parts.store, '/small', 5, Buffer.from('small'));
});

function recover(store: string, ...args: string[]): Promise<ProgramEnd> {
  const address = `${store},${postgresUrl()}?schema=${schema}`;
  return new Program('filetracker-recover', { args: [address, ...args] }).ended();
}

async function pathOf(index: number): Promise<string> {
  const found = await parts.catalog.findBlob(digestOf(present(contents[index])));
  if (found?.location.kind !== 'object') throw new Error('It is not in the folder');
  return join(folder, 'blobs', found.location.key.slice(0, 2), found.location.key);
}

it('finds nothing to do in an intact store', async () => {
  for (const flags of [['--dry-run'], [], ['-f']]) {
    const { code, output } = await recover(folder, ...flags);
    expect({ code, output }).toMatchObject({ code: 0, output: expect.stringContaining('nothing to do') });
  }
});

it('marks missing and damaged blobs, removes files that no row names, and finds nothing more', async () => {
  await rm(await pathOf(0));
  await truncate(await pathOf(1), 100);
  // Named as a server names what it has placed, long ago.
  const stray = join(folder, 'blobs', 'ab', `${'ab'.repeat(32)}.${'1'.repeat(24)}`);
  await mkdir(join(folder, 'blobs', 'ab'), { recursive: true });
  await writeFile(stray, 'stray');
  const old = new Date(Date.now() - 2 * dayMs);
  await utimes(stray, old, old);

  const looked = await recover(folder, '--dry-run', '--json');
  expect(looked.code).toBe(1);
  expect(JSON.parse(looked.output)).toMatchObject({ dryRun: true, strays: 1, damaged: [{}, {}] });
  expect(await readdir(join(folder, 'blobs', 'ab'))).toContain(`${'ab'.repeat(32)}.${'1'.repeat(24)}`);
  expect((await recover(folder, '-f')).code).toBe(1);
  expect(await readdir(join(folder, 'blobs', 'ab'))).not.toContain(`${'ab'.repeat(32)}.${'1'.repeat(24)}`);
  for (const name of ['/large/0', '/large/1'])
    await expect(read(parts.store, name)).rejects.toMatchObject({ code: 'damaged-blob' });
  expect((await read(parts.store, '/large/2'))?.equals(present(contents[2]))).toBe(true);

  for (const index of [0, 1]) await put(parts.store, `/again/${index}`, 1, present(contents[index]));
  expect(await recover(folder, '-f')).toMatchObject({
    code: 0,
    output: expect.stringContaining('nothing to do'),
  });
  expect((await read(parts.store, '/large/0'))?.equals(present(contents[0]))).toBe(true);
});

it('marks nothing if the folder is another one', async () => {
  const other = await temporaryFolder();
  expect(await recover(other)).toMatchObject({
    code: 3,
    errors: expect.stringContaining('no folder blobs/'),
  });
  expect(await readdir(other)).toEqual([]);
  await mkdir(join(other, 'blobs'));
  expect(await recover(other)).toMatchObject({
    code: 1,
    errors: expect.stringContaining('correct the address'),
  });
  expect((await read(parts.store, '/large/0'))?.equals(present(contents[0]))).toBe(true);
});
