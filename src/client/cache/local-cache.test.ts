import {
  chmodSync,
  mkdtempSync,
  readFileSync,
  readdirSync,
  rmSync,
  statSync,
  utimesSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, expect, test } from 'vitest';
import { digestOf } from '../../core/digest.ts';
import { parseFileName } from '../../core/file-name.ts';
import { keptTime } from '../../../test/support/kept-time.ts';
import { LocalCache } from './local-cache.ts';
import type { LocalCacheOptions } from './local-cache.ts';
import type { CachedFile } from './names.ts';

let root: string;
const opened: LocalCache[] = [];

beforeEach(() => {
  root = mkdtempSync(join(tmpdir(), 'filetracker-cache-'));
});
afterEach(() => {
  for (const cache of opened.splice(0)) cache.close();
  rmSync(root, { recursive: true, force: true });
});

function openCache(options: Partial<LocalCacheOptions> = {}): LocalCache {
  const cache = new LocalCache({ folder: join(root, 'cache'), ...options });
  opened.push(cache);
  return cache;
}

async function add(
  cache: LocalCache,
  name: string,
  content: Buffer | string,
  version = 1000,
): Promise<CachedFile> {
  const bytes = Buffer.from(content);
  const known = { version, digest: digestOf(bytes), size: bytes.length };
  const cached = await cache.addBytes(parseFileName(name), known, bytes);
  if (cached === undefined) throw new Error(`no capacity for ${name}`);
  return cached;
}

function find(cache: LocalCache, name: string, version?: number): CachedFile | undefined {
  return cache.find(parseFileName(name), version);
}

/** Content that differs for each seed. */
function content(seed: string, sizeBytes: number): Buffer {
  return Buffer.alloc(sizeBytes, `${seed}\n`);
}

test('LocalCache keeps several versions of a name side by side', async () => {
  const cache = openCache();
  await add(cache, '/a', 'one', 1);
  await add(cache, '/a', 'two', 2);
  expect(find(cache, '/a', 1)?.size).toBe(3);
  expect(find(cache, '/a')?.version).toBe(2);
  expect(find(cache, '/a', 3)).toBeUndefined();
  expect(find(cache, '/b')).toBeUndefined();
});

test('LocalCache stores a blob once under several names', async () => {
  const cache = openCache();
  const first = await add(cache, '/a', content('x', 100_000), 1);
  const second = await add(cache, '/b', content('x', 100_000), 7);
  expect(second.path).toBe(first.path);
  const status = await cache.maintenance.status();
  expect([status.contents, status.names]).toEqual([1, 2]);
});

test('LocalCache.materialize() copies small files and sets their time to the version', async () => {
  const cache = openCache();
  const cached = await add(cache, '/a', 'hello', 1_234_567);
  const target = join(root, 'out');
  expect(await cache.materialize(cached, target)).toBe(true);
  expect(readFileSync(target, 'utf8')).toBe('hello');
  expect(statSync(target).mtimeMs).toBe(1_234_567_000);
  expect(statSync(target).nlink).toBe(1);
});

test.each(['auto', 'link', 'copy'] as const)(
  'LocalCache.materialize() restores the original after an edit of the target (%s)',
  async (how) => {
    const cache = openCache();
    const original = content('original', 300_000);
    const target = join(root, 'out');
    expect(await cache.materialize(await add(cache, '/a', original), target, { how })).toBe(true);
    chmodSync(target, 0o644);
    writeFileSync(target, content('scribble', 300_000), { flag: 'r+' });
    const again = find(cache, '/a', 1000);
    if (again === undefined) {
      // The edit went through the link and broke the blob's seal.
      expect(how).not.toBe('copy');
    }
    const next = join(root, 'next');
    expect(await cache.materialize(again ?? (await add(cache, '/a', original)), next, { how })).toBe(true);
    expect(readFileSync(next).equals(original)).toBe(true);
    expect(readFileSync(target).equals(original)).toBe(false);
  },
);

test('LocalCache.materialize() never makes two target files share their bytes', async () => {
  const cache = openCache();
  const original = content('original', 300_000);
  const cached = await add(cache, '/a', original);
  const [one, two] = [join(root, 'one'), join(root, 'two')];
  await cache.materialize(cached, one);
  await cache.materialize(cached, two);
  chmodSync(one, 0o644);
  writeFileSync(one, 'edited');
  expect(readFileSync(two).equals(original)).toBe(true);
});

test('LocalCache.materialize() can replace its own target', async () => {
  const cache = openCache();
  const cached = await add(cache, '/a', content('x', 300_000));
  for (const how of ['link', 'link', 'auto', 'auto', 'copy', 'copy'] as const) {
    expect(await cache.materialize(cached, join(root, 'out'), { how })).toBe(true);
  }
  expect(readFileSync(join(root, 'out')).length).toBe(300_000);
});

