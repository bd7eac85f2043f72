import { spawn } from 'node:child_process';
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { describe, expect, it, onTestFinished } from 'vitest';
import { programPath } from '../support/program.ts';
import { requestOnce } from '../support/raw-http.ts';
import { temporaryFolder } from '../support/temporary-folder.ts';

/**
 * Does what systemd does: holds a listening socket, and runs the program with it as descriptor 3, twice. It runs them
 * synchronously, so that it never accepts a connection itself.
 */
const holder = `
const { spawnSync } = require('node:child_process');
const server = require('node:net').createServer();
server.listen(0, '127.0.0.1', () => {
  console.log('port ' + server.address().port);
  const command = 'LISTEN_FDS=1 LISTEN_PID=$$ exec "$0" "$@"';
  const stdio = ['ignore', 'inherit', 'inherit', server._handle.fd];
  for (let run = 0; run < 2; run += 1) spawnSync('sh', ['-c', command, process.execPath, ...process.argv.slice(1)], { stdio });
  process.exit();
});`;

describe('a socket that systemd holds', () => {
  it('is listened on, whatever the flags say, and refuses nobody while the server is started anew', async () => {
    const folder = await temporaryFolder();
    const pidFile = join(folder, 'pid');
    const flags = ['-d', join(folder, 'store'), '-l', '0.0.0.0', '-p', '9', '--pid-file', pidFile];
    const args = ['-e', holder, '--', programPath('filetracker-server'), ...flags, '--workers', '2'];
    const child = spawn(process.execPath, args, { stdio: ['ignore', 'pipe', 'pipe'] });
    let printed = '';
    for (const stream of [child.stdout, child.stderr]) stream.on('data', (text) => (printed += String(text)));
    const pid = async (): Promise<number> => Number(await readFile(pidFile, 'utf8').catch(() => '0'));
    onTestFinished(async () => {
      child.kill('SIGKILL');
      const last = await pid();
      if (last > 0) process.kill(last, 'SIGKILL');
    });
    await expect.poll(() => printed, { timeout: 20_000 }).toMatch(/^filetracker-server listens/m);
    const port = Number(/^port (\d+)$/m.exec(printed)?.[1]);
    expect(printed).toContain(`listens on http://127.0.0.1:${port},`);
    // The address of the flags would be open to all.
    expect(printed).not.toContain('WARNING');
    expect((await requestOnce(port, { target: '/healthz' })).status).toBe(200);
    const first = await pid();
    process.kill(first, 'SIGTERM');
    const statuses: number[] = [];
    while ((await pid()) === first || (await pid()) === 0 || statuses.length < 20) {
      statuses.push((await requestOnce(port, { target: '/healthz' })).status);
    }
    expect(new Set(statuses)).toEqual(new Set([200]));
  });
});
