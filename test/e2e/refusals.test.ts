import { gzipSync } from 'node:zlib';
import { describe, expect, it } from 'vitest';
import { digestOf } from '../../src/core/digest.ts';
import { noise } from '../support/contents.ts';
import { RawConnection, requestBytes, type RawAnswer, type RawRequest } from '../support/raw-http.ts';
import { openTestServer, versionQuery } from '../support/test-server.ts';

const good = versionQuery();
const content = 'content';
const packed = gzipSync(content);
const big = noise(300_000);
const bigPacked = gzipSync(big);
const gzip = { 'Content-Encoding': 'gzip' };

function flipped(bytes: Buffer, at: number): Buffer {
  const copy = Buffer.from(bytes);
  copy[at] = (copy[at] ?? 0) ^ 0xff;
  return copy;
}

function put(
  target: string,
  body: Buffer | string = content,
  headers: Record<string, string> = {},
): RawRequest {
  return { method: 'PUT', target, body, headers };
}

/** What every error has: one line that says what is wrong, also in X-Exception, and nothing of the inside. */
function expectError(answer: RawAnswer, status: number): void {
  expect(answer.status).toBe(status);
  expect(answer.headers.get('content-type')).toMatch(/^text\/plain/);
  expect(answer.text).toMatch(/^Cannot [ -~]+[^.\n]\n$/);
  expect(`${answer.headers.get('x-exception')}\n`).toBe(answer.text);
  expect(answer.text).not.toMatch(/ at .*:\d+|node:|\/src\/|filetracker-test-/);
}