test('LocalCache.find() skips a blob whose size or time changed, until it is added again', async () => {
  const cache = openCache();
  const overwrite = (path: string, text: string): void => {
    // Blobs are read-only; only root could write to them all the same.
    chmodSync(path, 0o644);
    writeFileSync(path, text);
    chmodSync(path, 0o444);
  };
  for (const spoil of [
    (path: string) => utimesSync(path, 5, 5),
    (path: string) => overwrite(path, 'HELLO'),
    (path: string) => overwrite(path, ''),
  ]) {
    const cached = await add(cache, '/a', 'hello');
    expect(find(cache, '/a')).toBeDefined();
    spoil(cached.path);
    expect(find(cache, '/a')).toBeUndefined();
  }
});

test('LocalCache ignores a torn record', async () => {
  const cache = openCache();
  await add(cache, '/a', 'hello');
  const [path = ''] = readdirSync(cache.layout.folders.at('names'), {
    recursive: true,
    encoding: 'utf8',
  }).filter((name) => name.length > 30);
  for (const torn of [
    '',
    '{"name":"/a","versi',
    '[]',
    '{"name":"/a","versions":[{"version":1,"digest":"../x","size":5}]}',
  ]) {
    writeFileSync(join(cache.layout.folders.at('names'), path), torn);
    expect(find(cache, '/a')).toBeUndefined();
  }
  await add(cache, '/a', 'hello');
  expect(find(cache, '/a')).toBeDefined();
});

test('LocalCache recreates a folder that was removed', async () => {
  const cache = openCache();
  await add(cache, '/a', 'hello');
  rmSync(cache.folder, { recursive: true });
  expect(find(cache, '/a')).toBeUndefined();
  await add(cache, '/a', 'hello');
  const bytes = content('x', 300_000);
  rmSync(cache.folder, { recursive: true });
  const addition = await cache.begin(bytes.length, undefined);
  writeFileSync(addition?.path ?? '', bytes);
  await addition?.commit(parseFileName('/b'), { version: 1, digest: digestOf(bytes), size: bytes.length });
  expect(find(cache, '/b')).toBeDefined();
  using lock = await openCache().lockName(parseFileName('/b'));
  const signal = AbortSignal.timeout(50);
  await expect(cache.lockName(parseFileName('/b'), signal)).rejects.toMatchObject({ code: 'aborted' });
  expect(lock).toBeDefined();
});

test('LocalCache evicts the least recently used blobs and keeps to its limit', async () => {
  // Ten blobs of 100,000 bytes take 25 blocks each, and each record one block.
  const cache = openCache({ sizeMaxBytes: 10 * 26 * 4096 });
  for (let index = 0; index < 10; index += 1) {
    await add(cache, `/f${index}`, content(`${index}`, 100_000));
  }
  for (const used of [0, 2]) {
    const cached = find(cache, `/f${used}`);
    if (cached) await cache.materialize(cached, join(root, `out${used}`));
  }
  await add(cache, '/g', content('g', 100_000));
  const present = '0123456789'.split('').filter((digit) => find(cache, `/f${digit}`) !== undefined);
  expect(present.join('')).not.toContain('1');
  expect(present.join('')).toContain('0');
  expect(present.join('')).toContain('2');
  expect(find(cache, '/g')).toBeDefined();
  const { sizeBytes } = await cache.maintenance.status();
  expect(sizeBytes).toBeLessThanOrEqual(10 * 26 * 4096);
});

test('LocalCache does not grow with the number of names', async () => {
  const cache = openCache({ sizeMaxBytes: 64 * 4096 });
  for (let index = 0; index < 500; index += 1) await add(cache, `/f${index}`, `content ${index}`);
  const { sizeBytes, names } = await cache.maintenance.status();
  expect(sizeBytes).toBeLessThanOrEqual(64 * 4096);
  expect(names).toBeLessThan(200);
  expect(find(cache, '/f499')).toBeDefined();
});

test('LocalCache does not take a blob larger than its limit and evicts nothing for it', async () => {
  const cache = openCache({ sizeMaxBytes: 100_000 });
  await add(cache, '/a', 'small');
  expect(await cache.begin(200_000, undefined)).toBeUndefined();
  expect(find(cache, '/a')).toBeDefined();
});

test('LocalCache never evicts a pinned blob or the only copy of a blob', async () => {
  const cache = openCache({ sizeMaxBytes: 400_000 });
  const pinned = await add(cache, '/pinned', content('p', 100_000));
  await cache.pins.add(pinned.digest, 'pin', pinned.name, pinned.version);
  const bytes = content('l', 100_000);
  const known = { version: 5, digest: digestOf(bytes), size: bytes.length, local: true };
  await cache.addBytes(parseFileName('/local'), known, bytes);
  for (let index = 0; index < 10; index += 1) await add(cache, `/f${index}`, content(`${index}`, 100_000));
  expect(find(cache, '/pinned')).toBeDefined();
  expect(find(cache, '/local')).toBeDefined();
  await cache.pins.remove(pinned.digest, pinned.name, pinned.version);
  await cache.space.shrink(0);
  expect(find(cache, '/pinned')).toBeUndefined();
  expect(find(cache, '/local')).toBeDefined();
});

