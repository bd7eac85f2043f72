import { randomBytes } from 'node:crypto';
import {
  chmodSync,
  chownSync,
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  truncateSync,
  utimesSync,
  writeFileSync,
} from 'node:fs';
import { join } from 'node:path';
import { Readable } from 'node:stream';
import { setImmediate } from 'node:timers/promises';
import { expect, onTestFinished, test, vi } from 'vitest';
import { Client } from '../../src/client/client.ts';
import { digestOf } from '../../src/core/digest.ts';
import { pythonCache, setting, usedBytes } from '../support/cached-clients.ts';
import { collected, noise, prose } from '../support/contents.ts';
import { faultyServer } from '../support/faulty-server.ts';
import { present } from '../support/present.ts';
import { runProgram, startProgram, type Started } from '../support/programs.ts';
import { keptTime } from '../support/kept-time.ts';
import { temporaryFolder } from '../support/temporary-folder.ts';

vi.setConfig({ testTimeout: 60_000 });

test('fifty processes that ask for the same missing file make one download', async () => {
  const { served, folder, cacheDir, store, bodies } = await setting();
  const bytes = randomBytes(3_000_000);
  await store('/package', bytes);
  const environment = { FILETRACKER_URL: served.url, FILETRACKER_DIR: cacheDir };
  const targets = Array.from({ length: 50 }, (_, index) => join(folder, `out-${index}`));
  const running: ReturnType<typeof runProgram>[] = [];
  for (const [index, target] of targets.entries()) {
    const name = index % 2 === 0 ? '/package' : '/package@100';
    running.push(runProgram('filetracker', ['get', name, target], { environment }));
    // The server is in this process, which a start blocks: fifty in a row outlast the patience of the first.
    await setImmediate();
  }
  const ended = await Promise.all(running);
  expect(ended.filter(({ code }) => code !== 0)).toEqual([]);
  for (const target of targets) expect(readFileSync(target).equals(bytes)).toBe(true);
  expect(bodies('/package')).toBe(1);
}, 180_000);

test('a downloader that is killed leaves its place and its bytes to the next', async () => {
  const server = await faultyServer();
  const folder = await temporaryFolder();
  const bytes = noise(4_000_000);
  server.files.set('/package', { version: 100, bytes });
  server.faults.push({ kind: 'stall', afterBytes: 2_500_000 });
  const environment = { FILETRACKER_URL: server.url, FILETRACKER_DIR: join(folder, 'cache') };
  const target = join(folder, 'out');
  const first = startProgram('filetracker', ['get', '/package', target], { environment });
  await expect.poll(() => server.requests.length, { timeout: 60_000 }).toBe(1);
  const second = startProgram('filetracker', ['get', '/package', target], { environment });
  const partial = join(folder, 'cache', 'partial');
  const size = (): number =>
    readdirSync(partial).reduce((total, name) => total + statSync(join(partial, name)).size, 0);
  await expect.poll(size, { timeout: 60_000 }).toBeGreaterThan(1_000_000);
  first.kill('SIGKILL');
  expect((await first.ended).signal).toBe('SIGKILL');
  expect(await second.ended).toMatchObject({ code: 0, stderr: '' });
  expect(readFileSync(target).equals(bytes)).toBe(true);
  const ranges = server.requests.map(({ headers }) => headers.range).filter(Boolean);
  expect(ranges).toEqual([expect.stringMatching(/^bytes=[12]\d{6}-$/)]);
  expect(readdirSync(partial)).toEqual([]);
});