const refusals: readonly (readonly [string, RawRequest, number])[] = [
  ['no version', put('/files/a'), 400],
  ['an empty version', put('/files/a?last_modified='), 400],
  ['a version that is no date', put('/files/a?last_modified=yesterday'), 400],
  ['32 January', put('/files/a?last_modified=Thu,+32+Jan+2026+00:00:00+GMT'), 400],
  ['25 o’clock', put('/files/a?last_modified=Thu,+22+Jan+2026+25:00:00+GMT'), 400],
  ['a query that is not UTF-8', put('/files/a?last_modified=%FF'), 400],
  ['a DELETE without a version', { method: 'DELETE', target: '/files/a' }, 400],
  ['an empty name', put(`/files/?${good}`), 400],
  ['no name', put(`/files?${good}`), 400],
  ['a ".." segment', put(`/files/a/../b?${good}`), 400],
  ['an encoded ".." segment', put(`/files/%2e%2e/b?${good}`), 400],
  ['a ".." behind an encoded slash', put(`/files/a%2F..%2Fb?${good}`), 400],
  ['a "." segment', put(`/files/./b?${good}`), 400],
  ['an empty segment', put(`/files/a//b?${good}`), 400],
  ['an encoded empty segment', put(`/files/a%2F%2Fb?${good}`), 400],
  ['an empty segment after files', put(`/files//b?${good}`), 400],
  ['a slash at the end of a name', put(`/files/b/?${good}`), 400],
  ['NUL', put(`/files/a%00b?${good}`), 400],
  ['a newline', put(`/files/a%0Ab?${good}`), 400],
  ['DEL', put(`/files/a%7Fb?${good}`), 400],
  ['a C1 control character', put(`/files/a%C2%85b?${good}`), 400],
  ['invalid UTF-8', put(`/files/a%FFb?${good}`), 400],
  ['an overlong slash', put(`/files/a%C0%AFb?${good}`), 400],
  ['a lone surrogate', put(`/files/a%ED%A0%80b?${good}`), 400],
  ['a broken escape', put(`/files/a%zzb?${good}`), 400],
  ['a name of more than 1,024 bytes', put(`/files${`/${'a'.repeat(204)}`.repeat(5)}?${good}`), 400],
  ['a component of more than 255 bytes', put(`/files/${'a'.repeat(256)}?${good}`), 400],
  ['a component of 256 bytes in 128 letters', put(`/files/${'%C5%BC'.repeat(128)}?${good}`), 400],
  ['a digest of the wrong form', put(`/files/a?${good}`, content, { 'SHA256-Checksum': 'abc' }), 400],
  ['a digest that is a path', put(`/files/a?${good}`, content, { 'SHA256-Checksum': '../../x' }), 400],
  ['a size of the wrong form', put(`/files/a?${good}`, content, { 'Logical-Size': '-1' }), 400],
  ['a wrong digest', put(`/files/a?${good}`, content, { 'SHA256-Checksum': digestOf(packed) }), 400],
  [
    'a wrong digest of a large body',
    put(`/files/a?${good}`, big, { 'SHA256-Checksum': digestOf(packed) }),
    400,
  ],
  ['a wrong size', put(`/files/a?${good}`, content, { 'Logical-Size': '8' }), 400],
  ['a wrong size of gzip', put(`/files/a?${good}`, packed, { ...gzip, 'Logical-Size': '8' }), 400],
  ['a wrong size of large gzip', put(`/files/a?${good}`, bigPacked, { ...gzip, 'Logical-Size': '8' }), 400],
  ['gzip that is none', put(`/files/a?${good}`, content, gzip), 400],
  ['large gzip that is none', put(`/files/a?${good}`, big, gzip), 400],
  ['an empty body as gzip', put(`/files/a?${good}`, '', gzip), 400],
  ['truncated gzip', put(`/files/a?${good}`, packed.subarray(0, -3), gzip), 400],
  ['truncated large gzip', put(`/files/a?${good}`, bigPacked.subarray(0, -3), gzip), 400],
  ['gzip with a wrong checksum', put(`/files/a?${good}`, flipped(packed, packed.length - 7), gzip), 400],
  [
    'large gzip with a wrong checksum',
    put(`/files/a?${good}`, flipped(bigPacked, bigPacked.length - 7), gzip),
    400,
  ],
  ['gzip with bytes after it', put(`/files/a?${good}`, Buffer.concat([packed, Buffer.from('x')]), gzip), 400],
  ['an If-Match that is no tag', put(`/files/a?${good}`, content, { 'If-Match': 'abc' }), 400],
  ['an If-None-Match of tags', put(`/files/a?${good}`, content, { 'If-None-Match': '"abc"' }), 400],
  ['an If-Match without a file', put(`/files/a?${good}`, content, { 'If-Match': '"abc"' }), 412],
  ['an If-Match of any without a file', put(`/files/a?${good}`, content, { 'If-Match': '*' }), 412],
  ['a date of no form', put(`/files/a?${good}`, content, { 'If-Unmodified-Since': 'yesterday' }), 400],
  ['a part of a file', put(`/files/a?${good}`, content, { 'Content-Range': 'bytes 5-11/12' }), 400],
  ['a part of a size not known', put(`/files/a?${good}`, content, { 'Content-Range': 'bytes 5-11/*' }), 400],
  ['a part in a unit of its own', put(`/files/a?${good}`, content, { 'Content-Range': 'lines 1-2' }), 400],
  ['deflate', put(`/files/a?${good}`, content, { 'Content-Encoding': 'deflate' }), 415],
  ['gzip twice', put(`/files/a?${good}`, content, { 'Content-Encoding': 'gzip, gzip' }), 415],
  ['an unknown expectation', put(`/files/a?${good}`, content, { Expect: 'tea' }), 417],
  ['a GET of nothing', { target: '/files/a' }, 404],
  ['a DELETE of nothing', { method: 'DELETE', target: `/files/a?${good}` }, 404],
  ['a list of nothing', { target: '/list/a' }, 400],
  ['a list with an empty segment', { target: '/list/a//b' }, 400],
  ['a list with a bad cutoff', { target: '/list/?last_modified=now' }, 400],
  ['a list with a bad limit', { target: '/list/?limit=0' }, 400],
  ['a list after no name', { target: '/list/?after=../a' }, 400],
  ['an unknown endpoint', { target: '/file/a' }, 404],
  ['the root', { target: '/' }, 404],
  ['an encoded endpoint', { target: '/%66iles/a' }, 404],
  ['a ".." in front of an endpoint', { target: '/../files/a' }, 400],
  ['a POST to a file', { method: 'POST', target: `/files/a?${good}`, body: content }, 405],
  ['a PATCH of a file', { method: 'PATCH', target: `/files/a?${good}`, body: content }, 405],
  ['a PUT to a list', { method: 'PUT', target: `/list/?${good}`, body: content }, 405],
  ['a DELETE of the version', { method: 'DELETE', target: '/version' }, 405],
];

