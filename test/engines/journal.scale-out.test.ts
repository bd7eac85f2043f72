import { Client } from 'pg';
import { afterEach, beforeEach, expect, it } from 'vitest';
import { S3BlobStore } from '../../src/blobs/s3/s3-blob-store.ts';
import { PostgresCatalog } from '../../src/catalog/postgres/postgres-catalog.ts';
import type { Clock } from '../../src/core/clock.ts';
import { removalMemoryMs } from '../../src/core/limits.ts';
import { noise } from '../support/contents.ts';
import { freshBucket, freshSchema, postgresUrl } from '../support/engines.ts';
import { composed, put, read, type FileStoreParts } from '../support/file-stores.ts';
import { recoverDatabase } from '../support/recovery.ts';

const large = noise(60_000, 'large');
let nowMs = Date.now();
const clock: Clock = { nowMs: () => nowMs };
let schema: string;
let client: Client;
let catalog: PostgresCatalog;
let blobs: S3BlobStore;
let parts: FileStoreParts;

async function countRecords(): Promise<number> {
  const { rows } = await client.query<{ count: string }>(`SELECT count(*) FROM ${schema}.journal`);
  return Number(rows[0]?.count);
}

beforeEach(async () => {
  const fresh = freshSchema();
  schema = fresh.schema;
  blobs = await S3BlobStore.open(freshBucket());
  catalog = await PostgresCatalog.open({ url: postgresUrl(), schema, placer: blobs, clock });
  client = new Client({ connectionString: postgresUrl() });
  await client.connect();
  parts = composed(catalog, blobs, {}, fresh.drop);
  // The object of the large content is named in the record of a name that has another content by now.
  await put(parts.store, '/first', 1, large);
  await put(parts.store, '/second', 2, large);
  await put(parts.store, '/first', 3, Buffer.from('other'));
  for (const version of [1, 2, 3]) await put(parts.store, '/often', version, Buffer.from(`v${version}`));
  await put(parts.store, '/gone', 4, Buffer.from('gone'));
  await parts.store.remove({ name: '/gone' as never, version: 4 });
});

afterEach(async () => {
  await client.end();
  await parts.close();
});

it('compaction leaves what recovery needs to bring everything back, and removals are remembered', async () => {
  expect(await countRecords()).toBe(8);
  expect(await catalog.compactJournal({ always: true })).toEqual({ recordsBefore: 8, recordsRemoved: 3 });
  expect(await catalog.compactJournal({ always: true })).toEqual({ recordsBefore: 5, recordsRemoved: 0 });
  for (const table of ['entry', 'blob', 'removal', 'object', 'unreferenced']) {
    // Small contents lie in this table alone.
    const where = table === 'blob' ? 'WHERE object_key IS NOT NULL' : '';
    await client.query(`DELETE FROM ${schema}.${table} ${where}`);
  }
  const { tables } = await recoverDatabase(catalog, blobs);
  expect(tables).toMatchObject({
    journalShortened: false,
    entriesRestored: 3,
    removalsRestored: 1,
    blobsRestored: 1,
    entriesWithoutBlob: [],
  });
  expect((await read(parts.store, '/second'))?.equals(large)).toBe(true);
  expect((await read(parts.store, '/first'))?.toString()).toBe('other');
  expect((await read(parts.store, '/often'))?.toString()).toBe('v3');
  const gone = { name: '/gone' as never, version: 3, claims: {}, firstSentMs: 0 };
  const repeat = await parts.store.put(gone, { source: Buffer.from('older'), encoding: 'identity' });
  expect(repeat).toMatchObject({ stored: false, removed: true });
});

it('compaction forgets removals with the catalog, and objects with their collection', async () => {
  await parts.store.remove({ name: '/second' as never, version: 9 });
  nowMs += removalMemoryMs + 1000;
  const unnamed = await catalog.listUnreferenced(nowMs, 100);
  await catalog.collect(unnamed, nowMs);
  await put(parts.store, '/late', 1, Buffer.from('late'));
  await catalog.compactJournal({ always: true });
  const { rows } = await client.query(`SELECT kind, name FROM ${schema}.journal ORDER BY sequence`);
  const named = rows.filter(({ name }: { name: string | null }) => name !== null);
  expect(named).toEqual(['/first', '/often', '/late'].map((name) => ({ kind: 'put', name })));
  expect(rows.filter(({ kind }: { kind: string }) => kind === 'add')).toEqual([]);
  expect((await recoverDatabase(catalog, blobs)).tables).toMatchObject({
    entriesRestored: 0,
    entriesRemoved: 0,
  });
});

it('compaction is made by itself only where it pays, and by one server at a time', async () => {
  await client.query(`ANALYZE ${schema}.journal`);
  expect(await catalog.compactJournal()).toBeUndefined();
  await client.query(`UPDATE pg_class SET reltuples = 200000 WHERE oid = '${schema}.journal'::regclass`);
  await client.query('BEGIN');
  await client.query('SELECT pg_advisory_xact_lock(hashtextextended($1, 7342))', [schema]);
  expect(await catalog.compactJournal()).toBeUndefined();
  await client.query('ROLLBACK');
  expect(await catalog.compactJournal()).toMatchObject({ recordsRemoved: 3 });
});

it('recovery refuses to give up contents whose names were deleted from the journal', async () => {
  await client.query(`DELETE FROM ${schema}.journal WHERE name = '/second'`);
  await client.query(`DELETE FROM ${schema}.entry WHERE name = '/second'`);
  const lost = { journalShortened: true, referencesLost: 1, entriesRestored: 0 };
  expect((await recoverDatabase(catalog, blobs, { dryRun: true })).tables).toMatchObject(lost);
  await expect(recoverDatabase(catalog, blobs)).rejects.toMatchObject({ code: 'corrupt-store' });
  expect((await catalog.listUnreferenced(nowMs + 1, 100)).length).toBe(3);
  expect((await recoverDatabase(catalog, blobs, { acceptLoss: true })).tables).toMatchObject(lost);
  expect((await recoverDatabase(catalog, blobs)).tables).toMatchObject({ journalShortened: false });
});

it('recovery notices a journal that lost records, tells so once, and writes it anew', async () => {
  await client.query(`TRUNCATE ${schema}.journal`);
  expect((await recoverDatabase(catalog, blobs)).tables).toMatchObject({
    journalShortened: true,
    entriesRecorded: 3,
    referencesLost: 0,
  });
  expect((await recoverDatabase(catalog, blobs)).tables).toMatchObject({ journalShortened: false });
  await client.query(`DELETE FROM ${schema}.entry`);
  await client.query(`DELETE FROM ${schema}.blob WHERE object_key IS NOT NULL`);
  expect((await recoverDatabase(catalog, blobs)).tables).toMatchObject({
    entriesRestored: 3,
    blobsRestored: 1,
  });
  expect((await read(parts.store, '/second'))?.equals(large)).toBe(true);
});
