import { readdirSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:net';
import { join } from 'node:path';
import { expect, onTestFinished, test, vi } from 'vitest';
import { Client } from '../../src/client/client.ts';
import { isFiletrackerError } from '../../src/core/errors.ts';
import { formatDate } from '../../src/protocol/dates.ts';
import { shell } from '../support/client-shell.ts';
import { temporaryFolder } from '../support/temporary-folder.ts';
import { listening, webServer } from '../support/web-server.ts';

// A server, or a proxy before it, that means harm: whatever it sends ends in one clear error.

vi.setConfig({ testTimeout: 120_000 });

const quick = { retries: { retriesMax: 0 }, stallTimeoutMs: 5000 };

function clientOf(remoteUrl: string): Client {
  const client = new Client({ remoteUrl, ...quick });
  onTestFinished(() => client.close());
  return client;
}

/** A server that sends these bytes for every connection that asks for something. */
async function sending(bytes: string): Promise<Client> {
  const server = createServer((socket) => {
    socket.on('error', () => undefined).once('data', () => socket.end(Buffer.from(bytes, 'latin1')));
  });
  return clientOf(`http://127.0.0.1:${await listening(server)}`);
}

const good = `Last-Modified: ${formatDate(9)}\r\n`;

const responses: readonly (readonly [what: string, bytes: string])[] = [
  ['no date', 'HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nx'],
  ['a bad date', 'HTTP/1.1 200 OK\r\nLast-Modified: yesterday\r\nContent-Length: 1\r\n\r\nx'],
  [
    'a date that is long',
    `HTTP/1.1 200 OK\r\nLast-Modified: ${'9'.repeat(9000)}\r\nContent-Length: 1\r\n\r\nx`,
  ],
  ['a bad Content-Length', `HTTP/1.1 200 OK\r\n${good}Content-Length: -1\r\n\r\nx`],
  ['two lengths', `HTTP/1.1 200 OK\r\n${good}Content-Length: 1\r\nContent-Length: 2\r\n\r\nxy`],
  ['a huge Content-Length', `HTTP/1.1 200 OK\r\n${good}Content-Length: 99999999999999999999999\r\n\r\nx`],
  ['a bad Logical-Size', `HTTP/1.1 200 OK\r\n${good}Logical-Size: 1e9\r\nContent-Length: 1\r\n\r\nx`],
  ['an unknown encoding', `HTTP/1.1 200 OK\r\n${good}Content-Encoding: br\r\nContent-Length: 1\r\n\r\nx`],
  ['gzip that is none', `HTTP/1.1 200 OK\r\n${good}Content-Encoding: gzip\r\nContent-Length: 1\r\n\r\nx`],
  [
    'a wrong digest',
    `HTTP/1.1 200 OK\r\n${good}SHA256-Checksum: ${'0'.repeat(64)}\r\nContent-Length: 1\r\n\r\nx`,
  ],
  [
    'a part that nobody asked for',
    `HTTP/1.1 206 OK\r\n${good}Content-Range: bytes 5-5/9\r\nContent-Length: 1\r\n\r\nx`,
  ],
  ['a part without a range', `HTTP/1.1 206 OK\r\n${good}Content-Length: 1\r\n\r\nx`],
  ['304 without a question', `HTTP/1.1 304 Not Modified\r\n${good}\r\n`],
  ['no content', `HTTP/1.1 204 No Content\r\n${good}\r\n`],
  ['huge headers', `HTTP/1.1 200 OK\r\nX: ${'x'.repeat(100_000)}\r\n\r\n`],
  ['many headers', `HTTP/1.1 200 OK\r\n${'X: y\r\n'.repeat(20_000)}\r\n`],
  ['an upgrade', 'HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n'],
  ['an error without an end of its headers', 'HTTP/1.1 500 Internal Server Error\r\nX: y\r\n'],
  ['a status that is none', 'HTTP/1.1 999 What\r\nContent-Length: 0\r\n\r\n'],
  [
    'an error with a bad date',
    'HTTP/1.1 500 Error\r\nX-Exception-Code: io\r\nLast-Modified: x\r\nContent-Length: 0\r\n\r\n',
  ],
  ['a long error', `HTTP/1.1 500 Error\r\nX-Exception: ${'x'.repeat(10_000)}\r\nContent-Length: 0\r\n\r\n`],
  [
    'an error with a long body',
    `HTTP/1.1 500 Error\r\nContent-Type: text/plain\r\nConnection: close\r\n\r\n${'x'.repeat(500_000)}`,
  ],
  ['a body that is cut', `HTTP/1.1 200 OK\r\n${good}Content-Length: 1000000\r\n\r\nx`],
  ['chunks that are none', `HTTP/1.1 200 OK\r\n${good}Transfer-Encoding: chunked\r\n\r\nzz\r\n`],
  ['nothing', ''],
  ['what is not HTTP', 'SSH-2.0-x\r\n'],
];

test.each(responses)('get fails with one clear error if the server answers with %s', async (_what, bytes) => {
  const client = await sending(bytes);
  const folder = await temporaryFolder();
  const failure = await client.getFile('/a', join(folder, 'out')).catch((error: unknown) => error);
  expect(isFiletrackerError(failure) ? failure.message : failure).toMatch(/^(?:Cannot |x{9}).{0,1100}$/);
  expect(isFiletrackerError(failure, 'invalid-argument')).toBe(false);
  expect(isFiletrackerError(failure, 'invalid-version')).toBe(false);
  expect(readdirSync(folder)).toEqual([]);
});

test.each([
  ['no JSON', '<html>'],
  ['deeply nested JSON', '['.repeat(60_000)],
  ['another shape', '{"protocol_versions":{"length":9e9}}'],
  ['an endless body', undefined],
])('put fails with one clear error if the answer about versions is %s', async (_what, text) => {
  const { url } = await webServer((_request, response) => {
    if (text !== undefined) {
      response.end(text);
      return;
    }
    // Newer versions of Node call back at once when the client is gone.
    const more = (): void =>
      void (response.destroyed || response.write(' '.repeat(16_384), () => setImmediate(more)));
    more();
  });
  const path = join(await temporaryFolder(), 'local');
  writeFileSync(path, 'x');
  await expect(clientOf(url).putFile('/a', path)).rejects.toMatchObject({
    code: 'protocol',
    message: expect.stringMatching(/^Cannot use the server at .{10,200}$/),
  });
});

/** A list of a server of ours with these lines, as JSON and as text. */
async function listing(json: readonly object[], text: string): Promise<string> {
  const { url } = await webServer((request, response) => {
    if (request.url?.startsWith('/version') === true) {
      response.end('{"protocol_versions":[2],"features":["list-json"]}');
    } else if (request.headers.accept?.includes('ndjson') === true) {
      response.end(json.map((item) => `${JSON.stringify(item)}\n`).join(''));
    } else response.end(text);
  });
  return url;
}

const entry = { version: 1, size: 1, storedSize: 1, digest: '0'.repeat(64) };

test.each(['/other/x', '/d', '/abc../.bashrc', '/d/../../x', '/d//x', '/d/\u001b[2J', 'd/x', '/d/./x', ''])(
  'a list that names %j cannot make sync down write outside of its folder',
  async (name) => {
    const { run, folder } = await shell(false);
    const url = await listing([{ ...entry, name }], `${name.slice(3)}\n`);
    const ended = await run(['-r', url, 'sync', 'down', '/d', 'target', '--dry-run']);
    expect(ended.code).toBe(5);
    expect(ended.stderr).toMatch(/^filetracker: Cannot (?:list "\/d\/"|read the list) .*\n$/);
    expect(readdirSync(folder)).not.toContain('target');
  },
);

test.each(['../x', '\u001b]0;x\u0007', 'a/../../x', '/x', 'x'.repeat(100_000)])(
  'ls of a server that lists a bad name prints nothing of it to the terminal',
  async (line) => {
    const { run } = await shell(false);
    const url = await listing([], `${line}\n`);
    const ended = await run(['-r', url, 'ls', '/d']);
    expect(ended).toMatchObject({ code: 5, stdout: '' });
    expect(ended.stderr).toMatch(/^filetracker: Cannot [ -~…]*\n$/);
  },
);

test('what a server says of an error is printed as one line, without what a terminal takes for a command', async () => {
  const { run } = await shell(false);
  const detail = `Cannot do it: \u001b]52;c;x\u0007 \u009b2J\n\rsecond\u202e ${'x'.repeat(50_000)}`;
  const { url } = await webServer((_request, response) => {
    response.writeHead(403, { 'Content-Type': 'application/problem+json' }).end(JSON.stringify({ detail }));
  });
  const ended = await run(['-r', url, 'get', '/a', 'out']);
  expect(ended.code).toBe(4);
  expect(ended.stderr).toMatch(
    /^filetracker: Cannot do it: \\u001b\]52;c;x\\u0007 \\u009b2J\\n\\rsecond.{0,1100}\n$/,
  );
});
