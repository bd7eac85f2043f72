import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { readFile } from 'node:fs/promises';
import { connect } from 'node:net';
import { join } from 'node:path';
import { expect, it, onTestFinished } from 'vitest';
import { programPath } from '../support/built-programs.ts';
import { requestOnce } from '../support/raw-http.ts';
import { temporaryFolder } from '../support/temporary-folder.ts';

it(
  'connections that find no free descriptor are counted, and told of with the limit',
  { timeout: 300_000 },
  async () => {
    const folder = await temporaryFolder();
    const log = join(folder, 'log');
    const words = ['-d', join(folder, 'store'), '-p', '0', '--workers', '1', '-L', log];
    const script = 'ulimit -n 100; exec "$0" "$@"';
    const child = spawn('sh', ['-c', script, process.execPath, programPath('filetracker-server'), ...words]);
    const ended = once(child, 'exit');
    let printed = '';
    child.stderr.on('data', (text) => (printed += String(text)));
    onTestFinished(async () => {
      child.kill('SIGTERM');
      await ended;
    });
    await expect.poll(() => printed, { timeout: 60_000 }).toMatch(/^filetracker-server listens/m);
    const port = Number(/127\.0\.0\.1:(\d+)/.exec(printed)?.[1]);
    const sockets = Array.from({ length: 250 }, () =>
      connect(port, '127.0.0.1').on('error', () => undefined),
    );
    await expect
      .poll(() => readFile(log, 'utf8'), { timeout: 60_000 })
      .toMatch(/"level":40.*"limit":100,.*may open no more files/);
    for (const socket of sockets) socket.destroy();
    const metrics = async (): Promise<string> =>
      (await requestOnce(port, { target: '/metrics' }).catch(() => ({ text: '' }))).text;
    const count = /^filetracker_refused_connections_total\{reason="too many open files"\} [1-9]/m;
    await expect.poll(metrics, { timeout: 60_000 }).toMatch(count);
  },
);
