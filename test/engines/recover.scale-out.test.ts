import { Client } from 'pg';
import { afterEach, beforeEach, describe, expect, it, onTestFinished } from 'vitest';
import { S3BlobStore } from '../../src/blobs/s3/s3-blob-store.ts';
import { PostgresCatalog } from '../../src/catalog/postgres/postgres-catalog.ts';
import { digestOf } from '../../src/core/digest.ts';
import { noise } from '../support/contents.ts';
import { freshBucket, freshSchema, postgresUrl } from '../support/engines.ts';
import { composed, put, read, type FileStoreParts } from '../support/file-stores.ts';
import { openFile } from '../../src/store/get.ts';
import { recoverDatabase } from '../support/recovery.ts';

const large = noise(60_000, 'large');
let schema: string;
let client: Client;
let catalog: PostgresCatalog;
let blobs: S3BlobStore;
let parts: FileStoreParts;

beforeEach(async () => {
  const fresh = freshSchema();
  schema = fresh.schema;
  blobs = await S3BlobStore.open(freshBucket());
  catalog = await PostgresCatalog.open({ url: postgresUrl(), schema, placer: blobs });
  client = new Client({ connectionString: postgresUrl() });
  await client.connect();
  parts = composed(catalog, blobs, {}, fresh.drop);
  await put(parts.store, '/small', 1, Buffer.from('small'));
  await put(parts.store, '/a/large', 2, large);
  await put(parts.store, '/a/same', 3, large);
  await put(parts.store, '/gone', 4, Buffer.from('gone'));
  await parts.store.remove({ name: '/gone' as never, version: 4 });
});

afterEach(async () => {
  await client.end();
  await parts.close();
});

const nothing = {
  journalShortened: false,
  entriesRecorded: 0,
  referencesLost: 0,
  entriesRestored: 0,
  entriesCorrected: 0,
  entriesRemoved: 0,
  removalsRestored: 0,
  blobsRestored: 0,
  entriesWithoutBlob: [],
  countsCorrected: 0,
  unreferencedCorrected: 0,
  keysCorrected: 0,
  sumsCorrected: false,
};

it('finds nothing to do in an intact store', async () => {
  expect(await recoverDatabase(catalog, blobs, { full: true, orphanAgeMs: -60_000 })).toMatchObject({
    tables: nothing,
    damaged: [],
    sound: 0,
    strays: 0,
  });
});

it('restores entries, counts, keys and sums from the journal and the blobs', async () => {
  const before = await catalog.stats();
  await client.query(`DELETE FROM ${schema}.entry`);
  await client.query(`UPDATE ${schema}.blob SET reference_count = 9`);
  await client.query(`DELETE FROM ${schema}.unreferenced`);
  await client.query(`DELETE FROM ${schema}.object`);
  await client.query(`UPDATE ${schema}.counter SET entries = 7`);
  const looked = await recoverDatabase(catalog, blobs, { dryRun: true });
  expect(looked.tables).toMatchObject({ entriesRestored: 3, countsCorrected: 3, sumsCorrected: true });
  expect((await catalog.stats()).entries).toBe(7 * 64);
  expect((await recoverDatabase(catalog, blobs)).tables).toEqual({ ...looked.tables });
  expect((await recoverDatabase(catalog, blobs)).tables).toEqual(nothing);
  expect(await catalog.stats()).toEqual({
    ...before,
    journalBytes: expect.any(Number),
    journalLiveBytes: expect.any(Number),
  });
  expect((await read(parts.store, '/a/same'))?.equals(large)).toBe(true);
  expect(await read(parts.store, '/gone')).toBeUndefined();
});

it('corrects every row to match the journal', async () => {
  await put(parts.store, '/small', 5, Buffer.from('newer'));
  const { rows } = await client.query<{ digest: Buffer }>(
    `SELECT digest FROM ${schema}.entry WHERE name = '/a/large'`,
  );
  await client.query(`DELETE FROM ${schema}.entry WHERE name = '/a/same'`);
  await client.query(`UPDATE ${schema}.entry SET version = 1, digest = $1 WHERE name = '/small'`, [
    rows[0]?.digest,
  ]);
  await client.query(`INSERT INTO ${schema}.entry (name, version, digest) VALUES ('/gone', 4, $1)`, [
    rows[0]?.digest,
  ]);
  await client.query(`DELETE FROM ${schema}.removal`);
  const expected = { entriesRestored: 1, entriesCorrected: 1, entriesRemoved: 1, removalsRestored: 1 };
  expect((await recoverDatabase(catalog, blobs, { dryRun: true })).tables).toMatchObject(expected);
  expect((await recoverDatabase(catalog, blobs)).tables).toMatchObject({ ...expected, countsCorrected: 0 });
  expect((await recoverDatabase(catalog, blobs)).tables).toEqual(nothing);
  expect((await read(parts.store, '/a/same'))?.equals(large)).toBe(true);
  expect((await read(parts.store, '/small'))?.toString()).toBe('newer');
  expect(await read(parts.store, '/gone')).toBeUndefined();
  const repeated = { name: '/gone' as never, version: 3, claims: {}, firstSentMs: 0 };
  const body = { source: Buffer.from('older'), encoding: 'identity' } as const;
  expect(await parts.store.put(repeated, body)).toMatchObject({ stored: false, version: 4, removed: true });
});

