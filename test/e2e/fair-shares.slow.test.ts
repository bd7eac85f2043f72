import { readdir } from 'node:fs/promises';
import { setTimeout as sleep } from 'node:timers/promises';
import { describe, expect, it } from 'vitest';
import { run, startServerProgram } from '../support/program.ts';
import { RawConnection, requestOnce } from '../support/raw-http.ts';
import { temporaryFolder } from '../support/temporary-folder.ts';
import { versionQuery } from '../support/test-server.ts';

async function addToken(folder: string, token: string, ...more: readonly string[]): Promise<string> {
  const { output } = await run(
    'filetracker-server',
    'token',
    'add',
    token,
    '--create',
    '-d',
    folder,
    ...more,
  );
  return `Authorization: Bearer ${output.trim()}`;
}

/** Begins an upload and leaves it so; gives the connection, and how its answer begins if one has come. */
async function begin(port: number, name: string, authorization: string): Promise<RawConnection> {
  const connection = await RawConnection.open(port);
  const head = `PUT /files${name}?${versionQuery()} HTTP/1.1\r\nHost: x\r\n${authorization}\r\nContent-Length: 100000\r\n\r\n`;
  connection.send(head + 'x'.repeat(20_000));
  return connection;
}

describe('requests a second', () => {
  it('are those of all workers together, on however many connections they come', async () => {
    const folder = await temporaryFolder();
    const { port } = await startServerProgram(folder, ['--workers', '2', '--rate-max', '40']);
    // Connections go to the workers in turn.
    const connections = await Promise.all([1, 2, 3, 4].map(() => RawConnection.open(port)));
    const startMs = performance.now();
    const statuses = await Promise.all(
      connections.map(async (connection) => {
        const own: number[] = [];
        for (let count = 0; count < 60; count += 1) {
          own.push((await connection.request({ target: '/healthz' })).status);
        }
        return own;
      }),
    );
    const seconds = (performance.now() - startMs) / 1000;
    const taken = statuses.flat().filter((status) => status === 200).length;
    expect(statuses.flat().filter((status) => status === 429)).toHaveLength(240 - taken);
    // A second's worth at once; the other bound is what two tables would let in.
    expect(taken).toBeGreaterThanOrEqual(40);
    expect(taken).toBeLessThanOrEqual(40 + Math.ceil(40 * seconds) + 1);
    for (const own of statuses) expect(own).toContain(200);
    expect((await readdir(folder)).filter((name) => name.startsWith('rates'))).toEqual([]);
  });

  it('let one connection have all of them', async () => {
    const folder = await temporaryFolder();
    const { port } = await startServerProgram(folder, ['--workers', '2', '--rate-max', '30']);
    const connection = await RawConnection.open(port);
    for (let count = 0; count < 30; count += 1) {
      expect((await connection.request({ target: '/healthz' })).status).toBe(200);
    }
  });
});

describe('uploads at once', () => {
  it('are not all taken by one token, or address', async () => {
    const folder = await temporaryFolder();
    const rights = ['--prefix', '/', '--rights', 'read,write'];
    const greedy = await addToken(folder, 'greedy', ...rights);
    const other = await addToken(folder, 'other', ...rights);
    const { port } = await startServerProgram(folder, ['--workers', '1', '--uploads-max', '4']);
    const held = [await begin(port, '/a', greedy), await begin(port, '/b', greedy)];
    const refused = await (await begin(port, '/c', greedy)).answer('PUT');
    expect(refused.status).toBe(429);
    expect(refused.headers.get('retry-after')).toBe('1');
    expect(refused.text).toContain('2 uploads of this token or address are in progress');
    held.push(await begin(port, '/d', other));
    for (const connection of held) connection.send('x'.repeat(80_000));
    for (const connection of held) expect((await connection.answer('PUT')).status).toBe(200);
    const headers = { Authorization: greedy.slice('Authorization: '.length) };
    const { text } = await requestOnce(port, { target: '/metrics', headers });
    expect(text).toMatch(/^filetracker_refused_requests_total\{operation="put",reason="rate-limited"\} 1$/m);
  });

  it('are as many as all workers may take together, where these do not divide it', async () => {
    const folder = await temporaryFolder();
    const flags = ['--workers', '2', '--uploads-max', '3', '--token-uploads-max', '3'];
    const { port } = await startServerProgram(folder, flags);
    const answers: Promise<number | undefined>[] = [];
    for (let count = 0; count < 6; count += 1) {
      const connection = await begin(port, `/${count}`, 'X: y');
      const status = connection.answer('PUT').then((answer) => answer.status);
      answers.push(Promise.race([status.catch(() => undefined), sleep(2000, undefined)]));
    }
    const refused = (await Promise.all(answers)).filter((status) => status !== undefined);
    expect(refused.every((status) => status === 503 || status === 429)).toBe(true);
    expect(refused).toHaveLength(3);
  });

  it('are as many of one token as --token-uploads-max says', async () => {
    const folder = await temporaryFolder();
    const flags = ['--workers', '1', '--uploads-max', '4', '--token-uploads-max', '1'];
    const { port } = await startServerProgram(folder, flags);
    await begin(port, '/a', 'X: y');
    expect((await (await begin(port, '/b', 'X: y')).answer('PUT')).status).toBe(429);
  });
});
