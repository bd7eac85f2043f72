import { chmodSync, closeSync, existsSync, mkdirSync, openSync, readFileSync, symlinkSync } from 'node:fs';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { join } from 'node:path';
import { expect, test, vi } from 'vitest';
import { shell } from '../support/client-shell.ts';
import { programPath } from '../support/built-programs.ts';
import { runProgram } from '../support/programs.ts';

// Dozens of programs, on a machine that may be busy.
vi.setConfig({ testTimeout: 240_000 });

test('the commands leave the cache in use out of trees, and take --exclude, --allow-empty and -v', async () => {
  const { folder, ok, run, write } = await shell();
  chmodSync(write('home/site', 'x'), 0o755);
  write('home/site.o', 'x');
  mkdirSync(join(folder, 'home/empty'));
  const cached = { environment: { FILETRACKER_DIR: join(folder, 'home', '.store') } };
  await ok(['put', '--no-remote-cache', write('only-copy', 'the only copy'), '/only'], cached);
  const notice = 'filetracker: skipped "home/.store": it is the cache of a client\n';
  const words = ['home', '/home', '--exclude', '*.o', '--exclude', '/other'];
  const up = await run(['sync', 'up', ...words, '--delete', '-v'], cached);
  expect(up).toMatchObject({ code: 0, stderr: expect.stringContaining(notice) });
  expect(up.stderr).toContain('filetracker: "home/empty" is an empty folder, which is not stored\n');
  expect(up.stderr).toContain('filetracker: "home/site" is executable, which is not stored\n');
  expect((await run(['put', '-R', ...words], cached)).stderr).toBe(`${notice}1 sent, 1 skipped (1 B)\n`);
  expect(await ok(['ls'])).toBe('/home/site\n');
  write('home/gone', 'x');
  const down = await run(['sync', 'down', '/home', 'home', '--delete', '--exclude', '*.o'], cached);
  expect(down).toMatchObject({ code: 0, stderr: `${notice}1 unchanged, 1 deleted, 1 skipped\n` });
  expect(await ok(['--offline', 'cat', '/only'], cached)).toBe('the only copy');
  expect(existsSync(join(folder, 'home/site.o'))).toBe(true);

  mkdirSync(join(folder, 'bare'));
  const refused = await run(['sync', 'up', 'bare', '/home', '--delete']);
  expect(refused).toMatchObject({ code: 2, stderr: expect.stringContaining('--allow-empty') });
  await ok(['sync', 'up', 'bare', '/home', '--delete', '--allow-empty']);
  expect(await ok(['ls'])).toBe('');
  expect(await run(['put', '-R', 'home', '/t', '--exclude', '!a'])).toMatchObject({ code: 2 });
});

test('get writes into /dev/stdout and open descriptors where they stand', async () => {
  const { folder, url, ok, write } = await shell();
  await ok(['put', write('f', 'content'), '/f']);
  const out = openSync(join(folder, 'out'), 'w');
  const get = async (name: string, target: string): Promise<void> => {
    const words = [programPath('filetracker'), '-r', url, '-c', join(folder, 'cache'), 'get', name, target];
    const child = spawn(process.execPath, words, { stdio: ['ignore', out, 'inherit', out] });
    expect(await once(child, 'close')).toEqual([0, null]);
  };
  await get('/f', '/dev/stdout');
  await get('/f@1700000000', '/dev/fd/3');
  closeSync(out);
  expect(readFileSync(join(folder, 'out'), 'utf8')).toBe('contentcontent');
});

test('filetracker-migrate follows a link that is named, and leaves out other links, caches and unfinished downloads', async () => {
  const { folder, url, ok, write } = await shell();
  write('data/d/f', 'x');
  write('data/.filetracker-0123456789abcdef', 'x');
  symlinkSync('f', join(folder, 'data/d/inner'));
  await ok(['put', '--no-remote-cache', 'data/d/f', '/f'], {
    environment: { FILETRACKER_DIR: join(folder, 'data/cache') },
  });
  symlinkSync('data', join(folder, 'link'));
  const migrated = await runProgram('filetracker-migrate', ['link', url, '--root', '.'], { folder });
  expect(migrated).toMatchObject({ code: 0, stdout: expect.stringContaining('1 files: 1 stored') });
  for (const reason of ['an unfinished download', 'a symbolic link', 'the cache of a client']) {
    expect(migrated.stdout).toContain(`it is ${reason}`);
  }
  expect(await ok(['ls'])).toBe('/link/d/f\n');
});
