import { existsSync, mkdirSync, readdirSync, readFileSync, statSync, symlinkSync, utimesSync } from 'node:fs';
import { join } from 'node:path';
import { expect, test, vi } from 'vitest';
import { shell } from '../support/client-shell.ts';

// Dozens of programs, on a machine that may be busy.
vi.setConfig({ testTimeout: 120_000 });

test('trees carry names with "@", also those that end like a version', async () => {
  const { folder, ok, run, write } = await shell();
  const files = ['@types/node/a.ts', 'a@b', 'img@2x.png', 'v@1/c', 'x', 'x@12'];
  for (const file of files) write(`tree/${file}`, `content of ${file}`);
  const names = files.map((file) => `/t/${file}`);
  const expectTree = (target: string): void => {
    for (const file of files) {
      expect(readFileSync(join(folder, target, file), 'utf8')).toBe(`content of ${file}`);
    }
  };
  await ok(['put', '-R', 'tree', '/t']);
  const listed = await ok(['ls', '/t']);
  // In the form in which the other commands read it.
  expect(listed.split('\n').slice(0, -1)).toEqual([...names.slice(0, -1), '/t/x@12@1700000000']);
  await ok(['get', '-R', '/t', 'back']);
  expectTree('back');
  await ok(['cache', 'clean', '--all']);
  await ok(['prefetch', '--from', '-'], { input: listed });
  expect((await ok(['--offline', 'ls', '/t'])).split('\n').sort()).toEqual(listed.split('\n').sort());
  for (const name of listed.split('\n').slice(0, -1)) {
    expect(await ok(['cat', name])).toBe(`content of ${name.slice(3).replace('@1700000000', '')}`);
  }

  expect(await run(['sync', 'up', 'tree', '/s'])).toMatchObject({
    code: 0,
    stderr: expect.stringMatching(/^6 sent/),
  });
  write('tree/x@12', 'other content', 1_700_000_001);
  files.splice(0, 1);
  const { rm } = await import('node:fs/promises');
  await rm(join(folder, 'tree', '@types'), { recursive: true });
  const again = await run(['sync', 'up', 'tree', '/s', '--delete']);
  expect(again).toMatchObject({ code: 0, stderr: expect.stringMatching(/^1 sent, 4 unchanged, 1 deleted/) });
  write('tree/x@12', 'content of x@12', 1_700_000_002);
  await ok(['sync', 'up', 'tree', '/s']);
  write('mirror/only@here', 'x');
  const down = await run(['sync', 'down', '/s', 'mirror', '--delete']);
  expect(down).toMatchObject({ code: 0, stderr: expect.stringMatching(/^5 fetched, 1 deleted/) });
  expectTree('mirror');
  expect(readdirSync(join(folder, 'mirror'))).toHaveLength(5);

  // One by one: into a directory as the file is called, and out of it with the version behind.
  await ok(['put', 'tree/x@12', '/one/']);
  expect(await ok(['ls', '/one'])).toBe('/one/x@12@1700000002\n');
  await ok(['get', '/one/x@12@1700000002', '.']);
  expect(readFileSync(join(folder, 'x@12'), 'utf8')).toBe('content of x@12');
  await ok(['rm', '/one/x@12@1700000002', '/t/@types/node/a.ts', '/t/img@2x.png']);
  expect((await ok(['ls'])).split('\n')).toHaveLength(10);
});

test('sync --checksum sees a change within a second, also where a cache has what was there before', async () => {
  const { folder, ok, run, write } = await shell();
  const path = write('site/f', 'aaaa');
  await ok(['sync', 'up', 'site', '/s']);
  await ok(['get', '-R', '/s', 'mirror']);
  write('site/f', 'bbbb');
  utimesSync(path, 1_700_000_000.7, 1_700_000_000.7);
  expect((await run(['sync', 'up', 'site', '/s'])).stderr).toBe('1 unchanged\n');
  const dry = await run(['sync', 'up', 'site', '/s', '--checksum', '--dry-run']);
  expect(dry).toMatchObject({ code: 0, stdout: 'sent  /s/f\n' });
  expect((await run(['sync', 'up', 'site', '/s', '--checksum'])).stderr).toBe('1 sent (4 B)\n');
  expect((await run(['sync', 'up', 'site', '/s', '--checksum'])).stderr).toBe('1 unchanged\n');
  expect((await run(['sync', 'down', '/s', 'mirror'])).stderr).toBe('1 unchanged\n');
  expect((await run(['sync', 'down', '/s', 'mirror', '--checksum'])).stderr).toBe('1 fetched (4 B)\n');
  expect(readFileSync(join(folder, 'mirror', 'f'), 'utf8')).toBe('bbbb');
  expect((await run(['sync', 'down', '/s', 'mirror', '--checksum'])).stderr).toBe('1 unchanged\n');
  // The cache has the other content now, too.
  expect(await ok(['--offline', 'cat', '/s/f@1700000000'])).toBe('bbbb');
});

