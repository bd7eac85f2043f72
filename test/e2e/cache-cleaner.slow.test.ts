import {
  chmodSync,
  existsSync,
  linkSync,
  mkdirSync,
  readdirSync,
  rmSync,
  statSync,
  utimesSync,
} from 'node:fs';
import { join } from 'node:path';
import { expect, test, vi } from 'vitest';
import { cleanCaches } from '../../src/client/cache/cleaner.ts';
import { FolderLock } from '../../src/fs/locks/folder-lock.ts';
import { pythonCache, setting, usedBytes } from '../support/cached-clients.ts';
import { noise } from '../support/contents.ts';
import { keptTime } from '../support/kept-time.ts';
import { present } from '../support/present.ts';
import { Program } from '../support/program.ts';
import { runProgram } from '../support/programs.ts';
import { temporaryFolder } from '../support/temporary-folder.ts';

vi.setConfig({ testTimeout: 60_000 });

test('the cleaner removes the least recently used of all caches, of both layouts', async () => {
  const { folder, open, store } = await setting();
  const caches = ['one', 'two'].map((name) => join(folder, 'caches', name));
  const ours = open({ cacheDir: present(caches[0]) });
  for (const name of ['/old', '/new', '/pinned']) {
    await store(name, noise(100_000, name));
    await ours.prefetch(name);
  }
  const cache = present(ours.cache);
  const age = (name: string, seconds: number): void => {
    const { path } = present(cache.find(name as never));
    utimesSync(path, Date.now() / 1000 - seconds, keptTime(statSync(path)));
  };
  age('/old', 5000);
  age('/new', 10);
  age('/pinned', 9000);
  const pinned = present(cache.find('/pinned' as never));
  await cache.pins.add(pinned.digest, 'pin', pinned.name, pinned.version);
  pythonCache(present(caches[1]), { '/stale': noise(100_000, 's'), '/used': noise(100_000, 'u') });
  // Just now linked elsewhere, as the Python client hands files out.
  linkSync(join(present(caches[1]), 'files', 'used'), join(folder, 'handed-out'));
  await using lock = await FolderLock.acquire(join(present(caches[1]), 'locks'), {
    mode: 'exclusive',
    fileName: 'stale',
  });
  const args = ['-c', join(folder, 'caches', '*'), '-s', '400K', '-p', '50', '--once', '--json'];
  const first = await runProgram('filetracker-cache-cleaner', args);
  expect(JSON.parse(first.stdout)).toMatchObject({ caches: 2 });
  expect(existsSync(join(present(caches[1]), 'files', 'stale'))).toBe(true);
  expect(cache.find('/old' as never)).toBeUndefined();
  expect(cache.find('/pinned' as never)).toBeDefined();
  await lock.release();
  const report = await cleanCaches(caches, { sizeMaxBytes: 1, percentLeft: 0 });
  expect(existsSync(join(present(caches[1]), 'files', 'stale'))).toBe(false);
  expect(cache.find('/new' as never)).toBeUndefined();
  expect(report.afterBytes).toBe(usedBytes(present(caches[0])) - lockBytes(present(caches[0])));
});

/** What the account does not count: the note of the pin. */
function lockBytes(folder: string): number {
  return usedBytes(join(folder, 'pins'));
}

test('the cleaner keeps its limit with small files too, whose records take as much as they', async () => {
  const { folder, open, store } = await setting();
  const client = open();
  for (let index = 0; index < 200; index += 1) {
    await store(`/small/${index}`, noise(500, `small ${index}`));
    await client.prefetch(`/small/${index}`);
  }
  const cacheDir = present(client.cache).folder;
  expect(usedBytes(cacheDir)).toBe(200 * 8192);
  const args = ['-c', 'cache', '-s', '1M', '-p', '50', '--once', '--json'];
  const report = JSON.parse((await runProgram('filetracker-cache-cleaner', args, { folder })).stdout);
  // As many contents as it takes, each with its record.
  expect(report).toEqual({ caches: 1, beforeBytes: 200 * 8192, afterBytes: 64 * 8192, removedFiles: 136 });
  expect(usedBytes(cacheDir)).toBe(report.afterBytes);
  await client.cache?.space.shrink(32 * 8192);
  expect(usedBytes(cacheDir)).toBe(32 * 8192);
  // Records without contents count too, where no content is left to remove.
  for (const name of readdirSync(join(cacheDir, 'blobs')))
    rmSync(join(cacheDir, 'blobs', name), { recursive: true });
  expect(await cleanCaches([cacheDir], { sizeMaxBytes: 1, percentLeft: 0 })).toMatchObject({
    beforeBytes: 32 * 4096,
    afterBytes: 0,
  });
});

test('the cleaner does nothing below its limit, and refuses what it can not read', async () => {
  const { folder, open, store } = await setting();
  await store('/a', noise(100_000));
  await open().prefetch('/a');
  const run = (...words: string[]) => runProgram('filetracker-cache-cleaner', words, { folder });
  expect(await run('-c', 'cache', '-s', '10M', '--once')).toMatchObject({ code: 0, stdout: '', stderr: '' });
  expect(present(open().cache).find('/a' as never)).toBeDefined();
  for (const words of [
    ['-s', '1M', '--once'],
    ['-c', 'cache', '--once'],
    ['-c', '', '-s', '1M', '--once'],
    ['-c', 'cache', '-s', '1X', '--once'],
    ['-c', 'cache', '-s', '1M', '-p', '200', '--once'],
    ['-c', 'cache', '-s', '1M', '-i', 'soon', '--once'],
  ]) {
    expect(await run(...words)).toMatchObject({
      code: 2,
      stderr: expect.stringMatching(/^filetracker-cache-cleaner: /),
    });
  }
});

test('the cleaner tells of folders that are not there or may not be read, and cleans the others', async () => {
  const { folder, open, store } = await setting();
  await store('/a', noise(100_000));
  await open().prefetch('/a');
  chmodSync(folder, 0o755);
  mkdirSync(join(folder, 'closed'), { mode: 0o700 });
  const args = ['-s', '1B', '-p', '0', '--once', '--json'];
  const ended = await runProgram('filetracker-cache-cleaner', ['-c', 'none*', 'cache', ...args], { folder });
  expect(ended.code).toBe(1);
  expect(ended.stderr).toContain(
    'filetracker-cache-cleaner: Cannot clean "none*": there is no such folder\n',
  );
  expect(JSON.parse(ended.stdout)).toMatchObject({ caches: 1, removedFiles: 1 });
  if (process.geteuid?.() !== 0) return;
  const user = { uid: 65_534, gid: 65_534 };
  const refused = await runProgram('filetracker-cache-cleaner', ['-c', 'closed', ...args], { folder, user });
  expect(refused).toMatchObject({
    code: 1,
    stderr: expect.stringContaining('"closed": permission is denied'),
  });
});

test('the cleaner waits for an interval that is longer than any timer', async () => {
  const folder = await temporaryFolder();
  const args = ['-c', folder, '-s', '1G', '-i', '30d', '-d'];
  const program = new Program('filetracker-cache-cleaner', { args });
  await program.printed(/1 caches, .*\n/);
  program.kill('SIGTERM');
  const { errors } = await program.ended();
  expect(errors.match(/ caches, /g)).toHaveLength(1);
  expect(errors).not.toContain('Warning');
});
