import { setImmediate as turn } from 'node:timers/promises';
import { describe, expect, it, onTestFinished } from 'vitest';
import type { Exchange } from '../../src/server/exchange.ts';
import { LaneRequest } from '../../src/server/fast-lane/request-grammar.ts';
import { HttpServer } from '../../src/server/http-server.ts';
import type { HttpServerOptions } from '../../src/server/options.ts';
import { noise, prose } from '../support/contents.ts';
import { memoryFileStore } from '../support/file-stores.ts';
import { fc } from '../support/properties.ts';
import { RawConnection, requestOnce } from '../support/raw-http.ts';
import { overridden, versionQuery } from '../support/test-server.ts';
import { makeTokens } from '../support/tokens.ts';

/** One of two servers that differ only in the fast lane. */
class Side {
  readonly server: HttpServer;
  /** What the observer was told, in order. */
  readonly log: string[] = [];
  readonly #exchanges: Exchange[];

  private constructor(server: HttpServer, log: string[], exchanges: Exchange[]) {
    this.server = server;
    this.log = log;
    this.#exchanges = exchanges;
  }

  static async open(fastLane: boolean, options: Partial<HttpServerOptions>): Promise<Side> {
    const log: string[] = [];
    const exchanges: Exchange[] = [];
    const parts = await memoryFileStore();
    const server = await HttpServer.open({
      store: parts.store,
      listen: { host: '127.0.0.1', port: 0 },
      release: 'test',
      ...options,
      fastLane,
      observer: {
        answered: (exchange) => {
          const { request, status, sentBytes, endpoint, error } = exchange;
          exchanges.push(exchange);
          log.push([request.method, request.url, status, sentBytes, endpoint, String(error)].join(' '));
        },
        refusedConnection: (_address, status, reason) => void log.push(`${status} ${reason}`),
      },
    });
    onTestFinished(async () => {
      await server.close({ timeoutMs: 0 });
      await parts.close();
    });
    return new Side(server, log, exchanges);
  }

  get port(): number {
    return this.server.address.port;
  }

  /** Requests that the lane served. */
  get laneRequests(): number {
    return this.#exchanges.filter(({ request }) => request instanceof LaneRequest).length;
  }

  /** The server has read what was sent before, and served what it can. */
  async settle(): Promise<void> {
    await requestOnce(this.port, { target: '/healthz', headers: { Connection: 'close' } });
    await turn();
    this.log.splice(this.log.lastIndexOf('GET /healthz 200 3 healthz undefined'), 1);
  }

  /** Sends the pieces, each when the server has read the one before, ends, and returns all that the server sends. */
  async exchange(pieces: readonly string[]): Promise<string> {
    const connection = await RawConnection.open(this.port);
    for (const [index, piece] of pieces.entries()) {
      if (index > 0) await this.settle();
      connection.send(Buffer.from(piece, 'latin1'));
    }
    connection.socket.end();
    return masked(await connection.closed());
  }
}

function masked(bytes: Buffer): string {
  return bytes.toString('latin1').replaceAll(/^Date: .*$/gm, 'Date: now');
}

interface Pair {
  readonly lane: Side;
  readonly node: Side;
  /** The same pieces of bytes to both; fails unless both answer with the same bytes and report the same. */
  readonly same: (pieces: readonly string[]) => Promise<string>;
}

async function openPair(options: Partial<HttpServerOptions> = {}): Promise<Pair> {
  const [lane, node] = [await Side.open(true, options), await Side.open(false, options)];
  const same = async (pieces: readonly string[]): Promise<string> => {
    lane.log.length = 0;
    node.log.length = 0;
    const [fromLane, fromNode] = [await lane.exchange(pieces), await node.exchange(pieces)];
    expect([pieces, fromLane]).toEqual([pieces, fromNode]);
    await lane.settle();
    await node.settle();
    expect([pieces, lane.log]).toEqual([pieces, node.log]);
    return fromLane;
  };
  return { lane, node, same };
}

