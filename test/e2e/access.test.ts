import { createHash } from 'node:crypto';
import { describe, expect, it } from 'vitest';
import { ManualClock } from '../support/manual-clock.ts';
import { RateLimiter } from '../../src/access/rate-limiter.ts';
import { RawConnection, type RawAnswer } from '../support/raw-http.ts';
import { openTestServer, versionQuery, type TestServer } from '../support/test-server.ts';
import { makeTokens, type TestTokens, type TokenPlan } from '../support/tokens.ts';

const plan: TokenPlan = {
  root: ['/', 'read', 'write', 'delete', 'list'],
  judge: ['/p', 'read', 'list'],
  writer: ['/p', 'write'],
  both: ['/p', 'read', 'write'],
  two: ['/p/sub /q', 'read', 'list'],
};

const digestOf = (content: string): string => createHash('sha256').update(content).digest('hex');

async function openGuarded(
  anonymous: 'all' | 'read' | 'none' = 'none',
): Promise<{ server: TestServer; tokens: TestTokens }> {
  const tokens = makeTokens(plan, anonymous);
  const server = await openTestServer({ access: tokens.access });
  for (const name of ['/p/a', '/p/sub/b', '/q/c', '/r/d']) {
    await server.put(name, `content of ${name}`, { headers: tokens.header('root') });
  }
  return { server, tokens };
}

describe('a server with tokens', () => {
  it('asks for a token, in both schemes, where none came', async () => {
    const { server } = await openGuarded();
    const connection = await RawConnection.open(server.port);
    connection.send('GET /files/p/a HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n');
    const text = (await connection.closed()).toString();
    expect(text).toMatch(/^HTTP\/1.1 401 /);
    expect(text).toMatch(/^WWW-Authenticate: Bearer realm="filetracker"\r$/m);
    expect(text).toMatch(/^WWW-Authenticate: Basic realm="filetracker", charset="UTF-8"\r$/m);
  });

  it.each(['/healthz', '/readyz', '/version'])('answers %s without one', async (target) => {
    const { server } = await openGuarded();
    expect((await server.request({ target })).status).toBe(200);
  });

  it.each(['/status', '/metrics', '/list/', '/files/p/a', '/files/absent'])(
    'refuses %s without one',
    async (target) => {
      const { server } = await openGuarded();
      expect((await server.request({ target })).status).toBe(401);
    },
  );

  it('takes a token as Bearer and as the password of its own name in Basic', async () => {
    const { server, tokens } = await openGuarded();
    const get = async (authorization: string): Promise<number> =>
      (await server.request({ target: '/files/p/a', headers: { Authorization: authorization } })).status;
    const basic = (name: string, secret: string): string =>
      `Basic ${Buffer.from(`${name}:${secret}`).toString('base64')}`;
    const secret = tokens.text('judge');
    expect(await get(`Bearer ${secret}`)).toBe(200);
    expect(await get(basic('judge', secret))).toBe(200);
    expect(await get(basic('root', secret))).toBe(401);
    expect(await get(basic('judge', `${secret.slice(0, -1)}~`))).toBe(401);
    expect(await get('Bearer nonsense')).toBe(401);
    expect(await get('Digest x')).toBe(401);
  });

  it('gives each token its rights and no others', async () => {
    const { server, tokens } = await openGuarded();
    const send = async (method: string, target: string, name: string): Promise<number> => {
      const query = method === 'GET' ? '' : `?${versionQuery()}`;
      const body = method === 'PUT' ? { body: 'x' } : {};
      const headers = tokens.header(name);
      return (await server.request({ method, target: `${target}${query}`, headers, ...body })).status;
    };
    expect(await send('GET', '/files/p/a', 'judge')).toBe(200);
    expect(await send('GET', '/files/r/d', 'judge')).toBe(403);
    expect(await send('GET', '/files/r/absent', 'judge')).toBe(403);
    expect(await send('PUT', '/files/p/a', 'judge')).toBe(403);
    expect(await send('DELETE', '/files/p/a', 'judge')).toBe(403);
    expect(await send('PUT', '/files/p/new', 'writer')).toBe(200);
    expect(await send('GET', '/files/p/new', 'writer')).toBe(403);
    expect(await send('PUT', '/files/pq', 'writer')).toBe(403);
    expect(await send('GET', '/status', 'writer')).toBe(200);
    expect(await send('DELETE', '/files/p/new', 'root')).toBe(200);
  });

  it('refuses before a body is sent', async () => {
    const { server, tokens } = await openGuarded();
    const connection = await RawConnection.open(server.port);
    connection.send(
      `PUT /files/r/x?${versionQuery()} HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000000\r\n` +
        `Authorization: Bearer ${tokens.text('writer')}\r\nExpect: 100-continue\r\n\r\n`,
    );
    expect((await connection.answer('PUT')).status).toBe(403);
  });

  it('lists what a token may read, below a directory above it too', async () => {
    const { server, tokens } = await openGuarded();
    const list = async (target: string, name: string): Promise<string> => {
      const answer = await server.request({ target, headers: tokens.header(name) });
      return answer.status === 200 ? answer.text : String(answer.status);
    };
    expect(await list('/list/', 'root')).toBe('p/a\np/sub/b\nq/c\nr/d\n');
    expect(await list('/list/', 'judge')).toBe('p/a\np/sub/b\n');
    expect(await list('/list/p', 'judge')).toBe('a\nsub/b\n');
    expect(await list('/list/', 'two')).toBe('p/sub/b\nq/c\n');
    expect(await list('/list/?limit=1', 'two')).toBe('p/sub/b\n');
    expect(await list('/list/?limit=5&after=p/sub/b', 'two')).toBe('q/c\n');
    expect(await list('/list/p', 'two')).toBe('sub/b\n');
    expect(await list('/list/r', 'judge')).toBe('403');
    expect(await list('/list/p', 'writer')).toBe('403');
  });

  it('lets those read who send no token, where it is told to', async () => {
    const { server } = await openGuarded('read');
    expect((await server.request({ target: '/files/p/a' })).status).toBe(200);
    expect((await server.request({ target: '/list/' })).text).toBe('p/a\np/sub/b\nq/c\nr/d\n');
    expect((await server.put('/p/a', 'x')).status).toBe(401);
    const wrong = { Authorization: 'Bearer wrong' };
    expect((await server.request({ target: '/files/p/a', headers: wrong })).status).toBe(401);
  });
});

