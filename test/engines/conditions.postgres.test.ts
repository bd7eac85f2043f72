import { randomBytes } from 'node:crypto';
import { Client } from 'pg';
import { beforeEach, describe, expect, it, onTestFinished, vi } from 'vitest';
import { MemoryBlobStore } from '../support/doubles/memory-blob-store.ts';
import type { BlobPlacer, PutChange } from '../../src/catalog/catalog.ts';
import { Connections } from '../../src/catalog/postgres/connections.ts';
import { PostgresCatalog, type PostgresCatalogOptions } from '../../src/catalog/postgres/postgres-catalog.ts';
import { migrations } from '../../src/catalog/postgres/schema/migrations.ts';
import { digestOf } from '../../src/core/digest.ts';
import { parseFileName } from '../../src/core/file-name.ts';
import { freshSchema, postgresUrl } from '../support/engines.ts';
import { FaultProxy } from '../support/fault-proxy.ts';
import { ownPostgres } from '../support/own-postgres.ts';

// What a database may do to the catalog while it is used, other than answer or be silent.

const blobs = new MemoryBlobStore();
const passing = { code: 'unavailable', retryable: true };

let schema: string;
let client: Client;

beforeEach(async () => {
  const fresh = freshSchema();
  schema = fresh.schema;
  client = await connected(postgresUrl());
  onTestFinished(fresh.drop);
});

async function connected(url: string): Promise<Client> {
  const made = new Client({ connectionString: url });
  made.on('error', () => undefined);
  await made.connect();
  onTestFinished(() => made.end());
  return made;
}

async function open(options: Partial<PostgresCatalogOptions> = {}): Promise<PostgresCatalog> {
  const catalog = await PostgresCatalog.open({ url: postgresUrl(), schema, placer: blobs, ...options });
  onTestFinished(() => catalog.close());
  return catalog;
}

function change(name: string, version: number, text: string): PutChange {
  const bytes = Buffer.from(text);
  const sizes = { logicalSize: bytes.length, storedSize: bytes.length };
  const content = { kind: 'inline', bytes } as const;
  const digest = digestOf(bytes);
  return { name: parseFileName(name), version, digest, ...sizes, encoding: 'identity', content };
}

/** Nothing of what is stored twice, counted and told disagrees. */
async function expectConsistent(catalog: PostgresCatalog): Promise<void> {
  const { entriesWithoutBlob, journalShortened, sumsCorrected, ...counts } = await catalog.repair({
    dryRun: true,
  });
  expect({ entriesWithoutBlob, journalShortened, sumsCorrected }).toEqual({
    entriesWithoutBlob: [],
    journalShortened: false,
    sumsCorrected: false,
  });
  expect(Object.values(counts).filter((count) => count !== 0)).toEqual([]);
}

describe('an answer that is lost after the change was made', () => {
  async function throughProxy(placer: (proxy: FaultProxy) => BlobPlacer) {
    const direct = await open();
    const proxy = await FaultProxy.open(postgresUrl());
    const url = `postgres://postgres@127.0.0.1:${proxy.port}/postgres`;
    const catalog = await open({ url, placer: placer(proxy) });
    await catalog.put(change('/a', 1, 'first'));
    return { direct, proxy, catalog };
  }

  it('is no success, and the same change repeated is one', async () => {
    const { direct, proxy, catalog } = await throughProxy(() => blobs);
    proxy.loseAnswers();
    await expect(catalog.put(change('/a', 2, 'second'))).rejects.toMatchObject(passing);
    // It was made: nobody was told, and it may not be told either that it was not.
    await expect.poll(async () => (await direct.find(parseFileName('/a')))?.entry.version).toBe(2);
    expect(await catalog.put(change('/a', 2, 'second'))).toMatchObject({ kind: 'stored', version: 2 });
    proxy.loseAnswers();
    const removal = { name: parseFileName('/a'), version: 2 };
    await expect(catalog.remove(removal)).rejects.toMatchObject(passing);
    await expect.poll(() => direct.find(parseFileName('/a'))).toBeUndefined();
    expect(await catalog.remove(removal)).toEqual({ kind: 'absent' });
    await expectConsistent(direct);
  });

  it('leaves an object that is named, for both who asked and who asks again', async () => {
    const { direct, catalog } = await throughProxy((fault) => ({
      ...placerOf(),
      place: async (placements) => {
        const keys = await blobs.place(placements);
        fault.loseAnswers();
        return keys;
      },
    }));
    const bytes = randomBytes(40_000);
    const staged = async (): Promise<PutChange> => {
      const upload = await blobs.stage();
      await upload.write(Buffer.from(bytes));
      const size = await upload.seal();
      const sizes = { logicalSize: size, storedSize: size, digest: digestOf(bytes) };
      return { ...change('/b', 1, ''), ...sizes, content: { kind: 'staged', stagedId: upload.stagedId } };
    };
    await expect(catalog.put(await staged())).rejects.toMatchObject(passing);
    await expect.poll(async () => (await direct.find(parseFileName('/b')))?.entry.version).toBe(1);
    expect(await catalog.put(await staged())).toMatchObject({ kind: 'stored', deduplicated: true });
    const found = await direct.findBlob(digestOf(bytes));
    const key = found?.location.kind === 'object' ? found.location.key : '';
    expect(await blobs.size(key)).toBe(bytes.length);
    await expectConsistent(direct);
  });

  function placerOf(): BlobPlacer {
    return {
      place: (placements) => blobs.place(placements),
      remove: (keys) => blobs.remove(keys),
      size: (key) => blobs.size(key),
    };
  }
});

