import { randomBytes } from 'node:crypto';
import { performance } from 'node:perf_hooks';
import { Readable } from 'node:stream';
import { setTimeout as sleep } from 'node:timers/promises';
import { describe, expect, it } from 'vitest';
import { parseFileName } from '../../src/core/file-name.ts';
import { FiletrackerError } from '../../src/core/errors.ts';
import { noise, prose } from '../support/contents.ts';
import { RawConnection, requestBytes } from '../support/raw-http.ts';
import { openTestServer, openedBy, overridden, versionQuery } from '../support/test-server.ts';

const good = versionQuery();

/** The beginning of a content, and then a failure. */
async function* broken(): AsyncGenerator<Buffer> {
  yield noise(100_000);
  await sleep(20);
  throw new FiletrackerError('damaged-blob', 'Cannot read: it is damaged');
}

describe('a connection', () => {
  it('goes on after a refused body that is short', async () => {
    const server = await openTestServer();
    const connection = await RawConnection.open(server.port);
    for (const body of [Buffer.from('x'), noise(200_000)]) {
      const refused = await connection.request({ method: 'PUT', target: '/files/a', body });
      expect(refused.status).toBe(400);
      expect(refused.headers.get('connection')).toBe('keep-alive');
      expect((await connection.request({ target: '/healthz' })).status).toBe(200);
    }
    const posted = await connection.request({ method: 'POST', target: '/files/a', body: 'x' });
    expect(posted.status).toBe(405);
    const got = await connection.request({ target: '/healthz', body: 'a body that a GET should not have' });
    expect(got.status).toBe(200);
    expect((await connection.request({ target: '/healthz' })).text).toBe('ok\n');
  });

  it('is closed after a refused body that is long, when its sender has had time to read the answer', async () => {
    const server = await openTestServer();
    const connection = await RawConnection.open(server.port);
    const body = noise(8_000_000);
    connection.send(requestBytes({ method: 'PUT', target: '/files/a', body }));
    const answer = await connection.answer();
    expect(answer.status).toBe(400);
    expect(answer.headers.get('connection')).toBe('close');
    connection.socket.end();
    expect(await connection.closed()).toEqual(Buffer.alloc(0));
  });

  it('goes on after a body whose claims did not hold', async () => {
    const server = await openTestServer();
    const connection = await RawConnection.open(server.port);
    for (const body of [Buffer.from('x'), noise(200_000)]) {
      const headers = { 'SHA256-Checksum': '0'.repeat(64) };
      const refused = await connection.request({ method: 'PUT', target: `/files/a?${good}`, body, headers });
      expect(refused.status).toBe(400);
      expect((await connection.request({ target: '/healthz' })).status).toBe(200);
    }
    await server.expectEmpty();
  });

  it('has its requests answered in order, each after the one before it', async () => {
    const server = await openTestServer();
    const connection = await RawConnection.open(server.port);
    connection.send(
      Buffer.concat([
        requestBytes({ method: 'PUT', target: `/files/a?${good}`, body: prose(100_000) }),
        requestBytes({ target: '/files/a' }),
        requestBytes({ method: 'PUT', target: '/files/a', body: 'refused' }),
        requestBytes({ method: 'PUT', target: `/files/a?${good}`, body: 'second' }),
        requestBytes({ target: '/files/a' }),
        requestBytes({ method: 'DELETE', target: `/files/a?${good}` }),
        requestBytes({ target: '/files/a' }),
      ]),
    );
    const answers = [];
    for (let count = 0; count < 7; count += 1) answers.push(await connection.answer());
    expect(answers.map(({ status }) => status)).toEqual([200, 200, 400, 200, 200, 200, 404]);
    expect(answers[1]?.body.equals(prose(100_000))).toBe(true);
    expect(answers[4]?.text).toBe('second');
  });

  it('of a client that shuts down its sending side gets its answer', async () => {
    const server = await openTestServer();
    await server.put('/a', prose(500_000));
    const connection = await RawConnection.open(server.port);
    connection.send(requestBytes({ target: '/files/a' }));
    connection.socket.end();
    expect((await connection.answer()).body.equals(prose(500_000))).toBe(true);
    await connection.closed();
  });

  it('is closed when its headers do not come in time', async () => {
    const server = await openTestServer({ timeouts: { headersMs: 300 } });
    const connection = await RawConnection.open(server.port);
    connection.send('GET /healthz HTTP/1.1\r\nHost: a\r\nX: ');
    expect((await connection.answer()).status).toBe(408);
    await connection.closed();
  });

  it('is closed when nothing is asked for a while', async () => {
    const server = await openTestServer({ timeouts: { idleMs: 100, stallMs: 60_000 } });
    const connection = await RawConnection.open(server.port);
    await connection.request({ target: '/healthz' });
    expect(await connection.closed()).toEqual(Buffer.alloc(0));
  });

  it('is given up when its client does not read the answer', async () => {
    const server = await openTestServer({ timeouts: { stallMs: 300 } });
    const intent = { name: parseFileName('/a'), version: 1, claims: {} };
    await server.store.put(intent, { source: randomBytes(30_000_000), encoding: 'identity' });
    const connection = await RawConnection.open(server.port);
    connection.pause();
    connection.send(requestBytes({ target: '/files/a' }));
    await sleep(1500);
    connection.resume();
    await expect(connection.answer()).rejects.toThrow('the server closed');
  });

  it('is not given up while a slow client reads on', async () => {
    const server = await openTestServer({ timeouts: { stallMs: 2000 } });
    const connection = await RawConnection.open(server.port);
    const body = noise(100_000);
    connection.send(
      requestBytes({ method: 'PUT', target: `/files/a?${good}`, headers: { 'Content-Length': '100000' } }),
    );
    for (let start = 0; start < body.length; start += 10_000) {
      connection.send(body.subarray(start, start + 10_000));
      await sleep(300);
    }
    expect((await connection.answer()).status).toBe(200);
  });

  it('is destroyed, not ended, when the store fails in the middle of an answer', async () => {
    const sound = await openTestServer();
    await sound.put('/a', noise(200_000));
    const store = openedBy(sound.store, async (found, options) => {
      const file = await found.open(options);
      return file && { ...file, body: Readable.from(broken()) };
    });
    const server = await openTestServer({ store });
    const connection = await RawConnection.open(server.port);
    connection.send(requestBytes({ target: '/files/a' }));
    await expect(connection.answer()).rejects.toThrow('the server closed');
  });
});

