import { gunzipSync, gzipSync } from 'node:zlib';
import { describe, expect, it } from 'vitest';
import { Client } from '../../src/client/client.ts';
import { digestOf } from '../../src/core/digest.ts';
import type { FileStore } from '../../src/store/file-store.ts';
import { noise, prose } from '../support/contents.ts';
import { RawConnection, requestBytes } from '../support/raw-http.ts';
import { changed } from '../support/changed-file-store.ts';
import { openTestServer, overridden, versionQuery, type TestServer } from '../support/test-server.ts';

const version = 1_795_359_901;
const date = 'Sun, 22 Nov 2026 15:05:01 GMT';
const acceptGzip = { 'Accept-Encoding': 'gzip' };

/** The four shapes in which a content may lie in the store. */
const contents: readonly (readonly [string, Buffer])[] = [
  ['an empty file', Buffer.alloc(0)],
  ['a small text', prose(3000)],
  ['small noise', noise(3000)],
  ['a large text', prose(700_000)],
  ['large noise', noise(700_000)],
  ['a text beyond what is collected in memory', prose(2_500_000)],
];

async function lastModified(server: TestServer, target: string): Promise<string | undefined> {
  return (await server.request({ method: 'HEAD', target })).headers.get('last-modified');
}

describe('PUT and GET', () => {
  it.each(contents)('bring back %s, as it came and gzipped', async (_, content) => {
    const server = await openTestServer();
    const stored = await server.put('/a/plain', content, { version });
    expect(stored.status).toBe(200);
    expect(stored.headers.get('last-modified')).toBe(date);
    const headers = {
      'Content-Encoding': 'GZip',
      'SHA256-Checksum': digestOf(content).toUpperCase(),
      'Logical-Size': String(content.length),
    };
    expect((await server.put('/a/packed', gzipSync(content), { version, headers })).status).toBe(200);
    for (const target of ['/files/a/plain', '/files/a/packed']) {
      const plain = await server.request({ target });
      expect(plain.status).toBe(200);
      expect(plain.body.equals(content)).toBe(true);
      expect(plain.headers.get('content-encoding')).toBeUndefined();
      expect(plain.headers.get('content-length')).toBe(String(content.length));
      const packed = await server.request({ target, headers: acceptGzip });
      const gzipped = packed.headers.get('content-encoding') === 'gzip';
      expect((gzipped ? gunzipSync(packed.body) : packed.body).equals(content)).toBe(true);
      for (const answer of [plain, packed]) {
        expect(answer.headers.get('last-modified')).toBe(date);
        expect(answer.headers.get('logical-size')).toBe(String(content.length));
        expect(answer.headers.get('sha256-checksum')).toBe(digestOf(content));
        expect(answer.headers.get('content-type')).toBe('application/octet-stream');
        expect(answer.headers.get('vary')).toBe('Accept-Encoding');
        expect(answer.headers.get('accept-ranges')).toBe('bytes');
        expect(answer.headers.get('etag')).toMatch(/^"[0-9a-f]{64}(-gzip)?"$/);
      }
    }
    expect((await server.store.stats()).blobs).toBe(1);
  });

  it.each(contents)('tell with HEAD of %s what GET sends', async (_, content) => {
    const server = await openTestServer();
    await server.put('/a', content, { version });
    for (const headers of [
      {},
      acceptGzip,
      { 'Accept-Encoding': 'gzip;q=0' },
      { 'Accept-Encoding': 'br, *;q=0.1' },
    ]) {
      const head = await server.request({ method: 'HEAD', target: '/files/a', headers });
      const get = await server.request({ target: '/files/a', headers });
      expect(head.body.length).toBe(0);
      const same = (answer: typeof get): [string, string][] =>
        [...answer.headers].filter(([name]) => name !== 'date');
      expect(same(head)).toEqual(same(get));
      expect(head.headers.get('content-length')).toBe(String(get.body.length));
    }
  });

  it('send gzip to who takes it, and to nobody else', async () => {
    const server = await openTestServer();
    const content = prose(50_000);
    await server.put('/a', content);
    const encodingFor = async (header: string): Promise<string | undefined> => {
      const answer = await server.request({ target: '/files/a', headers: { 'Accept-Encoding': header } });
      return answer.headers.get('content-encoding');
    };
    for (const header of [
      'gzip',
      'x-gzip',
      'gzip, deflate',
      '*',
      'br;q=1, gzip;q=0.5',
      'identity;q=0, gzip',
    ]) {
      expect(await encodingFor(header)).toBe('gzip');
    }
    for (const header of [
      '',
      'br',
      'identity',
      'gzip;q=0',
      'gzip;q=0.1, identity',
      '*;q=0',
      'identity;q=0',
    ]) {
      expect(await encodingFor(header)).toBeUndefined();
    }
  });

  it('take a body in chunks, of several gzip members, or said to be identity', async () => {
    const server = await openTestServer();
    const chunked = '5\r\nhello\r\n6;extension=1\r\n world\r\n0\r\nTrailer: x\r\n\r\n';
    await server.put('/chunked', chunked, { headers: { 'Transfer-Encoding': 'chunked' } });
    const members = Buffer.concat([gzipSync('hello'), gzipSync(' world')]);
    await server.put('/members', members, { headers: { 'Content-Encoding': 'gzip', 'Logical-Size': '11' } });
    await server.put('/identity', 'hello world', { headers: { 'Content-Encoding': 'identity' } });
    for (const target of ['/files/chunked', '/files/members', '/files/identity']) {
      expect((await server.request({ target })).text).toBe('hello world');
    }
    expect((await server.store.stats()).blobs).toBe(1);
  });

  it('know a name by its bytes', async () => {
    const server = await openTestServer();
    const targets = [
      '/files/a%2Fb',
      '/files/%C5%BC@5',
      '/files/%7A%CC%87',
      '/files/%C5%BA%20+&%3F%23=',
      '/files/%25',
    ];
    for (const [index, target] of targets.entries()) {
      expect(
        (await server.request({ method: 'PUT', target: `${target}?${versionQuery()}`, body: `${index}` }))
          .status,
      ).toBe(200);
    }
    for (const [index, target] of targets.entries()) {
      expect((await server.request({ target })).text).toBe(`${index}`);
    }
    expect((await server.request({ target: '//files/a/b' })).text).toBe('0');
    expect((await server.request({ target: `http://host:1/files/a/b` })).text).toBe('0');
    expect((await server.request({ target: '/files/\u00c5\u00bc@5' })).status).toBe(400);
    expect((await server.request({ target: '/list/' })).text.split('\n')).toHaveLength(targets.length + 1);
  });

  it('serve below a base path', async () => {
    const server = await openTestServer({ basePath: '/ft' });
    const target = `/ft//files/a?${versionQuery()}`;
    expect((await server.request({ method: 'PUT', target, body: 'x' })).status).toBe(200);
    expect((await server.request({ target: '/ft/files/a' })).text).toBe('x');
    expect((await server.request({ target: '/files/a' })).status).toBe(404);
    expect(server.server.url).toBe(`http://127.0.0.1:${server.port}/ft`);
  });
});

