import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { describe, expect, it, onTestFinished } from 'vitest';
import { programPath } from '../support/built-programs.ts';
import { requestOnce } from '../support/raw-http.ts';
import { temporaryFolder } from '../support/temporary-folder.ts';

/**
 * Does what systemd does: holds listening sockets, and runs the program with them as descriptors 3 and up, twice. It
 * runs them synchronously, so that it never accepts a connection itself.
 */
const holder = (sockets: number): string => `
const { spawnSync } = require('node:child_process');
const servers = Array.from({ length: ${sockets} }, () => require('node:net').createServer());
const listening = servers.map((server) => new Promise((resolve) => server.listen(0, '127.0.0.1', resolve)));
Promise.all(listening).then(() => {
  for (const server of servers) console.log('port ' + server.address().port);
  const command = 'LISTEN_FDS=${sockets} LISTEN_PID=$$ exec "$0" "$@"';
  const stdio = ['ignore', 'inherit', 'inherit', ...servers.map((server) => server._handle.fd)];
  for (let run = 0; run < 2; run += 1) spawnSync('sh', ['-c', command, process.execPath, ...process.argv.slice(1)], { stdio });
  process.exit();
});`;

interface Held {
  readonly ports: readonly number[];
  readonly printed: string;
  /** The process of the server, 0 where there is none. */
  readonly pid: () => Promise<number>;
  /** Resolves when the holder has run its servers. */
  readonly ended: Promise<unknown>;
}

async function startHeld(sockets: number): Promise<Held> {
  const folder = await temporaryFolder();
  const pidFile = join(folder, 'pid');
  const flags = ['-d', join(folder, 'store'), '-l', '0.0.0.0', '-p', '9', '--pid-file', pidFile];
  const args = ['-e', holder(sockets), '--', programPath('filetracker-server'), ...flags, '--workers', '2'];
  const child = spawn(process.execPath, args, { stdio: ['ignore', 'pipe', 'pipe'] });
  const ended = once(child, 'exit');
  let printed = '';
  for (const stream of [child.stdout, child.stderr]) stream.on('data', (text) => (printed += String(text)));
  const pid = async (): Promise<number> => Number(await readFile(pidFile, 'utf8').catch(() => '0'));
  onTestFinished(async () => {
    child.kill('SIGKILL');
    const last = await pid();
    if (last > 0) process.kill(last, 'SIGKILL');
  });
  await expect.poll(() => printed, { timeout: 60_000 }).toMatch(/^filetracker-server listens/m);
  const ports = [...printed.matchAll(/^port (\d+)$/gm)].map(([, port]) => Number(port));
  return { ports, printed, pid, ended };
}

async function isServed(port: number): Promise<number> {
  return (await requestOnce(port, { target: '/healthz' })).status;
}

describe('a socket that systemd holds', () => {
  it('is listened on, whatever the flags say, and refuses nobody while the server is started anew', async () => {
    const { ports, printed, pid } = await startHeld(1);
    const [port = 0] = ports;
    expect(printed).toContain(`listens on http://127.0.0.1:${port},`);
    // The address of the flags would be open to all.
    expect(printed).not.toContain('WARNING');
    expect(await isServed(port)).toBe(200);
    const first = await pid();
    process.kill(first, 'SIGTERM');
    const statuses: number[] = [];
    while ((await pid()) === first || (await pid()) === 0 || statuses.length < 20) {
      statuses.push(await isServed(port));
    }
    expect(new Set(statuses)).toEqual(new Set([200]));
  });

  it(
    'is one of several, which are all listened on, after a take-over too',
    { timeout: 300_000 },
    async () => {
      const { ports, printed, pid, ended } = await startHeld(3);
      const urls = ports.map((port) => `http://127.0.0.1:${port}`);
      expect(ports).toHaveLength(3);
      expect(printed).toContain(`listens on ${urls.join(' and ')},`);
      for (const port of ports) expect(await isServed(port)).toBe(200);
      const first = await pid();
      process.kill(first, 'SIGUSR2');
      await expect.poll(pid, { timeout: 60_000 }).not.toBe(first);
      // The second one that it starts finds that another serves the store.
      await ended;
      for (const port of ports) expect(await isServed(port)).toBe(200);
      process.kill(await pid(), 'SIGTERM');
      await expect.poll(pid, { timeout: 60_000 }).toBe(0);
    },
  );
});
