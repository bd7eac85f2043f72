import { mkdirSync, readdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { expect, test, vi } from 'vitest';
import { Client } from '../../src/client/client.ts';
import { noise } from '../support/contents.ts';
import { startServerProgram } from '../support/program.ts';
import { runProgram } from '../support/programs.ts';
import { temporaryFolder } from '../support/temporary-folder.ts';

// Programs, on a machine that may be busy.
vi.setConfig({ testTimeout: 120_000 });

const oneLine = /^filetracker[a-z-]*: [^\n]*\n$/;

test('a client makes no cache in the store of a server', async () => {
  const folder = join(await temporaryFolder(), 'store');
  const { port } = await startServerProgram(folder);
  const environment = {
    FILETRACKER_DIR: folder,
    FILETRACKER_URL: `http://127.0.0.1:${port}`,
    FILETRACKER_CACHE_MIN_FREE: '0',
  };
  const before = readdirSync(folder).sort();
  const run = (...words: string[]): ReturnType<typeof runProgram> =>
    runProgram('filetracker', words, { environment, input: noise(100_000), folder: join(folder, '..') });
  // The server has it: that the cache does not is told, and no failure.
  const put = await run('put', '-', '/a@1');
  expect(put).toMatchObject({ code: 0, stdout: '/a@1\n', stderr: expect.stringMatching(oneLine) });
  expect(put.stderr).toContain('it is the store of a server');
  for (const words of [
    ['get', '/a', 'out'],
    ['put', '--no-remote-cache', '-', '/b'],
    ['cache', 'status'],
    ['cache', 'clean', '--all'],
    ['cache', 'pin', '/a'],
  ]) {
    const ended = await run(...words);
    expect([words, ended.code]).toEqual([words, 2]);
    expect(ended.stderr).toMatch(oneLine);
    expect(ended.stderr).toContain('it is the store of a server');
  }
  expect(await run('ls')).toMatchObject({ code: 0, stdout: '/a\n', stderr: '' });
  expect(readdirSync(folder).sort()).toEqual(before);
});

test.each(['links', 'uploads', 'store-3'])('nor in one that shows by %s/', async (part) => {
  const folder = await temporaryFolder();
  mkdirSync(join(folder, part));
  const client = new Client({ cacheDir: folder, cacheMinFree: 0 });
  await expect(client.putStream('/a', [Buffer.from('x')] as never)).rejects.toMatchObject({
    code: 'invalid-argument',
  });
  await client.close();
  expect(readdirSync(folder)).toEqual([part]);
});

test('no program makes a store in the cache of a client, nor takes its contents for strays', async () => {
  const folder = join(await temporaryFolder(), 'shared');
  const environment = { FILETRACKER_DIR: folder, FILETRACKER_CACHE_MIN_FREE: '0' };
  // Beside what the Python client keeps there, which is no harm.
  for (const part of ['files', 'locks']) mkdirSync(join(folder, part), { recursive: true });
  writeFileSync(join(folder, 'files', 'a'), 'x');
  const put = await runProgram('filetracker', ['put', '-', '/only'], { environment, input: noise(100_000) });
  expect(put).toMatchObject({ code: 0, stderr: '' });
  const before = readdirSync(folder, { recursive: true }).map(String).sort();
  for (const [program, ...words] of [
    ['filetracker-server', '-p', '0'],
    ['filetracker-recover', folder, '-f'],
    ['filetracker-migrate', '--adopt-1x', join(folder, 'files'), folder],
  ] as const) {
    const ended = await runProgram(program, words, { environment });
    expect([program, words, ended.code, ended.stderr]).toEqual([program, words, 2, expect.any(String)]);
    expect(ended.stderr.trim().split('\n')).toHaveLength(1);
  }
  expect(readdirSync(folder, { recursive: true }).map(String).sort()).toEqual(before);
  expect(await runProgram('filetracker', ['cat', '/only'], { environment })).toMatchObject({ code: 0 });
});