test('sync up --force makes the server like an older folder, under a newer version', async () => {
  const { ok, run, write } = await shell();
  write('site/f', 'newer', 1_700_000_100);
  await ok(['sync', 'up', 'site', '/s']);
  write('site/f', 'older');
  const kept = await run(['sync', 'up', 'site', '/s']);
  expect(kept).toMatchObject({ code: 0, stderr: expect.stringContaining('1 kept') });
  expect(kept.stderr).toContain('kept "site/f": the file on the server is newer');
  expect((await run(['sync', 'up', 'site', '/s', '--force'])).stderr).toBe('1 sent (5 B)\n');
  expect(await ok(['cat', '/s/f'])).toBe('older');
  expect(await ok(['version', '/s/f'])).toBe('1700000101\n');
  expect((await run(['sync', 'up', 'site', '/s'])).stderr).toBe('1 unchanged\n');
  expect((await run(['sync', 'up', 'site', '/s', '--force'])).stderr).toBe('1 unchanged\n');
});

test('sync --dry-run says what the same words do without it', async () => {
  const { folder, ok, run, write } = await shell();
  const both = async (words: readonly string[], told: { code: number; says: string }): Promise<void> => {
    const dry = await run(['sync', ...words, '-j', '1', '--dry-run']);
    const real = await run(['sync', ...words, '-j', '1']);
    expect([words, dry.code, real.code]).toEqual([words, told.code, told.code]);
    expect(real.stderr).toContain(told.says);
    expect(dry.stderr).toBe(real.stderr.replace(/^(?!filetracker)/m, 'Would be: '));
  };
  write('old/f', 'newer', 1_700_000_100);
  write('old/d/below', 'x');
  write('old/x', 'x');
  await ok(['sync', 'up', 'old', '/s']);
  write('newer/f', 'older');
  await both(['up', 'newer', '/s'], { code: 0, says: '1 kept' });
  write('file-for-directory/d', 'x');
  await both(['up', 'file-for-directory', '/s'], { code: 1, says: '"/s/d": there are files below it' });
  write('directory-for-file/x/y', 'x');
  await both(['up', 'directory-for-file', '/s'], { code: 1, says: 'above it is a file' });
  await both(['up', 'old', '/s/x'], { code: 1, says: 'above it is a file' });
  await both(['up', 'directory-for-file', '/s', '--delete'], { code: 0, says: '1 sent, 3 deleted' });

  await both(['down', '/s', 'at/first'], { code: 0, says: '1 fetched' });
  mkdirSync(join(folder, 'folder', 'x', 'y'), { recursive: true });
  write('folder/x/y/z', 'x');
  await both(['down', '/s', 'folder'], { code: 1, says: 'x/y": it is a folder' });
  await both(['down', '/s', 'folder', '--delete'], { code: 0, says: '1 fetched, 1 deleted' });
  write('file/x', 'x');
  write('file/other', 'x');
  await both(['down', '/s', 'file'], { code: 1, says: 'x" is a file and not a folder' });
  const dry = await run(['sync', 'down', '/s', 'file', '--delete', '--dry-run']);
  // Local paths: nothing of these names is on the server.
  expect(dry.stdout.split('\n').sort()).toEqual([
    '',
    'deleted  file/other',
    'deleted  file/x',
    'fetched  /s/x/y@1700000000',
  ]);
  await both(['down', '/s', 'file', '--delete'], { code: 0, says: '1 fetched, 2 deleted' });
  mkdirSync(join(folder, 'link'));
  symlinkSync(join(folder, 'file', 'x'), join(folder, 'link', 'x'));
  await both(['down', '/s', 'link'], { code: 1, says: 'a symbolic link, which is not followed' });
  await both(['down', '/s', 'link', '--delete'], { code: 0, says: '1 fetched, 1 deleted' });
  mkdirSync(join(folder, 'full', 'x', 'y'), { recursive: true });
  symlinkSync('nowhere', join(folder, 'full', 'x', 'y', 'link'));
  await both(['down', '/s', 'full', '--delete'], { code: 1, says: 'link" stays in it' });
  expect(existsSync(join(folder, 'full', 'x', 'y'))).toBe(true);
  write('mirror/x/y', 'newer', 1_700_000_200);
  await both(['down', '/s', 'mirror'], { code: 0, says: '1 kept' });
  await both(['down', '/s', 'mirror', '--force'], { code: 0, says: '1 fetched' });
  expect(Math.floor(statSync(join(folder, 'mirror', 'x', 'y')).mtimeMs / 1000)).toBe(1_700_000_000);
});

