import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { access, mkdir, readFile, symlink, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { describe, expect, it, onTestFinished } from 'vitest';
import { Program, run, startServerProgram } from '../support/program.ts';
import { requestOnce } from '../support/raw-http.ts';
import { temporaryFolder } from '../support/temporary-folder.ts';

const name = 'filetracker-server';

interface Files {
  readonly store: string;
  readonly pidFile: string;
  readonly flags: readonly string[];
}

async function files(): Promise<Files> {
  const folder = await temporaryFolder();
  const pidFile = join(folder, 'pid');
  return { store: join(folder, 'store'), pidFile, flags: ['--pid-file', pidFile, '--workers', '1'] };
}

/** A process that runs for as long as the test, with our name in its command line. */
async function startNamesake(): Promise<number> {
  const child = spawn(process.execPath, ['-e', "console.log('up'); setInterval(() => {}, 1e6)", name], {
    stdio: ['ignore', 'pipe', 'ignore'],
  });
  onTestFinished(() => void child.kill('SIGKILL'));
  await once(child.stdout, 'data');
  return child.pid ?? 0;
}

describe('--pid-file', { timeout: 180_000 }, () => {
  it('is taken over from a process that has ended or is another program, whatever its command line says', async () => {
    const { store, pidFile, flags } = await files();
    for (const content of [`${process.ppid}\n`, `${await startNamesake()}\n`, '4194304', '']) {
      await writeFile(pidFile, content);
      const { program } = await startServerProgram(store, flags);
      expect(await readFile(pidFile, 'utf8')).toBe(`${program.pid}\n`);
      program.kill('SIGTERM');
      expect((await program.ended()).code).toBe(0);
      await expect(access(pidFile)).rejects.toThrow('ENOENT');
    }
  });

  it('neither overwrites nor removes a file that holds something other than a process id', async () => {
    const { store, pidFile, flags } = await files();
    for (const content of ['my notes\n', '-1\n', '12 34\n', '1'.repeat(100), '\0']) {
      await writeFile(pidFile, content);
      const end = await run(name, '-d', store, '-p', '0', ...flags);
      expect(end).toMatchObject({ code: 2, output: '' });
      expect(end.errors).toBe(
        `${name}: Cannot use the pid file "${pidFile}": it holds something other than a process id; choose another file\n`,
      );
      expect(await readFile(pidFile, 'utf8')).toBe(content);
    }
    await expect(access(store)).rejects.toThrow('ENOENT');
  });

  it.each([
    ['missing/pid', 'its folder does not exist'],
    ['', 'it is a folder'],
    ['file/pid', 'a part of its path is not a folder'],
    ['dangling', 'it is a symbolic link that leads nowhere'],
  ])('says in one line why it cannot be used: %j', async (path, state) => {
    const folder = await temporaryFolder();
    await writeFile(join(folder, 'file'), '');
    await symlink('dangling', join(folder, 'dangling'));
    const end = await run(name, '-d', join(folder, 'store'), '-p', '0', '--pid-file', join(folder, path));
    expect(end).toMatchObject({ code: 2, output: '' });
    expect(end.errors).toMatch(/^[^\n]+\n$/);
    expect(end.errors).toContain(`Cannot use the pid file "${join(folder, path)}": ${state}`);
    await expect(access(join(folder, 'store'))).rejects.toThrow('ENOENT');
  });

  it('is refused to a second server until the first has ended, even by SIGKILL', async () => {
    const { store, pidFile, flags } = await files();
    const { program } = await startServerProgram(store, flags);
    const second = await run(name, '-d', `${store}-2`, '-p', '0', ...flags);
    expect(second).toMatchObject({ code: 1, output: '' });
    expect(second.errors).toContain(`the server that runs as process ${program.pid} uses it`);
    expect(await readFile(pidFile, 'utf8')).toBe(`${program.pid}\n`);
    program.kill('SIGKILL');
    await program.ended();
    const again = await startServerProgram(store, flags);
    expect(await readFile(pidFile, 'utf8')).toBe(`${again.program.pid}\n`);
  });

  it('is not left behind by a server that cannot start', async () => {
    const { store, pidFile, flags } = await files();
    const { port } = await startServerProgram(`${store}-1`);
    const end = await run(name, '-d', store, '-p', String(port), ...flags);
    expect(end.errors).toContain('another program listens there');
    await expect(access(pidFile)).rejects.toThrow('ENOENT');
    await expect(access(store)).rejects.toThrow('ENOENT');
  });

  it('keeps a folder that was there before a server that cannot start', async () => {
    const { store } = await files();
    await mkdir(store);
    const { port } = await startServerProgram(`${store}-1`);
    expect((await run(name, '-d', store, '-p', String(port))).code).toBe(1);
    await access(store);
  });

  it('passes to the successor in a takeover, with its lock', async () => {
    const { store, pidFile, flags } = await files();
    const { program, port } = await startServerProgram(store, flags);
    program.kill('SIGUSR2');
    const [, text = ''] = await program.printed(/"type":"takeover-begun","pid":(\d+)/);
    const successor = Number(text);
    onTestFinished(() => {
      try {
        process.kill(successor, 'SIGKILL');
      } catch {
        // It has ended, as it should.
      }
    });
    expect(await once(program.child, 'exit')).toEqual([0, null]);
    expect(await readFile(pidFile, 'utf8')).toBe(`${successor}\n`);
    expect((await requestOnce(port, { target: '/healthz' })).status).toBe(200);
    const second = await run(name, '-d', `${store}-2`, '-p', '0', ...flags);
    expect(second.errors).toContain(`the server that runs as process ${successor} uses it`);
    process.kill(successor, 'SIGTERM');
    await expect
      .poll(() =>
        access(pidFile).then(
          () => 'there',
          () => 'gone',
        ),
      )
      .toBe('gone');
    const again = new Program(name, { args: ['-d', store, '-p', '0', ...flags] });
    await again.printed(/listens on/);
  });
});
