import { writeFileSync } from 'node:fs';
import { createServer as createTcpServer } from 'node:net';
import { join } from 'node:path';
import { expect, onTestFinished, test, vi } from 'vitest';
import { parseRetryFor } from '../../src/client/client-options.ts';
import { Client } from '../../src/client/client.ts';
import { shell } from '../support/client-shell.ts';
import { servedStore } from '../support/client-server.ts';
import { openTestServer } from '../support/test-server.ts';
import { temporaryFolder } from '../support/temporary-folder.ts';
import { listening, webServer } from '../support/web-server.ts';

// Programs, on a machine that may be busy.
vi.setConfig({ testTimeout: 120_000 });

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
  const { url, requests: paths } = await webServer((request, response) => {
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

test.each(['/files', '/list', '/version', '/ft/files/'])(
  'an address that ends in %s is explained, whatever is asked',
  async (end) => {
    const { port } = await openTestServer({ basePath: '/ft' });
    const plain = await servedStore();
    const remoteUrl = `${end.startsWith('/ft') ? `http://127.0.0.1:${port}` : plain.url}${end}`;
    const client = await clientOf(remoteUrl);
    const path = join(await temporaryFolder(), 'local');
    writeFileSync(path, 'x');
    const list = async (): Promise<void> => {
      for await (const name of client.listRemoteFiles()) expect(name).toBeUndefined();
    };
    const [shownEnd] = /\/[a-z]+(?=\/?$)/.exec(end) ?? [];
    for (const asking of [
      () => client.stat('/a'),
      () => client.getFile('/a', path),
      () => client.putFile('/a', path),
      () => client.deleteFile('/a@1'),
      list,
    ]) {
      await expect(asking()).rejects.toMatchObject({
        code: 'unreachable',
        retryable: false,
        message: expect.stringContaining(`leave "${shownEnd}" out of its URL`),
      });
    }
  },
);

test('a server that takes connections and does not answer is named as that, after one more try or none', async () => {
  let connections = 0;
  const server = createTcpServer((socket) => {
    connections += 1;
    socket.on('error', () => undefined).resume();
  });
  const port = await listening(server);
  const client = new Client({
    remoteUrl: `http://127.0.0.1:${port}`,
    stallTimeoutMs: 100,
    retries: { firstPauseMs: 1, longestPauseMs: 1 },
  });
  onTestFinished(() => client.close());
  await expect(client.stat('/a')).rejects.toMatchObject({
    code: 'timeout',
    message: `Cannot look at "/a": the server at "http://127.0.0.1:${port}" does not respond; it may be stopped or overloaded`,
  });
  expect(connections).toBe(2);
  expect(parseRetryFor('0')).toMatchObject({ timeoutRetriesMax: 0, retryForMs: 0 });
  expect(parseRetryFor('1s')).not.toHaveProperty('timeoutRetriesMax');
});

test('plain HTTP at a port that speaks TLS, and TLS at one that does not, are told with the address to use', async () => {
  const alert = createTcpServer((socket) => {
    socket.on('error', () => undefined).once('data', () => socket.end(Buffer.from([21, 3, 1, 0, 2, 2, 80])));
  });
  const client = await clientOf(`http://127.0.0.1:${await listening(alert)}`);
  await expect(client.stat('/a')).rejects.toMatchObject({
    code: 'protocol',
    message: expect.stringContaining('speaks TLS; use an address that begins with "https://"'),
  });
  const { run } = await shell();
  const { url } = await servedStore();
  const ended = await run(['-r', url.replace('http:', 'https:'), 'exists', '/a']);
  expect(ended).toMatchObject({
    code: 5,
    stderr: expect.stringContaining('use an address that begins with "http://"'),
  });
});
