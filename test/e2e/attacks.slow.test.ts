import { Readable } from 'node:stream';
import { createGzip } from 'node:zlib';
import { readdirSync, readFileSync } from 'node:fs';
import { readdir } from 'node:fs/promises';
import { connect, type Socket } from 'node:net';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { describe, expect, it, onTestFinished } from 'vitest';
import { startServerProgram, type Program } from '../support/program.ts';
import { RawConnection, requestOnce } from '../support/raw-http.ts';
import { temporaryFolder } from '../support/temporary-folder.ts';
import { versionQuery } from '../support/test-server.ts';

const mib = 1024 ** 2;

/**
 * The bound on the private memory of all processes of a server of one worker, under each attack here: about
 * 60 MiB at rest, 64 MiB of bodies being collected, buffers of connections, and what a collector leaves lying.
 */
const memoryMaxBytes = 400 * mib;

interface Target {
  readonly port: number;
  readonly program: Program;
  readonly folder: string;
  /** Fails unless the server answers, its memory is in bounds, and it stores nothing. */
  expectUnharmed(): Promise<void>;
}

function memoryOf(pid: number): number {
  const children = readFileSync(`/proc/${pid}/task/${pid}/children`, 'utf8')
    .trim()
    .split(' ')
    .filter(Boolean);
  const sizes = [pid, ...children].map((process) => {
    const found = /^RssAnon:\s+(\d+) kB$/m.exec(readFileSync(`/proc/${process}/status`, 'utf8'));
    return Number(found?.[1] ?? 0) * 1024;
  });
  return sizes.reduce((sum, size) => sum + size, 0);
}

async function openTarget(...flags: readonly string[]): Promise<Target> {
  const folder = await temporaryFolder();
  const { port, program } = await startServerProgram(folder, [
    '--workers',
    '1',
    '--log-level',
    'error',
    ...flags,
  ]);
  let mostBytes = 0;
  const watching = setInterval(() => {
    mostBytes = Math.max(mostBytes, memoryOf(program.pid));
  }, 50);
  onTestFinished(() => clearInterval(watching));
  async function expectUnharmed(): Promise<void> {
    const status = await requestOnce(port, { target: '/status' });
    expect(JSON.parse(status.text)).toMatchObject({ entries: 0, blobs: 0 });
    await expect.poll(() => readdir(join(folder, 'uploads')), { timeout: 5000 }).toEqual([]);
    mostBytes = Math.max(mostBytes, memoryOf(program.pid));
    expect(mostBytes).toBeLessThan(memoryMaxBytes);
    expect(readdirSync(join(folder, '..')).filter((name) => name === 'escaped')).toEqual([]);
  }
  return { port, program, folder, expectUnharmed };
}

/** So many MiB of zeros. */
function* zeros(count: number): Generator<Buffer> {
  const piece = Buffer.alloc(mib);
  for (let made = 0; made < count; made += 1) yield piece;
}

/** Many raw connections that do as they are told; gives how many of them the server has closed. */
async function openMany(port: number, count: number, begin: (socket: Socket) => void): Promise<() => number> {
  let closed = 0;
  const sockets: Socket[] = [];
  onTestFinished(() => sockets.forEach((socket) => socket.destroy()));
  for (let index = 0; index < count; index += 1) {
    const socket = connect({ port, host: '127.0.0.1' });
    socket
      .on('error', () => undefined)
      .on('close', () => (closed += 1))
      .resume();
    socket.once('connect', () => begin(socket));
    sockets.push(socket);
    if (index % 200 === 199) await sleep(10);
  }
  return () => closed;
}

