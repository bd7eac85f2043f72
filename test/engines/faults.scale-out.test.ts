import { Client } from 'pg';
import { describe, expect, it } from 'vitest';
import { postgresUrl, s3Endpoint } from '../support/engines.ts';
import { noise } from '../support/contents.ts';
import { FaultProxy, type Fault } from '../support/fault-proxy.ts';
import { ownPostgres } from '../support/own-postgres.ts';
import { requestOnce, type RawAnswer } from '../support/raw-http.ts';
import { sharedPlace } from '../support/scale-out-servers.ts';
import { versionQuery } from '../support/test-server.ts';

/** It starts several programs, on a machine that may be busy. */
const slow = { timeout: 300_000 };

const timeoutFlags = ['--catalog-timeout', '1s', '--s3-timeout', '1s', '--catalog-pool', '5'];
/** Time-outs and the work of a busy machine. */
const answerMaxMs = 6_000;
const large = noise(200_000, 'large');

class Requests {
  readonly #port: number;

  constructor(port: number) {
    this.#port = port;
  }

  put(name: string, body: Buffer | string): Promise<RawAnswer> {
    return requestOnce(this.#port, { method: 'PUT', target: `/files${name}?${versionQuery()}`, body });
  }

  get(name: string): Promise<RawAnswer> {
    return requestOnce(this.#port, { target: `/files${name}` });
  }

  list(): Promise<RawAnswer> {
    return requestOnce(this.#port, { target: '/list/' });
  }

  async readiness(): Promise<number> {
    return (await requestOnce(this.#port, { target: '/readyz' })).status;
  }
}

/** Fails unless it is answered in time, as a passing fault that the client should try again. */
async function expectRefused(answering: Promise<RawAnswer>): Promise<void> {
  const startedMs = performance.now();
  const { status, headers, body } = await answering;
  expect({ status, body: body.toString() }).toMatchObject({ status: 503 });
  expect(Number(headers.get('retry-after'))).toBeGreaterThan(0);
  expect(performance.now() - startedMs).toBeLessThan(answerMaxMs);
}

async function connectionsTo(url: string): Promise<number> {
  const client = new Client({ connectionString: url });
  await client.connect();
  const { rows } = await client.query<{ count: string }>(
    "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'filetracker' AND state IS NOT NULL",
  );
  await client.end();
  return Number(rows[0]?.count);
}

describe('faults of the engines', () => {
  it.each<Fault>(['silence', 'refusal'])('PostgreSQL: %s', async (fault) => {
    const place = await sharedPlace();
    const proxy = await FaultProxy.open(postgresUrl());
    const { port } = await place.server({
      catalogUrl: `postgres://postgres@127.0.0.1:${proxy.port}/postgres`,
      args: timeoutFlags,
    });
    const requests = new Requests(port);
    expect((await requests.put('/small', 'before')).status).toBe(200);
    expect((await requests.put('/large', large)).status).toBe(200);
    proxy.set(fault);
    await Promise.all([
      expectRefused(requests.put('/small2', 'during')),
      expectRefused(requests.put('/large2', noise(200_000, 'during'))),
      expectRefused(requests.get('/small')),
      expectRefused(requests.get('/large')),
      expectRefused(requests.list()),
    ]);
    expect(await requests.readiness()).toBe(503);
    proxy.set('none');
    await expect.poll(() => requests.readiness(), { timeout: 60_000 }).toBe(200);
    expect((await requests.list()).text).toBe('large\nsmall\n');
    expect((await requests.get('/small')).body.toString()).toBe('before');
    expect((await requests.get('/large')).body.equals(large)).toBe(true);
    expect((await requests.put('/small2', 'after')).status).toBe(200);
    // Those of the pool, one for a list, one for the tokens; every one that the fault broke is gone.
    await expect.poll(() => proxy.connections / 2, { timeout: 60_000 }).toBeLessThanOrEqual(5 + 1 + 1);
  });

  it.each<Fault>([500, 503, 'silence', 'refusal'])('S3: %s', async (fault) => {
    const place = await sharedPlace();
    const proxy = await FaultProxy.open(s3Endpoint());
    const { port } = await place.server({
      s3Endpoint: `http://127.0.0.1:${proxy.port}`,
      args: timeoutFlags,
    });
    const requests = new Requests(port);
    expect((await requests.put('/small', 'before')).status).toBe(200);
    expect((await requests.put('/large', large)).status).toBe(200);
    const other = noise(300_000, 'other');
    proxy.set(fault);
    await Promise.all([expectRefused(requests.put('/large2', other)), expectRefused(requests.get('/large'))]);
    // Small files need PostgreSQL alone.
    expect((await requests.get('/small')).body.toString()).toBe('before');
    expect((await requests.put('/small2', 'during')).status).toBe(200);
    expect(await requests.readiness()).toBe(503);
    proxy.set('none');
    await expect.poll(() => requests.readiness(), { timeout: 60_000 }).toBe(200);
    expect((await requests.get('/large')).body.equals(large)).toBe(true);
    expect((await requests.put('/large2', other)).status).toBe(200);
    expect((await requests.get('/large2')).body.equals(other)).toBe(true);
    expect((await requests.get('/small2')).body.toString()).toBe('during');
  });

  it('PostgreSQL is killed and started again: what was acknowledged is there', slow, async () => {
    const postgres = await ownPostgres();
    const place = await sharedPlace(postgres.url);
    const servers = await Promise.all([1, 2].map(() => place.server({ args: timeoutFlags })));
    const acknowledged: string[] = [];
    const state = { over: false };
    let refused = 0;
    const client = async (id: number): Promise<void> => {
      const requests = new Requests(servers[id % 2]?.port ?? 0);
      for (let count = 0; !state.over; count += 1) {
        const name = `/client${id}/${count}`;
        const { status } = await requests.put(name, name);
        if (status === 200) acknowledged.push(name);
        else refused += 1;
        expect([200, 503]).toContain(status);
      }
    };
    const clients = Promise.all([1, 2, 3, 4].map((id) => client(id)));
    for (let round = 0; round < 2; round += 1) {
      await new Promise((resolve) => setTimeout(resolve, 700));
      await postgres.kill();
      await new Promise((resolve) => setTimeout(resolve, 500));
      await postgres.start();
    }
    await new Promise((resolve) => setTimeout(resolve, 700));
    state.over = true;
    await clients;
    const requests = new Requests(servers[0]?.port ?? 0);
    await expect.poll(() => requests.readiness(), { timeout: 60_000 }).toBe(200);
    expect(refused).toBeGreaterThan(0);
    expect(acknowledged.length).toBeGreaterThan(20);
    for (const name of acknowledged) expect((await requests.get(name)).body.toString()).toBe(name);
    // Two servers of five and one for the tokens, and the test's own of twenty that it used one of at a time.
    expect(await connectionsTo(postgres.url)).toBeLessThanOrEqual(2 * (5 + 1) + 2);
  });

  it('a server that starts before its PostgreSQL waits for it', async () => {
    const postgres = await ownPostgres();
    const place = await sharedPlace(postgres.url);
    await postgres.kill();
    const { port } = await place.server({ args: timeoutFlags });
    const requests = new Requests(port);
    expect(await requests.readiness()).toBe(503);
    await postgres.start();
    await expect.poll(() => requests.readiness(), { timeout: 60_000 }).toBe(200);
    expect((await requests.put('/a', 'a')).status).toBe(200);
  });
});