test('offline, trees come from the cache, and nothing is deleted or sent by what it does not know', async () => {
  const { folder, ok, run, write } = await shell();
  for (const name of ['a', 'b', 'd/c']) write(`tree/${name}`, `content of ${name}`);
  await ok(['put', '-R', 'tree', '/t', '--no-local-cache']);
  await ok(['prefetch', '/t/a', '/t/d/c']);
  expect((await run(['--offline', 'get', '-R', '/t', 'back'])).stderr).toMatch(/^2 fetched/);
  expect(readFileSync(join(folder, 'back', 'd', 'c'), 'utf8')).toBe('content of d/c');
  write('back/a', 'changed', 1);
  expect((await run(['--offline', 'sync', 'down', '/t', 'back'])).stderr).toMatch(/^1 fetched, 1 unchanged/);
  expect(await run(['--offline', 'ls', '/none'])).toMatchObject({ code: 3 });
  expect(await run(['--offline', 'get', '-R', '/none', 'back'])).toMatchObject({ code: 3 });
  for (const words of [
    ['sync', 'down', '/t', 'back', '--delete'],
    ['sync', 'up', 'tree', '/t'],
    ['put', '-R', 'tree', '/t'],
  ]) {
    const ended = await run(['--offline', ...words]);
    expect(ended).toMatchObject({ code: 2, stderr: expect.stringMatching(/^.*: the client is offline\n$/) });
  }
});

test('without a server, trees go into the cache and out of it, and rm and ls answer as with one', async () => {
  const { folder, ok, run, write } = await shell(false);
  for (const name of ['a', 'b', 'd/c']) write(`tree/${name}`, `content of ${name}`);
  await ok(['put', '-R', 'tree', '/t']);
  await ok(['get', '-R', '/t', 'back']);
  expect(readFileSync(join(folder, 'back', 'd', 'c'), 'utf8')).toBe('content of d/c');
  write('tree/a', 'newer', 1_700_000_001);
  const up = await run(['sync', 'up', 'back', '/t', '--delete']);
  expect(up.stderr).toBe('3 unchanged\n');
  expect((await run(['sync', 'up', 'tree', '/t'])).stderr).toBe('1 sent, 2 unchanged (5 B)\n');
  await ok(['rm', '/t/b']);
  expect((await run(['sync', 'down', '/t', 'back', '--delete'])).stderr).toMatch(
    /^1 fetched, 1 unchanged, 1 deleted/,
  );

  expect(await run(['rm', '/t/a@5', '-v'])).toMatchObject({
    code: 0,
    stderr: 'A newer version is stored and stays: /t/a@1700000001\n',
  });
  expect(await ok(['cat', '/t/a'])).toBe('newer');
  for (const words of [
    ['ls', '/none'],
    ['get', '-R', '/none', 'back'],
    ['rm', '/none@5'],
  ]) {
    expect((await run(words)).code).toBe(3);
  }
  await ok(['rm', '/t/a@1700000001', '/t/d/c']);
  expect(await ok(['ls'])).toBe('');
});

test('rm of what only the cache has is no failure, and of a mere copy it is', async () => {
  const { ok, run, url, write } = await shell();
  write('local', 'x');
  await ok(['put', '--no-remote-cache', 'local', '/only']);
  await ok(['rm', '/only']);
  expect(await run(['rm', '/only'])).toMatchObject({ code: 3 });
  await ok(['put', 'local', '/copied']);
  await ok(['-c', 'elsewhere', '-r', url, 'rm', '/copied']);
  expect(await run(['rm', '/copied'])).toMatchObject({ code: 3 });
});
