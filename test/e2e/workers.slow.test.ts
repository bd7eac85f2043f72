import { spawnSync } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { once } from 'node:events';
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { describe, expect, it, onTestFinished } from 'vitest';
import { IndexDatabase } from '../../src/catalog/lmdb/index/database.ts';
import { digestOf } from '../../src/core/digest.ts';
import { present } from '../support/present.ts';
import { run, startServerProgram } from '../support/program.ts';
import { requestOnce } from '../support/raw-http.ts';
import { temporaryFolder } from '../support/temporary-folder.ts';

const date = encodeURIComponent('Sun, 22 Nov 2026 15:05:01 GMT');

function childrenOf(pid: number): number[] {
  const { stdout } = spawnSync('pgrep', ['-P', String(pid)]);
  return stdout.toString().trim().split('\n').filter(Boolean).map(Number);
}

async function untilWorkers(pid: number, count: number, without: readonly number[] = []): Promise<number[]> {
  for (;;) {
    const workers = childrenOf(pid).filter((child) => !without.includes(child));
    if (workers.length === count) return workers;
    await delay(20);
  }
}

/** Writes and reads files, each request on a connection of its own or a kept one, until told to stop. */
class Load {
  readonly acknowledged = new Map<string, string>();
  readonly problems: string[] = [];
  /** Requests that got no answer because their connection broke. */
  broken = 0;
  readonly #clients: Promise<void>[];
  readonly #stopping = new AbortController();

  constructor(port: number, clients: number) {
    this.#clients = Array.from({ length: clients }, (_, client) => this.#run(port, client));
  }

  async stop(): Promise<void> {
    this.#stopping.abort();
    await Promise.all(this.#clients);
  }

  async #run(port: number, client: number): Promise<void> {
    for (let index = 0; !this.#stopping.signal.aborted; index++) {
      const name = `/load/${client}/${index}`;
      const content = `content ${index} of ${client} `.repeat(1 + (index % 9) * 200);
      const url = `http://127.0.0.1:${port}/files${name}`;
      try {
        const put = await fetch(`${url}?last_modified=${date}`, { method: 'PUT', body: content });
        await put.arrayBuffer();
        if (put.status === 200) this.acknowledged.set(name, content);
        else this.problems.push(`PUT ${name}: ${put.status}`);
        const get = await fetch(url);
        const text = await get.text();
        if (get.status !== 200 || text !== content) this.problems.push(`GET ${name}: ${get.status}`);
      } catch (error) {
        const cause = error instanceof Error ? error.cause : undefined;
        const code = cause instanceof Error && 'code' in cause ? String(cause.code) : String(error);
        if (code === 'ECONNREFUSED') this.problems.push(`${name}: refused`);
        this.broken += 1;
      }
    }
  }
}

async function expectAll(port: number, files: ReadonlyMap<string, string>): Promise<void> {
  for (const [name, content] of files) {
    const answer = await fetch(`http://127.0.0.1:${port}/files${name}`);
    expect(await answer.text()).toBe(content);
  }
}

