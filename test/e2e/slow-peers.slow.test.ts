import { randomBytes } from 'node:crypto';
import type { Socket } from 'node:net';
import { describe, expect, it, onTestFinished } from 'vitest';
import { parseFileName } from '../../src/core/file-name.ts';
import type { RequestObserver } from '../../src/server/observer.ts';
import { startServerProgram } from '../support/program.ts';
import { RawConnection, requestBytes, requestOnce } from '../support/raw-http.ts';
import { temporaryFolder } from '../support/temporary-folder.ts';
import { openTestServer, versionQuery, type TestServer } from '../support/test-server.ts';

const timeouts = { headersMs: 600, stallMs: 600, idleMs: 600 };

/** Sends so many bytes again and again, as long as anybody takes them, or so many times. */
function trickle(socket: Socket, bytes: string, pauseMs: number, times = Number.POSITIVE_INFINITY): void {
  let left = times;
  const timer = setInterval(() => {
    if (socket.writable && left-- > 0) socket.write(bytes);
    else clearInterval(timer);
  }, pauseMs);
  onTestFinished(() => clearInterval(timer));
}

async function openWatched(
  bodyBytesPerSecondMin: number,
  stallMs = timeouts.stallMs,
): Promise<{ server: TestServer; refused: readonly string[] }> {
  const refused: string[] = [];
  const observer: RequestObserver = {
    answered: () => undefined,
    refusedConnection: (_address, _status, reason) => void refused.push(reason),
  };
  return {
    server: await openTestServer({ timeouts: { ...timeouts, stallMs }, bodyBytesPerSecondMin, observer }),
    refused,
  };
}

/** Past the server, whose time-outs are shorter than a busy machine may take for so much. */
async function storeNoise({ store }: TestServer, sizeBytes: number): Promise<void> {
  const intent = { name: parseFileName('/a'), version: 1, claims: {} };
  await store.put(intent, { source: randomBytes(sizeBytes), encoding: 'identity' });
}

describe('a peer that goes on without getting anywhere', () => {
  it.each([
    ['a small body', 'Content-Length: 1000', 'x'],
    ['a large body', 'Content-Length: 1000000', 'x'],
    ['a chunked body', 'Transfer-Encoding: chunked', '1\r\nx\r\n'],
  ])('is told so after a while, and leaves nothing: %s', async (_body, framing, bytes) => {
    // Longer than a busy machine may keep the sender from sending, for which there is another text.
    const { server } = await openWatched(1000, 2000);
    const connection = await RawConnection.open(server.port);
    connection.send(`PUT /files/a?${versionQuery()} HTTP/1.1\r\nHost: x\r\n${framing}\r\n\r\n`);
    trickle(connection.socket, bytes, 50);
    const answer = await connection.answer('PUT');
    expect(answer.status).toBe(408);
    expect(answer.text).toContain('upload slower than 1000 bytes/s');
    await connection.closed();
    await server.expectEmpty();
  });

  it('is served where it makes the rate, or there is none', async () => {
    for (const [rate, bytes] of [
      [1000, 5000],
      [0, 1],
    ] as const) {
      const { server, refused } = await openWatched(rate);
      const connection = await RawConnection.open(server.port);
      const head = `PUT /files/a?${versionQuery()} HTTP/1.1\r\nHost: x\r\nContent-Length: ${40 * bytes}\r\n\r\n`;
      connection.send(head);
      trickle(connection.socket, 'x'.repeat(bytes), 50, 40);
      expect((await connection.answer('PUT')).status).toBe(200);
      expect(refused).toEqual([]);
    }
  });

  it('is closed when it sends the rest of a refused body so', async () => {
    const { server, refused } = await openWatched(1000);
    const connection = await RawConnection.open(server.port);
    connection.send('PUT /files/a HTTP/1.1\r\nHost: x\r\nContent-Length: 200000\r\n\r\n');
    expect((await connection.answer('PUT')).status).toBe(400);
    trickle(connection.socket, 'x', 50);
    await connection.closed();
    expect(refused).toEqual(['a body came too slowly']);
  });

  it('is closed when it sends empty lines in the place of requests', async () => {
    const { server, refused } = await openWatched(1000);
    const connection = await RawConnection.open(server.port);
    expect((await connection.request({ target: '/healthz' })).status).toBe(200);
    trickle(connection.socket, '\r\n', 50);
    await connection.closed();
    expect(refused).toEqual(['no request came, but bytes of none']);
  });

  it('is closed when it takes nothing of an answer', async () => {
    const { server, refused } = await openWatched(1000);
    await storeNoise(server, 20_000_000);
    const connection = await RawConnection.open(server.port);
    connection.pause();
    connection.send(requestBytes({ target: '/files/a' }));
    await expect.poll(() => refused, { timeout: 5000 }).toEqual(['the answer was not read']);
  });

  it('is closed when it takes an answer so', async () => {
    const { server, refused } = await openWatched(1_000_000);
    await storeNoise(server, 250_000);
    const connection = await RawConnection.open(server.port);
    const { socket } = connection;
    connection.pause();
    const timer = setInterval(() => socket.read(Math.min(8_000, socket.readableLength)), 50);
    onTestFinished(() => clearInterval(timer));
    connection.send(Buffer.concat(Array.from({ length: 60 }, () => requestBytes({ target: '/files/a' }))));
    await expect.poll(() => refused, { timeout: 10_000 }).toEqual(['an answer was read too slowly']);
    connection.resume();
    await connection.closed();
  });
});

describe('filetracker-server --body-rate-min', () => {
  it('gives up bodies that trickle, and counts them', async () => {
    const folder = await temporaryFolder();
    const flags = ['--workers', '2', '--stall-timeout', '1s', '--body-rate-min', '1K'];
    const { port } = await startServerProgram(folder, flags);
    const connection = await RawConnection.open(port);
    connection.send(`PUT /files/a?${versionQuery()} HTTP/1.1\r\nHost: x\r\nContent-Length: 100000\r\n\r\n`);
    trickle(connection.socket, 'x', 200);
    expect((await connection.answer('PUT')).status).toBe(408);
    const counted = /^filetracker_refused_requests_total\{operation="put",reason="timeout"\} 1$/m;
    const isCounted = async (): Promise<boolean> =>
      counted.test((await requestOnce(port, { target: '/metrics' })).text);
    // A request is over when its sender has had time to read the answer.
    await expect.poll(isCounted, { timeout: 5000 }).toBe(true);
  });
});
