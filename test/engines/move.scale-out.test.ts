import { stat } from 'node:fs/promises';
import { join } from 'node:path';
import { Client } from 'pg';
import { expect, it } from 'vitest';
import { moveStore } from '../../src/maintenance/migration/move.ts';
import { noise, prose } from '../support/contents.ts';
import { freshBucket, freshSchema, postgresUrl } from '../support/engines.ts';
import { embeddedFileStore, put, read, type FileStoreParts } from '../support/file-stores.ts';
import { Program } from '../support/program.ts';
import { scaleOutFileStore } from '../support/scale-out-stores.ts';
import { temporaryFolder } from '../support/temporary-folder.ts';

async function filled(parts: FileStoreParts): Promise<Map<string, Buffer>> {
  const files = new Map<string, Buffer>();
  for (let index = 0; index < 60; index += 1) {
    const bytes = index % 10 === 0 ? noise(100_000, `large ${index}`) : prose(500, `small ${index % 20}`);
    const name = `/d${index % 4}/f${index}`;
    files.set(name, bytes);
    await put(parts.store, name, 1000 + index, bytes);
  }
  return files;
}

it('moveStore() copies a store to other back ends and back, and again only what is missing', async () => {
  const embedded = await embeddedFileStore();
  const scaleOut = await scaleOutFileStore();
  const back = await embeddedFileStore();
  try {
    const files = await filled(embedded);
    const there = await moveStore(embedded.store, scaleOut.store);
    expect(there).toMatchObject({ entries: 60, copied: 60, others: 0, damaged: [], missing: [] });
    for (const [name, bytes] of files) expect((await read(scaleOut.store, name))?.equals(bytes)).toBe(true);

    await put(embedded.store, '/d0/f0', 5000, Buffer.from('newer in the source'));
    await put(scaleOut.store, '/d0/f4', 5000, Buffer.from('newer in the target'));
    await put(scaleOut.store, '/other', 1, Buffer.from('in the target alone'));
    const again = await moveStore(embedded.store, scaleOut.store);
    expect(again).toMatchObject({ copied: 1, others: 2, missing: [] });
    expect((await read(scaleOut.store, '/d0/f4'))?.toString()).toBe('newer in the target');

    const home = await moveStore(scaleOut.store, back.store);
    expect(home).toMatchObject({ entries: 61, copied: 61, others: 0, missing: [] });
    expect((await read(back.store, '/d0/f0'))?.toString()).toBe('newer in the source');
    expect(await back.catalog.stats()).toMatchObject({ entries: 61, unreferencedBlobs: 0 });
  } finally {
    for (const parts of [embedded, scaleOut, back]) await parts.close();
  }
});

it('moveStore() reports damaged files, and copies the others', async () => {
  const source = await embeddedFileStore();
  const target = await scaleOutFileStore();
  try {
    await filled(source);
    const found = await source.catalog.findBlob((await firstDigest(source)) ?? never());
    await source.catalog.markDamaged(found?.digest ?? never(), true);
    const report = await moveStore(source.store, target.store);
    expect(report.damaged.length).toBeGreaterThan(0);
    expect(report.missing).toEqual(report.damaged.map(({ name }) => name).toSorted());
    expect(report.copied).toBe(60 - report.damaged.length);
  } finally {
    await source.close();
    await target.close();
  }
});

async function firstDigest(parts: FileStoreParts) {
  for await (const batch of parts.catalog.listEntries('/')) return batch[0]?.digest;
  return undefined;
}

function never(): never {
  throw new Error('There is no such content');
}

it('filetracker-server move creates nothing in a database that is not a store', async () => {
  const { schema } = freshSchema();
  const { bucket, prefix, endpoint } = freshBucket();
  const from = `${postgresUrl()}?schema=${schema},s3://${bucket}/${prefix}`;
  const to = join(await temporaryFolder(), 'target');
  const { code, errors } = await new Program('filetracker-server', {
    args: ['move', '--from', from, '--to', to, '--s3-endpoint', endpoint],
    environment: { NODE_NO_WARNINGS: '1' },
  }).ended();
  expect({ code, errors }).toMatchObject({
    code: 3,
    errors: expect.stringContaining('Cannot find a catalog'),
  });
  const client = new Client({ connectionString: postgresUrl() });
  await client.connect();
  const { rows } = await client.query('SELECT 1 FROM pg_namespace WHERE nspname = $1', [schema]);
  await client.end();
  expect(rows).toEqual([]);
  await expect(stat(to)).rejects.toMatchObject({ code: 'ENOENT' });
});
