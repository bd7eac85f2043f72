import { mkdirSync, rmdirSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { expect, test } from 'vitest';
import { servedStore } from '../../test/support/client-server.ts';
import { temporaryFolder } from '../../test/support/temporary-folder.ts';
import { Client } from './client.ts';

test('a put of a file whose file system does not say its size fails with one line that says so, and stores nothing', async () => {
  const { url } = await servedStore();
  await using client = new Client({ remoteUrl: url });
  const state = /^Cannot put "\/proc\/version": its file system does not report its true size; /;
  await expect(client.putFile('/v', '/proc/version')).rejects.toMatchObject({ code: 'io', message: state });
  expect(await client.exists('/v')).toBe(false);
});

test('a removal is refused, and nothing is removed, if the cache cannot be changed', async () => {
  const [{ url }, folder] = [await servedStore(), await temporaryFolder()];
  const cacheDir = join(folder, 'cache');
  writeFileSync(join(folder, 'f'), 'x');
  const client = new Client({ remoteUrl: url, cacheDir, cacheMinFree: 0 });
  await client.putFile('/f', join(folder, 'f'));
  await client.close();
  // Stands for a file system that is read-only, which is not ours to make here.
  rmSync(join(cacheDir, 'lock'));
  mkdirSync(join(cacheDir, 'lock'));
  await using later = new Client({ remoteUrl: url, cacheDir });
  const message = expect.stringMatching(/^Cannot remove "\/f" from the cache ".*; nothing was removed$/);
  await expect(later.deleteFile('/f')).rejects.toMatchObject({ code: 'io', message });
  expect(await later.exists('/f')).toBe(true);
  rmdirSync(join(cacheDir, 'lock'));
  await later.deleteFile('/f');
  expect(await later.exists('/f')).toBe(false);
});

test('a cache path that is a file, or is below one, is refused when the client is opened', async () => {
  const file = join(await temporaryFolder(), 'file');
  writeFileSync(file, '');
  for (const cacheDir of [file, join(file, 'below/it')]) {
    const message = expect.stringContaining(`"${file}" is a file and not a folder`);
    expect(() => new Client({ cacheDir })).toThrow(
      expect.objectContaining({ code: 'invalid-argument', message }),
    );
  }
});

test('a client warns of a cacheMinFree above the size of the disk, with which nothing is ever cached', async () => {
  const cacheDir = join(await temporaryFolder(), 'not/there/yet');
  const warnings: string[] = [];
  const onWarning = (message: string): void => void warnings.push(message);
  await using _modest = new Client({ cacheDir, cacheMinFree: '1MiB', onWarning });
  expect(warnings).toEqual([]);
  await using _greedy = new Client({ cacheDir, cacheMinFree: '8000T', onWarning });
  expect(warnings).toEqual([
    expect.stringMatching(/^The cache ".*" keeps nothing: its disk has .*cacheMinFree/),
  ]);
});