function head(first: string, ...lines: string[]): string {
  return [`${first} HTTP/1.1`, 'Host: x', ...lines, '', ''].join('\r\n');
}

function put(name: string, body: string, ...lines: string[]): string {
  return head(`PUT /files${name}?${versionQuery()}`, `Content-Length: ${body.length}`, ...lines) + body;
}

const get = head('GET /files/a');
const text = prose(40_000).toString();
const contents: Readonly<Record<string, string>> = {
  '/a': 'content of a',
  '/empty': '',
  '/b/text': text,
  '/b/page': noise(4096).toString('latin1'),
  '/b/16k': noise(16_384).toString('latin1'),
  '/b/16k1': noise(16_385).toString('latin1'),
  '/b/large': noise(1_500_000).toString('latin1'),
};

async function openFilledPair(options: Partial<HttpServerOptions> = {}): Promise<Pair> {
  const pair = await openPair(options);
  for (const [name, body] of Object.entries(contents)) {
    expect(await pair.same([put(name, body)])).toMatch(/^HTTP\/1.1 200 OK\r/);
  }
  return pair;
}

const conditions = [
  [],
  ['Accept-Encoding: gzip'],
  ['Accept-Encoding: identity;q=0'],
  ['Accept-Encoding: gzip, identity;q=0'],
  ['Range: bytes=0-3'],
  ['Range: bytes=-1'],
  ['Range: bytes=99999999-'],
  ['Range: bytes=2-3', 'If-Range: "x"'],
  ['If-None-Match: *'],
  ['If-None-Match: "x"'],
  ['If-Match: "x"'],
  ['If-Modified-Since: Tue, 14 Nov 2023 22:13:20 GMT'],
  ['If-Unmodified-Since: Tue, 14 Nov 2000 22:13:20 GMT'],
  ['Accept: application/problem+json', 'Connection: keep-alive'],
  ['Authorization: Bearer x'],
] as const;

describe('a server with the fast lane answers as one without it', () => {
  it('GET and HEAD of every kind of file, under every condition', async () => {
    const { lane, node, same } = await openFilledPair();
    for (const name of [...Object.keys(contents), '/b', '/absent', '/b/', '/..', '/a//b', '/%41', '/%zz']) {
      for (const condition of conditions) {
        for (const method of ['GET', 'HEAD']) await same([head(`${method} /files${name}`, ...condition)]);
      }
    }
    expect(lane.laneRequests).toBe((Object.keys(contents).length + 7) * conditions.length * 2);
    expect(node.laneRequests).toBe(0);
  });

  it('requests one after the other on one connection', async () => {
    const { lane, same } = await openFilledPair();
    await same([get, head('HEAD /files/b/text'), head('GET /files/b/large'), get, head('GET /files/absent')]);
    expect(lane.laneRequests).toBe(5);
    await same([get, head('GET /list/'), get, put('/c', 'c'), get]);
    expect(lane.laneRequests).toBe(6);
  });

  it('a request cut at each place', async () => {
    const { lane, same } = await openFilledPair();
    const bytes = head('GET /files/a', 'Accept-Encoding: gzip');
    for (let at = 1; at < bytes.length; at += 1) await same([bytes.slice(0, at), bytes.slice(at)]);
    expect(lane.laneRequests).toBe(0);
    await same(bytes.split(''));
  });

  it('a pipeline cut at each place', { timeout: 300_000 }, async () => {
    const { lane, same } = await openFilledPair();
    const bytes = get + head('HEAD /files/b/text') + head('GET /version');
    for (let at = 0; at < bytes.length; at += 1) await same([bytes.slice(0, at), bytes.slice(at)]);
    // Cut after the first request, the lane serves it.
    expect(lane.laneRequests).toBe(1);
  });

  it('pipelines of all kinds', async () => {
    const { same } = await openFilledPair();
    const large = head('GET /files/b/large');
    for (const pieces of [
      [get + get],
      [get + get + get.slice(0, 9)],
      [get, get + get, get],
      [get, head('GET /files/a', 'Connection: close'), get],
      [get + head('GET /files/a', 'Connection: close') + get],
      [large + get, large],
      [`${get}\r\n`, get],
      [get, '\r\n', get],
      [get, '\r\n\n\n\r'],
      [`\r\n${get}`],
      [put('/d', 'd') + head('GET /files/d'), head('GET /files/d')],
    ]) {
      await same(pieces);
    }
  });

  it('refused clients and broken handlers', async () => {
    const { store } = await memoryFileStore();
    const broken = overridden(store, {
      lookUp: async (name) => {
        if (name === '/bug') throw new TypeError('a bug');
        throw Object.assign(new Error('no space'), { code: 'ENOSPC' });
      },
    });
    const failing = await openPair({ store: broken });
    for (const method of ['GET', 'HEAD']) {
      await failing.same([head(`${method} /files/bug`), head(`${method} /files/disk`), get]);
      await failing.same([head(`${method} /files/bug`, 'Accept: application/json')]);
    }
    expect(failing.lane.laneRequests).toBe(8);
    const guarded = await openPair({ access: makeTokens({ reader: ['/p', 'read'] }).access });
    await guarded.same([get, head('GET /files/p/a', 'Authorization: Basic Og=='), get]);
    expect(guarded.lane.laneRequests).toBe(3);
  });
});

