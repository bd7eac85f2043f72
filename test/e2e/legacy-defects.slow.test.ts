// What the legacy server got wrong, each as a test that would fail on it. The rest of its list is about the client.
import { randomBytes } from 'node:crypto';
import { access, readdir } from 'node:fs/promises';
import { resolve } from 'node:path';
import { performance } from 'node:perf_hooks';
import { setTimeout as sleep } from 'node:timers/promises';
import { gzipSync } from 'node:zlib';
import { describe, expect, it } from 'vitest';
import { digestOf } from '../../src/core/digest.ts';
import { noise, prose } from '../support/contents.ts';
import { RawConnection, requestBytes, type RawAnswer } from '../support/raw-http.ts';
import { openTestServer, versionQuery, type TestServer } from '../support/test-server.ts';

const good = versionQuery();
const gzip = { 'Content-Encoding': 'gzip' };

/** Sends part of an upload, and goes away. */
async function abortUpload(
  server: TestServer,
  target: string,
  body: Buffer,
  headers: Record<string, string>,
): Promise<void> {
  const connection = await RawConnection.open(server.port);
  const announced = { 'Content-Length': String(body.length), ...headers };
  connection.send(
    requestBytes({ method: 'PUT', target, headers: announced, body: body.subarray(0, body.length / 2) }),
  );
  await sleep(50);
  connection.socket.destroy();
}

async function filesIn(folder: string): Promise<number> {
  const items = await readdir(folder, { recursive: true, withFileTypes: true });
  return items.filter((item) => item.isFile()).length;
}

