import { readdirSync, readFileSync } from 'node:fs';
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