test('what downloads past the cache leave when they are killed is removed by the next to that target', async () => {
  const server = await faultyServer();
  const folder = await temporaryFolder();
  const bytes = noise(4_000_000);
  server.files.set('/package', { version: 100, bytes });
  const environment = { FILETRACKER_URL: server.url, FILETRACKER_DIR: join(folder, 'cache') };
  const words = ['get', '-c', '/package', join(folder, 'out')];
  const partials = (): string[] => readdirSync(folder).filter((name) => name.startsWith('.filetracker-'));
  /** A download that stands still in its middle, and has a file that it writes to. */
  const stalled = async (): Promise<Started> => {
    // What was left is told by its size from what comes.
    for (const name of partials()) truncateSync(join(folder, name), 1);
    server.faults.push({ kind: 'stall', afterBytes: 2_500_000 });
    const started = startProgram('filetracker', words, { environment });
    const size = (name: string): number => statSync(join(folder, name), { throwIfNoEntry: false })?.size ?? 0;
    const begun = (): boolean => partials().some((name) => size(name) > 1_000_000);
    await expect.poll(begun, { timeout: 60_000 }).toBe(true);
    return started;
  };
  for (let kills = 0; kills < 3; kills += 1) {
    const started = await stalled();
    expect(partials()).toHaveLength(1);
    started.kill('SIGKILL');
    await started.ended;
  }
  const slow = await stalled();
  expect(await startProgram('filetracker', words, { environment }).ended).toMatchObject({
    code: 0,
    stderr: '',
  });
  expect(readFileSync(join(folder, 'out')).equals(bytes)).toBe(true);
  // The slow one still has its own.
  expect(partials()).toHaveLength(1);
  slow.kill('SIGTERM');
  expect(await slow.ended).toMatchObject({ code: 143 });
  expect(partials()).toEqual([]);
});

test('processes killed at any instant leave a cache that works and holds nothing wrong', async () => {
  const { served, folder, cacheDir, open, store } = await setting();
  const files = new Map<string, Buffer>();
  for (let index = 0; index < 6; index += 1) {
    const bytes = randomBytes(index % 2 === 0 ? 3000 : 700_000);
    files.set(`/f${index}`, bytes);
    await store(`/f${index}`, bytes);
  }
  writeFileSync(join(folder, 'names'), [...files.keys()].join('\n'));
  const environment = {
    FILETRACKER_URL: served.url,
    FILETRACKER_DIR: cacheDir,
    FILETRACKER_CACHE_SIZE: '1500K',
  };
  for (let round = 0; round < 12; round += 1) {
    const words = ['prefetch', '--from', join(folder, 'names'), '-j', '3'];
    const started = [1, 2].map(() => startProgram('filetracker', words, { environment }));
    await new Promise((resolve) => setTimeout(resolve, 120 + round * 25));
    for (const program of started) program.kill('SIGKILL');
    for (const program of started) await program.ended;
    // What can be found is right, at every instant.
    const client = open({ cacheSize: '1500K' });
    for await (const file of client.listLocalFiles()) {
      const { stream } = await client.getStream(file.versionedName, { offline: true });
      expect(digestOf(await collected(stream))).toBe(file.digest);
    }
    await client.close();
  }
  const client = open({ cacheSize: '1500K' });
  for (const [name, bytes] of files) {
    await client.getFile(name, join(folder, 'out'));
    expect(readFileSync(join(folder, 'out')).equals(bytes)).toBe(true);
    const status = await present(client.cache).maintenance.status();
    expect(status.sizeBytes).toBeLessThanOrEqual(1500 * 1024);
  }
  const verified = await present(client.cache).maintenance.verify();
  expect(verified.damaged).toEqual([]);
}, 120_000);

test('an unversioned get asks the server, and an unchanged file is served from the cache', async () => {
  const { served, folder, open, store } = await setting();
  await store('/a', prose(200_000));
  const client = open();
  const target = join(folder, 'out');
  expect(await client.getFile('/a', target)).toMatchObject({ cached: false });
  expect(await client.getFile('/a', target)).toMatchObject({ cached: true });
  expect(served.requests.slice(-2).map(({ status }) => status)).toEqual([200, 304]);
  const before = served.requests.length;
  expect(await client.getFile('/a@100', target)).toMatchObject({ cached: true });
  expect(served.requests).toHaveLength(before);
  expect(await client.getFile('/a', target, { forceRefresh: true })).toMatchObject({ cached: false });
  expect(served.requests.at(-1)?.status).toBe(200);
  // The same content under a newer version is known by its tag.
  await store('/a@200', prose(200_000));
  expect(await client.getFile('/a', target)).toMatchObject({ version: 200, cached: true });
  expect(await client.getFile('/a@200', target, { offline: true })).toMatchObject({ version: 200 });
});