describe('a server that is asked ambiguously', () => {
  it.each(['Host: y', 'Authorization: Bearer one\r\nAuthorization: Bearer two'])(
    'refuses a repeated header: %s',
    async (headers) => {
      const server = await openTestServer();
      const connection = await RawConnection.open(server.port);
      connection.send(`GET /version HTTP/1.1\r\nHost: x\r\n${headers}\r\n\r\n`);
      expect((await connection.answer()).status).toBe(400);
    },
  );

  it('takes other headers whose names are as long', async () => {
    const server = await openTestServer();
    const headers = { From: 'a', Date: 'b', 'Cache-Control': 'c', Authorisation: 'd' };
    expect((await server.request({ target: '/version', headers })).status).toBe(200);
  });

  it.each(['GET', 'DELETE'])(
    'refuses a %s in a transfer coding that it does not know, and closes the connection',
    async (method) => {
      const server = await openTestServer();
      await server.request({ method: 'PUT', target: `/files/a?${versionQuery()}`, body: 'kept' });
      const connection = await RawConnection.open(server.port);
      connection.send(
        `${method} /files/a?${versionQuery()} HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: xchunked\r\n\r\n`,
      );
      const { status, headers } = await connection.answer(method);
      expect([status, headers.get('connection')]).toEqual([415, 'close']);
      expect((await server.request({ target: '/files/a' })).status).toBe(200);
    },
  );

  it('answers a request in a transfer coding that it does not know, and stores nothing', async () => {
    const server = await openTestServer();
    const connection = await RawConnection.open(server.port);
    connection.send(
      `PUT /files/a?${versionQuery()} HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: xchunked\r\n\r\n0\r\n\r\n`,
    );
    expect((await connection.answer('PUT')).status).toBe(415);
    await server.expectEmpty();
  });
});

describe('failed authentications', () => {
  it('are limited by the address that they come from, and good ones are not', async () => {
    const tokens = makeTokens(plan);
    const admission = new RateLimiter({ requestsPerSecond: 3, clock: new ManualClock() });
    const server = await openTestServer({ access: tokens.access, admission });
    const get = async (headers: Record<string, string>): Promise<number> =>
      (await server.request({ target: '/version', headers })).status;
    const statuses: number[] = [];
    for (let tries = 0; tries < 5; tries += 1)
      statuses.push(await get({ Authorization: `Bearer wrong${tries}` }));
    expect(statuses).toEqual([401, 401, 401, 429, 429]);
    expect(await get(tokens.header('judge'))).toBe(200);
  });
});

describe('requests that are refused for their form', () => {
  it.each([
    ['a repeated header', 'Host: x\r\nHost: x', 400],
    ['an unknown expectation', 'Host: x\r\nExpect: wonders', 417],
  ])('count as others do: %s', async (_form, headers, status) => {
    const admission = new RateLimiter({ requestsPerSecond: 3, clock: new ManualClock() });
    const server = await openTestServer({ admission });
    const statuses: number[] = [];
    for (let count = 0; count < 5; count += 1) {
      const connection = await RawConnection.open(server.port);
      connection.send(`GET /version HTTP/1.1\r\n${headers}\r\n\r\n`);
      statuses.push((await connection.answer()).status);
    }
    expect(statuses).toEqual([status, status, status, 429, 429]);
  });
});