describe('versions', () => {
  it('are read in every form, negative and far-future ones too', async () => {
    const server = await openTestServer();
    const forms: readonly (readonly [string, string])[] = [
      ['Sun,+22+Nov+2026+16:05:01++0100', date],
      ['22%20Nov%202026%2015%3A05%3A01%20-0000', date],
      ['Sun%2C%2022%20Nov%202026%2010%3A05%3A01%20EST', date],
      ['Fri,+01+Jan+1904+00:00:00+GMT', 'Fri, 01 Jan 1904 00:00:00 GMT'],
      ['Fri,+31+Dec+9999+23:59:59+GMT', 'Fri, 31 Dec 9999 23:59:59 GMT'],
    ];
    for (const [index, [form, told]] of forms.entries()) {
      const answer = await server.request({
        method: 'PUT',
        target: `/files/${index}?last_modified=${form}`,
        body: 'x',
      });
      expect(answer.status).toBe(200);
      expect(answer.headers.get('last-modified')).toBe(told);
      expect(await lastModified(server, `/files/${index}`)).toBe(told);
    }
  });

  it('win by being the newest, and by coming last where they are equal', async () => {
    const server = await openTestServer();
    await server.put('/a', 'first', { version });
    const older = await server.put('/a', 'older', { version: version - 1 });
    expect(older.status).toBe(200);
    expect(older.headers.get('last-modified')).toBe(date);
    expect((await server.request({ target: '/files/a' })).text).toBe('first');
    await server.put('/a', 'equal', { version });
    expect((await server.request({ target: '/files/a' })).text).toBe('equal');
    await server.put('/a', 'newer', { version: version + 1 });
    expect((await server.request({ target: '/files/a' })).text).toBe('newer');
  });

  it('protect a newer file from a DELETE, which says so', async () => {
    const server = await openTestServer();
    await server.put('/a', 'x', { version });
    const older = await server.request({ method: 'DELETE', target: `/files/a?${versionQuery(version - 1)}` });
    expect(older.status).toBe(200);
    expect(older.headers.get('last-modified')).toBe(date);
    expect((await server.request({ target: '/files/a' })).status).toBe(200);
    const equal = await server.request({ method: 'DELETE', target: `/files/a?${versionQuery(version)}` });
    expect(equal.status).toBe(200);
    expect(equal.headers.get('last-modified')).toBeUndefined();
    expect((await server.request({ target: '/files/a' })).status).toBe(404);
    await server.expectEmpty();
  });

  it('can be stored after a newer one was deleted, as on the Python server', async () => {
    const server = await openTestServer();
    await server.put('/a', 'x', { version });
    await server.request({ method: 'DELETE', target: `/files/a?${versionQuery(version)}` });
    const older = await server.put('/a', 'older', { version: version - 1 });
    expect(older.status).toBe(200);
    expect(older.headers.get('last-modified')).not.toBe(date);
    expect(older.headers.get('removed')).toBeUndefined();
    expect((await server.request({ target: '/files/a' })).body.toString()).toBe('older');
  });

  it('are not brought back by a PUT with Retry-Age if they were deleted since it was first sent', async () => {
    const server = await openTestServer();
    await server.put('/a', 'x', { version });
    await server.request({ method: 'DELETE', target: `/files/a?${versionQuery(version)}` });
    const repeat = (age: string, of = version): ReturnType<typeof server.put> =>
      server.put('/a', 'late', { version: of, headers: { 'Retry-Age': age } });
    for (const late of [await repeat('60'), await repeat('60.5', version - 1)]) {
      expect(late.status).toBe(200);
      expect(late.headers.get('last-modified')).toBe(date);
      expect(late.headers.get('removed')).toBe('true');
    }
    expect((await server.request({ target: '/files/a' })).status).toBe(404);
    for (const wrong of ['soon', '-1', '1e3', '']) expect((await repeat(wrong)).status).toBe(400);
    expect((await repeat('60', version + 1)).headers.get('removed')).toBeUndefined();
    const older = await repeat('60');
    expect(older.headers.get('last-modified')).not.toBe(date);
    expect(older.headers.get('removed')).toBeUndefined();
  });

  it('may hang on what is stored', async () => {
    const server = await openTestServer();
    expect((await server.put('/a', 'one', { headers: { 'If-None-Match': '*' } })).status).toBe(200);
    const etag =
      (await server.request({ target: '/files/a', headers: acceptGzip })).headers.get('etag') ?? '';
    const put = async (body: string, match: string): Promise<number> =>
      (await server.put('/a', body, { headers: { 'If-Match': match } })).status;
    expect(await put('two', `"x", ${etag}`)).toBe(200);
    expect(await put('three', etag)).toBe(412);
    expect(await put('three', '*')).toBe(200);
    const remove = async (match: string): Promise<number> =>
      (
        await server.request({
          method: 'DELETE',
          target: `/files/a?${versionQuery()}`,
          headers: { 'If-Match': match },
        })
      ).status;
    expect(await remove(etag)).toBe(412);
    expect((await server.request({ target: '/files/a' })).text).toBe('three');
    expect(await remove('*')).toBe(200);
  });

  it('may hang on the version that is stored', async () => {
    const server = await openTestServer();
    const query = versionQuery(version + 10);
    const since = (seconds: number) => ({
      'If-Unmodified-Since': new Date(seconds * 1000).toUTCString(),
    });
    const put = async (body: Buffer | string, headers: Record<string, string>): Promise<number> =>
      (await server.put('/a', body, { version: version + 10, headers })).status;
    const remove = async (headers: Record<string, string>): Promise<number> =>
      (await server.request({ method: 'DELETE', target: `/files/a?${query}`, headers })).status;
    expect((await server.put('/a', 'one', { version })).status).toBe(200);
    expect(await put('two', since(version - 1))).toBe(412);
    expect(await put(noise(300_000), since(version - 1))).toBe(412);
    expect(await put('two', { ...since(version - 1), Expect: '100-continue' })).toBe(412);
    expect(await remove(since(version - 1))).toBe(412);
    expect((await server.request({ target: '/files/a' })).text).toBe('one');
    expect(await put('two', since(version))).toBe(200);
    expect(await remove(since(version))).toBe(412);
    expect(await remove({ ...since(version), 'If-Match': '*' })).toBe(200);
    expect(await put('three', since(version))).toBe(200);
  });
});