describe('HttpServer', () => {
  it('serves others while 200 uploads are slow', async () => {
    const server = await openTestServer();
    await server.put('/a', prose(4096));
    const uploads = await Promise.all(
      Array.from({ length: 200 }, async (_, index) => {
        const connection = await RawConnection.open(server.port);
        const headers = { 'Content-Length': '1000000' };
        connection.send(
          requestBytes({ method: 'PUT', target: `/files/slow/${index}?${good}`, headers, body: noise(1000) }),
        );
        return connection;
      }),
    );
    const times: number[] = [];
    for (let count = 0; count < 50; count += 1) {
      for (const upload of uploads) upload.send(noise(100));
      const start = performance.now();
      expect((await server.request({ target: '/files/a' })).status).toBe(200);
      times.push(performance.now() - start);
    }
    expect(times.sort((left, right) => left - right)[25]).toBeLessThan(250);
    for (const upload of uploads) upload.socket.destroy();
    await expect.poll(async () => (await server.store.stats()).entries).toBe(1);
  });

  it('tells of itself', async () => {
    const server = await openTestServer();
    await server.put('/a', 'x');
    for (const target of ['/version', '/version/', '//version/']) {
      const version = JSON.parse((await server.request({ target })).text);
      expect(version).toMatchObject({ protocol_versions: [2], server: 'filetracker/0.0.0' });
    }
    const status = JSON.parse((await server.request({ target: '/status' })).text);
    expect(status).toMatchObject({
      version: '0.0.0',
      entries: 1,
      blobs: 1,
      logicalBytes: 1,
      draining: false,
    });
    expect(status.uptimeSeconds).toBeGreaterThanOrEqual(0);
    expect(await server.request({ target: '/healthz' })).toMatchObject({ status: 200, text: 'ok\n' });
    expect(await server.request({ target: '/readyz' })).toMatchObject({ status: 200, text: 'ready\n' });
  });

  it('is not ready, but alive, when its store is not', async () => {
    const sound = await openTestServer();
    const store = overridden(sound.store, {
      probe: () =>
        Promise.reject(new FiletrackerError('unavailable', 'Cannot reach the catalog: it is gone')),
    });
    const server = await openTestServer({ store });
    const ready = await server.request({ target: '/readyz' });
    expect(ready.status).toBe(503);
    expect(ready.headers.get('retry-after')).toBe('5');
    expect((await server.request({ target: '/healthz' })).status).toBe(200);
  });

  it.each([
    new FiletrackerError('no-space', 'Cannot write the journal: the disk is full'),
    new FiletrackerError('read-only', 'Cannot write the journal: the disk is read-only'),
    new Error('a bug'),
  ])('is not ready, whatever stands in the way: %s', async (failure) => {
    const sound = await openTestServer();
    const server = await openTestServer({
      store: overridden(sound.store, { probe: () => Promise.reject(failure) }),
    });
    const { status, text } = await server.request({ target: '/readyz' });
    expect(status).toBe(503);
    expect(text).toMatch(
      failure instanceof FiletrackerError ? failure.message : /^Cannot answer the request/,
    );
  });

  it('close() lets running requests finish and takes no new connection', async () => {
    const server = await openTestServer();
    const idle = await RawConnection.open(server.port);
    await idle.request({ target: '/healthz' });
    const upload = await RawConnection.open(server.port);
    upload.send(
      requestBytes({ method: 'PUT', target: `/files/a?${good}`, headers: { 'Content-Length': '100000' } }),
    );
    await sleep(50);
    const closed = server.server.close({ timeoutMs: 10_000 });
    await idle.closed();
    await expect(RawConnection.open(server.port)).rejects.toThrow('ECONNREFUSED');
    upload.send(noise(100_000));
    const answer = await upload.answer();
    expect(answer.status).toBe(200);
    expect(answer.headers.get('connection')).toBe('close');
    await closed;
    expect((await server.store.stats()).entries).toBe(1);
  });

  it('close() lets a connection that has just come bring its first request', async () => {
    const server = await openTestServer();
    const [answered, asking] = [await RawConnection.open(server.port), await RawConnection.open(server.port)];
    await answered.request({ target: '/healthz' });
    await expect.poll(() => server.server.connectionCount).toBe(2);
    const closed = server.server.close({ firstRequestMs: 60_000 });
    await answered.closed();
    const answer = await asking.request({ target: '/healthz' });
    expect(answer).toMatchObject({ status: 200, text: 'ok\n' });
    expect(answer.headers.get('connection')).toBe('close');
    await closed;
  });

  it('close() waits for no request that does not come', async () => {
    const server = await openTestServer();
    const silent = await RawConnection.open(server.port);
    await expect.poll(() => server.server.connectionCount).toBe(1);
    await server.server.close({ firstRequestMs: 200, timeoutMs: 3_600_000 });
    await silent.closed();
  });

  it('close() waits no longer than it is told', async () => {
    const server = await openTestServer();
    const upload = await RawConnection.open(server.port);
    upload.send(
      requestBytes({ method: 'PUT', target: `/files/a?${good}`, headers: { 'Content-Length': '100000' } }),
    );
    await sleep(50);
    const start = performance.now();
    await server.server.close({ timeoutMs: 200 });
    expect(performance.now() - start).toBeLessThan(2000);
    await server.expectEmpty();
  });

  it('says which address is taken', async () => {
    const server = await openTestServer();
    await expect(openTestServer({ listen: { host: '127.0.0.1', port: server.port } })).rejects.toMatchObject({
      code: 'EADDRINUSE',
    });
  });
});