describe('conflicts', () => {
  /** Changes of entries fail so many times; a sequence is not undone with what has failed. */
  async function failFirst(times: number, state: string): Promise<void> {
    await client.query(`
      CREATE SEQUENCE ${schema}.failures;
      CREATE FUNCTION ${schema}.fail() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
        IF nextval('${schema}.failures') <= ${times} THEN
          RAISE EXCEPTION 'a conflict' USING ERRCODE = '${state}';
        END IF;
        RETURN NEW;
      END $$;
      CREATE TRIGGER fail BEFORE INSERT ON ${schema}.entry FOR EACH ROW EXECUTE FUNCTION ${schema}.fail()`);
  }

  it.each(['40001', '40P01'])('%s is tried again, and not for ever', async (state) => {
    const catalog = await open({ poolSize: 3 });
    await failFirst(18, state);
    await expect(catalog.put(change('/a', 1, 'a'))).rejects.toMatchObject(passing);
    expect(await catalog.put(change('/a', 1, 'a'))).toMatchObject({ kind: 'stored' });
    expect(catalog.connectionCount).toBeLessThanOrEqual(3);
    await expectConsistent(catalog);
  });

  it('a statement whose tables have changed is prepared anew', async () => {
    await client.query(`CREATE SCHEMA ${schema}; CREATE TABLE ${schema}.some (a int)`);
    const connections = await Connections.create({ url: postgresUrl(), poolSize: 1 }, async () => undefined);
    onTestFinished(() => connections.close());
    const statement = { name: 'some', text: `SELECT * FROM ${schema}.some` };
    expect(await connections.run(statement, [])).toEqual([]);
    await client.query(`ALTER TABLE ${schema}.some ADD b int`);
    expect(await connections.run(statement, [])).toEqual([]);
  });

  it('a table that somebody holds makes changes fail in time, and goes on when it is let go', async () => {
    const catalog = await open({ queryTimeoutMs: 500 });
    await client.query(`BEGIN; LOCK TABLE ${schema}.entry IN ACCESS EXCLUSIVE MODE`);
    const startedMs = performance.now();
    await expect(catalog.put(change('/a', 1, 'a'))).rejects.toMatchObject(passing);
    await expect(catalog.find(parseFileName('/a'))).rejects.toMatchObject(passing);
    expect(performance.now() - startedMs).toBeLessThan(6_000);
    await client.query('ROLLBACK');
    expect(await catalog.put(change('/a', 1, 'a'))).toMatchObject({ kind: 'stored' });
  });
});

describe('a database that takes no changes', () => {
  it('is left, and come back to when it takes some', async () => {
    const postgres = await ownPostgres();
    const catalog = await open({ url: postgres.url });
    await catalog.put(change('/a', 1, 'a'));
    const admin = await connected(postgres.url);
    await admin.query('ALTER SYSTEM SET default_transaction_read_only = on');
    await admin.query('SELECT pg_reload_conf()');
    await expect
      .poll(() => catalog.put(change('/a', 2, 'b')).catch((error: unknown) => error))
      .toMatchObject(passing);
    // Its connections are gone with that, and no look-up is answered with what was.
    await expect(catalog.find(parseFileName('/a'))).rejects.toMatchObject(passing);
    await expect(catalog.probe()).rejects.toMatchObject(passing);
    expect(catalog.connectionCount).toBe(0);
    await admin.query('SET default_transaction_read_only = off');
    await admin.query('ALTER SYSTEM RESET default_transaction_read_only');
    await admin.query('SELECT pg_reload_conf()');
    await expect
      .poll(() => catalog.put(change('/a', 2, 'b')).catch((error: unknown) => error))
      .toMatchObject({ kind: 'stored', version: 2 });
  });
});