describe('a refused request', () => {
  it.each(refusals)('with %s gets its answer and leaves no trace', async (_, request, status) => {
    const server = await openTestServer();
    expectError(await server.request(request), status);
    await server.expectEmpty();
  });

  it('tells the methods with a 405', async () => {
    const server = await openTestServer();
    const file = await server.request({ method: 'POST', target: '/files/a' });
    expect(file.headers.get('allow')).toBe('GET, HEAD, PUT, DELETE');
    const list = await server.request({ method: 'DELETE', target: '/list/' });
    expect(list.headers.get('allow')).toBe('GET, HEAD');
  });

  it('tells the encodings with a 415', async () => {
    const server = await openTestServer();
    const answer = await server.request(put(`/files/a?${good}`, content, { 'Content-Encoding': 'br' }));
    expect(answer.headers.get('accept-encoding')).toBe('gzip, identity');
  });

  it('is told in JSON to who asks for that', async () => {
    const server = await openTestServer();
    const headers = { Accept: 'application/json' };
    const answer = await server.request({ target: '/files/%C5%BC', headers });
    expect(answer.headers.get('content-type')).toBe('application/problem+json');
    expect(JSON.parse(answer.text)).toEqual({
      type: 'about:blank',
      title: 'Not Found',
      status: 404,
      detail: 'Cannot get "/ż": there is no such file',
      code: 'not-found',
    });
    expect(answer.headers.get('x-exception')).toBe('Cannot get "/\\u017c": there is no such file');
  });

  it('has no text of more than 1 KiB, however long the name', async () => {
    const server = await openTestServer();
    for (const name of ['%C5%BC/'.repeat(300) + 'a', 'a/'.repeat(500) + 'a', '%00'.repeat(4000)]) {
      for (const accept of ['*/*', 'application/json']) {
        const answer = await server.request({ target: `/files/${name}`, headers: { Accept: accept } });
        expect(answer.status).toBeGreaterThanOrEqual(400);
        expect(answer.headers.get('x-exception')?.length).toBeLessThanOrEqual(1024);
        const { detail } = (
          accept === '*/*' ? { detail: answer.text.trimEnd() } : JSON.parse(answer.text)
        ) as {
          readonly detail: string;
        };
        expect(Buffer.byteLength(detail)).toBeLessThanOrEqual(1024);
      }
    }
  });

  it('has no body where it was a HEAD', async () => {
    const server = await openTestServer();
    const connection = await RawConnection.open(server.port);
    const missing = await connection.request({ method: 'HEAD', target: '/files/a' });
    expect(missing.status).toBe(404);
    expect(missing.headers.get('x-exception')).toBe('Cannot get "/a": there is no such file');
    expect((await connection.request({ target: '/healthz' })).text).toBe('ok\n');
  });

  it('with a file above or below the name gets 409, and the tree stays as it was', async () => {
    const server = await openTestServer();
    expect((await server.put('/a/b', content)).status).toBe(200);
    expectError(await server.put('/a', content), 409);
    expectError(await server.put('/a/b/c', content), 409);
    expectError(await server.put('/a/b/c', big), 409);
    expect((await server.request({ target: '/list/' })).text).toBe('a/b\n');
    expect((await server.request({ method: 'DELETE', target: `/files/a/b?${good}` })).status).toBe(200);
    await server.expectEmpty();
  });

  it('with a list of a file gets 400', async () => {
    const server = await openTestServer();
    await server.put('/a', content);
    expectError(await server.request({ target: '/list/a' }), 400);
    expectError(await server.request({ target: '/list/a/b' }), 400);
  });

  it('with a create-only PUT over a file gets 412, and the file stays', async () => {
    const server = await openTestServer();
    await server.put('/a', content);
    const answer = await server.put('/a', 'other', { headers: { 'If-None-Match': '*' } });
    expectError(answer, 412);
    expect((await server.request({ target: '/files/a' })).text).toBe(content);
  });
});

