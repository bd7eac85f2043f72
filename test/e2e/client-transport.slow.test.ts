import { spawnSync } from 'node:child_process';
import { existsSync, readdirSync, readFileSync, rmSync, utimesSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:http';
import { createServer as createTlsServer } from 'node:https';
import type { AddressInfo } from 'node:net';
import { join } from 'node:path';
import type { TLSSocket } from 'node:tls';
import { expect, onTestFinished, test } from 'vitest';
import { Client } from '../../src/client/client.ts';
import type { ClientOptions } from '../../src/client/client-options.ts';
import { collected, noise, prose } from '../support/contents.ts';
import { servedStore } from '../support/client-server.ts';
import { faultyServer, type Dialect, type FaultyServer } from '../support/faulty-server.ts';
import { Program, run } from '../support/program.ts';
import { temporaryFolder } from '../support/temporary-folder.ts';

/** Quick enough for tests; otherwise as it comes. */
const quick = { retries: { retriesMax: 3, firstPauseMs: 5, longestPauseMs: 20 }, stallTimeoutMs: 2000 };

interface Setting {
  readonly server: FaultyServer;
  readonly client: Client;
  readonly folder: string;
  readonly target: string;
}

async function setting(dialect: Dialect = 'ours', options: ClientOptions = {}): Promise<Setting> {
  const server = await faultyServer(dialect);
  const folder = await temporaryFolder();
  const cacheDir = join(folder, 'cache');
  const client = new Client({ remoteUrl: server.url, cacheDir, cacheMinFree: 0, ...quick, ...options });
  onTestFinished(() => client.close());
  return { server, client, folder, target: join(folder, 'out') };
}

/** Nothing half written: neither beside the target nor among the cache's contents. */
function expectNothingLeft({ folder, target }: Setting): void {
  expect(existsSync(target)).toBe(false);
  expect(readdirSync(folder).filter((name) => name.startsWith('.filetracker'))).toEqual([]);
  const blobs = join(folder, 'cache', 'blobs');
  const contents = existsSync(blobs) ? readdirSync(blobs, { recursive: true, withFileTypes: true }) : [];
  expect(contents.filter((item) => item.isFile())).toEqual([]);
}

const content = noise(1_000_000);

test.each([{}, { cacheDir: undefined }])(
  'a download that is cut goes on where it ended (%o)',
  async (options) => {
    const { server, client, target } = await setting('ours', options);
    server.files.set('/a', { version: 5, bytes: content });
    server.faults.push(
      { kind: 'cut', afterBytes: 300_000 },
      { kind: 'drop' },
      { kind: 'stall', afterBytes: 200_000 },
    );
    expect(await client.getFile('/a', target)).toMatchObject({ version: 5, size: 1_000_000 });
    expect(readFileSync(target).equals(content)).toBe(true);
    const ranges = server.requests.map(({ headers }) => headers.range);
    expect(ranges).toEqual([undefined, 'bytes=300000-', 'bytes=300000-', 'bytes=500000-']);
  },
);

test('a stream that is cut goes on where it ended', async () => {
  const { server, client } = await setting();
  server.files.set('/a', { version: 5, bytes: content });
  server.faults.push({ kind: 'cut', afterBytes: 10_000 });
  const { stream } = await client.getStream('/a');
  expect((await collected(stream)).equals(content)).toBe(true);
});

test('a download is begun anew when the file changed while it was cut', async () => {
  const { server, client, target } = await setting();
  const newer = noise(900_000, 'newer');
  server.files.set('/a', { version: 5, bytes: content });
  const onCut = (): void => void server.files.set('/a', { version: 6, bytes: newer });
  server.faults.push({ kind: 'cut', afterBytes: 300_000, onCut });
  expect(await client.getFile('/a', target)).toMatchObject({ version: 6 });
  expect(readFileSync(target).equals(newer)).toBe(true);
});

test.each([{}, { cacheDir: undefined }])(
  'wrong content is refused and leaves nothing (%o)',
  async (options) => {
    const given = await setting('ours', options);
    const { server, client, target } = given;
    for (const bytes of [content, prose(3000)]) {
      server.files.set('/a', { version: 5, bytes });
      const flipped = Buffer.from(bytes);
      flipped[1000] = (flipped[1000] ?? 0) ^ 1;
      server.faults.push({ kind: 'wrong', body: flipped });
      await expect(client.getFile('/a', target)).rejects.toMatchObject({ code: 'digest-mismatch' });
      server.faults.push({ kind: 'wrong', body: bytes.subarray(0, -1) });
      await expect(client.getFile('/a', target)).rejects.toMatchObject({ code: 'size-mismatch' });
      server.faults.push({ kind: 'wrong', body: Buffer.concat([bytes, bytes]) });
      await expect(client.getFile('/a', target)).rejects.toMatchObject({ code: 'size-mismatch' });
      server.faults.push({ kind: 'wrong', body: flipped });
      const { stream } = await client.getStream('/a');
      await expect(collected(stream)).rejects.toMatchObject({ code: 'digest-mismatch' });
      expectNothingLeft(given);
      await client.getFile('/a', target);
      expect(readFileSync(target).equals(bytes)).toBe(true);
      await client.cache?.maintenance.verify();
      await client.cache?.space.shrink(0);
      rmSync(target);
    }
  },
);

test('requests that may be repeated are, with pauses, and no longer than is told', async () => {
  const { server, client, target, folder } = await setting();
  server.files.set('/a', { version: 5, bytes: content });
  const busy = { kind: 'status', status: 503, headers: { 'Retry-After': '0' } } as const;
  server.faults.push({ kind: 'drop' }, busy, { kind: 'status', status: 502 });
  await client.getFile('/a', target);
  expect(server.requests).toHaveLength(4);
  server.faults.push(busy, busy, busy, busy);
  await expect(client.stat('/a')).rejects.toMatchObject({ code: 'unavailable', details: { status: 503 } });
  const path = join(folder, 'local');
  writeFileSync(path, content);
  server.faults.push(busy, { kind: 'drop' });
  expect(await client.putFile('/b@7', path)).toMatchObject({ version: 7, stored: true });
  expect(server.files.get('/b')?.bytes.equals(content)).toBe(true);
  server.faults.push({ kind: 'status', status: 403 });
  const asked = server.requests.length;
  await expect(client.putFile('/c@7', path)).rejects.toMatchObject({ code: 'forbidden' });
  expect(server.requests.length - asked).toBe(1);
});

test('a server that stands still or is gone is told as that', async () => {
  const given = await setting('ours', { retries: { retriesMax: 0 } });
  const { server, client, target } = given;
  server.files.set('/a', { version: 5, bytes: content });
  server.faults.push({ kind: 'stall', afterBytes: 1000 });
  await expect(client.getFile('/a', target)).rejects.toMatchObject({ code: 'timeout' });
  expectNothingLeft(given);
  const gone = new Client({ remoteUrl: 'http://127.0.0.1:9', ...quick });
  onTestFinished(() => gone.close());
  await expect(gone.getFile('/a', target)).rejects.toMatchObject({
    code: 'unreachable',
    message: expect.stringContaining('no server answers there'),
  });
});

test('what does not speak HTTP, or no version that we do, is told as that', async () => {
  const net = await import('node:net');
  const odd = net.createServer((socket) => socket.end('SSH-2.0-odd\r\n'));
  await new Promise<void>((resolve) => odd.listen(0, '127.0.0.1', resolve));
  const { port } = odd.address() as AddressInfo;
  onTestFinished(() => void odd.close());
  const client = new Client({ remoteUrl: `http://127.0.0.1:${port}`, ...quick });
  onTestFinished(() => client.close());
  await expect(client.stat('/a')).rejects.toMatchObject({ code: 'protocol' });
  const server = createServer((_request, response) => response.end('{"protocol_versions":[9]}'));
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  onTestFinished(() => void server.close());
  const withTls = new Client({
    remoteUrl: `https://127.0.0.1:${(server.address() as AddressInfo).port}`,
    ...quick,
  });
  onTestFinished(() => withTls.close());
  await expect(withTls.stat('/a')).rejects.toMatchObject({
    code: 'protocol',
    message: expect.stringContaining('does not speak TLS'),
  });
  const other = new Client({
    remoteUrl: `http://127.0.0.1:${(server.address() as AddressInfo).port}`,
    ...quick,
  });
  onTestFinished(() => other.close());
  await expect(other.deleteFile('/a@1')).rejects.toMatchObject({
    code: 'protocol',
    message: expect.stringContaining('no version of the protocol'),
  });
});

test('a legacy server of version 2 is served as it can', async () => {
  const { server, client, target, folder } = await setting('python');
  const path = join(folder, 'local');
  const bytes = prose(300_000);
  writeFileSync(path, bytes);
  utimesSync(path, 50, 50);
  await client.putFile('/a', path, { toLocalStore: false });
  const put = server.requests.find(({ method }) => method === 'PUT');
  expect(put?.headers).toMatchObject({ 'content-encoding': 'gzip', 'logical-size': '300000' });
  expect(put?.headers.expect).toBeUndefined();
  server.files.set('/a', { version: 50, bytes });
  expect(await client.getFile('/a', target)).toMatchObject({ version: 50, size: 300_000, cached: false });
  expect(readFileSync(target).equals(bytes)).toBe(true);
  expect(await client.getFile('/a', target)).toMatchObject({ version: 50, cached: true });
  server.files.set('/a', { version: 51, bytes: prose(1000) });
  expect(await client.getFile('/a', target)).toMatchObject({ version: 51, cached: false });
  server.faults.push({ kind: 'cut', afterBytes: 500 });
  server.files.set('/b', { version: 1, bytes: content });
  await client.getFile('/b', target);
  expect(readFileSync(target).equals(content)).toBe(true);
});

test('a version-1 server is served: plain bodies, the version in a header, no delete and no list', async () => {
  const { server, client, target, folder } = await setting('version-1');
  const path = join(folder, 'local');
  const bytes = prose(300_000);
  writeFileSync(path, bytes);
  const put = await client.putFile('/a b/ż@1234567890', path, { toLocalStore: false });
  expect(put).toMatchObject({ version: 1234567890, stored: true });
  expect(server.files.get('/a b/ż')).toMatchObject({ version: 1234567890 });
  expect(server.files.get('/a b/ż')?.bytes.equals(bytes)).toBe(true);
  expect(await client.fileSize('/a b/ż')).toBe(300_000);
  expect(await client.getFile('/a b/ż', target)).toMatchObject({ version: 1234567890, size: 300_000 });
  expect(readFileSync(target).equals(bytes)).toBe(true);
  await expect(client.deleteFile('/a b/ż')).rejects.toMatchObject({ code: 'protocol' });
  const list = async (): Promise<void> => {
    for await (const name of client.listRemoteFiles()) expect(name).toBeUndefined();
  };
  await expect(list()).rejects.toMatchObject({ code: 'protocol' });
});

test('redirects of migration mode are followed, and keep the secret of the first server', async () => {
  const { server, target } = await setting();
  server.files.set('/ą b', { version: 5, bytes: content });
  const redirecting = createServer((request, response) => {
    response.writeHead(307, { Location: `${server.url}${request.url}` }).end();
  });
  await new Promise<void>((resolve) => redirecting.listen(0, '127.0.0.1', resolve));
  onTestFinished(() => void redirecting.close());
  const { port } = redirecting.address() as AddressInfo;
  const client = new Client({ remoteUrl: `http://me:secret@127.0.0.1:${port}`, ...quick });
  onTestFinished(() => client.close());
  expect(await client.getFile('/ą b', target)).toMatchObject({ version: 5 });
  expect(await client.fileSize('/ą b')).toBe(1_000_000);
  expect(server.requests.map(({ headers }) => headers.authorization)).toEqual([undefined, undefined]);
});

test('user info and path prefix of the URL are sent', async () => {
  const { server } = await setting();
  const paths: (string | undefined)[] = [];
  const prefixed = createServer((request, response) => {
    paths.push(request.url, request.headers.authorization);
    response.writeHead(404, { 'X-Exception': 'no such file' }).end();
  });
  await new Promise<void>((resolve) => prefixed.listen(0, '127.0.0.1', resolve));
  onTestFinished(() => void prefixed.close());
  const { port } = prefixed.address() as AddressInfo;
  const client = new Client({ remoteUrl: `http://me:s%2Fx@127.0.0.1:${port}/ft/`, ...quick });
  onTestFinished(() => client.close());
  expect(await client.exists('/a/b')).toBe(false);
  expect(paths).toEqual(['/ft/files/a/b', `Basic ${Buffer.from('me:s/x').toString('base64')}`]);
  expect(server.requests).toEqual([]);
});

test.each(['localhost:9999', 'ftp://x', 'http://', 'http://a b', 'http://host:99999', 'http://h/?q=1'])(
  'the address %j is refused with a reason',
  (remoteUrl) => {
    expect(() => new Client({ remoteUrl })).toThrow(expect.objectContaining({ code: 'invalid-argument' }));
  },
);

test('a content that the server has is not sent again', async () => {
  const { url, requests } = await servedStore();
  const folder = await temporaryFolder();
  const client = new Client({ remoteUrl: url });
  onTestFinished(() => client.close());
  for (const bytes of [noise(2_000_000), prose(2_000_000)]) {
    const path = join(folder, 'local');
    writeFileSync(path, bytes);
    expect(await client.putFile('/one@1', path)).toMatchObject({ sent: true, stored: true });
    expect(await client.putFile('/two@1', path)).toMatchObject({ sent: false, stored: true });
    const { stream } = await client.getStream('/two');
    expect((await collected(stream)).equals(bytes)).toBe(true);
    await client.deleteFile('/one');
    await client.deleteFile('/two');
  }
  expect(requests.filter(({ method }) => method === 'PUT')).toHaveLength(4);
});

test.each(['ours', 'python'] as const)(
  'a content that a server refuses for what its gzip unpacks to is sent as it is (%s)',
  async (dialect) => {
    const { server, client, folder } = await setting(dialect);
    const path = join(folder, 'local');
    writeFileSync(path, Buffer.alloc(3_000_000));
    const tooLarge = { kind: 'status', status: 413 } as const;
    server.faults.push(tooLarge);
    expect(await client.putFile('/zeros@7', path)).toMatchObject({ version: 7, sent: true, stored: true });
    expect(server.files.get('/zeros')?.bytes.equals(Buffer.alloc(3_000_000))).toBe(true);
    const encodings = server.requests.flatMap(({ method, headers }) =>
      method === 'PUT' ? [headers['content-encoding']] : [],
    );
    expect(encodings).toEqual(['gzip', undefined]);
    server.faults.push(tooLarge, tooLarge);
    await expect(client.putFile('/zeros@8', path)).rejects.toMatchObject({ code: 'too-large' });
  },
);

test('a file that changes while it is put is refused, and what was stored stays', async () => {
  const { url } = await servedStore();
  const folder = await temporaryFolder();
  const client = new Client({ remoteUrl: url });
  onTestFinished(() => client.close());
  const path = join(folder, 'local');
  for (const bytes of [noise(3_000_000), prose(8_000_000)]) {
    writeFileSync(path, 'before');
    await client.putFile('/a@1', path);
    writeFileSync(path, bytes);
    let passed = 0;
    const onProgress = (): void => {
      if ((passed += 1) === 1) writeFileSync(path, 'x', { flag: 'a' });
    };
    await expect(client.putFile('/a@2', path, { onProgress })).rejects.toMatchObject({
      code: 'changed-during-upload',
    });
    const { stream } = await client.getStream('/a');
    expect((await collected(stream)).toString()).toBe('before');
  }
});

test('a list that is cut goes on after its last name', async () => {
  const names = Array.from({ length: 1000 }, (_, index) => `/n/${String(index).padStart(4, '0')}`);
  const digest = 'a'.repeat(64);
  const queries: (string | null)[] = [];
  const server = createServer((request, response) => {
    const url = new URL(request.url ?? '/', 'http://localhost');
    if (url.pathname === '/version/') {
      response.end('{"protocol_versions":[2],"features":["list-json","list-pages"]}');
      return;
    }
    const after = url.searchParams.get('after');
    queries.push(after);
    const rest = names.slice(after === null ? 0 : names.indexOf(after) + 1);
    const lines = rest.map(
      (name) => `{"name":"${name}","version":1,"size":1,"storedSize":1,"digest":"${digest}"}\n`,
    );
    if (queries.length === 3) response.end(lines.join(''));
    else response.write(lines.slice(0, 300).join(''), () => setTimeout(() => response.destroy(), 20));
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  onTestFinished(() => void server.close());
  const client = new Client({
    remoteUrl: `http://127.0.0.1:${(server.address() as AddressInfo).port}`,
    ...quick,
  });
  onTestFinished(() => client.close());
  const listed: string[] = [];
  for await (const { name } of client.listRemoteEntries()) listed.push(name);
  expect(listed).toEqual(names);
  expect(queries).toEqual([null, '/n/0299', '/n/0599']);
});

test('https is spoken, to a server whose authority is trusted, with a certificate of our own', async (context) => {
  const folder = await temporaryFolder();
  const [key, cert] = [join(folder, 'key.pem'), join(folder, 'cert.pem')];
  const subject = ['-subj', '/CN=localhost', '-addext', 'subjectAltName=IP:127.0.0.1'];
  const making = ['req', '-x509', '-newkey', 'rsa:2048', '-nodes', '-keyout', key, '-out', cert, ...subject];
  if (spawnSync('openssl', making).status !== 0) context.skip('there is no openssl to make a certificate');
  const pem = { key: readFileSync(key, 'utf8'), cert: readFileSync(cert, 'utf8') };
  const subjects: unknown[] = [];
  const server = createTlsServer(
    { ...pem, ca: pem.cert, requestCert: true, rejectUnauthorized: true },
    (request, response) => {
      subjects.push((request.socket as TLSSocket).getPeerCertificate().subject);
      response.writeHead(200, { 'Last-Modified': 'Thu, 01 Jan 1970 00:00:09 GMT', 'Content-Length': '5' });
      response.end('hello');
    },
  );
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  onTestFinished(() => void server.close());
  const remoteUrl = `https://127.0.0.1:${(server.address() as AddressInfo).port}`;
  const client = new Client({ remoteUrl, tls: { ca: pem.cert, ...pem }, ...quick });
  onTestFinished(() => client.close());
  expect(await client.getFile('/a', join(folder, 'out'))).toMatchObject({ version: 9, size: 5 });
  expect(subjects).toEqual([{ CN: 'localhost' }]);
  const stranger = new Client({ remoteUrl, ...quick });
  onTestFinished(() => stranger.close());
  await expect(stranger.stat('/a')).rejects.toMatchObject({
    code: 'unreachable',
    retryable: false,
    message: expect.stringContaining('self-signed certificate'),
  });
  const words = ['-c', join(folder, 'cache'), 'version', '/a'];
  const flags = ['--tls-ca', cert, '--tls-cert', cert, '--tls-key', key];
  expect(await run('filetracker', '-r', remoteUrl, ...flags, ...words)).toMatchObject({
    code: 0,
    output: '9\n',
  });
  const environment = { FILETRACKER_TLS_CA: cert, FILETRACKER_TLS_CERT: cert, FILETRACKER_URL: remoteUrl };
  const mixed = new Program('filetracker', { args: ['--tls-key', key, ...words], environment });
  expect(await mixed.ended()).toMatchObject({ code: 0, output: '9\n' });
  expect(subjects.slice(-2)).toEqual([{ CN: 'localhost' }, { CN: 'localhost' }]);
  const keyless = await run('filetracker', '-r', remoteUrl, '--tls-ca', cert, '--tls-cert', cert, ...words);
  expect(keyless).toMatchObject({ code: 2, errors: expect.stringContaining('its key is missing') });
});