describe('rights', () => {
  it('that are too few are told, and waited for', async () => {
    const role = `weak_${randomBytes(6).toString('hex')}`;
    await client.query(`CREATE ROLE ${role} LOGIN`);
    onTestFinished(async () => {
      const admin = new Client({ connectionString: postgresUrl() });
      await admin.connect();
      await admin.query(`DROP OWNED BY ${role}`);
      await admin.query(`DROP ROLE ${role}`);
      await admin.end();
    });
    const url = postgresUrl().replace('postgres@', `${role}@`);
    const few = { ...passing, message: expect.stringContaining('too few rights') };
    await expect(open({ url })).rejects.toMatchObject(few);
    const waiting = await open({ url, mayWait: true });
    await expect(waiting.find(parseFileName('/a'))).rejects.toMatchObject(few);
    await client.query(`GRANT CREATE ON DATABASE postgres TO ${role}`);
    expect(await waiting.put(change('/a', 1, 'a'))).toMatchObject({ kind: 'stored' });
    await client.query(`ALTER SCHEMA ${schema} OWNER TO postgres`);
    await client.query(`ALTER TABLE ${schema}.entry OWNER TO postgres`);
    await client.query(`REVOKE ALL ON ${schema}.entry FROM ${role}`);
    await expect(waiting.find(parseFileName('/a'))).rejects.toMatchObject(few);
  });
});

describe('a schema', () => {
  it('of a newer release is refused', async () => {
    await (await open()).close();
    await client.query(`INSERT INTO ${schema}.migration (number) VALUES (${migrations.length + 1})`);
    await expect(open()).rejects.toMatchObject({ code: 'read-only' });
  });

  it('that is away while it is restored is waited for, and never made anew', async () => {
    const catalog = await open();
    await catalog.put(change('/a', 1, 'a'));
    await client.query(`ALTER SCHEMA ${schema} RENAME TO ${schema}_away`);
    for (let time = 0; time < 3; time += 1) {
      await expect(catalog.find(parseFileName('/a'))).rejects.toMatchObject(passing);
      await expect(catalog.probe()).rejects.toMatchObject(passing);
    }
    await client.query(`ALTER SCHEMA ${schema}_away RENAME TO ${schema}`);
    expect((await catalog.find(parseFileName('/a')))?.entry.version).toBe(1);
  });

  it('of an older release is brought up to date, unless nothing may be changed', async () => {
    const [first = ''] = migrations;
    await client.query(`CREATE SCHEMA ${schema}`);
    await client.query(
      `CREATE TABLE ${schema}.migration (number integer PRIMARY KEY, applied_at timestamptz NOT NULL DEFAULT now())`,
    );
    await client.query(first.replaceAll('$schema', () => schema));
    await client.query(`INSERT INTO ${schema}.migration (number) VALUES (1)`);
    await expect(open({ existing: 'as-it-is' })).rejects.toMatchObject({ code: 'invalid-argument' });
    const catalog = await open({ existing: 'upgrade' });
    expect(await catalog.put(change('/a', 1, 'a'))).toMatchObject({ kind: 'stored' });
    await open({ existing: 'as-it-is' });
  });
});

it('lists that are not read on keep no connection, and no transaction open', async () => {
  const catalog = await open({ listPoolSize: 1, connectTimeoutMs: 2000 });
  await client.query(
    `INSERT INTO ${schema}.entry SELECT '/d/' || lpad(i::text, 6, '0'), 1, '\\x00' FROM generate_series(1, 5000) i`,
  );
  const held = [];
  for (let count = 0; count < 6; count += 1) {
    const iterator = catalog.listNames('/')[Symbol.asyncIterator]();
    expect((await iterator.next()).value).toHaveLength(512);
    held.push(iterator);
  }
  expect(await catalog.put(change('/e', 1, 'a'))).toMatchObject({ kind: 'stored' });
  const { rows } = await client.query<{ open: string }>(
    `SELECT count(*) AS open FROM pg_stat_activity
      WHERE application_name = 'filetracker' AND state LIKE 'idle in transaction%' AND query LIKE '%${schema}%'`,
  );
  expect(rows).toEqual([{ open: '0' }]);
  const names: string[] = [];
  const [iterator] = held;
  for (let next = await iterator?.next(); next?.done === false; next = await iterator?.next()) {
    names.push(...next.value);
  }
  // The first batch was taken before, and the name that came meanwhile is listed.
  expect(names).toHaveLength(5000 - 512 + 1);
  for (const rest of held) await rest.return?.();
});

