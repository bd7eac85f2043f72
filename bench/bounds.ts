import { spawnSync } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { once } from 'node:events';
import { readFileSync } from 'node:fs';
import { request } from 'node:http';
import { connect, type Socket } from 'node:net';
import { setTimeout as delay } from 'node:timers/promises';
import { getRequest, load, putRequest } from './load.ts';
import { startServer, temporaryFolder, type RunningServer } from './processes.ts';
import { atMostRow, rounded, type Row } from './table.ts';

const mib = 1024 * 1024;
const largeSizeBytes = 2048 * mib;
const version = encodeURIComponent('Sun, 22 Nov 2026 15:05:01 GMT');

/** What the server promises of its memory and of its start, with figures. */
export async function run(): Promise<readonly Row[]> {
  const rows: Row[] = [];
  await using folder = await temporaryFolder();
  {
    await using server = await startServer(`${folder.path}/large`, ['--workers', '1']);
    rows.push(...(await largeFile(server)));
  }
  {
    await using server = await startServer(`${folder.path}/slow`, ['--workers', '1']);
    rows.push(...(await slowUploads(server)));
  }
  rows.push(...(await restarts(`${folder.path}/restart`)));
  return rows;
}

function workersOf(server: RunningServer): number[] {
  const { stdout } = spawnSync('pgrep', ['-P', String(server.process.pid)]);
  return stdout.toString().split('\n').filter(Boolean).map(Number);
}

/** The most memory that the worker has held so far (VmHWM), in MiB. */
function peakMemory(server: RunningServer): number {
  const peaks = workersOf(server).map((pid) => {
    const found = /VmHWM:\s*(\d+) kB/.exec(readFileSync(`/proc/${pid}/status`, 'utf8'));
    return Number(found?.[1] ?? 0) / 1024;
  });
  return Math.max(...peaks);
}

/** Sends and fetches 2 GiB in pieces of 1 MiB that differ. */
async function largeFile(server: RunningServer): Promise<Row[]> {
  const piece = randomBytes(mib);
  const path = `/files/large?last_modified=${version}`;
  const upStarted = performance.now();
  const put = request({
    port: server.port,
    host: '127.0.0.1',
    method: 'PUT',
    path,
    headers: { 'Content-Length': largeSizeBytes },
  });
  for (let index = 0; index < largeSizeBytes / mib; index++) {
    piece.writeUInt32LE(index, (index * 7919) % (mib - 4));
    if (!put.write(Buffer.from(piece))) await once(put, 'drain');
  }
  put.end();
  const [answer] = (await once(put, 'response')) as [NodeJS.ReadableStream & { statusCode: number }];
  answer.resume();
  if (answer.statusCode !== 200) throw new Error(`the upload was answered with ${answer.statusCode}`);
  const upSeconds = (performance.now() - upStarted) / 1000;
  const down = await load(server.port, 1, 1, () => getRequest('/files/large'));
  if (down.bytes !== largeSizeBytes) throw new Error(`${down.bytes} bytes came back`);
  const rate = (seconds: number): string => `${rounded(largeSizeBytes / mib / seconds)} MiB/s`;
  const more = `up ${rate(upSeconds)}, down ${rate(down.milliseconds / 1000)}`;
  return [atMostRow('Memory of a worker after 2 GiB up and down, MiB', peakMemory(server), 200, more)];
}

/** 200 uploads that send a little now and then, and reads of a small file beside them. */
async function slowUploads(server: RunningServer): Promise<Row[]> {
  await load(server.port, 1, 1, () => putRequest('/files/small', randomBytes(4096)));
  const sockets: Socket[] = [];
  for (let index = 0; index < 200; index++) {
    const socket = connect(server.port, '127.0.0.1');
    socket.on('error', () => undefined);
    await once(socket, 'connect');
    socket.write(
      `PUT /files/slow/${index}?last_modified=${version} HTTP/1.1\r\nHost: localhost\r\nContent-Length: ${8 * mib}\r\n\r\n`,
    );
    sockets.push(socket);
  }
  const over = new AbortController();
  const trickle = (async (): Promise<void> => {
    while (!over.signal.aborted) {
      for (const socket of sockets) socket.write(randomBytes(4096));
      await delay(50);
    }
  })();
  const times: number[] = [];
  const end = performance.now() + 5000;
  while (performance.now() < end) {
    const { milliseconds } = await load(server.port, 1, 1, () => getRequest('/files/small'));
    times.push(milliseconds);
    await delay(5);
  }
  over.abort();
  await trickle;
  for (const socket of sockets) socket.destroy();
  const sorted = times.toSorted((one, other) => one - other);
  const at = (share: number): number => sorted[Math.floor(sorted.length * share)] ?? Number.NaN;
  return [
    atMostRow(
      'GET of 4 KiB beside 200 slow uploads, 99th percentile, ms',
      at(0.99),
      50,
      `median ${at(0.5).toFixed(2)} ms`,
    ),
  ];
}

/** All processes are killed while files go in; the time until the next start answers. */
async function restarts(folder: string): Promise<Row[]> {
  const names = 100_000;
  const server = await startServer(folder, ['--workers', '2']);
  await load(server.port, 64, names, (index) =>
    putRequest(`/files/r/${index % 311}/${index}`, Buffer.from(`content ${index}`)),
  );
  const pending = load(server.port, 16, 5000, (index) =>
    putRequest(`/files/late/${index}`, randomBytes(4096)),
  ).catch(() => undefined);
  await delay(150);
  for (const pid of [Number(server.process.pid), ...workersOf(server)]) process.kill(pid, 'SIGKILL');
  await pending;
  const started = performance.now();
  await using again = await startServer(folder, ['--workers', '2']);
  const seconds = (performance.now() - started) / 1000;
  const list = await load(again.port, 1, 1, () => getRequest('/list/r'));
  const more = `${rounded(list.bytes)} bytes of names listed`;
  return [atMostRow('Start after kill -9 with 100,000 names, seconds', seconds, 2, more)];
}
