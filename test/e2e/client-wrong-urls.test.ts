import { createServer, type RequestListener } from 'node:http';
import type { AddressInfo } from 'node:net';
import { join } from 'node:path';
import { expect, onTestFinished, test, vi } from 'vitest';
import { Client } from '../../src/client/client.ts';
import { shell } from '../support/client-shell.ts';
import { servedStore } from '../support/client-server.ts';
import { openTestServer } from '../support/test-server.ts';
import { temporaryFolder } from '../support/temporary-folder.ts';

// Programs, on a machine that may be busy.
vi.setConfig({ testTimeout: 120_000 });

/** A web server for the running test alone, and the paths that it was asked for. */
async function webServer(answer: RequestListener): Promise<{ url: string; paths: string[] }> {
  const paths: string[] = [];
  const server = createServer((request, response) => {
    paths.push(`${request.method} ${request.url}`);
    answer(request, response);
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  onTestFinished(() => {
    server.closeAllConnections();
    server.close();
  });
  return { url: `http://127.0.0.1:${(server.address() as AddressInfo).port}`, paths };
}

const commands: readonly (readonly string[])[] = [
  ['exists', '/a'],
  ['version', '/a'],
  ['stat', '/a'],
  ['get', '/a', 'out'],
  ['cat', '/a'],
  ['rm', '/a'],
  ['ls'],
  ['get', '-R', '/', 'out'],
  ['put', 'local', '/a'],
  ['sync', 'up', '.', '/a'],
];

test('a URL where no filetracker server is gives exit 5, whatever is asked, and no file counts as missing', async () => {
  const { url, run, ok, write } = await shell();
  write('local', 'x');
  await ok(['put', '--no-local-cache', 'local', '/a']);
  const { port } = await openTestServer({ basePath: '/ft' });
  const other = await webServer((_request, response) => {
    response.writeHead(404, { 'Content-Type': 'text/html', Server: 'SimpleHTTP/0.6' }).end('<h1>404</h1>');
  });
  for (const wrong of [`${url}/oops`, `http://127.0.0.1:${port}/`, other.url]) {
    for (const words of commands) {
      const ended = await run(['-r', wrong, ...words]);
      expect([wrong, words, ended.code]).toEqual([wrong, words, 5]);
      expect(ended.stderr).toMatch(/^filetracker: Cannot .*: there is no filetracker server at "http.*\n$/);
    }
  }
});

async function clientOf(remoteUrl: string): Promise<Client> {
  const client = new Client({ remoteUrl, cacheDir: join(await temporaryFolder(), 'cache'), cacheMinFree: 0 });
  onTestFinished(() => client.close());
  return client;
}

test('that a server of ours has no such file takes one request', async () => {
  const { url, requests } = await servedStore();
  const client = await clientOf(url);
  expect(await client.exists('/a')).toBe(false);
  await expect(client.getFile('/a', join(await temporaryFolder(), 'out'))).rejects.toMatchObject({
    code: 'not-found',
  });
  expect(requests.map(({ method, path }) => `${method} ${path}`)).toEqual(['HEAD /files/a', 'GET /files/a']);
});

test.each([
  ['by its name', { Server: 'filetracker' }, 404],
  ['behind a proxy by its folder of files', { Server: 'nginx' }, 403],
])('a server of version 1 is known %s', async (_how, headers, statusOfFolder) => {
  const { url, paths } = await webServer((request, response) => {
    response.writeHead(request.url === '/files/' ? statusOfFolder : 404, headers).end();
  });
  const client = await clientOf(url);
  expect(await client.exists('/a')).toBe(false);
  expect(await client.exists('/b')).toBe(false);
  expect((await client.remote?.abilities())?.protocolVersion).toBe(1);
  const asked = paths.length;
  expect(await client.exists('/c')).toBe(false);
  expect(paths.length).toBe(asked + 1);
});
