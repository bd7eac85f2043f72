import { execFileSync } from 'node:child_process';
import {
  chmodSync,
  existsSync,
  lstatSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { join } from 'node:path';
import { expect, test } from 'vitest';
import { treeBench, type TreeBench } from '../../test/support/trees.ts';
import { Client } from './client.ts';
import type { FileClient, FileInfo, StoredFile } from './file-client.ts';
import { MemoryClient } from './memory-client.ts';

const deleting = { delete: true } as const;
const bench = async (client: FileClient = new MemoryClient()): Promise<TreeBench> => await treeBench(client);

/** A cache with one content in it. */
async function makeCache(folder: string, source: string): Promise<void> {
  await using client = new Client({ cacheDir: folder, cacheMinFree: 0 });
  await client.putFile('/only', source);
}

test('a tree leaves the cache in use alone in both directions, and reports it once', async () => {
  const { path, write, push, pull, names } = await bench();
  write('home/site');
  await makeCache(path('home/.store'), write('only', 'the only copy'));
  const settings = { ...deleting, cacheFolder: path('home/.store') };
  const said = ['skipped home/.store: it is the cache of a client'];
  expect(await push('home', '/home', settings)).toMatchObject({ counts: { sent: 1, skipped: 1 }, said });
  expect(await names()).toEqual(['/home/site']);
  write('home/other');
  const down = await pull('/home', 'home', settings);
  expect(down.counts).toEqual({ unchanged: 1, deleted: 1, skipped: 1 });
  await using cache = new Client({ cacheDir: path('home/.store') });
  expect(await cache.exists('/only')).toBe(true);
});

test('a tree leaves out the cache in use also if it is empty, or has another path', async () => {
  const { path, write, push, pull, names } = await bench();
  write('home/site');
  write('home/store/unknown');
  symlinkSync('home', path('link'));
  const settings = { ...deleting, cacheFolder: path('link/store') };
  await push('home', '/home', settings);
  await push('link', '/link', settings);
  expect(await names()).toEqual(['/home/site', '/link/site']);
  await pull('/home', 'link', settings);
  expect(existsSync(path('home/store/unknown'))).toBe(true);
});

test('what a server has of a cache is not written into it, nor deleted for the sake of what is left out', async () => {
  const client = new MemoryClient();
  const { path, write, push, pull, names } = await bench(client);
  write('home/site');
  for (const name of ['/home/.store/blobs/x', '/home/.store/lock', '/home/site']) {
    await client.putFile(name, write('junk'));
  }
  const settings = { ...deleting, cacheFolder: path('home/.store') };
  const down = await pull('/home', 'home', settings);
  expect(down.counts).toEqual({ fetched: 1, skipped: 1 });
  expect(existsSync(path('home/.store'))).toBe(false);
  await makeCache(path('home/.store'), path('junk'));
  await push('home', '/home', settings);
  expect(await names()).toHaveLength(3);
});

test('a tree leaves out other caches at any depth, known by what they hold, and no folder that only looks a little like one', async () => {
  const { path, write, push, pull, names } = await bench();
  await makeCache(path('tree/d/e/old'), write('only'));
  write('tree/d/e/f');
  write('tree/partial/pins');
  write('tree/pins/partial');
  expect((await push('tree', '/t')).said).toEqual(['skipped tree/d/e/old: it is the cache of a client']);
  expect(await names()).toEqual(['/t/d/e/f', '/t/partial/pins', '/t/pins/partial']);
  await pull('/t', 'tree', deleting);
  expect(existsSync(path('tree/d/e/old/blobs'))).toBe(true);
  for (const place of ['tree/d/e/old', 'tree/d/e/old/blobs/0', 'tree/d/e/old/new/folder']) {
    const refused = { code: 'invalid-argument', message: expect.stringMatching(/the cache of a client/) };
    await expect(pull('/t', place, deleting)).rejects.toMatchObject(refused);
    await expect(push(place, '/t')).rejects.toMatchObject(refused);
  }
});

test('deleting from a source without files is refused in both directions, unless it is allowed', async () => {
  const client = new MemoryClient();
  const { path, write, push, pull, names } = await bench(client);
  mkdirSync(path('empty/folder'), { recursive: true });
  write('site/f');
  await push('site', '/s', deleting);
  const refused = {
    code: 'invalid-argument',
    message: expect.stringMatching(/holds no files.*--allow-empty$/),
  };
  for (const dryRun of [true, false]) {
    await expect(push('empty', '/s', { ...deleting, dryRun })).rejects.toMatchObject(refused);
  }
  expect(await names()).toEqual(['/s/f']);
  // If the target holds nothing either there is nothing to lose.
  await push('empty', '/none', deleting);
  await push('empty', '/s', { ...deleting, allowEmpty: true });
  for (const dryRun of [true, false]) {
    await expect(pull('/', 'site', { ...deleting, dryRun })).rejects.toMatchObject(refused);
  }
  await expect(pull('/s', 'site', deleting)).rejects.toMatchObject({ code: 'not-a-directory' });
  expect(readdirSync(path('site'))).toEqual(['f']);
  await pull('/s', 'site', { ...deleting, allowEmpty: true });
  expect(readdirSync(path('site'))).toEqual([]);
});

test('what is excluded is neither copied nor deleted, on either side', async () => {
  const client = new MemoryClient();
  const { path, write, push, pull, names } = await bench(client);
  const settings = { ...deleting, exclude: ['*.o', '/build/', 'd/*.tmp'] };
  for (const file of ['a', 'a.o', 'build/x', 'd/build/x', 'd/b.tmp', 'd/e/c.tmp']) write(`tree/${file}`);
  await client.putFile('/t/build/kept', path('tree/a'));
  await client.putFile('/t/gone', path('tree/a'));
  await push('tree', '/t', settings);
  expect(await names()).toEqual(['/t/a', '/t/build/kept', '/t/d/build/x', '/t/d/e/c.tmp']);
  write('mirror/build/mine');
  write('mirror/mine.o');
  write('mirror/other');
  mkdirSync(path('mirror/d/e.o'), { recursive: true });
  await pull('/t', 'mirror', settings);
  const here = [
    'a',
    'build',
    'build/mine',
    'd',
    'd/build',
    'd/build/x',
    'd/e',
    'd/e.o',
    'd/e/c.tmp',
    'mine.o',
  ];
  expect(new Set(readdirSync(path('mirror'), { recursive: true, encoding: 'utf8' }))).toEqual(new Set(here));
});

test('a pull that deletes says what it keeps and why', async () => {
  const { path, write, push, pull } = await bench();
  write('site/f');
  await push('site', '/s');
  write('mirror/gone');
  symlinkSync('nowhere', path('mirror/link'));
  mkdirSync(Buffer.concat([Buffer.from(path('mirror/')), Buffer.from([0xff])]));
  writeFileSync(path('mirror/.filetracker-0123456789abcdef'), 'x');
  const { counts, said } = await pull('/s', 'mirror', deleting);
  expect(counts).toEqual({ fetched: 1, deleted: 1, kept: 3 });
  expect([...said].sort()).toEqual([
    'deleted mirror/gone',
    'kept mirror/.filetracker-0123456789abcdef: it is an unfinished download; delete it by hand',
    'kept mirror/link: it is a symbolic link; delete it by hand',
    'kept mirror/\u{FFFD}: its name is not UTF-8; delete it by hand',
  ]);
});

test('a push reports what a store does not keep: execute bits and empty folders', async () => {
  const { path, write, push } = await bench();
  chmodSync(write('tree/run'), 0o755);
  mkdirSync(path('tree/empty'));
  expect((await push('tree', '/t')).losses).toEqual([
    '"tree/empty" is an empty folder, which is not stored',
    '"tree/run" is executable, which is not stored',
  ]);
});

/** A client that does something to the tree before each put. */
class MeddlingClient extends MemoryClient {
  beforePut: (path: string) => void = () => undefined;
  override async putFile(...call: Parameters<MemoryClient['putFile']>): Promise<StoredFile> {
    this.beforePut(call[1]);
    return await super.putFile(...call);
  }
}

test('files that vanish while a tree is sent have their own count, and keep nothing from being deleted', async () => {
  const client = new MeddlingClient();
  const { path, write, push, names } = await bench(client);
  write('site/a');
  write('site/z');
  await client.putFile('/s/gone', write('gone'));
  client.beforePut = () => rmSync(path('site/z'), { force: true });
  const { counts, said } = await push('site', '/s', deleting);
  expect(counts).toEqual({ sent: 1, vanished: 1, deleted: 1 });
  expect(said[0]).toBe('vanished site/z: it was removed while the tree was being sent');
  expect(await names()).toEqual(['/s/a']);
});

test('a file that vanishes on the server while a tree is fetched counts as vanished', async () => {
  const client = new MemoryClient();
  const { path, write, push, pull } = await bench(client);
  write('site/a');
  write('site/b');
  await push('site', '/s');
  const list = async function* (): AsyncGenerator<FileInfo> {
    for await (const file of client.listRemoteEntries({ subpath: '/s' })) {
      if (file.name === '/s/b') await client.deleteFile('/s/b');
      yield file;
    }
  };
  write('mirror/gone');
  expect((await pull('/s', 'mirror', { ...deleting, list })).counts).toEqual({
    fetched: 1,
    vanished: 1,
    deleted: 1,
  });
  expect(existsSync(path('mirror/a'))).toBe(true);
});

test('a folder that is replaced while it is read has nothing deleted for what is not in it any more', async () => {
  const client = new MemoryClient();
  const { path, write, push, names } = await bench(client);
  write('site/a');
  write('site/d/b');
  await push('site', '/s');
  let isMounted = true;
  const onTotal = (): void => {
    if (!isMounted) return;
    isMounted = false;
    renameSync(path('site'), path('elsewhere'));
    mkdirSync(path('site'));
  };
  await expect(push('site', '/s', { ...deleting, onTotal })).rejects.toMatchObject({ code: 'io' });
  expect(await names()).toEqual(['/s/a', '/s/d/b']);
});

test('versions are seconds rounded down, also before 1970 and right before the next second', async () => {
  const { path, write, push, pull, names } = await bench();
  const times = { '1700000000.999999999': 1_700_000_000, '-0.000000001': -1, '-1.5': -2, '-3': -3 };
  for (const time of Object.keys(times)) execFileSync('touch', ['-d', `@${time}`, write(`tree/${time}`)]);
  const client = new MemoryClient();
  for (const [time, version] of Object.entries(times)) {
    expect((await client.putFile(`/${time}`, path(`tree/${time}`))).version).toBe(version);
  }
  await push('tree', '/t');
  expect(await names()).toHaveLength(4);
  // Also as sync compares them.
  expect((await push('tree', '/t')).counts).toEqual({ unchanged: 4 });
  expect((await pull('/t', 'tree')).counts).toEqual({ unchanged: 4 });
});

test('a pull keeps the permissions of files that it overwrites, replaces links and pipes, and follows none', async () => {
  const { path, write, push, pull } = await bench();
  for (const file of ['private', 'run', 'link', 'pipe', 'new']) write(`site/${file}`);
  await push('site', '/s');
  chmodSync(write('mirror/private', 'old', 1), 0o600);
  chmodSync(write('mirror/run', 'old', 1), 0o755);
  symlinkSync(write('outside', 'outside'), path('mirror/link'));
  execFileSync('mkfifo', [path('mirror/pipe')]);
  expect((await pull('/s', 'mirror')).counts).toEqual({ fetched: 5 });
  const modeOf = (file: string): number => lstatSync(path(`mirror/${file}`)).mode & 0o777;
  expect([modeOf('private'), modeOf('run')]).toEqual([0o600, 0o755]);
  expect(lstatSync(path('mirror/link')).isFile()).toBe(true);
  expect(lstatSync(path('mirror/pipe')).isFile()).toBe(true);
  expect(readFileSync(path('outside'), 'utf8')).toBe('outside');
});

test('odd names and kinds of files end right or with one line each, and all others arrive', async () => {
  const { path, write, push, pull, names } = await bench();
  const good = [
    'a@123',
    '@5',
    'n\u0303',
    '\u00f1',
    'A',
    'a',
    'x'.repeat(255),
    ' ',
    'b\u3000',
    '\u00a0',
    '\u{FEFF}',
  ];
  for (const name of good) write(`tree/${name}`);
  const bad = ['new\nline', 'escape\u001b[31m', 'tab\t'];
  for (const name of bad) write(`tree/${name}`);
  writeFileSync(Buffer.concat([Buffer.from(path('tree/')), Buffer.from([0x61, 0xff])]), 'x');
  execFileSync('mkfifo', [path('tree/pipe')]);
  symlinkSync('.', path('tree/loop'));
  symlinkSync('/etc', path('tree/out'));
  write(`tree/${'deep/'.repeat(220)}file`);
  const { counts, said } = await push('tree', '/t');
  expect(counts).toEqual({ sent: good.length, skipped: 3, failed: bad.length + 2 });
  expect(said).toHaveLength(bad.length + 2 + 3);
  expect(await names()).toHaveLength(good.length);
  expect((await pull('/t', 'back')).counts).toEqual({ fetched: good.length });
  for (const name of good) expect(readFileSync(join(path('back'), name), 'utf8')).toBe(`tree/${name}`);
});
