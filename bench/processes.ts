import { spawn, type ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { existsSync } from 'node:fs';
import { mkdtemp, rm } from 'node:fs/promises';
import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

export const projectRoot = process.env['FILETRACKER_ROOT'] ?? process.cwd();

export function programPath(name: string): string {
  const launcher = join(projectRoot, 'dist', 'cli', `${name}.cjs`);
  return existsSync(launcher) ? launcher : join(projectRoot, 'dist', 'cli', `${name}.js`);
}

/** A folder on the disk that the benchmark's stores lie on, removed at the end. FILETRACKER_BENCH_DIR chooses the disk. */
export async function temporaryFolder(): Promise<AsyncDisposable & { path: string }> {
  const path = await mkdtemp(join(process.env['FILETRACKER_BENCH_DIR'] ?? tmpdir(), 'filetracker-bench-'));
  return {
    path,
    [Symbol.asyncDispose]: () => rm(path, { recursive: true, force: true, maxRetries: 5, retryDelay: 200 }),
  };
}

/** A port that was free a moment ago. */
export async function freePort(): Promise<number> {
  const server = createServer().listen(0, '127.0.0.1');
  await once(server, 'listening');
  const address = server.address();
  server.close();
  await once(server, 'close');
  return typeof address === 'object' && address !== null ? address.port : 0;
}

export interface RunningServer extends AsyncDisposable {
  readonly port: number;
  readonly process: ChildProcess;
}

async function untilAnswering(port: number, child: ChildProcess): Promise<void> {
  for (let tries = 0; tries < 400; tries++) {
    if (child.exitCode !== null) throw new Error(`the server ended with exit code ${child.exitCode}`);
    const answered = await fetch(`http://127.0.0.1:${port}/version`).then(
      async (answer) => (await answer.arrayBuffer()).byteLength >= 0,
      () => false,
    );
    if (answered) return;
    await new Promise((resolve) => setTimeout(resolve, 25));
  }
  throw new Error('the server did not answer within ten seconds');
}

async function start(args: readonly string[], port: number): Promise<RunningServer> {
  const child = spawn(process.execPath, args, { stdio: ['ignore', 'ignore', 'inherit'] });
  await untilAnswering(port, child);
  return {
    port,
    process: child,
    [Symbol.asyncDispose]: async () => {
      if (child.exitCode !== null || child.signalCode !== null) return;
      child.kill('SIGTERM');
      await once(child, 'exit');
    },
  };
}

/** The real program on a store in `folder`. */
export async function startServer(folder: string, more: readonly string[] = []): Promise<RunningServer> {
  const port = await freePort();
  const args = [programPath('filetracker-server'), '-d', folder, '-p', String(port), '--log-level', 'warn'];
  return start([...args, ...more], port);
}

/** A bare `node:http` server that answers everything with the same bytes, or with a file as a stream. */
export async function startBareServer(source: string): Promise<RunningServer> {
  const port = await freePort();
  const code = `
    const http = require('node:http'), fs = require('node:fs');
    ${source}
    http.createServer(answer).listen(${port}, '127.0.0.1');`;
  return start(['-e', code], port);
}