const smugglingShapes: readonly (readonly [shape: string, headers: string])[] = [
  ['both framings', 'Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n'],
  ['two lengths', 'Content-Length: 5\r\nContent-Length: 6\r\n\r\nhello!'],
  ['a list of lengths', 'Content-Length: 5, 6\r\n\r\nhello!'],
  ['a signed length', 'Content-Length: +5\r\n\r\nhello'],
  ['a negative length', 'Content-Length: -5\r\n\r\nhello'],
  ['chunked that is not last', 'Transfer-Encoding: chunked, gzip\r\n\r\n0\r\n\r\n'],
  ['chunked twice', 'Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n'],
  ['a disguised coding', 'Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n'],
  ['a blank before the colon', 'Transfer-Encoding : chunked\r\n\r\n0\r\n\r\n'],
  ['a folded header', 'Transfer-Encoding:\r\n chunked\r\n\r\n0\r\n\r\n'],
  ['a bare line feed', 'X-A: b\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n'],
  ['a chunk size that is no number', 'Transfer-Encoding: chunked\r\n\r\n0x5\r\nhello\r\n0\r\n\r\n'],
  ['a chunk that is too long', 'Transfer-Encoding: chunked\r\n\r\n3\r\nhello\r\n0\r\n\r\n'],
  ['a NUL in a header', 'X-A: a\0b\r\nContent-Length: 1\r\n\r\nx'],
];

const pathTricks: readonly string[] = [
  '/files/../../escaped',
  '/files/%2e%2e/%2e%2e/escaped',
  '/files/..%2f..%2fescaped',
  '/files/a/%2E%2E/%2E%2E/%2E%2E/escaped',
  '/files/%00/escaped',
  '/files/a%00b',
  '/files/..\\..\\escaped',
  '/files/a//b',
  '/files/%c0%ae%c0%ae/escaped',
  '//files//..//escaped',
  'http://elsewhere/files/../escaped',
  '/%66iles/escaped',
];

