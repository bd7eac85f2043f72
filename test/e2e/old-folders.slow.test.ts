import { mkdir, readdir, symlink, utimes, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { beforeEach, describe, expect, it } from 'vitest';
import { digestOf } from '../../src/core/digest.ts';
import { noise, prose } from '../support/contents.ts';
import { EmbeddedStore } from '../support/embedded-store.ts';
import { LegacyFolder } from '../support/legacy-folder.ts';
import { Program, run, startServerProgram } from '../support/program.ts';
import { requestOnce } from '../support/raw-http.ts';
import { temporaryFolder } from '../support/temporary-folder.ts';

const slow = { timeout: 300_000 };
const content = noise(20_000);

let root: string;
let legacy: LegacyFolder;

beforeEach(async () => {
  root = await temporaryFolder();
  legacy = new LegacyFolder(join(root, 'old'));
  await legacy.prepare();
  const digest = await legacy.add('/f', content, 1000);
  await utimes(legacy.blobPath(digest), 1000, 1000);
});

async function namesBelow(folder: string): Promise<string[]> {
  return (await readdir(folder, { recursive: true })).sort();
}

/** Serves the folder, sees that the old file is there and stays, and gives what the server was. */
async function expectServed(folder: string): Promise<void> {
  const { program, port } = await startServerProgram(folder, ['--workers', '1']);
  const answer = await requestOnce(port, { method: 'GET', target: '/files/f' });
  expect(answer.status).toBe(200);
  expect(answer.body.equals(content)).toBe(true);
  program.kill('SIGTERM');
  await program.ended();
}

/** What an early release did to an old folder that it took for a store: it left the parts of one, empty. */
async function treatAsStore(folder: string): Promise<void> {
  await (await EmbeddedStore.open(folder)).close();
}

describe('a folder of filetracker 2', () => {
  it('is refused, unchanged, by every program but those that take it over', slow, async () => {
    const { folder } = legacy;
    const before = await namesBelow(folder);
    const calls: [string, ...string[]][] = [
      ['filetracker-recover', folder],
      ['filetracker-recover', '-s', '--dry-run', folder],
      ['filetracker-server', 'backup', folder, join(root, 'backup')],
      ['filetracker-server', 'move', '--from', folder, '--to', join(root, 'new')],
      ['filetracker-server', 'move', '--from', join(root, 'store'), '--to', folder],
      ['filetracker-migrate', '--adopt-1x', folder, join(root, 'new')],
      ['filetracker-migrate', '--adopt', folder, folder],
      ['filetracker-migrate', '--adopt', folder, join(folder, 'new')],
    ];
    await treatAsStore(join(root, 'store'));
    const ends = await Promise.all(calls.map(([program, ...words]) => run(program, ...words)));
    for (const [at, { code, errors }] of ends.entries()) {
      expect(code, calls[at]?.join(' ')).toBe(2);
      expect(errors).toContain('filetracker 2');
    }
    expect(await namesBelow(folder)).toEqual(before);
    expect((await readdir(root)).sort()).toEqual(['old', 'store']);
    await expectServed(folder);
  });

  it('is taken over though programs of ours have been there, and loses nothing', slow, async () => {
    await treatAsStore(legacy.folder);
    const { program, port } = await startServerProgram(legacy.folder, ['--workers', '1']);
    // As long as the sweep of strays took to remove the old blobs.
    await delay(1500);
    const digest = digestOf(content);
    expect(await readdir(join(legacy.folder, 'blobs', digest.slice(0, 2)))).toEqual([digest]);
    expect((await requestOnce(port, { method: 'GET', target: '/files/f' })).status).toBe(200);
    program.kill('SIGTERM');
    await program.ended();
    const recovered = await run('filetracker-recover', '-f', legacy.folder);
    expect(recovered).toMatchObject({ code: 0, output: expect.stringContaining('nothing to do') as string });
    expect((await run('filetracker-server', 'backup', legacy.folder, join(root, 'backup'))).output).toContain(
      '1 files',
    );
  });

  it('goes on being taken over into another folder when that one is served', slow, async () => {
    const store = join(root, 'new');
    expect((await run('filetracker-migrate', '--adopt', legacy.folder, store)).code).toBe(0);
    const state = { format: 1, source: legacy.folder, complete: false, verified: false };
    await writeFile(join(store, 'adoption.json'), JSON.stringify(state));
    await legacy.add('/later', prose(100), 5);
    expect((await run('filetracker-recover', store)).code).toBe(2);
    await expectServed(store);
    await using taken = await EmbeddedStore.open(store);
    expect(await taken.names()).toEqual(['/f', '/later']);
  });

  it('with files of ours in it is refused, and where the remedy stands is said', slow, async () => {
    const both = legacy.folder;
    {
      await using store = await EmbeddedStore.open(both);
      await store.put('/ours/small', 7, prose(100, 'ours'));
      await store.put('/ours/large', 7, noise(30_000, 'ours'));
    }
    const refused = await run('filetracker-server', '-d', both, '-p', '0', '--workers', '1');
    expect(refused).toMatchObject({ code: 2, errors: expect.stringContaining('A folder of both') as string });
  });
});

describe('a folder of filetracker 1', () => {
  it('is not served, and what to do is said', slow, async () => {
    const folder = join(root, 'plain');
    await mkdir(join(folder, 'files'), { recursive: true });
    await symlink('nowhere', join(folder, 'files', 'link'));
    const before = await namesBelow(folder);
    const program = new Program('filetracker-server', { args: ['-d', folder, '-p', '0', '--workers', '1'] });
    const end = await program.ended();
    expect(end.code).toBe(2);
    expect(end.errors).toContain(`filetracker-migrate --adopt-1x ${folder} NEW_DIR`);
    expect(await namesBelow(folder)).toEqual(before);
  });
});

describe('filetracker-server move', () => {
  it('makes no store where there is none to move from', async () => {
    const end = await run(
      'filetracker-server',
      'move',
      '--from',
      join(root, 'none'),
      '--to',
      join(root, 'new'),
    );
    expect(end.code).toBe(3);
    expect(await readdir(root)).toEqual(['old']);
  });
});
