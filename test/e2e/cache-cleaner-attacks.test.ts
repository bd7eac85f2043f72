// What a cache holds may have been put there by somebody who wants the cleaner, often root, to remove or overwrite
// files elsewhere. Run by root, the caches belong to another user; else everything is this user's.
import {
  chownSync,
  existsSync,
  linkSync,
  lchownSync,
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
import { cleanCaches } from '../../src/client/cache/cleaner.ts';
import type { CleaningReport } from '../../src/client/cache/cleaner.ts';
import { digestOf } from '../../src/core/digest.ts';
import { HeldFolder } from '../../src/fs/held-folder.ts';
import { pythonCache } from '../support/cached-clients.ts';
import { temporaryFolder } from '../support/temporary-folder.ts';

const isRoot = process.geteuid?.() === 0;
const mallory = 54_321;

interface Scene {
  /** A cache folder of Mallory's. */
  readonly cache: string;
  /** A folder of somebody else's, with a file that looks like one of a cache. */
  readonly victim: string;
  readonly files: () => Readonly<Record<string, string>>;
  /** Gives everything in the cache to Mallory, and cleans it. */
  readonly clean: () => Promise<{ readonly report: CleaningReport; readonly problems: readonly string[] }>;
}

const digest = digestOf(Buffer.from('anything'));

async function scene(): Promise<Scene> {
  const folder = await temporaryFolder();
  const [cache, victim] = [join(folder, 'mallory', '.filetracker-store'), join(folder, 'victim')];
  for (const name of ['blobs', 'names', 'partial', 'pins']) mkdirSync(join(cache, name), { recursive: true });
  mkdirSync(victim);
  for (const name of ['notes', digest, `d-${digest}-5`, 't-0123456789abcdef-5', '0'.repeat(32)]) {
    writeFileSync(join(victim, name), `precious ${name}`);
  }
  const files = (): Record<string, string> =>
    Object.fromEntries(readdirSync(victim).map((name) => [name, readFileSync(join(victim, name), 'utf8')]));
  const clean = async () => {
    if (isRoot) {
      for (const path of [
        join(cache, '..'),
        cache,
        ...readdirSync(cache, { recursive: true, encoding: 'utf8' }),
      ]) {
        lchownSync(path.startsWith('/') ? path : join(cache, path), mallory, mallory);
      }
    }
    const problems: string[] = [];
    const limits = { sizeMaxBytes: 1, percentLeft: 0 };
    const report = await cleanCaches([cache], limits, (_folder, error) => problems.push(String(error)));
    return { report, problems };
  };
  return { cache, victim, files, clean };
}

test.each(['partial', 'pins', 'blobs', 'names', 'blobs/a', 'names/0', 'files', 'files/deep', 'locks'])(
  'the cleaner does not follow a link at "%s" of a cache',
  async (name) => {
    const { cache, victim, files, clean } = await scene();
    const before = files();
    pythonCache(cache, { '/deep/name': Buffer.from('x') });
    rmSync(join(cache, name), { recursive: true, force: true });
    symlinkSync(victim, join(cache, name));
    await clean();
    expect(files()).toEqual(before);
  },
);

test.each(['space', 'lock', 'locks/name'])(
  'the cleaner does not write through a link at "%s"',
  async (name) => {
    const { cache, victim, files, clean } = await scene();
    pythonCache(cache, { '/name': Buffer.from('x') });
    const before = files();
    for (const target of ['notes', 'created']) {
      rmSync(join(cache, name), { force: true });
      symlinkSync(join(victim, target), join(cache, name));
      await clean();
      expect(files()).toEqual(before);
    }
  },
);

test('the cleaner does not overwrite a file that is hard-linked as the account of a cache', async () => {
  const { cache, victim, files, clean } = await scene();
  const before = files();
  linkSync(join(victim, 'notes'), join(cache, 'space'));
  // Root gives what is in the cache to Mallory, and the file with it, as if he had been allowed to link it.
  expect((await clean()).problems).toEqual([]);
  expect(files()).toEqual(before);
});

test('the cleaner removes only files whose names are of the forms of a cache', async () => {
  const { cache, clean } = await scene();
  const strange = ['partial/notes', 'partial/d-1-2', 'blobs/a/notes', 'names/0/notes', 'pins/notes'];
  for (const name of strange) {
    mkdirSync(join(cache, name, '..'), { recursive: true });
    writeFileSync(join(cache, name), 'mine');
  }
  mkdirSync(join(cache, 'blobs', 'a', `a${'0'.repeat(63)}`));
  const own = join(cache, 'partial', 't-0123456789abcdef-5');
  writeFileSync(own, 'gone');
  expect((await clean()).problems).toEqual([]);
  expect(strange.filter((name) => !existsSync(join(cache, name)))).toEqual([]);
  expect(existsSync(own)).toBe(false);
});

test('the cleaner leaves the store of a server alone', async () => {
  const folder = await temporaryFolder();
  for (const name of ['journal', 'blobs/a']) mkdirSync(join(folder, name), { recursive: true });
  writeFileSync(join(folder, 'blobs/a', `a${'0'.repeat(63)}`), 'content');
  expect(await cleanCaches([folder], { sizeMaxBytes: 0, percentLeft: 0 })).toMatchObject({ removedFiles: 0 });
  expect(readdirSync(folder).sort()).toEqual(['blobs', 'journal']);
  expect(existsSync(join(folder, 'blobs/a', `a${'0'.repeat(63)}`))).toBe(true);
});

test('the cleaner run by root follows no link of one user to the cache of another', async () => {
  if (!isRoot) return;
  const { cache } = await scene();
  const folder = await temporaryFolder();
  pythonCache(folder, { '/name': Buffer.from('x') });
  rmSync(cache, { recursive: true });
  symlinkSync(folder, cache);
  lchownSync(cache, mallory, mallory);
  const problems: unknown[] = [];
  await cleanCaches([cache], { sizeMaxBytes: 0, percentLeft: 0 }, (_folder, error) => problems.push(error));
  expect(problems).toHaveLength(1);
  expect(existsSync(join(folder, 'files', 'name'))).toBe(true);
  // A link of the owner's own is followed.
  for (const name of ['', 'files', 'files/name', 'locks', 'locks/name'])
    chownSync(join(folder, name), mallory, mallory);
  await cleanCaches([cache], { sizeMaxBytes: 0, percentLeft: 0 });
  expect(existsSync(join(folder, 'files', 'name'))).toBe(false);
});

test('the cleaner run by root acts as the owner of a cache', async () => {
  if (!isRoot) return;
  const { cache, clean } = await scene();
  // Mallory cannot remove files from a folder of root's, not even one that is in his cache.
  mkdirSync(join(cache, 'files'));
  const { report } = await clean();
  expect(report.caches).toBe(1);
  mkdirSync(join(cache, 'files', 'of-root'), { mode: 0o755 });
  writeFileSync(join(cache, 'files', 'of-root', 'name'), 'x');
  await cleanCaches([cache], { sizeMaxBytes: 0, percentLeft: 0 });
  expect(existsSync(join(cache, 'files', 'of-root', 'name'))).toBe(true);
  expect(process.geteuid?.()).toBe(0);
});

test('the cleaner reports a cache that it cannot clean, and cleans the others', async () => {
  const [one, other] = [await scene(), await scene()];
  pythonCache(other.cache, { '/name': Buffer.from('x') });
  rmSync(join(one.cache, 'blobs'), { recursive: true });
  symlinkSync(one.victim, join(one.cache, 'blobs'));
  const gone = join(one.victim, 'gone');
  const problems: string[] = [];
  const limits = { sizeMaxBytes: 0, percentLeft: 0 };
  await cleanCaches([gone, one.cache, other.cache], limits, (folder) => problems.push(folder));
  expect(problems).toEqual([gone, one.cache]);
  expect(existsSync(join(other.cache, 'files', 'name'))).toBe(false);
});

test('the cleaner keeps to the folder that it opened when a link takes its place', async () => {
  const { cache, victim, files, clean } = await scene();
  const before = files();
  using held = HeldFolder.open(cache);
  using partial = held.below('partial');
  writeFileSync(join(cache, 'partial', 'mine'), 'x');
  renameSync(cache, `${cache}.moved`);
  symlinkSync(victim, cache);
  expect(readdirSync(partial.path)).toEqual(['mine']);
  expect(() => held.below('none')).toThrow('ENOENT');
  rmSync(cache);
  renameSync(`${cache}.moved`, cache);
  rmSync(join(cache, 'partial'), { recursive: true });
  symlinkSync(victim, join(cache, 'partial'));
  expect(() => held.below('partial')).toThrow(/ENOTDIR|ELOOP/);
  await clean();
  expect(files()).toEqual(before);
});
