import { describe, expect, it } from 'vitest';
import { LaneRequest } from '../../src/server/fast-lane/request-grammar.ts';
import type { HttpServerOptions } from '../../src/server/options.ts';
import type { OpenFile } from '../../src/store/file-store.ts';
import { noise } from '../support/contents.ts';
import { RawConnection, requestBytes, type RawAnswer } from '../support/raw-http.ts';
import { openedBy, openTestServer, type TestServer } from '../support/test-server.ts';

const content = noise(6_000_000);
const get = requestBytes({ target: '/files/a' });
const getLarge = requestBytes({ target: '/files/large' });

interface HeldServer {
  readonly server: TestServer;
  /** The end of each request and connection, in order. */
  readonly log: string[];
  /** Requests that the fast lane served. */
  readonly laneRequests: () => number;
  /** Resolves when so many files have been asked for. */
  readonly asked: (count: number) => Promise<void>;
  readonly letGo: () => void;
}

/** A server whose reads wait until they are let go; `/large` is then in memory, as a whole. */
async function openHeldServer(options: Partial<HttpServerOptions>): Promise<HeldServer> {
  const sound = await openTestServer();
  await sound.put('/a', 'content of a');
  await sound.put('/large', content);
  let count = 0;
  let letGo = (): void => undefined;
  const held = new Promise<void>((resolve) => {
    letGo = resolve;
  });
  const store = openedBy(sound.store, async (file, wanted): Promise<OpenFile | undefined> => {
    count += 1;
    await held;
    const opened = await file.open(wanted);
    if (opened === undefined || file.entry.name !== '/large') return opened;
    if (!Buffer.isBuffer(opened.body)) opened.body.destroy();
    return { ...opened, body: content };
  });
  const log: string[] = [];
  let laneRequests = 0;
  const server = await openTestServer({
    ...options,
    store,
    observer: {
      answered: ({ request, status }) => {
        if (request instanceof LaneRequest) laneRequests += 1;
        log.push(`${request.method} ${request.url} ${status}`);
      },
      refusedConnection: (_address, status, reason) => void log.push(`${status} ${reason}`),
    },
  });
  const asked = (wanted: number): Promise<void> => expect.poll(() => count).toBe(wanted);
  return { server, log, laneRequests: () => laneRequests, asked, letGo };
}

function connectionOf({ headers }: RawAnswer): string | undefined {
  return headers.get('connection');
}