test('while the server is down, versioned names are served, and the others only offline', async () => {
  const { folder, cacheDir, open, store } = await setting();
  const bytes = prose(100_000);
  await store('/a', bytes);
  const target = join(folder, 'out');
  await open().getFile('/a', target);
  rmSync(target);
  const down = new Client({
    remoteUrl: 'http://127.0.0.1:9',
    cacheDir,
    retries: { retriesMax: 0 },
    cacheMinFree: 0,
  });
  onTestFinished(() => down.close());
  await expect(down.getFile('/a', target)).rejects.toMatchObject({ code: 'unreachable' });
  expect(existsSync(target)).toBe(false);
  expect(await down.getFile('/a@100', target)).toMatchObject({ cached: true });
  expect(await down.getFile('/a', target, { offline: true })).toMatchObject({ version: 100 });
  expect(await down.getFile('/a@100', target, { verify: true })).toMatchObject({ cached: true });
  expect(readFileSync(target).equals(bytes)).toBe(true);
});

test('a cached file that went bad is found on use and fetched again', async () => {
  const { folder, open, store, bodies } = await setting();
  const bytes = noise(300_000);
  await store('/a', bytes);
  const warnings: string[] = [];
  const client = open({ onWarning: (warning) => warnings.push(warning) });
  const target = join(folder, 'out');
  const blob = present(client.cache).layout.blob(digestOf(bytes));
  const spoil = (change: () => void): void => {
    chmodSync(blob, 0o644);
    change();
  };
  await client.getFile('/a', target, { addToCache: true });
  spoil(() => truncateSync(blob, 1000));
  await client.getFile('/a@100', target);
  expect(readFileSync(target).equals(bytes)).toBe(true);
  spoil(() => writeFileSync(blob, noise(300_000, 'other')));
  await client.getFile('/a@100', target);
  expect(readFileSync(target).equals(bytes)).toBe(true);
  expect(bodies('/a')).toBe(3);
  // Bytes that rot on the disk change no time: only the digest shows it.
  const attributes = statSync(blob);
  spoil(() => writeFileSync(blob, noise(300_000, 'other')));
  utimesSync(blob, attributes.atime, keptTime(attributes));
  await client.getFile('/a@100', target, { verify: true });
  expect(readFileSync(target).equals(bytes)).toBe(true);
  expect(bodies('/a')).toBe(4);
  expect(warnings).toEqual([expect.stringContaining('damaged')]);
});

test('the cache keeps to its limit while several clients fill it, and serves what it can', async () => {
  const { folder, open, store, cacheDir } = await setting();
  const contents = new Map<string, Buffer>();
  for (let index = 0; index < 40; index += 1) {
    const bytes = noise(40_000 + index, `${index}`);
    contents.set(`/f${index}`, bytes);
    await store(`/f${index}`, bytes);
  }
  await store('/huge', noise(900_000));
  const limit = 600_000;
  const clients = [open({ cacheSize: limit }), open({ cacheSize: limit })];
  let largest = 0;
  const names = [...contents.keys(), '/huge'];
  await Promise.all(
    clients.map(async (client, which) => {
      for (const [index, name] of names.entries()) {
        const target = join(folder, `out-${which}`);
        await client.getFile(which === 0 ? name : present(names[names.length - 1 - index]), target);
        largest = Math.max(largest, usedBytes(cacheDir));
      }
    }),
  );
  expect(largest).toBeLessThanOrEqual(limit);
  expect(largest).toBeGreaterThan(limit / 2);
  for (const client of clients) {
    for (const [name, bytes] of contents) {
      const { stream } = await client.getStream(name);
      expect((await collected(stream)).equals(bytes)).toBe(true);
    }
  }
});

test('a cache that can not be written to is told, and the files come all the same', async () => {
  const { folder, store, open } = await setting();
  await store('/small', prose(1000));
  await store('/large', noise(500_000));
  mkdirSync(join(folder, 'unusable', 'lock'), { recursive: true });
  const warnings: string[] = [];
  const client = open({
    cacheDir: join(folder, 'unusable'),
    onWarning: (warning) => warnings.push(warning),
  });
  for (const name of ['/small', '/large']) {
    await client.getFile(name, join(folder, 'out'));
    await (await client.getStream(name)).stream.resume().toArray();
  }
  expect(warnings.length).toBeGreaterThan(0);
  for (const warning of warnings) expect(warning).toMatch(/^Cannot use the cache .*continuing without it$/);
});

