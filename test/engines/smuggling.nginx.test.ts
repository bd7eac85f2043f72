import { expect, it } from 'vitest';
import type { Exchange } from '../../src/server/exchange.ts';
import { startNginx } from '../support/nginx.ts';
import { RawConnection, requestOnce } from '../support/raw-http.ts';
import { openTestServer, versionQuery } from '../support/test-server.ts';

const query = versionQuery();
const hidden = `DELETE /files/kept?${query} HTTP/1.1\r\nHost: x\r\n\r\n`;
const hiddenChunk = `${hidden.length.toString(16)}\r\n${hidden}\r\n`;
const chunked = 'Transfer-Encoding: chunked\r\n';

/** Heads and bodies whose end two readers may see at different places; a request that nobody should find is within. */
const shapes: readonly (readonly [shape: string, bytes: string])[] = [
  ['both framings', `Content-Length: 5\r\n${chunked}\r\n0\r\n\r\n${hidden}`],
  [
    'both framings, the other way round',
    `${chunked}Content-Length: ${hidden.length + 5}\r\n\r\n0\r\n\r\n${hidden}`,
  ],
  ['two lengths', `Content-Length: 0\r\nContent-Length: ${hidden.length}\r\n\r\n${hidden}`],
  ['a list of lengths', `Content-Length: 0, ${hidden.length}\r\n\r\n${hidden}`],
  ['a signed length', `Content-Length: +${hidden.length}\r\n\r\n${hidden}`],
  ['a hexadecimal length', `Content-Length: 0x${hidden.length.toString(16)}\r\n\r\n${hidden}`],
  [
    'a length with a blank within',
    `Content-Length: ${String(hidden.length).split('').join(' ')}\r\n\r\n${hidden}`,
  ],
  ['a disguised coding', `Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n${hidden}`],
  ['a coding in quotes', `Transfer-Encoding: "chunked"\r\n\r\n0\r\n\r\n${hidden}`],
  ['chunked that is not last', `Transfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n${hidden}`],
  ['chunked twice', `${chunked}${chunked}\r\n0\r\n\r\n${hidden}`],
  [
    'a blank before the colon',
    `Transfer-Encoding : chunked\r\nContent-Length: ${hidden.length}\r\n\r\n${hidden}`,
  ],
  ['a tab before the coding', `Transfer-Encoding:\tchunked\r\n\r\n${hiddenChunk}0\r\n\r\n`],
  ['a folded header', `Transfer-Encoding:\r\n chunked\r\n\r\n0\r\n\r\n${hidden}`],
  ['bare line feeds', `X: a\n${chunked.replace('\r', '')}\n0\n\n${hidden}`],
  ['a bare carriage return', `X: a\rContent-Length: ${hidden.length}\r\n\r\n${hidden}`],
  ['a NUL', `X: a\0\r\nContent-Length: ${hidden.length}\r\n\r\n${hidden}`],
  ['a chunk size with a prefix', `${chunked}\r\n0x1\r\na\r\n0\r\n\r\n${hidden}`],
  ['a chunk size that wraps around', `${chunked}\r\n10000000000000000\r\n${hidden}`],
  ['a chunk extension with a line feed', `${chunked}\r\n2;\nxx\r\n0\r\n\r\n${hidden}`],
  ['a chunk that is too short', `${chunked}\r\n1\r\nab\r\n0\r\n\r\n${hidden}`],
  ['trailers', `${chunked}\r\n0\r\nContent-Length: ${hidden.length}\r\nHost: y\r\n\r\n`],
  ['an upgrade', `Connection: Upgrade\r\nUpgrade: h2c\r\nContent-Length: ${hidden.length}\r\n\r\n${hidden}`],
  [
    'a header named in Connection',
    `Connection: Content-Length\r\nContent-Length: ${hidden.length}\r\n\r\n${hidden}`,
  ],
  ['an expectation', `Expect: 100-continue\r\nContent-Length: ${hidden.length}\r\n\r\n${hidden}`],
];

/** The first lines that go before each of them. */
const starts: readonly string[] = [
  `PUT /files/front?${query} HTTP/1.1\r\nHost: x\r\n`,
  'GET /files/front HTTP/1.1\r\nHost: x\r\n',
  `PUT /files/front?${query} HTTP/1.0\r\nConnection: keep-alive\r\nHost: x\r\n`,
];

function isHidden(request: string): boolean {
  return request.startsWith('DELETE ');
}

it(
  'nginx and the server behind it see the same requests in ambiguous bytes',
  { timeout: 240_000 },
  async () => {
    const answered: (readonly [request: string, status: number])[] = [];
    const observer = {
      answered: ({ request, status }: Exchange) =>
        void answered.push([`${request.method} ${request.url}`, status]),
      refusedConnection: () => undefined,
    };
    const timeouts = { headersMs: 1000, stallMs: 1000, idleMs: 1000 };
    const server = await openTestServer({ observer, timeouts });
    const nginx = await startNginx(server.port);

    /** What the server has answered to these bytes. */
    async function sent(port: number, bytes: string): Promise<readonly (readonly [string, number])[]> {
      await server.put('/kept', 'kept');
      answered.length = 0;
      const connection = await RawConnection.open(port);
      connection.send(Buffer.from(bytes, 'latin1'));
      await connection.closed();
      // Whatever was under way is over when a request that came later is.
      await requestOnce(server.port, { target: '/healthz' });
      return answered.filter(([request]) => request !== 'GET /healthz');
    }

    for (const start of starts) {
      for (const [shape, rest] of shapes) {
        const place = `${start.split(' ').slice(0, 3).join(' ')} with ${shape}`;
        const before = (await nginx.passedOn().catch(() => [])).length;
        const behind = (await sent(nginx.port, start + rest)).map(([request]) => request);
        await expect
          .poll(async () => [place, (await nginx.passedOn()).slice(before)])
          .toEqual([place, behind]);
        // Directly, the server finds what nginx found, or refuses. Where nginx refuses, it finds no second request.
        const direct = (await sent(server.port, start + rest)).filter(
          ([, status]) => status < 400 || status === 404,
        );
        const found = direct.map(([request]) => request);
        if (behind.length === 0)
          expect([place, found.length < 2, found.some(isHidden)]).toEqual([place, true, false]);
        else expect([place, behind.slice(0, found.length)]).toEqual([place, found]);
      }
    }
  },
);

it('a rule of nginx for /metrics keeps every client from the metrics', async () => {
  const server = await openTestServer({
    metrics: { contentType: 'text/plain', text: async () => 'secret 1\n' },
  });
  const nginx = await startNginx(server.port);
  const targets = [
    '/metrics',
    '/metrics/',
    '//metrics',
    '/%6detrics',
    '/./metrics',
    '/a/../metrics',
    '/metrics?a',
    '/metrics%2f',
  ];
  targets.push(
    '/METRICS',
    '/metrics/.',
    '/metrics;a',
    '/metrics%00',
    '/metrics%3fa',
    'http://x/metrics',
    '/\\metrics',
    '/metrics/..;/metrics',
  );
  for (const target of targets) {
    const { status, text } = await requestOnce(nginx.port, { target });
    expect([target, status >= 400, text.includes('secret')]).toEqual([target, true, false]);
  }
  expect((await server.request({ target: '/metrics' })).text).toBe('secret 1\n');
});
