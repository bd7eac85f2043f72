import { describe, expect, it } from 'vitest';
import { noise, prose } from '../support/contents.ts';
import { openTestServer } from '../support/test-server.ts';

const version = 1_795_359_901;
const date = 'Sun, 22 Nov 2026 15:05:01 GMT';
const acceptGzip = { 'Accept-Encoding': 'gzip' };

describe('conditions on a GET', () => {
  it('give 304 to who has the content', async () => {
    const server = await openTestServer();
    await server.put('/a', prose(5000), { version });
    for (const accept of [{}, acceptGzip]) {
      const etag = (await server.request({ target: '/files/a', headers: accept })).headers.get('etag') ?? '';
      for (const condition of [
        { 'If-None-Match': etag },
        { 'If-None-Match': `"x", W/${etag}` },
        { 'If-None-Match': '*' },
        { 'If-Modified-Since': date },
        { 'If-Modified-Since': 'Mon, 23 Nov 2026 15:05:01 GMT' },
      ]) {
        for (const method of ['GET', 'HEAD']) {
          const answer = await server.request({
            method,
            target: '/files/a',
            headers: { ...accept, ...condition },
          });
          expect(answer.status).toBe(304);
          expect(answer.headers.get('etag')).toBe(etag);
          expect(answer.headers.get('last-modified')).toBe(date);
        }
      }
    }
  });

  it('give the content to who has another, or asks in a way that can’t be read', async () => {
    const server = await openTestServer();
    await server.put('/a', 'x', { version });
    for (const headers of [
      { 'If-None-Match': '"x"' },
      { 'If-None-Match': 'x' },
      { 'If-None-Match': '"x"', 'If-Modified-Since': date },
      { 'If-Modified-Since': 'Sun, 22 Nov 2026 15:05:00 GMT' },
      { 'If-Modified-Since': 'yesterday' },
      { 'If-Match': '*' },
      { 'If-Unmodified-Since': date },
    ]) {
      expect(await server.request({ target: '/files/a', headers })).toMatchObject({ status: 200, text: 'x' });
    }
  });

  it('give 412 where If-Match or If-Unmodified-Since does not hold', async () => {
    const server = await openTestServer();
    await server.put('/a', 'x', { version });
    for (const headers of [
      { 'If-Match': '"x"' },
      { 'If-Unmodified-Since': 'Sun, 22 Nov 2026 15:05:00 GMT' },
    ]) {
      for (const method of ['GET', 'HEAD']) {
        expect((await server.request({ method, target: '/files/a', headers })).status).toBe(412);
      }
    }
  });
});

describe('ranges', () => {
  it.each([
    ['text', prose(300_000)],
    ['noise', noise(300_000)],
    ['a small text', prose(2000)],
  ])('give parts of %s, stored as it may be', async (_, content) => {
    const server = await openTestServer();
    await server.put('/a', content);
    const size = content.length;
    for (const [range, first, last] of [
      ['bytes=0-0', 0, 0],
      ['bytes=100-1099', 100, 1099],
      [`bytes=${size - 5}-`, size - 5, size - 1],
      ['bytes=-7', size - 7, size - 1],
      ['bytes=10-999999999', 10, size - 1],
    ] as const) {
      const answer = await server.request({ target: '/files/a', headers: { ...acceptGzip, Range: range } });
      expect(answer.status).toBe(206);
      expect(answer.headers.get('content-range')).toBe(`bytes ${first}-${last}/${size}`);
      expect(answer.headers.get('content-encoding')).toBeUndefined();
      expect(answer.headers.get('logical-size')).toBe(String(size));
      expect(answer.body.equals(content.subarray(first, last + 1))).toBe(true);
    }
  });

  it('outside of the content are 416', async () => {
    const server = await openTestServer();
    await server.put('/a', 'hello');
    const answer = await server.request({ target: '/files/a', headers: { Range: 'bytes=5-' } });
    expect(answer.status).toBe(416);
    expect(answer.headers.get('content-range')).toBe('bytes */5');
  });

  it('that are several, no bytes, not to be read, or of a HEAD give the whole', async () => {
    const server = await openTestServer();
    await server.put('/a', 'hello');
    for (const range of ['bytes=0-1,3-4', 'lines=1-2', 'bytes=x', 'bytes=3-2']) {
      const answer = await server.request({ target: '/files/a', headers: { Range: range } });
      expect(answer).toMatchObject({ status: 200, text: 'hello' });
    }
    const headers = { Range: 'bytes=0-1' };
    expect((await server.request({ method: 'HEAD', target: '/files/a', headers })).status).toBe(200);
    const noIdentity = { ...headers, 'Accept-Encoding': 'gzip, identity;q=0' };
    expect((await server.request({ target: '/files/a', headers: noIdentity })).status).toBe(200);
  });

  it('go on only with the content that they began with', async () => {
    const server = await openTestServer();
    await server.put('/a', 'hello', { version });
    const etag = (await server.request({ target: '/files/a' })).headers.get('etag') ?? '';
    const status = async (ifRange: string): Promise<number> =>
      (await server.request({ target: '/files/a', headers: { Range: 'bytes=1-', 'If-Range': ifRange } }))
        .status;
    expect(await status(etag)).toBe(206);
    expect(await status(date)).toBe(206);
    expect(await status(`W/${etag}`)).toBe(200);
    expect(await status('"x"')).toBe(200);
    expect(await status('Sun, 22 Nov 2026 15:05:02 GMT')).toBe(200);
  });
});

it('an answer tells caches on the way to ask again before they use it', async () => {
  const server = await openTestServer();
  await server.put('/d/a', 'hello', { version });
  for (const [status, target, headers] of [
    [200, '/files/d/a', {}],
    [206, '/files/d/a', { Range: 'bytes=1-' }],
    [304, '/files/d/a', { 'If-Modified-Since': date }],
    [404, '/files/d/b', {}],
    [405, '/list/d', {}],
    [200, '/list/d', {}],
    [200, '/version', {}],
  ] as const) {
    const methods = status === 405 ? ['POST'] : status === 206 ? ['GET'] : ['GET', 'HEAD'];
    for (const method of methods) {
      const answer = await server.request({ method, target, headers });
      expect([target, answer.status, answer.headers.get('cache-control')]).toEqual([
        target,
        status,
        'no-cache',
      ]);
    }
  }
});