it('a pin outlives its time as long as it is held, and is over when it is released', async () => {
  const catalog = await open({ pinLifetimeMs: 6000 });
  await catalog.put(change('/a', 1, 'one'));
  await catalog.remove({ name: parseFileName('/a'), version: 1 });
  const digest = digestOf(Buffer.from('one'));
  const pin = await catalog.pin(digest);
  const endOf = async (): Promise<number> => {
    const found = await client.query<{ end_ms: number }>(
      `SELECT extract(epoch FROM expires_at)::float8 * 1000 AS end_ms FROM ${schema}.pin`,
    );
    return found.rows[0]?.end_ms ?? 0;
  };
  const first = await endOf();
  // Renewed twice, the later time past the first end.
  await expect.poll(endOf, { timeout: 30_000 }).toBeGreaterThan(first + 5900);
  expect(await catalog.collect([digest], Number.MAX_SAFE_INTEGER)).toEqual([]);
  await pin?.release();
  expect(await catalog.collect([digest], Number.MAX_SAFE_INTEGER)).toHaveLength(1);
});

it('a server whose clock is weeks ahead forgets no removed object and collects nothing early', async () => {
  const catalog = await open();
  const upload = await blobs.stage();
  await upload.write(Buffer.from('one'));
  await upload.seal();
  const staged = { kind: 'staged', stagedId: upload.stagedId } as const;
  await catalog.put({ ...change('/a', 1, 'one'), content: staged });
  await catalog.remove({ name: parseFileName('/a'), version: 1 });
  const collected = await catalog.collect([digestOf(Buffer.from('one'))], Number.MAX_SAFE_INTEGER);
  expect(collected).toHaveLength(1);
  await catalog.put(change('/b', 1, 'two'));
  await catalog.remove({ name: parseFileName('/b'), version: 1 });
  const realMs = Date.now();
  vi.spyOn(Date, 'now').mockReturnValue(realMs + 60 * 24 * 3_600_000);
  onTestFinished(() => void vi.restoreAllMocks());
  await catalog.sweepObjects();
  const counts = await client.query<{ objects: string; removals: string }>(
    `SELECT (SELECT count(*) FROM ${schema}.object) AS objects, (SELECT count(*) FROM ${schema}.removal) AS removals`,
  );
  expect(counts.rows).toEqual([{ objects: '1', removals: '2' }]);
  const timeMs = await catalog.timeMs();
  expect(Math.abs(timeMs - realMs)).toBeLessThan(24 * 3_600_000);
  expect(await catalog.listUnreferenced(timeMs - 24 * 3_600_000, 10)).toEqual([]);
});

it('servers whose clocks differ by days collect early, and nothing that is named or held', async () => {
  const shifted = (days: number) => ({ nowMs: () => Date.now() + days * 24 * 3_600_000 });
  const [ahead, behind] = [await open({ clock: shifted(3) }), await open({ clock: shifted(-3) })];
  await behind.put(change('/a', 1, 'one'));
  await behind.put(change('/b', 1, 'two'));
  await behind.put(change('/b', 2, 'three'));
  await behind.remove({ name: parseFileName('/a'), version: 1 });
  const one = digestOf(Buffer.from('one'));
  const pin = await behind.pin(one);
  await ahead.sweepObjects();
  const beforeMs = shifted(3).nowMs() - 3_600_000;
  const listed = await ahead.listUnreferenced(beforeMs, 10);
  expect(listed).toHaveLength(2);
  const named = digestOf(Buffer.from('three'));
  const collected = await ahead.collect([...listed, named], beforeMs);
  expect(collected.map(({ digest }) => digest)).toEqual([digestOf(Buffer.from('two'))]);
  await pin?.release();
  expect(await ahead.collect([one], beforeMs)).toHaveLength(1);
  expect((await behind.find(parseFileName('/b')))?.entry.digest).toBe(named);
  await expectConsistent(ahead);
});
