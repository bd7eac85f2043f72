import { execFile, execFileSync } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import {
  chmodSync,
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { expect, onTestFinished, test, vi } from 'vitest';
import { digestOf } from '../../src/core/digest.ts';
import { noise, prose } from '../support/contents.ts';
import { shell } from '../support/client-shell.ts';
import { programPath } from '../support/built-programs.ts';
import { runProgram, startProgram } from '../support/programs.ts';

// Dozens of programs, on a machine that may be busy.
vi.setConfig({ testTimeout: 120_000 });

test('put, get, cat, version, stat, exists, ls and rm do what they say', async () => {
  const { folder, ok, run, write } = await shell();
  const bytes = prose(100_000);
  const path = write('local.txt', bytes);
  expect(await ok(['put', path, '/a/b.txt'])).toBe('/a/b.txt@1700000000\n');
  expect(await ok(['put', 'local.txt', '/a/'])).toBe('/a/local.txt@1700000000\n');
  expect(await ok(['get', '/a/b.txt', 'out'])).toBe('');
  expect(readFileSync(join(folder, 'out')).equals(bytes)).toBe(true);
  mkdirSync(join(folder, 'directory'));
  await ok(['get', '/a/b.txt@1700000000', 'directory']);
  expect(readFileSync(join(folder, 'directory', 'b.txt')).equals(bytes)).toBe(true);
  expect(await ok(['cat', '/a/b.txt'])).toBe(bytes.toString());
  expect(await ok(['get', '/a/b.txt', '-'])).toBe(bytes.toString());
  expect(await ok(['version', '/a/b.txt@5'])).toBe('1700000000\n');
  expect(await ok(['stat', '/a/b.txt'])).toContain(digestOf(bytes));
  expect(await ok(['exists', '/a/b.txt'])).toBe('');
  expect(await ok(['ls'])).toBe('/a/b.txt\n/a/local.txt\n');
  expect(await ok(['ls', '-l', '/a'])).toContain(
    '        100000  2023-11-14 22:13:20  /a/b.txt@1700000000\n',
  );
  expect(await ok(['ls', '--local'])).toContain('/a/b.txt@1700000000\n');
  expect(await ok(['rm', '/a/b.txt', '/a/local.txt'])).toBe('');
  expect((await run(['exists', '/a/b.txt'])).code).toBe(3);
  expect(await ok(['ls'])).toBe('');
});

test('pipes carry bytes in and out', async () => {
  const { ok } = await shell();
  const bytes = noise(300_000);
  expect(await ok(['put', '-', '/p@7'], { input: bytes })).toBe('/p@7\n');
  expect(Buffer.from(await ok(['cat', '/p']), 'latin1').equals(bytes)).toBe(true);
});

test('a folder as the standard input is no empty file', async () => {
  const { folder, url, run } = await shell();
  const command = `"${process.execPath}" "${programPath('filetracker')}" put - /folder < "${folder}"`;
  const environment = { ...process.env, FILETRACKER_URL: url, FILETRACKER_DIR: join(folder, 'cache') };
  const ended = promisify(execFile)('bash', ['-c', command], { env: environment });
  await expect(ended).rejects.toMatchObject({ code: 1, stderr: expect.stringContaining('is a folder') });
  expect(await run(['exists', '/folder'])).toMatchObject({ code: 3 });
});

test('--json prints objects, before and after the command', async () => {
  const { ok, write } = await shell();
  write('local', 'hello');
  const digest = digestOf(Buffer.from('hello'));
  const file = { name: '/a', version: 1_700_000_000, versionedName: '/a@1700000000', size: 5, digest };
  expect(JSON.parse(await ok(['--json', 'put', 'local', '/a']))).toEqual({
    ...file,
    stored: true,
    sent: true,
  });
  expect(JSON.parse(await ok(['get', '/a', 'out', '--json']))).toEqual({
    ...file,
    cached: true,
    path: 'out',
  });
  expect(JSON.parse(await ok(['stat', '/a', '--json']))).toEqual(file);
  expect(JSON.parse(await ok(['exists', '/a', '--json']))).toEqual({ name: '/a', exists: true });
  expect(JSON.parse(await ok(['version', '/a', '--json']))).toEqual({ name: '/a', version: 1_700_000_000 });
  const { versionedName: _left, ...listed } = file;
  expect(JSON.parse(await ok(['ls', '--json']))).toEqual(listed);
  expect(JSON.parse(await ok(['cache', 'status', '--json']))).toMatchObject({ contents: 1, names: 1 });
  expect(JSON.parse(await ok(['rm', '/a', '--json']))).toEqual({ name: '/a' });
});

test('options of the program count after the command too, and there before those that stand before it', async () => {
  const { run, ok, write, folder } = await shell();
  write('local', 'hello');
  const elsewhere = join(folder, 'elsewhere');
  expect(await run(['-c', 'nowhere', 'put', 'local', '/a', '-q', '-c', elsewhere])).toMatchObject({
    code: 0,
    stderr: '',
  });
  const [status] = [await ok(['cache', 'status', '--json', '--cache-dir', elsewhere])];
  expect(JSON.parse(status)).toMatchObject({ folder: elsewhere, contents: 1 });
  expect(await ok(['cat', '/a@1700000000', '--offline', '-c', elsewhere])).toBe('hello');
  expect(await run(['cat', '/a@1700000000', '--offline'])).toMatchObject({ code: 3 });
  // This one has a meaning of its own for the letter.
  expect(await ok(['get', '-c', '/a', 'out', '-v'])).toBe('');
  expect(readFileSync(join(folder, 'out'), 'utf8')).toBe('hello');
});

test('arguments that are not UTF-8 are refused, and those with the mark of such are not', async () => {
  const { url, folder, ok, write } = await shell();
  write('local\u{FFFD}', 'hello');
  expect(await ok(['put', 'local\u{FFFD}', '/\u{FFFD}'])).toMatch(/@1700000000\n$/);
  const program = `"${process.execPath}" "${programPath('filetracker')}"`;
  const env = { ...process.env, FILETRACKER_URL: url, FILETRACKER_DIR: join(folder, 'cache') };
  for (const words of ["get /a@1 $'\\xe9'", "rm $'/\\xe9'", "-c $'\\xff' ls"]) {
    await expect(promisify(execFile)('bash', ['-c', `${program} ${words}`], { env })).rejects.toMatchObject({
      code: 2,
      stderr: expect.stringMatching(/^filetracker: Cannot read the argument ".*": .*UTF-8.*\n$/),
    });
  }
});

test('get -R and put -R carry trees, and tell what they skip', async () => {
  const { folder, ok, run, write } = await shell();
  for (let index = 0; index < 30; index += 1) write(`tree/d${index % 3}/f ${index}.txt`, prose(1000 + index));
  symlinkSync('d0', join(folder, 'tree', 'link'));
  const put = await run(['put', '-R', 'tree', '/t']);
  expect(put).toMatchObject({ code: 0, stdout: '' });
  expect(put.stderr).toContain('skipped "tree/link": it is a symbolic link');
  expect(put.stderr).toContain('30 sent, 1 skipped');
  await ok(['get', '-R', '/t', 'back', '-j', '4']);
  for (let index = 0; index < 30; index += 1) {
    const name = `d${index % 3}/f ${index}.txt`;
    expect(readFileSync(join(folder, 'back', name)).equals(prose(1000 + index))).toBe(true);
  }
  const many = await run(['get', '-R', '--force-refresh', '/t', 'many', '-j', '30']);
  expect(many).toMatchObject({ code: 0, stderr: expect.stringMatching(/^30 fetched .*\n$/) });
  expect(await run(['get', '-R', '/none', 'back'])).toMatchObject({ code: 3 });
});

test('put -R and sync up store files that were removed in a newer version', async () => {
  const { run, ok, write } = await shell();
  write('tree/a', 'old');
  write('tree/b', 'b');
  for (const words of [
    ['put', '-R', 'tree', '/t'],
    ['sync', 'up', 'tree', '/t'],
  ]) {
    await ok(['put', 'tree/a', '/t/a@1800000000']);
    await ok(['rm', '/t/a']);
    expect(await run(words)).toMatchObject({ code: 0 });
    expect(await ok(['cat', '/t/a'])).toBe('old');
  }
});

test('sync sends and fetches only what changed, deletes when told, and can be tried dry', async () => {
  const { folder, ok, run, write } = await shell();
  for (const name of ['a', 'b', 'c/d']) write(`site/${name}`, `content of ${name}`);
  expect((await run(['sync', 'up', 'site', '/site', '--dry-run'])).stdout.split('\n').sort()).toEqual([
    '',
    'sent  /site/a',
    'sent  /site/b',
    'sent  /site/c/d',
  ]);
  expect(await ok(['ls'])).toBe('');
  expect((await run(['sync', 'up', 'site', '/site'])).stderr).toContain('3 sent');
  expect((await run(['sync', 'up', 'site', '/site'])).stderr).toContain('3 unchanged');
  write('site/a', 'changed content', 1_700_000_001);
  // The time alone is no change of the content.
  write('site/b', 'content of b', 1_700_000_002);
  const { rm } = await import('node:fs/promises');
  await rm(join(folder, 'site', 'c'), { recursive: true });
  expect((await run(['sync', 'up', 'site', '/site', '--delete'])).stderr).toContain(
    '1 sent, 1 unchanged, 1 deleted',
  );
  expect(await ok(['ls'])).toBe('/site/a\n/site/b\n');
  write('mirror/extra/file', 'extra');
  write('mirror/b', 'newer here', 1_800_000_000);
  const down = await run(['sync', 'down', '/site', 'mirror', '--delete']);
  expect(down.stderr).toContain('1 fetched, 1 deleted, 1 kept');
  expect(existsSync(join(folder, 'mirror', 'extra'))).toBe(false);
  expect(readFileSync(join(folder, 'mirror', 'b'), 'utf8')).toBe('newer here');
  expect((await run(['sync', 'down', '/site', 'mirror', '--force'])).stderr).toContain(
    '1 fetched, 1 unchanged',
  );
  expect(readFileSync(join(folder, 'mirror', 'b'), 'utf8')).toBe('content of b');
  expect(Math.floor(statSync(join(folder, 'mirror', 'a')).mtimeMs / 1000)).toBe(1_700_000_001);
  // A server that lists nothing is an error, and no reason to delete everything.
  expect((await run(['sync', 'down', '/nothing', 'mirror', '--delete'])).code).toBe(3);
  expect(readdirSync(join(folder, 'mirror')).sort()).toEqual(['a', 'b']);
});

test('sync down leaves contents of the cache sound that lie linked in the folder', async () => {
  const { folder, ok, write } = await shell();
  await ok(['put', write('large', noise(200_000)), '/t/large']);
  await ok(['--hand-out', 'link', 'get', '-R', '/t', 'mirror']);
  const target = join(folder, 'mirror', 'large');
  expect(statSync(target).nlink).toBe(2);
  await ok(['sync', 'down', '/t', 'mirror']);
  expect(await ok(['cache', 'verify'])).toContain('0 damaged');
  // The same content under a newer version: the time of the link changes, and it is a link all the same.
  await ok(['put', 'large', '/t/large@1700000001']);
  await ok(['sync', 'down', '/t', 'mirror']);
  expect(Math.floor(statSync(target).mtimeMs / 1000)).toBe(1_700_000_001);
  expect(statSync(target).nlink).toBe(2);
  expect(await ok(['cache', 'verify'])).toContain('0 damaged');
});

test('put -R tells of names that are not UTF-8, and fails', async () => {
  const { folder, ok, run, write } = await shell();
  write('tree/plain', 'x');
  write('tree/\u{FFFD}', 'a replacement character is a name as well');
  const odd = Buffer.concat([Buffer.from(`${join(folder, 'tree')}/caf`), Buffer.from([0xe9])]);
  writeFileSync(odd, 'x');
  for (const words of [
    ['put', '-R', 'tree', '/t'],
    ['sync', 'up', 'tree', '/t'],
  ]) {
    expect(await run(words)).toMatchObject({
      code: 1,
      stderr: expect.stringContaining('its name is not UTF-8'),
    });
  }
  expect(await ok(['ls', '/t'])).toBe(Buffer.from('/t/plain\n/t/\u{FFFD}\n').toString('latin1'));
});

test('sync --delete changes files into directories and directories into files, both ways', async () => {
  const { folder, ok, run, write } = await shell();
  write('was/link/s', 'below');
  write('was/f', 'a file');
  await ok(['sync', 'up', 'was', '/sl']);
  write('now/link', 'a file');
  write('now/f/g', 'below');
  const up = await run(['sync', 'up', 'now', '/sl', '--delete']);
  expect(up).toMatchObject({ code: 0, stderr: '2 sent, 2 deleted (11 B)\n' });
  expect(await ok(['ls', '/sl'])).toBe('/sl/f/g\n/sl/link\n');
  const down = await run(['sync', 'down', '/sl', 'was', '--delete']);
  expect(down).toMatchObject({ code: 0, stderr: '2 fetched, 2 deleted (11 B)\n' });
  expect(readFileSync(join(folder, 'was', 'f', 'g'), 'utf8')).toBe('below');
  expect(readFileSync(join(folder, 'was', 'link'), 'utf8')).toBe('a file');
});

test('sync --delete deletes nothing once a transfer failed', async () => {
  const { folder, ok, run, write } = await shell();
  write('old/gone', 'x');
  await ok(['sync', 'up', 'old', '/s']);
  write('new/deep/file', 'x');
  mkdirSync(join(folder, 'target', 'deep', 'file'), { recursive: true });
  write('target/deep/file/special', 'x');
  await ok(['sync', 'up', 'new', '/s']);
  write('target/mine', 'only here');
  symlinkSync('nowhere', join(folder, 'target', 'deep', 'file', 'link'));
  const down = await run(['sync', 'down', '/s', 'target', '--delete']);
  expect(down.code).toBe(1);
  expect(down.stderr).toContain('kept "target/mine": it was not deleted, because something else failed');
  expect(existsSync(join(folder, 'target', 'mine'))).toBe(true);
  expect(await run(['sync', 'down', '/s', 'target', '--delete', '--json'])).toMatchObject({
    stdout: expect.not.stringContaining('"name":""'),
  });
});

test('a folder that can not be read, or written, is told, and the rest goes on', async (context) => {
  // Root may read everything, so the program must run as someone else.
  if (process.getuid?.() !== 0) context.skip('only root can run programs as another user');
  const { folder, ok, run, write } = await shell();
  write('tree/open/a', 'x');
  write('tree/shut/b', 'y');
  write('tree/z', 'z');
  await ok(['put', '-R', 'tree', '/t']);
  chmodSync(join(folder, 'tree', 'shut'), 0o700);
  chmodSync(folder, 0o755);
  const options = { user: { uid: 65_534, gid: 65_534 }, environment: { FILETRACKER_DIR: '' } };
  const up = await run(['sync', 'up', 'tree', '/t', '--delete'], options);
  expect(up.stderr).toContain('failed "tree/shut": Cannot read the folder "tree/shut": permission is denied');
  expect(up.stderr).toContain('2 unchanged, 1 kept, 1 failed');
  expect(up.code).toBe(1);
  expect(await ok(['ls', '/t'])).toBe('/t/open/a\n/t/shut/b\n/t/z\n');
  const down = await run(['get', '-R', '/t', 'target'], options);
  expect(down.stderr).not.toContain('Cannot do this');
  expect(down).toMatchObject({ code: 1, stderr: expect.stringMatching(/\b4 failed\n$/) });
});

test('trees are not written through links below the target, nor into a file', async () => {
  const { folder, ok, run, write } = await shell();
  write('tree/link/a', 'x');
  await ok(['put', '-R', 'tree', '/t']);
  for (const name of ['outside', 'target']) mkdirSync(join(folder, name));
  symlinkSync('../outside', join(folder, 'target', 'link'));
  expect(await run(['sync', 'down', '/t', 'target'])).toMatchObject({
    code: 1,
    stderr: expect.stringContaining('"target/link" is a symbolic link, which is not followed'),
  });
  expect(readdirSync(join(folder, 'outside'))).toEqual([]);
  await ok(['sync', 'down', '/t', 'target', '--delete']);
  expect(readFileSync(join(folder, 'target', 'link', 'a'), 'utf8')).toBe('x');
  expect(readdirSync(join(folder, 'outside'))).toEqual([]);
  write('file', 'x');
  for (const words of [
    ['get', '-R', '/t', 'file'],
    ['sync', 'down', '/t', 'file'],
  ]) {
    const stderr = 'filetracker: Cannot write to the folder "file": it is a file and not a folder\n';
    expect(await run(words)).toMatchObject({ code: 1, stderr });
  }
});

test('versions before 1970 come back as the time of the file', async () => {
  const { folder, ok, write } = await shell();
  await ok(['put', write('tree/old', 'x', -86_400), '/t/old']);
  await ok(['get', '/t/old', 'one']);
  await ok(['get', '-c', '/t/old', 'two']);
  await ok(['get', '-R', '/t', 'back']);
  write('back/old', 'x', 500);
  await ok(['sync', 'down', '/t', 'back', '--force']);
  for (const path of ['one', 'two', 'back/old'])
    expect(statSync(join(folder, path)).mtimeMs).toBe(-86_400_000);
});

test('ls prints the same names with a server and offline', async () => {
  const { ok, write } = await shell();
  for (const version of [5, 6]) await ok(['put', write('local', `${version}`, version), '/a']);
  for (const words of [['ls'], ['--offline', 'ls']]) {
    expect(await ok(words)).toBe('/a\n');
    expect(JSON.parse(await ok([...words, '--json']))).toMatchObject({ name: '/a', version: 6 });
  }
  expect((await ok(['ls', '--local'])).split('\n').sort()).toEqual(['', '/a@5', '/a@6']);
});

test('names with control characters are told as JSON writes them', async () => {
  const { run, write } = await shell();
  write('tree/red\u001b[31m\nline', 'x');
  const ended = await run(['put', '-R', 'tree', '/t']);
  expect(ended.code).toBe(1);
  expect(ended.stderr).toContain('failed "tree/red\\u001b[31m\\nline": ');
  expect(ended.stderr).not.toContain('\u001b');
});

test('prefetch, cache pin, unpin, clean and verify care for the cache', async () => {
  const { ok, run, write, folder } = await shell();
  for (const name of ['a', 'b', 'c'])
    await ok(['put', '--no-local-cache', write(name, prose(10_000, name)), `/${name}`]);
  write('names', '# a comment\n/a\n\n/b@1700000000\n/missing\n');
  const fetched = await run(['prefetch', '--from', 'names']);
  expect(fetched).toMatchObject({ code: 3, stderr: expect.stringContaining('"/missing"') });
  await ok(['prefetch', '--from', '-'], { input: '/a\n' });
  await ok(['cache', 'pin', '/c']);
  expect(JSON.parse(await ok(['cache', 'status', '--json']))).toMatchObject({ contents: 3, pinned: 1 });
  await ok(['cache', 'clean', '--all']);
  expect((await ok(['ls', '--local'])).trim()).toBe('/c@1700000000');
  await ok(['--offline', 'get', '/c', 'out']);
  expect(await run(['--offline', 'get', '/a', 'out'])).toMatchObject({ code: 3 });
  await ok(['cache', 'unpin', '/c']);
  expect(await run(['cache', 'unpin', '/c'])).toMatchObject({ code: 3 });
  expect(await ok(['cache', 'verify'])).toContain('1 blobs read');
  const blob = join(folder, 'cache', 'blobs');
  const [path = ''] = readdirSync(blob, { recursive: true, encoding: 'utf8' }).filter(
    (name) => name.length > 60,
  );
  chmodSync(join(blob, path), 0o644);
  writeFileSync(join(blob, path), 'damaged');
  expect(await run(['cache', 'verify'])).toMatchObject({
    code: 1,
    stderr: expect.stringContaining('damaged'),
  });
  await ok(['cache', 'clean', '--all']);
  expect(await ok(['ls', '--local'])).toBe('');
});

test('of several names, one that is not there keeps no other from its turn', async () => {
  const { ok, run, write } = await shell();
  write('local', 'x');
  for (const name of ['/a', '/b']) await ok(['put', 'local', name]);
  for (const words of [['stat'], ['cache', 'pin'], ['cache', 'unpin'], ['rm']]) {
    const ended = await run(['--json', ...words, '/a', '/none', '/b']);
    expect(ended).toMatchObject({ code: 3, stderr: expect.stringMatching(/^filetracker: .*"\/none".*\n$/) });
    const names = ended.stdout
      .trim()
      .split('\n')
      .map((line) => (JSON.parse(line) as { name: string }).name);
    expect(names).toEqual(['/a', '/b']);
  }
  expect(await ok(['ls'])).toBe('');
});

test('without a server the cache is a store of its own', async () => {
  const { folder, ok, run, write } = await shell(false);
  expect(await ok(['put', write('one', 'first', 100), '/a'])).toBe('/a@100\n');
  expect(await ok(['put', write('two', 'second', 200), '/a'])).toBe('/a@200\n');
  expect(await ok(['put', write('three', 'older', 150), '/a'])).toBe('/a@200\n');
  expect(await ok(['cat', '/a'])).toBe('second');
  expect(await run(['get', '/a@100', 'out'])).toMatchObject({ code: 3 });
  expect(await ok(['ls'])).toBe('/a\n');
  expect(await ok(['ls', '--local'])).toBe('/a@200\n');
  await ok(['cache', 'clean', '--all']);
  expect(await ok(['cat', '/a'])).toBe('second');
  await ok(['get', '/a', 'out'], { environment: { FILETRACKER_HAND_OUT: 'link' } });
  writeFileSync(join(folder, 'out'), 'edited');
  expect(await ok(['cat', '/a'])).toBe('second');
  await ok(['rm', '/a']);
  expect(await run(['cat', '/a'])).toMatchObject({ code: 3 });
  expect(JSON.parse(await ok(['cache', 'status', '--json']))).toMatchObject({ contents: 0, pinned: 0 });
});

const wrongUse: readonly (readonly [string, readonly string[]])[] = [
  ['no command', []],
  ['an unknown command', ['fetch', '/a', 'b']],
  ['an unknown flag', ['get', '--fast', '/a', 'b']],
  ['too few words', ['get', '/a']],
  ['too many words', ['get', '/a', 'b', 'c']],
  ['a name without a slash', ['get', 'a', 'b']],
  ['a name with dots', ['get', '/a/../b', 'b']],
  ['a version of milliseconds', ['put', 'local', '/a@1700000000000']],
  ['a bad version', ['put', 'local', '/a@999999999999']],
  ['a bad URL', ['-r', 'localhost:9999', 'get', '/a', 'b']],
  ['a bad size', ['--cache-size', '10X', 'get', '/a', 'b']],
  ['a bad way to hand out', ['--hand-out', 'magic', 'get', '/a', 'b']],
  ['bad jobs', ['get', '-R', '-j', '0', '/a', 'b']],
  ['an unknown shell', ['completion', 'tcsh']],
  ['a bad direction', ['sync', 'left', 'a', '/b']],
  ['the standard output as a folder', ['get', '-R', '/a', '-']],
  ['the standard input as a folder', ['put', '-R', '-', '/a']],
  ['a prefetch of nothing', ['prefetch']],
  ['a prefetch of what is no name', ['prefetch', '/bad/']],
  ['no folder as the cache', ['-c', '', 'stat', '/a']],
  ['a put while offline', ['--offline', 'put', 'local', '/a']],
  ['a put of a pipe while offline', ['--offline', 'put', '-', '/a']],
  ['a removal while offline', ['--offline', 'rm', '/a']],
  ['an upload of a tree while offline', ['--offline', 'sync', 'up', '.', '/a']],
  ['a bad date', ['ls', '--up-to', 'yesterday-ish']],
];

test.each(wrongUse)('%s is wrong usage: exit 2, and one clear line', async (_what, words) => {
  const { run, write } = await shell();
  write('local', 'x');
  const ended = await run(words);
  expect(ended.code).toBe(2);
  expect(ended.stdout).toBe('');
  expect(ended.stderr).toMatch(/^(filetracker(?: [a-z]+)*: |Usage: )/);
  expect(ended.stderr).not.toMatch(/\n\s+at /);
});

test('failures end with the exit code that is documented, and one line that says what to do', async () => {
  const { folder, run, write } = await shell();
  write('local', 'x');
  write('names/blocked', 'x');
  await run(['put', 'local', '/f']);
  const cases: readonly (readonly [number, RegExp, readonly string[]])[] = [
    [3, /^filetracker: .*no such file/, ['get', '/none', 'out']],
    [3, /^filetracker: .*the server holds version 1700000000/, ['get', '/f@5', 'out']],
    [3, /^filetracker: /, ['stat', '/none']],
    [3, /^filetracker: /, ['rm', '/none']],
    [4, /^filetracker: .*"\/f\/g".* is a file/, ['put', 'local', '/f/g']],
    [5, /^filetracker: .*no server answers there/, ['-r', 'http://127.0.0.1:9', 'get', '/f', 'out']],
    [1, /^filetracker: Cannot put "missing": there is no such file/, ['put', 'missing', '/g']],
    [1, /^filetracker: Cannot put "names": it is a folder/, ['put', 'names', '/g']],
    [
      1,
      /^filetracker: Cannot write "missing\/out": the folder "missing" does not exist/,
      ['get', '/f', 'missing/out'],
    ],
    [1, /^filetracker: Cannot write "local\/out"/, ['get', '/f', 'local/out']],
    [3, /^filetracker: /, ['get', '-R', '/f', 'out']],
    [3, /^filetracker: .*"\/none/, ['ls', '/none']],
    [
      1,
      /^filetracker: Cannot read the names in "missing": there is no such/,
      ['prefetch', '--from', 'missing'],
    ],
    [1, /^filetracker: .*"missing"/, ['put', '-R', 'missing', '/g']],
  ];
  for (const [code, line, words] of cases) {
    const ended = await run(words);
    expect([words, ended.code]).toEqual([words, code]);
    expect(ended.stderr).toMatch(line);
    expect(ended.stderr.trim().split('\n')).toHaveLength(1);
  }
  expect(readdirSync(folder).sort()).toEqual(['cache', 'local', 'names']);
});

/** A server that tells its version, is away for a while then, and takes files after that. */
async function restartingServer(
  awayMs: number,
): Promise<{ readonly url: string; readonly stored: string[] }> {
  const stored: string[] = [];
  let backMs = Infinity;
  const isAway = (): boolean => Number.isFinite(backMs) && performance.now() < backMs;
  const server = createServer((request, response) => {
    if (request.url?.startsWith('/version') === true) {
      response.end('{"protocol_versions":[2]}');
      backMs = performance.now() + awayMs;
    } else if (performance.now() < backMs + 1000) {
      response.writeHead(503).end('it starts');
    } else {
      stored.push(request.url ?? '');
      request.resume().on('end', () => response.end());
    }
  });
  server.on('connection', (socket) => {
    if (isAway()) socket.destroy();
  });
  server.keepAliveTimeout = 1;
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  onTestFinished(() => {
    server.closeAllConnections();
    server.close();
  });
  return { url: `http://127.0.0.1:${(server.address() as AddressInfo).port}`, stored };
}

test('a server that is started again is waited for, as long as is told', async () => {
  const { run, write } = await shell(false);
  write('local', 'x');
  const back = await restartingServer(2500);
  const waited = await run(['-r', back.url, 'put', 'local', '/f']);
  expect(waited).toMatchObject({ code: 0, stdout: '/f@1700000000\n' });
  expect(back.stored).toHaveLength(1);
  const words = ['--remote-url', (await restartingServer(600_000)).url, 'put', 'local', '/f'];
  expect(await run(['--retry-for', '0', ...words])).toMatchObject({ code: 5 });
  expect(await run(words, { environment: { FILETRACKER_RETRY_FOR: '0' } })).toMatchObject({ code: 5 });
  expect(await run(['--retry-for', 'long', ...words])).toMatchObject({ code: 2 });
});

test('devices and pipes as targets are written into and not replaced', async () => {
  const { folder, url, ok, write } = await shell();
  await ok(['put', write('local', 'hello'), '/f']);
  await ok(['get', '/f@1700000000', '/dev/null']);
  expect(statSync('/dev/null').isCharacterDevice()).toBe(true);
  const words = [process.execPath, programPath('filetracker'), '-r', url, '-c', join(folder, 'cache')];
  const line = `'${words.join("' '")}' get /f /dev/stdout | cat`;
  expect((await promisify(execFile)('sh', ['-c', line])).stdout).toBe('hello');
});

test('a program that is stopped leaves nothing half written', async () => {
  const { folder, url, ok, write } = await shell();
  await ok(['put', '--no-local-cache', write('local', randomBytes(30_000_000)), '/big']);
  const environment = { FILETRACKER_URL: url, FILETRACKER_DIR: join(folder, 'cache') };
  const started = startProgram('filetracker', ['get', '-c', '/big', 'out'], { folder, environment });
  // Looked for often, because the whole get takes no more than 50 ms.
  const begun = (): boolean => readdirSync(folder).some((name) => name.startsWith('.filetracker'));
  await expect.poll(begun, { interval: 1 }).toBe(true);
  started.kill('SIGTERM');
  const ended = await started.ended;
  expect([143, 0]).toContain(ended.code);
  if (ended.code === 143) expect(ended.stderr).toBe('filetracker: stopped by SIGTERM\n');
  expect(readdirSync(folder).filter((name) => name.startsWith('.filetracker'))).toEqual([]);
  if (existsSync(join(folder, 'out'))) expect(statSync(join(folder, 'out')).size).toBe(30_000_000);
});

test('help pages fit 80 columns and name every command', async () => {
  const commands = [
    'get',
    'cat',
    'put',
    'rm',
    'version',
    'stat',
    'exists',
    'ls',
    'sync',
    'prefetch',
    'cache',
  ];
  const pages = [
    await runProgram('filetracker', ['--help']),
    await runProgram('filetracker-cache-cleaner', ['--help']),
    ...(await Promise.all(commands.map((command) => runProgram('filetracker', [command, '--help'])))),
  ];
  for (const page of pages) {
    expect(page.code).toBe(0);
    for (const line of page.stdout.split('\n')) expect(line.length).toBeLessThanOrEqual(80);
  }
  for (const command of commands) expect(pages[0]?.stdout).toMatch(new RegExp(`^  ${command}\\b`, 'm'));
});

test('completion scripts are understood by their shells', async () => {
  for (const name of ['bash', 'zsh', 'fish']) {
    const { stdout, code } = await runProgram('filetracker', ['completion', name]);
    expect(code).toBe(0);
    expect(stdout).toContain('prefetch');
    if (name !== 'bash') continue;
    const reply = (line: string): string =>
      execFileSync('bash', [
        '-c',
        `${stdout}\nCOMP_WORDS=(${line}); COMP_CWORD=$((\${#COMP_WORDS[@]} - 1)); _filetracker; echo "\${COMPREPLY[@]}"`,
      ]).toString();
    expect(reply('filetracker ca')).toBe('cat cache\n');
    expect(reply('filetracker -c /tmp cache v')).toBe('verify\n');
    expect(reply('filetracker get --no')).toBe('--no-cache\n');
    expect(reply('filetracker sync ""')).toBe('up down\n');
    expect(reply('filetracker --retry-for 5s cache v')).toBe('verify\n');
    expect(reply('filetracker --hand-out re')).toBe('reflink\n');
    expect(reply('filetracker-server --gc')).toBe('--gc-grace\n');
    expect(reply('filetracker-server token a')).toBe('add\n');
    expect(reply('filetracker-server token add --ri')).toBe('--rights\n');
    expect(reply('filetracker-recover --dry')).toBe('--dry-run\n');
    // Nothing of its own, so that bash completes the name of a file.
    expect(reply('filetracker put ""')).toBe('\n');
  }
});

test('filetracker ends quietly when the reader of its output has seen enough', async () => {
  const { folder, url, ok, write } = await shell();
  write('large.bin', noise(3 * 1024 * 1024));
  await ok(['put', 'large.bin', '/large.bin']);
  const command = `"${process.execPath}" "${programPath('filetracker')}" cat /large.bin | head -c 10 | wc -c; echo "\${PIPESTATUS[0]}"`;
  const environment = { ...process.env, FILETRACKER_URL: url, FILETRACKER_DIR: join(folder, 'cache') };
  const { stdout, stderr } = await promisify(execFile)('bash', ['-c', command], { env: environment });
  expect(stdout.trim().split(/\s+/)).toEqual(['10', '0']);
  expect(stderr).toBe('');
});

test('a command that changes something is done whole when nobody reads any more what it prints', async () => {
  const { folder, url, ok, write } = await shell();
  for (let index = 0; index < 300; index += 1) write(`tree/${index}`, `content ${index}`);
  const command = `"${process.execPath}" "${programPath('filetracker')}" --json put -R tree /t | head -n 1 | wc -l; echo "\${PIPESTATUS[0]}"`;
  const environment = { ...process.env, FILETRACKER_URL: url, FILETRACKER_DIR: join(folder, 'cache') };
  const { stdout, stderr } = await promisify(execFile)('bash', ['-c', command], {
    cwd: folder,
    env: environment,
  });
  expect(stdout.trim().split(/\s+/)).toEqual(['1', '0']);
  expect(stderr).toBe('');
  expect((await ok(['ls', '/t'])).trim().split('\n')).toHaveLength(300);
});

test('filetracker fails in one line when its output can not be written', async () => {
  const { folder, url, ok, write } = await shell();
  write('large.bin', noise(300_000));
  await ok(['put', 'large.bin', '/large.bin']);
  const environment = { ...process.env, FILETRACKER_URL: url, FILETRACKER_DIR: join(folder, 'cache') };
  for (const words of ['cat /large.bin', 'ls /', '--json stat /large.bin', 'get /large.bin -']) {
    const command = `"${process.execPath}" "${programPath('filetracker')}" ${words} > /dev/full`;
    const ended = promisify(execFile)('bash', ['-c', command], { env: environment });
    await expect(ended).rejects.toMatchObject({
      code: 1,
      stderr: 'filetracker: Cannot write to the standard output: the disk is full\n',
    });
  }
});