describe('a server under attack', () => {
  it('closes requests whose headers come too slowly, in a worker too', async () => {
    const target = await openTarget('--headers-timeout', '1s');
    const drips: NodeJS.Timeout[] = [];
    onTestFinished(() => drips.forEach((drip) => clearInterval(drip)));
    const closed = await openMany(target.port, 200, (socket) => {
      socket.write('GET /files/a HTTP/1.1\r\nHost: x\r\n');
      drips.push(setInterval(() => socket.writable && socket.write('X-Slow: 1\r\n'), 200));
    });
    await expect.poll(closed, { timeout: 8000 }).toBe(200);
    await target.expectUnharmed();
  });

  it('gives up bodies that stall, and answers others meanwhile', async () => {
    const target = await openTarget('--stall-timeout', '1s');
    const closed = await openMany(target.port, 200, (socket) => {
      const head = `PUT /files/slow/${Math.random()}?${versionQuery()} HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000\r\n\r\n`;
      socket.write(head + 'x'.repeat(5000));
    });
    const startMs = performance.now();
    expect((await requestOnce(target.port, { target: '/files/absent' })).status).toBe(404);
    expect(performance.now() - startMs).toBeLessThan(2000);
    await expect.poll(closed, { timeout: 15_000 }).toBe(200);
    await target.expectUnharmed();
  });

  it('holds a bounded number of half-open requests, and refuses more with an answer', async () => {
    const target = await openTarget('--connections-max', '500', '--headers-timeout', '2s');
    const closed = await openMany(target.port, 3000, (socket) =>
      socket.write('GET /files/a HTTP/1.1\r\nHost:'),
    );
    await expect.poll(closed).toBeGreaterThanOrEqual(2500);
    await expect.poll(closed).toBe(3000);
    await target.expectUnharmed();
    const metrics = (await requestOnce(target.port, { target: '/metrics' })).text;
    expect(metrics).toMatch(/refused_connections_total\{reason="too many connections"\} \d+/);
  });

  it('stops unpacking a gzip bomb of 10 GiB at the ratio', { timeout: 300_000 }, async () => {
    const target = await openTarget();
    const connection = await RawConnection.open(target.port);
    const head = `PUT /files/bomb?${versionQuery()} HTTP/1.1\r\nHost: x\r\nContent-Encoding: gzip\r\nTransfer-Encoding: chunked\r\n\r\n`;
    connection.send(head);
    const bomb = Readable.from(zeros(10 * 1024)).pipe(createGzip({ level: 9 }));
    const answered = connection.answer('PUT');
    const sending = (async () => {
      for await (const piece of bomb) {
        if (connection.socket.destroyed) return;
        const bytes = piece as Buffer;
        const head = Buffer.from(`${bytes.length.toString(16)}\r\n`);
        connection.send(Buffer.concat([head, bytes, Buffer.from('\r\n')]));
      }
    })();
    const answer = await answered;
    connection.socket.destroy();
    await sending.catch(() => undefined);
    bomb.destroy();
    expect(answer.status).toBe(413);
    expect(answer.text).toMatch(/more than 256 times its own size \(--unpack-ratio-max\)/);
    await target.expectUnharmed();
  });

  it('takes no request that is smuggled in', async () => {
    const target = await openTarget();
    const smuggled = `PUT /files/smuggled?${versionQuery()} HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\n\r\nx`;
    await Promise.all(
      smugglingShapes.map(async ([, rest]) => {
        const connection = await RawConnection.open(target.port);
        connection.send(`PUT /files/front?${versionQuery()} HTTP/1.1\r\nHost: x\r\n${rest}${smuggled}`);
        await Promise.race([connection.closed(), sleep(1500)]);
      }),
    );
    for (const name of ['smuggled', 'front']) {
      expect((await requestOnce(target.port, { target: `/files/${name}` })).status).toBe(404);
    }
    await target.expectUnharmed();
  });

  it('refuses floods of headers', async () => {
    const target = await openTarget();
    const shapes = [
      `X: ${'a'.repeat(10 * mib)}\r\n`,
      Array.from({ length: 100_000 }, (_, index) => `X-${index}: a\r\n`).join(''),
      `Accept-Encoding: ${'gzip;q=0.5,'.repeat(1000)}\r\n`,
    ];
    const statuses = await Promise.all(
      shapes.map(async (shape) => {
        const connection = await RawConnection.open(target.port);
        connection.send(`GET /files/a HTTP/1.1\r\nHost: x\r\n${shape}\r\n`);
        // A flood that is not read to its end may reset the connection before the answer is read.
        return connection.answer().then(
          ({ status }) => status,
          () => 431,
        );
      }),
    );
    expect(statuses.slice(0, 2)).toEqual([431, 431]);
    expect([404, 431]).toContain(statuses[2]);
    await target.expectUnharmed();
  });

  it('bounds what pipelined requests take', async () => {
    const target = await openTarget();
    const request = 'GET /files/absent HTTP/1.1\r\nHost: x\r\n\r\n';
    await openMany(target.port, 150, (socket) => {
      // Never reads an answer.
      socket.pause();
      socket.write(request.repeat(5_000));
    });
    const reason = 'refused_connections_total{reason="too many requests were waiting"}';
    await expect
      .poll(async () => (await requestOnce(target.port, { target: '/metrics' })).text)
      .toContain(reason);
    expect((await requestOnce(target.port, { target: '/healthz' })).status).toBe(200);
    await target.expectUnharmed();
  });

  it('keeps every path inside of its store, or refuses it', async () => {
    const target = await openTarget();
    for (const path of pathTricks) {
      const withQuery = `${path}?${versionQuery()}`;
      const { status } = await requestOnce(target.port, { method: 'PUT', target: withQuery, body: 'x' });
      // A backslash is a letter like any other: the file lies in the store, under that very name.
      if (path.includes('\\')) {
        expect(status).toBe(200);
        expect((await requestOnce(target.port, { method: 'DELETE', target: withQuery })).status).toBe(200);
      } else expect([path, [400, 404].includes(status)]).toEqual([path, true]);
    }
    const { text } = await requestOnce(target.port, { target: '/list/' });
    expect(text).toBe('');
    expect(readdirSync(join(target.folder, '..'))).not.toContain('escaped');
  });
});
