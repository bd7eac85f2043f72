import { describe, expect, it } from 'vitest';
import { noise } from '../support/contents.ts';
import { postgresUrl, s3Endpoint } from '../support/engines.ts';
import { FaultProxy } from '../support/fault-proxy.ts';
import { requestOnce } from '../support/raw-http.ts';
import { S3Proxy } from '../support/s3-proxy.ts';
import { sharedPlace } from '../support/scale-out-servers.ts';
import { versionQuery } from '../support/test-server.ts';

const call = 'filetracker_backend_call_seconds_count';
const errors = 'filetracker_backend_errors_total';

describe('metrics of PostgreSQL and S3', () => {
  it('tell of the calls of all workers, and why they failed while they do', async () => {
    const place = await sharedPlace();
    const database = await FaultProxy.open(postgresUrl());
    const objects = await S3Proxy.open(s3Endpoint());
    const { port } = await place.server({
      catalogUrl: `postgres://postgres@127.0.0.1:${database.port}/postgres`,
      s3Endpoint: objects.url,
      args: ['--workers', '2', '--catalog-timeout', '6s', '--s3-timeout', '6s'],
    });
    const put = async (name: string, body: Buffer | string): Promise<number> =>
      (await requestOnce(port, { method: 'PUT', target: `/files${name}?${versionQuery()}`, body })).status;
    const get = async (name: string): Promise<number> =>
      (await requestOnce(port, { target: `/files${name}` })).status;
    const metrics = async (): Promise<string> => (await requestOnce(port, { target: '/metrics' })).text;
    // Connections go to the workers in turn: each of them has one of each kind.
    for (const name of ['/a', '/b']) expect(await put(name, name)).toBe(200);
    for (const name of ['/c', '/d']) expect(await put(name, noise(300_000, name))).toBe(200);
    for (const name of ['/c', '/d']) expect(await get(name)).toBe(200);
    expect((await requestOnce(port, { target: '/list/' })).status).toBe(200);
    const text = await metrics();
    expect(text).toMatch(new RegExp(`^${call}\\{backend="postgres",operation="put"\\} [4-9]$`, 'm'));
    expect(text).toMatch(new RegExp(`^${call}\\{backend="postgres",operation="list"\\} [1-9]`, 'm'));
    expect(text).toContain(`${call}{backend="s3",operation="read"} 2\n`);
    expect(text).not.toContain(`${errors}{`);

    objects.twist = ({ method }) => (method === 'GET' ? { status: 403, code: 'AccessDenied' } : undefined);
    expect(await get('/c')).toBe(503);
    expect(await metrics()).toContain(`${errors}{backend="s3",operation="read",reason="AccessDenied"} 1\n`);
    database.set('silence');
    expect(await get('/a')).toBe(503);
    expect(await get('/a')).toBe(503);
    expect(await metrics()).toMatch(
      new RegExp(`^${errors}\\{backend="postgres",operation="find",reason="(timeout|57014)"\\} 2$`, 'm'),
    );
  });
});
