import { execFileSync } from 'node:child_process';
import { readdirSync, readFileSync, statSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { expect, onTestFinished, test, vi } from 'vitest';
import { setting } from '../support/cached-clients.ts';
import { noise } from '../support/contents.ts';
import { runProgram } from '../support/programs.ts';
import { temporaryFolder } from '../support/temporary-folder.ts';

vi.setConfig({ testTimeout: 60_000 });

/** A disk of its own, of a few megabytes; undefined where the system lets us mount none. */
async function smallDisk(sizeBytes: number): Promise<string | undefined> {
  const path = await temporaryFolder();
  try {
    execFileSync('mount', ['-t', 'tmpfs', '-o', `size=${sizeBytes}`, 'none', path], { stdio: 'ignore' });
  } catch {
    return undefined;
  }
  onTestFinished(() => void execFileSync('umount', ['-l', path]));
  return path;
}

test('a full disk under the cache evicts, and else goes on without the cache', async (context) => {
  const disk = await smallDisk(4 * 1024 * 1024);
  if (disk === undefined) context.skip('a small disk can not be mounted here: it takes root');
  const { folder, store, open } = await setting();
  const warnings: string[] = [];
  const client = open({ cacheDir: join(disk ?? '', 'cache'), onWarning: (text) => warnings.push(text) });
  const contents = [1, 2, 3, 4, 5].map((index) => noise(1_200_000, `${index}`));
  for (const [index, bytes] of contents.entries()) await store(`/f${index}`, bytes);
  await store('/larger', noise(6_000_000));
  for (const [index, bytes] of contents.entries()) {
    await client.getFile(`/f${index}`, join(folder, 'out'));
    expect(readFileSync(join(folder, 'out')).equals(bytes)).toBe(true);
  }
  expect(warnings).toEqual([]);
  await client.getFile('/larger', join(folder, 'out'));
  expect(statSync(join(folder, 'out')).size).toBe(6_000_000);
  // Somebody else fills the disk to its last byte.
  writeFileSync(join(disk ?? '', 'ballast'), Buffer.alloc(100_000));
  try {
    for (;;) writeFileSync(join(disk ?? '', 'ballast'), Buffer.alloc(50_000), { flag: 'a' });
  } catch {
    // Full.
  }
  await client.getFile('/f0', join(folder, 'out'));
  await client.getFile('/larger', join(folder, 'out'));
  expect(statSync(join(folder, 'out')).size).toBe(6_000_000);
});

test('a full disk under the target is told, and nothing half written is left', async (context) => {
  const disk = await smallDisk(2 * 1024 * 1024);
  if (disk === undefined) context.skip('a small disk can not be mounted here: it takes root');
  const { store, open, served, cacheDir } = await setting();
  await store('/large', noise(3_000_000));
  const target = join(disk ?? '', 'out');
  writeFileSync(target, 'before');
  for (const options of [{}, { cacheDir: undefined }]) {
    await expect(open(options).getFile('/large', target)).rejects.toMatchObject({ code: 'no-space' });
    expect(readdirSync(disk ?? '')).toEqual(['out']);
    expect(readFileSync(target, 'utf8')).toBe('before');
  }
  const environment = { FILETRACKER_URL: served.url, FILETRACKER_DIR: cacheDir };
  const ended = await runProgram('filetracker', ['get', '/large', target], { environment });
  expect(ended).toMatchObject({ code: 1, stderr: expect.stringContaining('the disk is full') });
});

test('a cache where no folder can be made is told of, and done without', async () => {
  const { folder, store, served } = await setting();
  await store('/f', noise(1000));
  const environment = { FILETRACKER_URL: served.url, FILETRACKER_DIR: '/proc/cache' };
  const ended = await runProgram('filetracker', ['get', '/f', join(folder, 'out')], { environment });
  expect(ended).toMatchObject({ code: 0, stderr: expect.stringContaining('"/proc/cache"') as string });
  expect(readFileSync(join(folder, 'out')).equals(noise(1000))).toBe(true);
});

test('cache and target on one disk that holds the file once: the get succeeds', async (context) => {
  const disk = await smallDisk(4 * 1024 * 1024);
  if (disk === undefined) context.skip('a small disk can not be mounted here: it takes root');
  const { store, open } = await setting();
  const bytes = noise(3_000_000);
  await store('/large', bytes);
  const client = open({ cacheDir: join(disk ?? '', 'cache'), handOut: 'copy' });
  await client.getFile('/large', join(disk ?? '', 'out'));
  expect(readFileSync(join(disk ?? '', 'out')).equals(bytes)).toBe(true);
});