const methods = ['GET', 'GET', 'GET', 'HEAD', 'HEAD', 'PUT', 'DELETE', 'POST', 'get'];
const targets = [
  ...Object.keys(contents).slice(0, 4),
  '/absent',
  '/a%20b',
  '/a/../b',
  '/a b',
  '/a?x=1',
  '/é',
];
const starts = ['/files', '/files', '/files', '/files', '/list', '/version', '//files', 'http://x/files', ''];
const versions = [...Array.from({ length: 8 }, () => 'HTTP/1.1'), 'HTTP/1.0', 'HTTP/2.0', 'HTTP/1.1 ', ''];
const headerLines = [
  ...conditions.flat(),
  'Host: y',
  'Content-Length: 0',
  'Content-Length: 5',
  'Content-Length: +1',
  'Transfer-Encoding: chunked',
  'Expect: 100-continue',
  'Connection: close',
  'Connection: keep-alive',
  'Connection: Upgrade',
  'Upgrade: h2c',
  'X-Unknown: 1',
  'Accept: a\r\n folded',
  'Accept : a',
  'Accept:\ta',
  'Accept: \u0001',
  ': a',
];
const hostile = fc
  .record({
    method: fc.constantFrom(...methods),
    start: fc.constantFrom(...starts),
    target: fc.constantFrom(...targets),
    version: fc.constantFrom(...versions),
    lines: fc.array(fc.constantFrom(...headerLines), { maxLength: 3 }),
    host: fc.constantFrom('Host: x', 'Host: x', 'Host: x', 'host:', 'Accept: */*'),
    end: fc.constantFrom('\r\n', '\r\n', '\r\n', '\r\n', '\r\n', '\n', '\r', ''),
  })
  .map(({ method, start, target, version, host, lines, end }) =>
    [`${method} ${start}${target} ${version}`, host, ...lines, end].join('\r\n'),
  );
/** Requests that the lane serves, so that it meets the others with a response in progress, or after one. */
const plain = fc.constantFrom(
  get,
  head('HEAD /files/b/text'),
  head('GET /files/b/page', 'Accept-Encoding: gzip'),
);

describe('random bytes', { timeout: 600_000 }, () => {
  it('get the same answers with and without the fast lane', async () => {
    const { lane, same } = await openFilledPair();
    await fc.assert(
      fc.asyncProperty(fc.array(fc.oneof(plain, hostile), { minLength: 1, maxLength: 4 }), async (pieces) => {
        await same(pieces);
      }),
      { numRuns: 400 },
    );
    expect(lane.laneRequests).toBeGreaterThan(100);
  });
});