describe('a server with two workers', () => {
  it('loses nothing and refuses nobody when its workers are killed one after the other', async () => {
    const { program, port } = await startServerProgram(await temporaryFolder(), ['--workers', '2']);
    const load = new Load(port, 6);
    let workers = await untilWorkers(program.pid, 2);
    for (let kills = 0; kills < 3; kills++) {
      await delay(400);
      const [victim = 0] = workers;
      process.kill(victim, 'SIGKILL');
      workers = await untilWorkers(program.pid, 2, [victim]);
    }
    await delay(400);
    await load.stop();
    expect(load.problems).toEqual([]);
    // Each kill may break the requests of the killed worker's connections, at most one a client.
    expect(load.broken).toBeLessThanOrEqual(3 * 6);
    expect(load.acknowledged.size).toBeGreaterThan(5);
    await expectAll(port, load.acknowledged);
    program.kill('SIGTERM');
    expect((await program.ended()).code).toBe(0);
  });

  it('hands over to a new program on SIGUSR2 without breaking off or refusing a request', async () => {
    const folder = await temporaryFolder();
    const { program, port } = await startServerProgram(folder, ['--workers', '2']);
    const load = new Load(port, 6);
    await delay(300);
    const before = program.pid;
    // Its end, not that of its output, which the successor shares.
    const ended = once(program.child, 'exit');
    program.kill('SIGUSR2');
    const [, successor = '0'] = await program.printed(/"type":"takeover-begun","pid":(\d+)/);
    onTestFinished(() => void process.kill(Number(successor), 'SIGKILL'));
    const [code] = (await ended) as [number | null];
    await delay(300);
    await load.stop();
    expect(code).toBe(0);
    expect(Number(successor)).not.toBe(before);
    expect(load.problems).toEqual([]);
    expect(load.broken).toBe(0);
    await expectAll(port, load.acknowledged);
  });

  it('answers every connection that is opened while the successor is being loaded', async () => {
    const folder = await temporaryFolder();
    const { program, port } = await startServerProgram(folder, ['--workers', '2']);
    const begun = program.printed(/"type":"takeover-begun","pid":(\d+)/);
    program.kill('SIGUSR2');
    const [, successor = '0'] = await begun;
    onTestFinished(() => void process.kill(Number(successor), 'SIGKILL'));
    const statuses: Promise<number>[] = [];
    while (program.child.exitCode === null) {
      // Each on a connection of its own.
      const answer = requestOnce(port, { target: '/version', headers: { Connection: 'close' } });
      statuses.push(answer.then(({ status }) => status));
      await delay(5);
    }
    expect(statuses.length).toBeGreaterThan(10);
    expect(new Set(await Promise.all(statuses))).toEqual(new Set([200]));
  });

  it('rebuilds an index in which a row is damaged, and goes on', async () => {
    const folder = await temporaryFolder();
    const content = randomBytes(100_000);
    const before = await startServerProgram(folder, ['--workers', '2']);
    const url = (port: number): string => `http://127.0.0.1:${port}/files/a?last_modified=${date}`;
    expect((await fetch(url(before.port), { method: 'PUT', body: content })).status).toBe(200);
    before.program.kill('SIGTERM');
    await before.program.ended();
    const index = IndexDatabase.open(join(folder, 'catalog'));
    const key = Buffer.from(digestOf(content), 'hex');
    await index.blobs.put(key, Buffer.concat([present(index.blobs.get(key)), Buffer.alloc(100_000)]));
    await index.close();
    const { port } = await startServerProgram(folder, ['--workers', '2']);
    const told = new Set<number>();
    for (;;) {
      const response = await fetch(url(port)).catch(() => undefined);
      const bytes = await response?.arrayBuffer();
      if (response?.status === 200) {
        expect(Buffer.from(present(bytes)).equals(content)).toBe(true);
        break;
      }
      expect(response?.headers.get('X-Exception')?.length ?? 0).toBeLessThan(1024);
      told.add(response?.status ?? 503);
      await delay(20);
    }
    expect([...told]).toEqual([503]);
  });

  it('starts its workers with a bound on the space for new objects', async () => {
    const { program } = await startServerProgram(await temporaryFolder(), ['--workers', '1']);
    const [worker = 0] = await untilWorkers(program.pid, 1);
    const command = (await readFile(`/proc/${worker}/cmdline`, 'utf8')).split('\0');
    expect(command).toContain('--max-semi-space-size=8');
  });

  it('does not share its folder with another server', async () => {
    const folder = await temporaryFolder();
    await startServerProgram(folder, ['--workers', '2']);
    const other = await run('filetracker-server', '-d', folder, '-p', '0', '--workers', '1');
    expect(other.code).toBe(1);
    expect(other.errors).toContain(`Cannot use the folder "${folder}": another process serves it`);
  });

  it('can be started again at once after all of it was killed', async () => {
    const folder = await temporaryFolder();
    const { program, port } = await startServerProgram(folder, ['--workers', '2']);
    const load = new Load(port, 4);
    await delay(300);
    program.kill('SIGKILL');
    await program.ended();
    await load.stop();
    const again = await startServerProgram(folder, ['--workers', '2']);
    await expectAll(again.port, load.acknowledged);
  });
});