test('LocalCache does not evict a blob that is being read', async () => {
  const cache = openCache();
  const other = openCache();
  const cached = await add(cache, '/a', content('x', 500_000));
  const stream = await cache.openStream(cached);
  await other.space.shrink(0);
  await cache.space.shrink(0);
  expect(find(cache, '/a')).toBeDefined();
  let sizeBytes = 0;
  for await (const piece of stream ?? []) sizeBytes += (piece as Buffer).length;
  expect(sizeBytes).toBe(500_000);
  await other.space.shrink(0);
  expect(find(cache, '/a')).toBeUndefined();
});

test('LocalCache recounts when the account is missing or damaged', async () => {
  const cache = openCache({ sizeMaxBytes: 1_000_000 });
  await add(cache, '/a', content('x', 500_000));
  for (const nonsense of ['', 'x', '99999999999999999999']) {
    writeFileSync(cache.layout.space, nonsense);
    await add(cache, '/b', `new ${nonsense}`);
    expect(find(cache, '/a')).toBeDefined();
  }
  rmSync(cache.layout.space);
  await add(cache, '/c', content('y', 800_000));
  expect(find(cache, '/a')).toBeUndefined();
});

test('LocalCache.verify() removes damaged blobs', async () => {
  const cache = openCache();
  const good = await add(cache, '/good', content('g', 70_000));
  const bad = await add(cache, '/bad', content('b', 70_000));
  const attributes = statSync(bad.path);
  chmodSync(bad.path, 0o644);
  writeFileSync(bad.path, content('B', 70_000));
  utimesSync(bad.path, attributes.atime, keptTime(attributes));
  const found = await cache.maintenance.verify();
  expect(found.damaged).toEqual([bad.digest]);
  expect(found.recordsRemoved).toBe(1);
  expect(find(cache, '/bad')).toBeUndefined();
  expect(find(cache, '/good')?.digest).toBe(good.digest);
});

test('LocalCache resumes an earlier download', async () => {
  const cache = openCache();
  const bytes = content('x', 300_000);
  const digest = digestOf(bytes);
  const first = await cache.begin(bytes.length, digest);
  if (first === undefined) throw new Error('no capacity');
  writeFileSync(first.path, bytes.subarray(0, 100_000));
  expect(await cache.begin(bytes.length, digest)).toBeUndefined();
  await first.abandon({ keep: true });
  const second = await cache.begin(bytes.length, digest);
  expect(second?.presentBytes).toBe(100_000);
  writeFileSync(second?.path ?? '', bytes.subarray(100_000), { flag: 'a' });
  await second?.commit(parseFileName('/a'), { version: 1, digest, size: bytes.length });
  expect(readFileSync(find(cache, '/a')?.path ?? '').equals(bytes)).toBe(true);
});

test('LocalCache sets the permissions of its option whatever the umask', async () => {
  const before = process.umask(0o077);
  try {
    const cache = openCache({ folderMode: 0o2770 });
    const cached = await add(cache, '/a', 'hello');
    expect(statSync(cached.path).mode & 0o777).toBe(0o440);
    expect(statSync(join(cached.path, '..')).mode & 0o7777).toBe(0o2770);
    expect(statSync(cache.layout.lock).mode & 0o666).toBe(0o660);
    expect(statSync(cache.layout.space).mode & 0o666).toBe(0o660);
  } finally {
    process.umask(before);
  }
});

test('LocalCache recognizes the seals of blobs of every version', async () => {
  const cache = openCache();
  for (const version of [-62_135_596_800, -5, 0, 1, 1_700_000_000, 2 ** 31 - 1, 2 ** 31, 253_402_300_799]) {
    for (let index = 0; index < 20; index += 1) {
      await add(cache, `/v${index}`, `content ${index} of ${version}`, version);
      expect(find(cache, `/v${index}`, version)).toBeDefined();
    }
  }
});

test('LocalCache.verify() removes pins that a dead process left without a record', async () => {
  const cache = openCache();
  const kept = await add(cache, '/kept', 'kept');
  const left = await add(cache, '/left', 'left');
  await cache.pins.add(kept.digest, 'pin', kept.name, kept.version);
  await cache.pins.add(left.digest, 'local', parseFileName('/never'), 7);
  await cache.maintenance.verify();
  await cache.space.shrink(0);
  expect(find(cache, '/kept')).toBeDefined();
  expect(find(cache, '/left')).toBeUndefined();
});

test('LocalCache never counts too little when an addition is abandoned during a survey', async () => {
  const cache = openCache({ sizeMaxBytes: 10_000_000 });
  await add(cache, '/kept', content('kept', 300_000));
  const addition = await cache.begin(100_000, undefined);
  await Promise.all([cache.space.recount(), addition?.abandon({ keep: false })]);
  const account = Number(readFileSync(cache.layout.space, 'utf8'));
  expect(account).toBeGreaterThanOrEqual((await cache.space.recount()).total);
});