describe('Expect: 100-continue', () => {
  const expecting = (name: string, headers: Record<string, string>, wanted = version): Buffer =>
    requestBytes({
      method: 'PUT',
      target: `/files${name}?${versionQuery(wanted)}`,
      headers: { Expect: '100-continue', ...headers },
    });

  it('asks for a body that is needed', async () => {
    const server = await openTestServer();
    const connection = await RawConnection.open(server.port);
    for (const body of [Buffer.from('hello'), noise(100_000)]) {
      connection.send(expecting('/a', { 'Content-Length': String(body.length) }));
      expect((await connection.answer()).status).toBe(100);
      connection.send(body);
      expect((await connection.answer()).status).toBe(200);
      expect((await connection.request({ target: '/files/a' })).body.equals(body)).toBe(true);
    }
  });

  it('answers at once where the headers say enough', async () => {
    const server = await openTestServer();
    const content = prose(50_000);
    await server.put('/a', content, { version });
    const claims = { 'SHA256-Checksum': digestOf(content), 'Logical-Size': String(content.length) };
    const length = { 'Content-Length': String(content.length) };
    const cases: readonly (readonly [Buffer, number])[] = [
      [expecting('/a', length, version - 1), 200],
      [expecting('/b', { ...length, ...claims }), 200],
      [expecting('/a/c', length), 409],
      [expecting('/a', { ...length, 'If-None-Match': '*' }), 412],
      [expecting('/d', { ...length, 'Content-Encoding': 'br' }), 415],
      [expecting('/d', { 'Content-Length': String(2 ** 50) }), 413],
      [
        requestBytes({ method: 'PUT', target: '/files/d', headers: { Expect: '100-continue', ...length } }),
        400,
      ],
    ];
    for (const [bytes, status] of cases) {
      const connection = await RawConnection.open(server.port);
      connection.send(bytes);
      const answer = await connection.answer();
      expect(answer.status).toBe(status);
      expect(answer.headers.get('connection')).toBe('close');
      connection.socket.end();
      await connection.closed();
    }
    expect((await server.request({ target: '/files/b' })).body.equals(content)).toBe(true);
    expect((await server.store.stats()).blobs).toBe(1);
  });
});