describe('unlike the legacy server, ours', () => {
  it.each([
    ['small', prose(2000)],
    ['large', prose(600_000)],
  ])('does not store an aborted upload (%s) as a whole file', async (_, content) => {
    const server = await openTestServer();
    for (const [headers, body] of [
      [{}, content],
      [gzip, gzipSync(content)],
    ] as const) {
      await abortUpload(server, `/files/a?${good}`, body, headers);
      await server.expectEmpty();
      expect((await server.request({ target: '/files/a' })).status).toBe(404);
    }
  });

  it('does not let an aborted upload with hints poison later ones', async () => {
    const server = await openTestServer();
    const content = prose(600_000);
    const body = gzipSync(content);
    const hints = { ...gzip, 'SHA256-Checksum': digestOf(content), 'Logical-Size': String(content.length) };
    await abortUpload(server, `/files/a?${good}`, body, hints);
    expect((await server.put('/b', body, { headers: hints })).status).toBe(200);
    expect((await server.request({ target: '/files/b' })).body.equals(content)).toBe(true);
  });

  it('does not trust a digest, nor use it as a path', async () => {
    const server = await openTestServer();
    // Such a file may have been there before, were its name not of chance.
    const x = randomBytes(8).toString('hex');
    for (const digest of [
      `../../${x}`,
      `${'../'.repeat(20)}tmp/${x}`,
      `/etc/${x}`,
      digestOf(Buffer.from('other')),
    ]) {
      expect((await server.put('/a', 'content', { headers: { 'SHA256-Checksum': digest } })).status).toBe(
        400,
      );
    }
    await server.expectEmpty();
    for (const path of [x, `../${x}`, `blobs/${x}`, `/tmp/${x}`, `/etc/${x}`])
      await expect(access(resolve(server.folder, path))).rejects.toThrow('ENOENT');
  });

  it('does not trust a size', async () => {
    const server = await openTestServer();
    const body = gzipSync('content');
    for (const size of ['0', '6', '8', '1000000000000']) {
      const headers = { ...gzip, 'Logical-Size': size };
      expect((await server.put('/a', body, { headers })).status).toBe(400);
    }
    await server.expectEmpty();
  });

  it('does not store what says to be gzip and is not', async () => {
    const server = await openTestServer();
    for (const body of [prose(1000), noise(500_000), gzipSync(noise(500_000)).subarray(0, -1)]) {
      expect((await server.put('/a', body, { headers: gzip })).status).toBe(400);
    }
    await server.expectEmpty();
  });

  it('shows an overwritten file whole, old or new, at every instant', async () => {
    const server = await openTestServer();
    const contents = [prose(5000, 'one'), noise(200_000, 'two'), prose(300_000, 'three')];
    const known = new Map(contents.map((content) => [digestOf(content) as string, content]));
    await server.put('/a', contents[0] ?? '', { version: 1 });
    const over = new AbortController();
    const expectWhole = (answer: RawAnswer): void => {
      expect(answer.status).toBe(200);
      const content = known.get(answer.headers.get('sha256-checksum') ?? '');
      expect(answer.body.equals(content ?? Buffer.alloc(0))).toBe(true);
      expect(answer.headers.get('logical-size')).toBe(String(content?.length));
      const seconds = Date.parse(answer.headers.get('last-modified') ?? '') / 1000;
      expect(contents[(seconds - 1) % contents.length]).toBe(content);
    };
    const readers = Array.from({ length: 4 }, async () => {
      const connection = await RawConnection.open(server.port);
      let seen = 0;
      for (; !over.signal.aborted; seen += 1) expectWhole(await connection.request({ target: '/files/a' }));
      return seen;
    });
    for (let version = 2; version <= 60; version += 1) {
      const content = contents[(version - 1) % contents.length] ?? '';
      expect((await server.put('/a', content, { version })).status).toBe(200);
    }
    over.abort();
    for (const seen of await Promise.all(readers)) expect(seen).toBeGreaterThan(0);
  });

  it('does not let a stalled upload block its name', async () => {
    const server = await openTestServer();
    const stalled = await RawConnection.open(server.port);
    stalled.send(
      requestBytes({
        method: 'PUT',
        target: `/files/a?${good}`,
        headers: { 'Content-Length': '1000000' },
        body: 'x',
      }),
    );
    await sleep(50);
    const start = performance.now();
    expect((await server.put('/a', 'content')).status).toBe(200);
    expect((await server.request({ target: '/files/a' })).text).toBe('content');
    expect((await server.request({ method: 'DELETE', target: `/files/a?${good}` })).status).toBe(200);
    expect(performance.now() - start).toBeLessThan(5000);
  });

  it('lets a name be a file, then a directory, then a file again', async () => {
    const server = await openTestServer();
    const remove = (name: string): Promise<RawAnswer> =>
      server.request({ method: 'DELETE', target: `/files${name}?${good}` });
    for (let round = 0; round < 2; round += 1) {
      expect((await server.put('/a', 'file')).status).toBe(200);
      expect((await remove('/a')).status).toBe(200);
      expect((await server.put('/a/b', 'in a directory')).status).toBe(200);
      expect((await server.request({ target: '/list/' })).text).toBe('a/b\n');
      expect((await remove('/a/b')).status).toBe(200);
    }
  });

  it('keeps no file for each name that ever was', async () => {
    const server = await openTestServer();
    await server.put('/first', 'x');
    const before = await filesIn(server.folder);
    for (let index = 0; index < 100; index += 1) {
      await server.put(`/many/${index}`, prose(500, `${index}`));
      await server.request({ method: 'DELETE', target: `/files/many/${index}?${good}` });
    }
    expect(await filesIn(server.folder)).toBeLessThanOrEqual(before + 2);
  });

  it('does not mangle names that are not ASCII', async () => {
    const server = await openTestServer();
    const names = ['/zażółć/gęślą.txt', '/日本', '/😀', '/e\u0301', '/\u00e9', '/ÿ'];
    for (const name of names) {
      await server.put(encodeURI(name), name);
      expect((await server.request({ target: `/files${encodeURI(name)}` })).text).toBe(name);
    }
    const listed = (await server.request({ target: '/list/' })).text.trimEnd().split('\n');
    expect(listed.map((name) => `/${name}`).toSorted()).toEqual(names.toSorted());
  });

  it('answers no mistake of a client with 500, and none with a traceback', async () => {
    const server = await openTestServer();
    const chunked = { 'Transfer-Encoding': 'chunked' };
    for (const [status, request] of [
      [400, { method: 'PUT', target: '/files/a?last_modified=never', body: 'x' }],
      [405, { method: 'PATCH', target: '/files/a', body: 'x' }],
      [405, { method: 'OPTIONS', target: '/files/a' }],
      [400, { method: 'PUT', target: `/files/${'a'.repeat(300)}?${good}`, body: 'x' }],
      [400, { method: 'PUT', target: `/files/a%00?${good}`, body: 'x' }],
      [200, { method: 'PUT', target: `/files/a?${good}`, headers: chunked, body: '1\r\nx\r\n0\r\n\r\n' }],
    ] as const) {
      const answer = await server.request(request);
      expect(answer.status).toBe(status);
      expect(answer.text).not.toMatch(/Traceback|\n./);
    }
  });

  it('sends no gzip to who refuses it', async () => {
    const server = await openTestServer();
    await server.put('/a', gzipSync(prose(5000)), { headers: gzip });
    for (const headers of [{}, { 'Accept-Encoding': 'identity' }, { 'Accept-Encoding': 'gzip;q=0, *;q=1' }]) {
      const answer = await server.request({ target: '/files/a', headers });
      expect(answer.headers.get('content-encoding')).toBeUndefined();
      expect(answer.body.equals(prose(5000))).toBe(true);
    }
  });

  it('takes no name that would break a list', async () => {
    const server = await openTestServer();
    for (const name of ['/a%0Ab', '/a%0D', '/%0A', '/a%E2%80%A8b%0B'])
      expect((await server.put(name, 'x')).status).toBe(400);
    expect((await server.request({ target: '/list/' })).text).toBe('');
  });

  it('encodes the Location that it redirects to', async () => {
    const server = await openTestServer({ fallbackUrl: 'http://old.example:8000' });
    const answer = await server.request({
      target: '/files/a%20b/%C5%BC%0d%0aSet-Cookie:x'.replace('%0d%0a', '%3F%23'),
    });
    expect(answer.status).toBe(307);
    expect(answer.headers.get('location')).toBe(
      'http://old.example:8000/files/a%20b/%C5%BC%3F%23Set-Cookie%3Ax',
    );
  });

  it('lets no repeated request bring an older file back after a delete, and stores other requests', async () => {
    const server = await openTestServer();
    await server.put('/file', 'new', { version: 1_700_000_010 });
    const late = encodeURIComponent(new Date(1_700_000_020_000).toUTCString());
    const target = `/files/file?last_modified=${late}`;
    expect((await server.request({ method: 'DELETE', target })).status).toBe(200);
    const headers = { 'Retry-Age': '60' };
    const older = await server.put('/file', 'old', { version: 1_700_000_000, headers });
    expect(older.status).toBe(200);
    expect(older.headers.get('last-modified')).toBe(new Date(1_700_000_010_000).toUTCString());
    expect((await server.request({ target: '/files/file' })).status).toBe(404);
    await server.put('/file', 'again', { version: 1_700_000_000 });
    expect((await server.request({ target: '/files/file' })).text).toBe('again');
  });

  it('serves others while a big raw upload is compressed', async () => {
    const server = await openTestServer();
    await server.put('/small', 'small');
    const upload = server.put('/big', prose(24_000_000));
    const over = new AbortController();
    const done = upload.finally(() => over.abort());
    const connection = await RawConnection.open(server.port);
    const times: number[] = [];
    while (!over.signal.aborted) {
      const start = performance.now();
      expect((await connection.request({ target: '/files/small' })).text).toBe('small');
      times.push(performance.now() - start);
      await sleep(5);
    }
    expect((await done).status).toBe(200);
    expect(times.length).toBeGreaterThan(10);
    expect(times.toSorted((left, right) => left - right)[Math.floor(times.length * 0.9)]).toBeLessThan(250);
  });
});
