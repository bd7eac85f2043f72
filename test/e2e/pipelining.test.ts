import { describe, expect, it } from 'vitest';
import { waitingRequestsMax, waitingRequestsTotalMax } from '../../src/core/limits.ts';
import type { RequestObserver } from '../../src/server/observer.ts';
import { noise } from '../support/contents.ts';
import { RawConnection, requestBytes } from '../support/raw-http.ts';
import { openTestServer, openedBy, versionQuery, type TestServer } from '../support/test-server.ts';

/** A server whose GETs wait until they are let go, and what it counted. */
async function openHeldServer(): Promise<{
  readonly server: TestServer;
  readonly opened: () => number;
  readonly refusals: readonly string[];
  readonly letGo: () => void;
}> {
  const sound = await openTestServer();
  await sound.put('/a', 'x');
  let count = 0;
  let letGo = (): void => undefined;
  const held = new Promise<void>((resolve) => {
    letGo = resolve;
  });
  const store = openedBy(sound.store, async (file, options) => {
    count += 1;
    await held;
    return file.open(options);
  });
  const refusals: string[] = [];
  const observer: RequestObserver = {
    answered: () => undefined,
    refusedConnection: (_address, _status, reason) => void refusals.push(reason),
  };
  return { server: await openTestServer({ store, observer }), opened: () => count, refusals, letGo };
}

/** Long enough that what is read at once, 64 KiB, holds fewer than the bound. */
const get = requestBytes({ target: '/files/a', headers: { 'X-Padding': 'x'.repeat(80) } });

function many(count: number): Buffer {
  return Buffer.concat(Array.from({ length: count }, () => get));
}

describe('pipelined requests', () => {
  it('are all answered if they wait within the bound', async () => {
    const { server, letGo } = await openHeldServer();
    const connection = await RawConnection.open(server.port);
    connection.send(many(waitingRequestsMax));
    letGo();
    for (let count = 0; count < waitingRequestsMax; count += 1) {
      expect((await connection.answer()).text).toBe('x');
    }
  });

  it('end their connection if more wait than the bound of one connection', async () => {
    const { server, refusals } = await openHeldServer();
    const connection = await RawConnection.open(server.port);
    connection.send(requestBytes({ target: '/files/a' }));
    connection.send('GET /files/a HTTP/1.1\r\nHost:\r\n\r\n'.repeat(waitingRequestsMax + 100));
    expect(await connection.closed()).toEqual(Buffer.alloc(0));
    expect(refusals).toEqual(['too many requests were waiting']);
    expect((await server.request({ target: '/healthz' })).status).toBe(200);
  });

  it('are no longer read when some wait, and are read again when those are answered', async () => {
    const { server, refusals, letGo } = await openHeldServer();
    const connection = await RawConnection.open(server.port);
    const rounds = 6;
    const half = waitingRequestsMax / 2;
    // More than the bound in all: only because the rest stays unread is nothing refused.
    for (let round = 0; round < rounds; round += 1) {
      connection.send(many(half));
      await server.request({ target: '/healthz' });
    }
    expect(refusals).toEqual([]);
    letGo();
    for (let count = 0; count < rounds * half; count += 1) await connection.answer();
  });

  it('end their connection if more wait than the bound of all, which costs other connections nothing', async () => {
    const { server, refusals, letGo } = await openHeldServer();
    const connections = [];
    for (let sent = 0; sent < waitingRequestsTotalMax; sent += waitingRequestsMax - 1) {
      const connection = await RawConnection.open(server.port);
      connection.send('GET /files/a HTTP/1.1\r\nHost:\r\n\r\n'.repeat(waitingRequestsMax));
      connections.push(connection);
      await server.request({ target: '/healthz' });
    }
    await expect.poll(() => refusals).toEqual(['too many requests were waiting']);
    const usual = await RawConnection.open(server.port);
    usual.send(many(2));
    letGo();
    expect((await usual.answer()).text).toBe('x');
    expect((await usual.answer()).text).toBe('x');
  });

  it('are answered one after the other as the client takes the answers', async () => {
    const sound = await openTestServer();
    const content = noise(3_000_000);
    await sound.put('/large', content);
    let opened = 0;
    const store = openedBy(sound.store, (file, options) => {
      opened += 1;
      return file.open(options);
    });
    const server = await openTestServer({ store });
    const connection = await RawConnection.open(server.port);
    connection.pause();
    const large = requestBytes({ target: '/files/large' });
    connection.send(Buffer.concat(Array.from({ length: 10 }, () => large)));
    await server.request({ target: '/files/large' });
    expect(opened).toBeLessThanOrEqual(3);
    connection.resume();
    expect((await connection.answer()).body.equals(content)).toBe(true);
  });

  it('behind an answer that closes the connection are not carried out', async () => {
    const server = await openTestServer();
    const put = `PUT /files/a?${versionQuery()} HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\n\r\nx`;
    for (const first of [
      'GET /healthz HTTP/1.1\r\n\r\n',
      'GET /healthz HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n',
      'GET /healthz HTTP/2.0\r\nHost: a\r\n\r\n',
      'PUT /files/b HTTP/1.0\r\nConnection: keep-alive\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n',
      'GET /healthz HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n',
    ]) {
      const connection = await RawConnection.open(server.port);
      connection.send(first + put.repeat(2));
      const sent = (await connection.closed()).toString();
      expect([first, sent.match(/^HTTP\/1\.1 \d+/gm)?.length]).toEqual([first, 1]);
      expect(sent).toMatch(/^connection: close\r$/im);
    }
    await server.expectEmpty();
  });
});