describe('HEAD of a file that is known to be damaged', () => {
  async function damagedServer(): Promise<TestServer> {
    const sound = await openTestServer();
    await sound.put('/a', 'content', { version });
    const lookUp: FileStore['lookUp'] = async (name) => {
      const file = await sound.store.lookUp(name);
      return file && changed(file, { damaged: true });
    };
    return openTestServer({ store: overridden(sound.store, { lookUp }) });
  }

  it('fails as GET does, and tells code and version', async () => {
    const server = await damagedServer();
    const answer = await server.request({ method: 'HEAD', target: '/files/a' });
    expect([answer.status, answer.text]).toEqual([500, '']);
    expect(answer.headers.get('x-exception-code')).toBe('damaged-blob');
    expect(answer.headers.get('last-modified')).toBe(date);
    // Who has the content already needs none of ours.
    const headers = { 'If-None-Match': `"${digestOf(Buffer.from('content'))}"` };
    expect((await server.request({ method: 'HEAD', target: '/files/a', headers })).status).toBe(304);
    const absent = await server.request({ method: 'HEAD', target: '/files/b' });
    expect([absent.status, absent.headers.get('x-exception-code')]).toEqual([404, 'not-found']);
  });

  it('lets a client know at once, and still remove the file', async () => {
    const server = await damagedServer();
    await using client = new Client({ remoteUrl: `http://127.0.0.1:${server.port}`, cacheDir: undefined });
    await expect(client.stat('/a')).rejects.toMatchObject({
      code: 'damaged-blob',
      retryable: false,
      details: { version },
    });
    await client.deleteFile('/a');
    expect(await server.store.stats()).toMatchObject({ entries: 0 });
  });
});

describe('migration mode', () => {
  it('sends readers of missing files to the other server', async () => {
    const server = await openTestServer({ fallbackUrl: 'http://old.example/base' });
    await server.put('/here', 'x');
    for (const method of ['GET', 'HEAD']) {
      const answer = await server.request({ method, target: '/files/a/%C5%BC%20%0d'.replace('%0d', '%3F') });
      expect(answer).toMatchObject({ status: 307, text: '' });
      expect(answer.headers.get('content-length')).toBe('0');
      expect(answer.headers.get('location')).toBe('http://old.example/base/files/a/%C5%BC%20%3F');
    }
    const conditional = { 'If-None-Match': '"x"' };
    expect((await server.request({ target: '/files/gone', headers: conditional })).status).toBe(307);
    expect((await server.request({ target: '/files/here' })).text).toBe('x');
    expect((await server.request({ method: 'DELETE', target: `/files/gone?${versionQuery()}` })).status).toBe(
      404,
    );
    expect((await server.request({ target: '/list/gone' })).status).toBe(400);
  });
});
