import { join } from 'node:path';
import { readFileSync, writeFileSync } from 'node:fs';
import { expect, onTestFinished, test, vi } from 'vitest';
import { Client } from '../../src/client/client.ts';
import type { ClientOptions } from '../../src/client/client-options.ts';
import { formatDate } from '../../src/protocol/dates.ts';
import { madeCertificate } from '../support/certificates.ts';
import { servedStore } from '../support/client-server.ts';
import { collected, noise, prose } from '../support/contents.ts';
import { faultyServer } from '../support/faulty-server.ts';
import { forwardProxy } from '../support/forward-proxy.ts';
import { temporaryFolder } from '../support/temporary-folder.ts';
import { webServer } from '../support/web-server.ts';

vi.setConfig({ testTimeout: 60_000 });

const quick = { retries: { retriesMax: 0 }, stallTimeoutMs: 5000 };

function clientOf(remoteUrl: string, options: ClientOptions = {}): Client {
  const client = new Client({ remoteUrl, ...quick, ...options });
  onTestFinished(() => client.close());
  return client;
}

async function localFile(bytes: Buffer): Promise<string> {
  const path = join(await temporaryFolder(), 'local');
  writeFileSync(path, bytes);
  return path;
}

function portOf(url: string): number {
  return Number(new URL(url).port);
}

test('HTTP_PROXY is heeded by every request, with the credentials of the proxy and those of the server', async () => {
  const { url, requests } = await servedStore();
  const proxy = await forwardProxy({ 'store.test': portOf(url) });
  vi.stubEnv('HTTP_PROXY', `http://me:s%2Fx@127.0.0.1:${proxy.port}`);
  vi.stubEnv('NO_PROXY', 'other.test');
  onTestFinished(() => void vi.unstubAllEnvs());
  const client = clientOf('http://store.test');
  const bytes = prose(2_000_000);
  await client.putFile('/d/a@5', await localFile(bytes));
  expect((await collected((await client.getStream('/d/a')).stream)).equals(bytes)).toBe(true);
  const names: string[] = [];
  for await (const name of client.listRemoteFiles()) names.push(name);
  expect(names).toEqual(['/d/a']);
  await client.deleteFile('/d/a@5');
  expect(proxy.asked.map((line) => line.replace(/\?.*/, ''))).toEqual([
    'GET http://store.test/version/',
    'PUT http://store.test/files/d/a',
    'GET http://store.test/files/d/a',
    'GET http://store.test/list/',
    'DELETE http://store.test/files/d/a',
  ]);
  expect(new Set(proxy.credentials)).toEqual(new Set([`Basic ${Buffer.from('me:s/x').toString('base64')}`]));
  expect(requests.map(({ status }) => status)).toEqual([200, 200, 200, 200, 200]);
});

test('a server by https is reached through CONNECT, and the proxy sees none of its requests', async () => {
  const made = await madeCertificate('store.test');
  const server = await webServer((_request, response) => {
    response.writeHead(200, { 'Last-Modified': formatDate(9), 'Content-Length': '5' }).end('hello');
  }, made);
  const proxy = await forwardProxy({ 'store.test': server.port });
  const options = { proxy: `me:pw@127.0.0.1:${proxy.port}`, tls: { ca: made.cert } };
  const client = clientOf('https://w:t@store.test', options);
  const out = join(await temporaryFolder(), 'out');
  for (let gets = 0; gets < 3; gets += 1)
    expect(await client.getFile('/a', out)).toMatchObject({ version: 9 });
  expect(readFileSync(out, 'utf8')).toBe('hello');
  expect(proxy.asked).toEqual(['CONNECT store.test:443']);
  expect(proxy.credentials).toEqual([`Basic ${Buffer.from('me:pw').toString('base64')}`]);
  expect(server.headers[0]).toMatchObject({
    host: 'store.test',
    authorization: `Basic ${Buffer.from('w:t').toString('base64')}`,
  });
  expect(server.headers[0]?.['proxy-authorization']).toBeUndefined();
});

test.each(['http', 'https'])('a proxy that refuses or is gone is named (%s)', async (scheme) => {
  const cases: [number | undefined, object][] = [
    [407, { code: 'unauthorized' }],
    [503, { code: 'unavailable' }],
    [undefined, { code: 'unreachable' }],
  ];
  for (const [status, expected] of cases) {
    const port = status === undefined ? 9 : (await forwardProxy({}, status)).port;
    const client = clientOf(`${scheme}://store.test`, { proxy: `http://me:SECRET@127.0.0.1:${port}` });
    const failure = await client.stat('/a').catch((error: unknown) => error);
    expect(failure).toMatchObject(expected);
    expect(String(failure)).toContain(`proxy "http://127.0.0.1:${port}"`);
    expect(String(failure)).not.toContain('SECRET');
  }
});

test('a server on this machine is not asked for through a proxy of the environment', async () => {
  const server = await faultyServer();
  server.files.set('/a', { version: 5, bytes: Buffer.from('x') });
  vi.stubEnv('http_proxy', 'http://127.0.0.1:9');
  onTestFinished(() => void vi.unstubAllEnvs());
  expect(await clientOf(server.url).fileVersion('/a')).toBe(5);
});

test.each([411, 501])(
  'a body without a length that is answered with %i is sent again with one, and others after it too',
  async (status) => {
    const server = await faultyServer();
    const client = clientOf(server.url);
    const bytes = prose(3_000_000);
    server.faults.push({ kind: 'status', status });
    expect(await client.putFile('/a@7', await localFile(bytes))).toMatchObject({ version: 7, stored: true });
    await client.putFile('/b@7', await localFile(bytes));
    const puts = server.requests.filter(({ method }) => method === 'PUT');
    expect(puts.map(({ headers }) => headers['transfer-encoding'])).toEqual([
      'chunked',
      undefined,
      undefined,
    ]);
    expect(puts.map(({ headers }) => headers['content-encoding'])).toEqual(['gzip', 'gzip', 'gzip']);
  },
);

test('a body that was asked about and refused with 417 is sent without asking, and others after it too', async () => {
  const server = await faultyServer();
  const client = clientOf(server.url);
  const bytes = noise(1_000_000);
  server.faults.push({ kind: 'status', status: 417 });
  expect(await client.putFile('/a@7', await localFile(bytes))).toMatchObject({ version: 7, stored: true });
  await client.putFile('/b@7', await localFile(bytes));
  const puts = server.requests.filter(({ method }) => method === 'PUT');
  expect(puts.map(({ headers }) => headers.expect)).toEqual(['100-continue', undefined, undefined]);
  expect(server.files.get('/a')?.bytes.equals(bytes)).toBe(true);
});