describe.each([
  ['with the fast lane', true],
  ['without the fast lane', false],
])('a server %s', (_which, fastLane) => {
  const served = fastLane ? 1 : 0;

  it('that stops sends the responses in progress whole, and says that they are the last', async () => {
    const { server, asked, letGo, laneRequests } = await openHeldServer({ fastLane });
    const connections = [];
    for (let index = 0; index < 8; index += 1) {
      const connection = await RawConnection.open(server.port);
      connection.pause();
      connection.send(index % 2 === 0 ? getLarge : get);
      connections.push(connection);
    }
    await asked(8);
    const stopped = server.server.close();
    letGo();
    for (const [index, connection] of connections.entries()) {
      connection.resume();
      const answer = await connection.answer();
      expect(answer.body.equals(index % 2 === 0 ? content : Buffer.from('content of a'))).toBe(true);
      expect(connectionOf(answer)).toBe('close');
      expect(await connection.closed()).toEqual(Buffer.alloc(0));
    }
    await stopped;
    expect(laneRequests()).toBe(8 * served);
  });

  it('that stops while the system still has to take a response sends all of it', async () => {
    const { server, letGo, log } = await openHeldServer({ fastLane });
    letGo();
    const connection = await RawConnection.open(server.port);
    connection.pause();
    connection.send(getLarge);
    await expect.poll(() => log).toEqual(['GET /files/large 200']);
    const stopped = server.server.close();
    connection.resume();
    expect((await connection.answer()).body.equals(content)).toBe(true);
    expect(await connection.closed()).toEqual(Buffer.alloc(0));
    await stopped;
  });

  it('that stops closes idle connections, and a new one after its first request', async () => {
    const { server, letGo } = await openHeldServer({ fastLane });
    letGo();
    const idle = await RawConnection.open(server.port);
    idle.send(get);
    expect(connectionOf(await idle.answer())).toBe('keep-alive');
    const fresh = await RawConnection.open(server.port);
    await server.request({ target: '/healthz' });
    const stopped = server.server.close({ firstRequestMs: 60_000 });
    expect(await idle.closed()).toEqual(Buffer.alloc(0));
    fresh.send(get);
    const answer = await fresh.answer();
    expect([answer.text, connectionOf(answer)]).toEqual(['content of a', 'close']);
    await fresh.closed();
    await stopped;
  });

  it('answers a client that shuts down its side before the response', async () => {
    const { server, asked, letGo, laneRequests } = await openHeldServer({ fastLane });
    const one = await RawConnection.open(server.port);
    one.socket.end(get);
    const large = await RawConnection.open(server.port);
    large.pause();
    large.socket.end(getLarge);
    const lineEnds = await RawConnection.open(server.port);
    lineEnds.send(get);
    await asked(3);
    lineEnds.socket.end('\r\n');
    await server.request({ target: '/healthz' });
    letGo();
    large.resume();
    for (const [connection, body] of [
      [one, Buffer.from('content of a')],
      [large, content],
      [lineEnds, Buffer.from('content of a')],
    ] as const) {
      expect((await connection.answer()).body.equals(body)).toBe(true);
      expect(await connection.closed()).toEqual(Buffer.alloc(0));
    }
    expect(laneRequests()).toBe(3 * served);
  });

  it('answers in order what came while the first response was in progress', async () => {
    const { server, asked, letGo, laneRequests } = await openHeldServer({ fastLane });
    const connection = await RawConnection.open(server.port);
    connection.pause();
    connection.send(getLarge);
    await asked(1);
    connection.send(requestBytes({ target: '/version' }));
    await server.request({ target: '/healthz' });
    connection.send(get.subarray(0, 10));
    await server.request({ target: '/healthz' });
    connection.socket.end(Buffer.concat([get.subarray(10), requestBytes({ target: '/files/b' })]));
    await server.request({ target: '/healthz' });
    letGo();
    connection.resume();
    expect((await connection.answer()).body.equals(content)).toBe(true);
    expect((await connection.answer()).text).toContain('protocol_versions');
    expect((await connection.answer()).text).toBe('content of a');
    expect((await connection.answer()).status).toBe(404);
    expect(await connection.closed()).toEqual(Buffer.alloc(0));
    expect(laneRequests()).toBe(served);
  });

  it('ignores line ends between requests', async () => {
    const { server, laneRequests, asked, letGo } = await openHeldServer({ fastLane });
    const connection = await RawConnection.open(server.port);
    connection.send(get);
    await asked(1);
    connection.send('\r\n\r\n');
    await server.request({ target: '/healthz' });
    letGo();
    expect((await connection.answer()).status).toBe(200);
    connection.send(get);
    expect((await connection.answer()).status).toBe(200);
    expect(laneRequests()).toBe(2 * served);
  });

  it('carries out nothing behind a response that is the last', async () => {
    const { server, asked, letGo, log } = await openHeldServer({ fastLane });
    const connection = await RawConnection.open(server.port);
    connection.send(get);
    await asked(1);
    connection.send(requestBytes({ method: 'DELETE', target: '/files/a' }));
    await server.request({ target: '/healthz' });
    const stopped = server.server.close();
    letGo();
    expect(connectionOf(await connection.answer())).toBe('close');
    expect(await connection.closed()).toEqual(Buffer.alloc(0));
    await stopped;
    expect(log).toEqual(['GET /healthz 200', 'GET /files/a 200']);
  });

  it('goes on if clients disconnect in the middle', async () => {
    const { server, asked, letGo, log } = await openHeldServer({ fastLane });
    for (let index = 0; index < 4; index += 1) {
      const connection = await RawConnection.open(server.port);
      connection.send(index < 2 ? get : getLarge);
      await asked(index + 1);
      if (index % 2 === 0) connection.socket.resetAndDestroy();
      else connection.socket.destroy();
    }
    const reading = await RawConnection.open(server.port);
    reading.pause();
    reading.send(getLarge);
    await asked(5);
    letGo();
    await expect.poll(() => log.length).toBe(5);
    reading.socket.resetAndDestroy();
    await expect.poll(() => server.server.connectionCount).toBe(0);
    expect((await server.request({ target: '/files/a' })).text).toBe('content of a');
  });

  it('closes a connection that is idle after its request', async () => {
    // The slow-client guard leaves it the sum of both times, longer than node:http does.
    const timeouts = { headersMs: 60_000, stallMs: 60_000, idleMs: 100 };
    const { server, letGo, log } = await openHeldServer({ fastLane, timeouts });
    letGo();
    const idle = await RawConnection.open(server.port);
    idle.send(get);
    expect((await idle.answer()).headers.get('keep-alive')).toBe('timeout=0');
    expect(await idle.closed()).toEqual(Buffer.alloc(0));
    expect(log).toEqual(['GET /files/a 200']);
  });

  it('refuses a connection that sends nothing', async () => {
    const timeouts = { headersMs: 300, stallMs: 60_000, idleMs: 60_000 };
    const { server, log } = await openHeldServer({ fastLane, timeouts });
    const silent = await RawConnection.open(server.port);
    expect((await silent.closed()).toString()).toMatch(/^HTTP\/1.1 408 /);
    expect(log).toEqual(['408 the headers did not arrive in time']);
  });

  it('waits longer for the store than for a client', async () => {
    const timeouts = { headersMs: 100, stallMs: 200, idleMs: 100 };
    const { server, asked, letGo } = await openHeldServer({ fastLane, timeouts });
    const connection = await RawConnection.open(server.port);
    connection.send(get);
    await asked(1);
    const other = await RawConnection.open(server.port);
    await other.closed();
    letGo();
    expect((await connection.answer()).text).toBe('content of a');
    await connection.closed();
  });

  it('destroys the connection of a client that does not take its response', async () => {
    const timeouts = { headersMs: 60_000, stallMs: 300, idleMs: 60_000 };
    const { server, letGo, log } = await openHeldServer({ fastLane, timeouts });
    letGo();
    const connection = await RawConnection.open(server.port);
    connection.pause();
    connection.send(getLarge);
    await expect.poll(() => log).toEqual(['GET /files/large 200', '0 the answer was not read']);
    await expect.poll(() => server.server.connectionCount).toBe(0);
  });

  it('refuses connections beyond the maximum', async () => {
    const { server, letGo, log } = await openHeldServer({ fastLane, connectionsMax: 1 });
    letGo();
    const first = await RawConnection.open(server.port);
    first.send(get);
    await first.answer();
    const second = await RawConnection.open(server.port);
    second.send(get);
    expect((await second.answer()).status).toBe(503);
    expect(await second.closed()).toEqual(Buffer.alloc(0));
    first.send(get);
    expect((await first.answer()).text).toBe('content of a');
    expect(log).toEqual(['GET /files/a 200', '503 too many connections', 'GET /files/a 200']);
  });
});