describe('bytes that are no request', () => {
  it.each([
    ['garbage', 'garbage\r\n\r\n', 400],
    ['no Host', 'GET /version HTTP/1.1\r\n\r\n', 400],
    ['no Host for a body', `PUT /files/a?${good} HTTP/1.1\r\nContent-Length: 1\r\n\r\na`, 400],
    [
      'two lengths',
      'PUT /files/a HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\na',
      400,
    ],
    [
      'a length and chunks',
      'PUT /files/a HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n',
      400,
    ],
    ['a length that is none', 'PUT /files/a HTTP/1.1\r\nHost: a\r\nContent-Length: -1\r\n\r\n', 400],
    ['a header without a colon', 'GET /version HTTP/1.1\r\nHost: a\r\nnonsense\r\n\r\n', 400],
    ['a folded header', 'GET /version HTTP/1.1\r\nHost: a\r\nX: a\r\n b\r\n\r\n', 400],
    ['headers of 20 KiB', `GET /version HTTP/1.1\r\nHost: a\r\nX: ${'a'.repeat(20_480)}\r\n\r\n`, 431],
    ['a target of 20 KiB', `GET /${'a'.repeat(20_480)} HTTP/1.1\r\nHost: a\r\n\r\n`, 431],
  ])('as %s are refused, and the connection is closed', async (_, bytes, status) => {
    const server = await openTestServer();
    const connection = await RawConnection.open(server.port);
    connection.send(bytes);
    const answer = await connection.answer();
    expectError(answer, status);
    expect(answer.headers.get('connection')).toBe('close');
    await connection.closed();
    await server.expectEmpty();
  });

  it('without a Host are a request in HTTP/1.0', async () => {
    const server = await openTestServer();
    const connection = await RawConnection.open(server.port);
    connection.send('GET /version HTTP/1.0\r\n\r\n');
    expect((await connection.answer()).status).toBe(200);
  });

  it('as a transfer coding that Node does not decode are refused', async () => {
    const server = await openTestServer();
    const headers = { 'Transfer-Encoding': 'gzip, chunked' };
    const answer = await server.request({ ...put(`/files/a?${good}`, '0\r\n\r\n', headers) });
    expect(answer.status).toBe(415);
    await server.expectEmpty();
  });
});

describe('a body that does not come to its end', () => {
  it.each([
    ['a small one', { 'Content-Length': '100' }, 'abc'],
    ['a large one', { 'Content-Length': '1000000' }, 'abc'],
    ['a large one, most of it there', { 'Content-Length': '400000' }, big],
    ['a chunked one', { 'Transfer-Encoding': 'chunked' }, '3\r\nabc\r\n'],
  ])('%s, shut down by the client, gets 400 and leaves no trace', async (_, headers, body) => {
    const server = await openTestServer();
    const connection = await RawConnection.open(server.port);
    connection.send(requestBytes({ method: 'PUT', target: `/files/a?${good}`, headers, body }));
    connection.socket.end();
    expectError(await connection.answer(), 400);
    await connection.closed();
    await server.expectEmpty();
  });

  it.each([
    ['a small one', 'abc'],
    ['a large one', big],
  ])('%s, with the connection gone, leaves no trace', async (_, body) => {
    const server = await openTestServer();
    const connection = await RawConnection.open(server.port);
    const headers = { 'Content-Length': '400000' };
    connection.send(requestBytes({ method: 'PUT', target: `/files/a?${good}`, headers, body }));
    await new Promise((resolve) => setTimeout(resolve, 50));
    connection.socket.resetAndDestroy();
    await server.expectEmpty();
    expect((await server.request({ target: '/healthz' })).status).toBe(200);
  });

  it.each([
    ['a small one', '100', 'abc'],
    ['a large one', '1000000', 'abc'],
  ])('%s that stalls gets 408 and leaves no trace', async (_, announced, body) => {
    const server = await openTestServer({ timeouts: { stallMs: 200 } });
    const connection = await RawConnection.open(server.port);
    const headers = { 'Content-Length': announced };
    connection.send(requestBytes({ method: 'PUT', target: `/files/a?${good}`, headers, body }));
    expectError(await connection.answer(), 408);
    connection.socket.end();
    await connection.closed();
    await server.expectEmpty();
  });

  it.each(['zz\r\n', '3\r\nabcd\r\n', '-1\r\n'])('with broken chunks (%j) gets 400', async (chunk) => {
    const server = await openTestServer();
    const connection = await RawConnection.open(server.port);
    const headers = { 'Transfer-Encoding': 'chunked' };
    connection.send(
      requestBytes({ method: 'PUT', target: `/files/a?${good}`, headers, body: `3\r\nabc\r\n${chunk}` }),
    );
    expectError(await connection.answer(), 400);
    connection.socket.end();
    await connection.closed();
    await server.expectEmpty();
  });
});