describe('a name in the way of an upload', () => {
  it('is not told to a token that may not read it', async () => {
    const tokens = makeTokens({ root: ['/', 'write'], deep: ['/v/t/deep', 'read', 'write'] });
    const server = await openTestServer({ access: tokens.access });
    await server.put('/v/t', 'x', { headers: tokens.header('root') });
    const answer = await server.put('/v/t/deep/a', 'x', { headers: tokens.header('deep') });
    expect(answer.status).toBe(409);
    expect(answer.text).not.toContain('"/v/t"');
  });
});

describe('a server whose tokens are lost', () => {
  it('is closed, and says why, with a token and without', async () => {
    const { access } = makeTokens({}, 'none', { lost: true });
    const server = await openTestServer({ access });
    for (const headers of [{}, { Authorization: `Bearer ft_${'x'.repeat(51)}` }]) {
      const answer = await server.request({ target: '/files/a', headers });
      expect(answer.status).toBe(401);
      expect(answer.text).toMatch(/the tokens of this store are lost/);
    }
  });

  it('still lets those read who need no token', async () => {
    const { access } = makeTokens({}, 'read', { lost: true });
    const server = await openTestServer({ access });
    expect((await server.request({ target: '/files/a' })).status).toBe(404);
    expect((await server.put('/a', 'x')).text).toMatch(/the tokens of this store are lost/);
  });
});

describe('deduplication and tokens', () => {
  /** Whether a server asks for the body of an upload whose digest is told. */
  async function isAskedFor(
    server: TestServer,
    name: string,
    content: string,
    secret: string,
  ): Promise<boolean> {
    const connection = await RawConnection.open(server.port);
    connection.send(
      `PUT /files${name}?${versionQuery(1_800_000_000)} HTTP/1.1\r\nHost: x\r\nContent-Length: ${content.length}\r\n` +
        `SHA256-Checksum: ${digestOf(content)}\r\nAuthorization: Bearer ${secret}\r\nExpect: 100-continue\r\n\r\n`,
    );
    const first = await connection.answer('PUT');
    if (first.status !== 100) {
      expect(first.status).toBe(200);
      return false;
    }
    connection.send(content);
    expect((await connection.answer('PUT')).status).toBe(200);
    return true;
  }

  it('spares an upload only where the token may read every file, or this one', async () => {
    const { server, tokens } = await openGuarded();
    const elsewhere = 'content of /r/d';
    const here = 'content of /p/a';
    expect(await isAskedFor(server, '/p/copy', elsewhere, tokens.text('root'))).toBe(false);
    expect(await isAskedFor(server, '/p/guess', elsewhere, tokens.text('both'))).toBe(true);
    expect(await isAskedFor(server, '/p/fresh', 'never seen', tokens.text('both'))).toBe(true);
    expect(await isAskedFor(server, '/p/a', here, tokens.text('both'))).toBe(false);
    expect(await isAskedFor(server, '/p/a', here, tokens.text('writer'))).toBe(true);
  });

  it('gives the same answer to an upload of a stored and of a new content', async () => {
    const { server, tokens } = await openGuarded();
    const put = async (name: string, content: string): Promise<string> => {
      const headers = { ...tokens.header('writer'), 'SHA256-Checksum': digestOf(content) };
      const answer = await server.put(name, content, { headers });
      const kept = [...answer.headers].filter(([key]) => key !== 'date');
      return `${answer.status} ${JSON.stringify(kept)} ${answer.text}`;
    };
    expect(await put('/p/one', 'content of /r/d')).toBe(await put('/p/two', 'content of nothing'));
  });

  it('shows totals, which tell whether an upload was new, to those alone who may read every file', async () => {
    const plan: TokenPlan = { root: ['/', 'read'], scraper: ['/', 'admin'], writer: ['/p', 'read', 'write'] };
    const tokens = makeTokens(plan);
    const metrics = { contentType: 'text/plain', text: () => Promise.resolve('all') };
    const server = await openTestServer({ access: tokens.access, metrics });
    const get = (target: string, name: string): Promise<RawAnswer> =>
      server.request({ target, headers: tokens.header(name) });
    for (const name of ['root', 'scraper']) {
      expect(JSON.parse((await get('/status', name)).text)).toMatchObject({ blobs: 0, storedBytes: 0 });
      expect((await get('/metrics', name)).status).toBe(200);
    }
    const told: unknown = JSON.parse((await get('/status', 'writer')).text);
    expect(Object.keys(told as object)).toEqual(['version', 'uptimeSeconds', 'draining']);
    expect((await get('/metrics', 'writer')).status).toBe(403);
  });

  it('keeps conditions on a digest to those who may read the file', async () => {
    const { server, tokens } = await openGuarded();
    const etag = `"${digestOf('content of /p/a')}"`;
    const put = async (name: string): Promise<number> => {
      const headers = { ...tokens.header(name), 'If-Match': etag };
      return (await server.put('/p/a', 'changed', { headers, version: 1_900_000_000 })).status;
    };
    expect(await put('writer')).toBe(403);
    expect(await put('both')).not.toBe(403);
  });
});