it('restores lost rows of blobs whose objects exist, and reports which files are lost', async () => {
  await client.query(`DELETE FROM ${schema}.blob`);
  const report = await recoverDatabase(catalog, blobs);
  expect(report.tables).toMatchObject({
    blobsRestored: 1,
    entriesWithoutBlob: [{ name: '/small', version: 1 }],
  });
  expect((await read(parts.store, '/a/same'))?.equals(large)).toBe(true);
  await expect(openFile(parts.store, '/small' as never, { form: 'identity' })).rejects.toMatchObject({
    code: 'damaged-blob',
  });
  const again = await recoverDatabase(catalog, blobs);
  expect(again).toMatchObject({ tables: nothing, damaged: [{ digest: digestOf(Buffer.from('small')) }] });
  await put(parts.store, '/other', 1, Buffer.from('small'));
  expect((await read(parts.store, '/small'))?.toString()).toBe('small');
  expect(await recoverDatabase(catalog, blobs, { full: true })).toMatchObject({
    tables: nothing,
    damaged: [],
  });
});

it('marks blobs without their object, and removes objects that no row names', async () => {
  await put(parts.store, '/sound', 1, noise(50_000, 'sound'));
  const found = await catalog.findBlob(digestOf(large));
  if (found?.location.kind !== 'object') throw new Error('It is not in the bucket');
  await blobs.remove([found.location.key]);
  const upload = await blobs.stage();
  await upload.write(noise(100, 'stray'));
  await upload.seal();
  await blobs.place([{ stagedId: upload.stagedId, digest: digestOf(large), encoding: 'identity' }]);

  expect(await recoverDatabase(catalog, blobs)).toMatchObject({ strays: 0 });
  const report = await recoverDatabase(catalog, blobs, { orphanAgeMs: -60_000 });
  expect(report).toMatchObject({ strays: 1, damaged: [{ digest: digestOf(large), references: 2 }] });
  await expect(openFile(parts.store, '/a/large' as never, { form: 'identity' })).rejects.toMatchObject({
    code: 'damaged-blob',
  });
  await put(parts.store, '/again', 1, large);
  expect((await read(parts.store, '/a/large'))?.equals(large)).toBe(true);
  expect(await recoverDatabase(catalog, blobs, { full: true, orphanAgeMs: -60_000 })).toMatchObject({
    damaged: [],
    strays: 0,
    tables: nothing,
  });
});

describe('an address that is not that of the store', () => {
  const everything = { orphanAgeMs: -60_000 };

  async function objectCount(): Promise<number> {
    let count = 0;
    for await (const _ of blobs.list()) count += 1;
    return count;
  }

  it('a database that does not know the objects: they stay, unless that is accepted', async () => {
    const other = freshSchema();
    await using empty = await PostgresCatalog.open({
      url: postgresUrl(),
      schema: other.schema,
      placer: blobs,
    });
    onTestFinished(other.drop);
    expect(await recoverDatabase(empty, blobs, everything)).toMatchObject({ strays: 0, straysLeft: 1 });
    expect(await objectCount()).toBe(1);
    expect((await read(parts.store, '/a/large'))?.equals(large)).toBe(true);
    const accepted = await recoverDatabase(empty, blobs, { ...everything, acceptLoss: true });
    expect(accepted).toMatchObject({ strays: 1, straysLeft: 0 });
    expect(await objectCount()).toBe(0);
  });

  it('a place without any object: nothing is marked, unless that is accepted', async () => {
    const elsewhere = await S3BlobStore.open(freshBucket());
    onTestFinished(() => elsewhere.close());
    const refused = { code: 'corrupt-store', message: expect.stringContaining('1 blobs') };
    await expect(recoverDatabase(catalog, elsewhere)).rejects.toMatchObject(refused);
    await expect(recoverDatabase(catalog, elsewhere, { dryRun: true })).rejects.toMatchObject(refused);
    expect((await read(parts.store, '/a/large'))?.equals(large)).toBe(true);
    const missing = await S3BlobStore.open({ ...freshBucket(), bucket: 'filetracker-no-such-bucket' });
    onTestFinished(() => missing.close());
    await expect(recoverDatabase(catalog, missing, { acceptLoss: true })).rejects.toMatchObject({
      code: 'unavailable',
    });
    expect((await catalog.findBlob(digestOf(large)))?.damaged).toBe(false);
    expect((await recoverDatabase(catalog, elsewhere, { acceptLoss: true })).damaged).toHaveLength(1);
    // With the right address a full look takes the marks off again.
    expect(await recoverDatabase(catalog, blobs, { full: true })).toMatchObject({ damaged: [], sound: 1 });
  });

  it('a schema without a catalog: none is made by looking', async () => {
    const { schema: absent } = freshSchema();
    for (const existing of ['as-it-is', 'upgrade'] as const) {
      const opening = PostgresCatalog.open({ url: postgresUrl(), schema: absent, placer: blobs, existing });
      await expect(opening).rejects.toMatchObject({ code: 'not-found' });
    }
    const { rows } = await client.query('SELECT 1 FROM pg_namespace WHERE nspname = $1', [absent]);
    expect(rows).toEqual([]);
  });
});