test('a folder that the Python client uses too is shared without harm', async () => {
  const { folder, cacheDir, open, store } = await setting();
  pythonCache(cacheDir, { '/a': Buffer.from('python'), '/d/b': prose(100_000) });
  await store('/a', Buffer.from('from the server'));
  const client = open({ cacheSize: 50_000 });
  await client.getFile('/a', join(folder, 'out'));
  expect(readFileSync(join(folder, 'out'), 'utf8')).toBe('from the server');
  await present(client.cache).space.shrink(0);
  await present(client.cache).maintenance.verify();
  expect(readFileSync(join(cacheDir, 'files', 'a'), 'utf8')).toBe('python');
  expect(statSync(join(cacheDir, 'files', 'd', 'b')).size).toBe(100_000);
});

test('a stream that is put into a cache alone ends by its signal, and leaves nothing behind', async () => {
  const { folder, open } = await setting();
  const temporary = join(folder, 'tmp');
  mkdirSync(temporary);
  vi.stubEnv('TMPDIR', temporary);
  onTestFinished(() => void vi.unstubAllEnvs());
  const client = open({ remoteUrl: undefined });
  const stalled = new Readable({ read: () => undefined });
  stalled.push('the beginning');
  const stop = new AbortController();
  const put = client.putStream('/a', stalled, { signal: stop.signal });
  await expect.poll(() => readdirSync(temporary), { timeout: 60_000 }).toHaveLength(1);
  stop.abort();
  await expect(put).rejects.toMatchObject({ code: 'aborted' });
  expect(stalled.destroyed).toBe(true);
  expect(readdirSync(temporary)).toEqual([]);
  expect(await client.exists('/a')).toBe(false);
});

test('two clients in one process and many names at once get on', async () => {
  const { folder, open, store } = await setting();
  const contents = Array.from({ length: 60 }, (_, index) => prose(3000 + index * 50, `${index}`));
  for (const [index, bytes] of contents.entries()) await store(`/n/${index}`, bytes);
  const clients = [open(), open()];
  await Promise.all(
    clients.flatMap((client, which) =>
      contents.map(async (bytes, index) => {
        const target = join(folder, `out-${which}-${index}`);
        await client.getFile(`/n/${index}`, target);
        expect(readFileSync(target).equals(bytes)).toBe(true);
      }),
    ),
  );
});

test('users of one group share a cache, if its permissions say so', async (context) => {
  if (process.getuid?.() !== 0) context.skip('only root can run programs as two users');
  const { served, folder, store, bodies } = await setting();
  const bytes = noise(300_000);
  await store('/shared', bytes);
  await store('/small', prose(1000));
  chmodSync(folder, 0o777);
  const shared = join(folder, 'group-cache');
  mkdirSync(shared);
  chownSync(shared, 12_001, 12_345);
  chmodSync(shared, 0o2770);
  const environment = {
    FILETRACKER_URL: served.url,
    FILETRACKER_DIR: shared,
    FILETRACKER_CACHE_MODE: '2770',
  };
  for (const uid of [12_001, 12_002, 12_001]) {
    const home = join(folder, `home-${uid}`);
    mkdirSync(home, { recursive: true });
    chownSync(home, uid, 12_345);
    for (const name of ['/shared', '/shared@100', '/small']) {
      const words = ['get', name, join(home, 'out')];
      const ended = await runProgram('filetracker', words, { environment, user: { uid, gid: 12_345 } });
      expect(ended).toEqual({ code: 0, signal: null, stdout: '', stderr: '' });
    }
    await store(`/own-${uid}`, noise(100_000, `${uid}`));
    const words = ['get', `/own-${uid}`, join(home, 'out')];
    expect(await runProgram('filetracker', words, { environment, user: { uid, gid: 12_345 } })).toMatchObject(
      {
        code: 0,
        stderr: '',
      },
    );
  }
  expect([bodies('/shared'), bodies('/small')]).toEqual([1, 1]);
});

test.each([
  [undefined],
  [{}],
  [{ cacheDir: '' }],
  [{ cacheDir: 'x', cacheSize: -5 }],
  [{ cacheDir: 'x', cacheSize: Number.NaN }],
  [{ cacheDir: 'x', cacheMinFree: 0.5 }],
  [{ cacheDir: 'x', cacheMode: 0o10_000 }],
  [{ cacheDir: 'x', connections: 0 }],
  [{ cacheDir: 'x', stallTimeoutMs: -1 }],
])('new Client(%j) is refused', (options) => {
  expect(() => new Client(options)).toThrow(expect.objectContaining({ code: 'invalid-argument' }));
});
