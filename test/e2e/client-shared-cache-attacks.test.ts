// Mallory may write to the cache that Alice uses. Alice is the user who runs the test; Mallory is another user if root
// runs it, else what he plants belongs to Alice as well.
import { execFile } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import {
  chmodSync,
  existsSync,
  lchownSync,
  linkSync,
  lutimesSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { join } from 'node:path';
import { buffer } from 'node:stream/consumers';
import { expect, onTestFinished, test } from 'vitest';
import { LocalCache } from '../../src/client/cache/local-cache.ts';
import { sealOf } from '../../src/client/cache/layout.ts';
import { digestOf } from '../../src/core/digest.ts';
import { programPath } from '../support/built-programs.ts';
import { setting } from '../support/cached-clients.ts';
import { present } from '../support/present.ts';
import { runProgram } from '../support/programs.ts';
import { temporaryFolder } from '../support/temporary-folder.ts';

const isRoot = process.geteuid?.() === 0;
const mallory = isRoot ? 54_321 : (process.geteuid?.() ?? 0);

/** A cache that a group shares, a file on the server, and a folder of Alice's own. */
async function shared() {
  const { open, store, cacheDir, folder, bodies } = await setting();
  const bytes = randomBytes(200_000);
  await store('/tool', bytes);
  const home = join(folder, 'alice');
  mkdirSync(home);
  const precious = join(home, 'precious');
  writeFileSync(precious, 'precious', { mode: 0o600 });
  const client = open({ cacheMode: 0o2770 });
  const target = join(folder, 'target');
  const digest = digestOf(bytes);
  /** What Alice had before is as it was. */
  const expectUnharmed = (): void => {
    expect(readdirSync(home)).toEqual(['precious']);
    expect(readFileSync(precious, 'utf8')).toBe('precious');
    expect(statSync(precious).mode & 0o777).toBe(0o600);
  };
  return { client, open, cacheDir, folder, home, precious, bytes, digest, target, bodies, expectUnharmed };
}

function plantLink(to: string, at: string): void {
  rmSync(at, { recursive: true, force: true });
  symlinkSync(to, at);
  lchownSync(at, mallory, mallory);
}

test.each([
  ['symbolic', plantLink],
  ['hard', (to: string, at: string) => linkSync(to, at)],
])('a download writes to no file that a %s link in a shared cache leads to', async (_kind, plant) => {
  const { client, cacheDir, precious, bytes, digest, target, expectUnharmed } = await shared();
  await client.prefetch('/tool');
  await client.cache?.space.shrink(0);
  plant(precious, join(cacheDir, 'partial', `d-${digest}-${bytes.length}`));
  await client.getFile('/tool', target);
  expect(readFileSync(target).equals(bytes)).toBe(true);
  expectUnharmed();
});

test.each(['space', 'lock'])('a client writes to no file that a link at "%s" leads to', async (name) => {
  const { open, cacheDir, home, precious, bytes, target, expectUnharmed } = await shared();
  mkdirSync(cacheDir, { mode: 0o770 });
  chmodSync(cacheDir, 0o2770);
  for (const to of [precious, join(home, 'created')]) {
    plantLink(to, join(cacheDir, name));
    const client = open({ cacheMode: 0o2770 });
    await client.getFile('/tool', target);
    expect(readFileSync(target).equals(bytes)).toBe(true);
    expectUnharmed();
  }
  rmSync(join(cacheDir, name));
  linkSync(precious, join(cacheDir, name));
  await open({ cacheMode: 0o2770 }).getFile('/tool', target, { forceRefresh: true });
  expectUnharmed();
});

test.each(['partial', 'pins', 'blobs', 'names'])(
  'a client that meets a link at "%s" of a shared cache works without it',
  async (name) => {
    const { open, cacheDir, home, bytes, target, expectUnharmed } = await shared();
    const first = open({ cacheMode: 0o2770 });
    await first.prefetch('/tool');
    plantLink(home, join(cacheDir, name));
    const warnings: string[] = [];
    const client = open({ cacheMode: 0o2770, onWarning: (text) => warnings.push(text) });
    await client.getFile('/tool', target, { forceRefresh: true });
    expect(readFileSync(target).equals(bytes)).toBe(true);
    // A get has no use for pins.
    if (name !== 'pins') expect(warnings.join('\n')).toContain(`"${name}`);
    expectUnharmed();
  },
);

test('a download goes to the file that was opened when a link takes its place meanwhile', async () => {
  const { cacheDir, precious, bytes, digest, expectUnharmed } = await shared();
  const cache = new LocalCache({ folder: cacheDir, folderMode: 0o2770, freeMinBytes: 0 });
  onTestFinished(() => cache.close());
  for (const plant of [plantLink, (to: string, at: string) => (rmSync(at), linkSync(to, at))]) {
    const addition = present(await cache.begin(bytes.length, digest));
    plant(precious, join(cacheDir, 'partial', `d-${digest}-${bytes.length}`));
    writeFileSync(addition.path, bytes);
    using _name = await cache.lockName('/tool' as never);
    await addition.commit('/tool' as never, { version: 100, digest, size: bytes.length });
    expectUnharmed();
    // What took its place is no content.
    expect(cache.find('/tool' as never)).toBeUndefined();
    rmSync(join(cacheDir, 'blobs'), { recursive: true });
  }
});

test('a folder of a shared cache that is replaced by a link is not followed', async () => {
  const { client, cacheDir, home, bytes, digest, expectUnharmed } = await shared();
  await client.prefetch('/tool');
  const cache = present(client.cache);
  const cached = present(cache.find('/tool' as never));
  renameSync(join(cacheDir, 'blobs'), join(cacheDir, 'moved'));
  plantLink(home, join(cacheDir, 'blobs'));
  writeFileSync(join(home, digest), bytes);
  cache.discard(cached.digest);
  rmSync(join(home, digest));
  expectUnharmed();
});

test('a client survives pipes and huge files in the place of the files of a shared cache', async () => {
  const { client, open, cacheDir, folder, bytes, target } = await shared();
  await client.getFile('/tool', target);
  const files = readdirSync(cacheDir, { recursive: true, encoding: 'utf8' }).filter((name) =>
    statSync(join(cacheDir, name)).isFile(),
  );
  for (const name of files) {
    rmSync(join(cacheDir, name));
    const { code } = await runProgramOfSystem('mkfifo', [join(cacheDir, name)], folder);
    expect(code).toBe(0);
  }
  await open({ cacheMode: 0o2770 }).getFile('/tool', target, { forceRefresh: true });
  expect(readFileSync(target).equals(bytes)).toBe(true);
});

async function runProgramOfSystem(program: string, words: readonly string[], cwd: string) {
  return await new Promise<{ code: number }>((resolve) => {
    execFile(program, words, { cwd }, (error) => resolve({ code: error === null ? 0 : 1 }));
  });
}

/** Mallory stores other bytes under a digest, with the size and the time that seal it. */
function poison(cacheDir: string, digest: string, bytes: Buffer): void {
  const path = join(cacheDir, 'blobs', digest.slice(0, 1), digest);
  rmSync(path);
  writeFileSync(path, bytes);
  chmodSync(path, 0o444);
  lutimesSync(path, 200, sealOf(digest as never, 100));
  lchownSync(path, mallory, mallory);
}

test('a blob that another user stored is verified before it is materialized', async () => {
  if (!isRoot) return;
  const { client, open, cacheDir, bytes, digest, target } = await shared();
  for (const handOut of ['auto', 'copy', 'link'] as const) {
    await client.prefetch('/tool');
    const evil = Buffer.alloc(bytes.length, 'evil');
    poison(cacheDir, digest, evil);
    const { size } = await open({ cacheMode: 0o2770, handOut }).getFile('/tool', target);
    expect(size).toBe(bytes.length);
    expect(readFileSync(target).equals(bytes)).toBe(true);
    rmSync(target);
    poison(cacheDir, digest, bytes);
    await open({ cacheMode: 0o2770, handOut }).getFile('/tool', target);
    expect(readFileSync(target).equals(bytes)).toBe(true);
    // Its owner could write to a link at any time.
    expect(statSync(target).nlink).toBe(1);
    rmSync(target);
  }
});

test('a stream of a blob that another user stored fails at its end if the blob is damaged', async () => {
  if (!isRoot) return;
  const { client, open, cacheDir, bytes, digest } = await shared();
  await client.prefetch('/tool');
  poison(cacheDir, digest, Buffer.alloc(bytes.length, 'evil'));
  const read = async (): Promise<Buffer> => {
    const reader = open({ cacheMode: 0o2770 });
    return await buffer((await reader.getStream('/tool', { serveFromCache: true })).stream);
  };
  await expect(read()).rejects.toMatchObject({ code: 'damaged-blob' });
  expect((await read()).equals(bytes)).toBe(true);
});

test('a record in which the tag of the server is for another content is not believed', async () => {
  const { client, open, cacheDir, bytes, target } = await shared();
  await client.prefetch('/tool');
  const cache = present(client.cache);
  const evil = Buffer.alloc(100_000, 'evil');
  await cache.addBytes('/evil' as never, { version: 100, digest: digestOf(evil), size: evil.length }, evil);
  const path = cache.layout.record(hashOf(cacheDir, '/tool'));
  const record = JSON.parse(readFileSync(path, 'utf8')) as { versions: { digest: string; size: number }[] };
  const [known] = record.versions;
  writeFileSync(
    path,
    JSON.stringify({ ...record, versions: [{ ...known, digest: digestOf(evil), size: evil.length }] }),
  );
  await open({ cacheMode: 0o2770 }).getFile('/tool', target);
  expect(readFileSync(target).equals(bytes)).toBe(true);
});

/** The file name of a record. */
function hashOf(cacheDir: string, name: string): string {
  const names = readdirSync(join(cacheDir, 'names'), { recursive: true, encoding: 'utf8' });
  const found = names.find(
    (path) => path.length > 30 && readFileSync(join(cacheDir, 'names', path), 'utf8').includes(`"${name}"`),
  );
  return present(found).slice(2);
}

test('a cache folder of another user is not used unless it is shared on purpose', async () => {
  if (!isRoot) return;
  const folder = await temporaryFolder();
  const cache = join(folder, 'cache');
  mkdirSync(cache);
  lchownSync(cache, mallory, mallory);
  const { served } = await setting();
  const run = (...words: string[]) =>
    runProgram('filetracker', ['-c', cache, ...words], {
      folder,
      environment: { FILETRACKER_CACHE_MIN_FREE: '0' },
    });
  writeFileSync(join(folder, 'file'), 'content');
  const refused = `Cannot use the cache folder "${cache}": it belongs to another user (uid ${mallory})`;
  expect(await run('put', 'file', '/file')).toMatchObject({
    code: 1,
    stderr: expect.stringContaining(refused),
  });
  const stored = await run('-r', served.url, 'put', 'file', '/file');
  expect(stored.code).toBe(0);
  const got = await run('-r', served.url, 'get', '/file', 'copy');
  expect(got).toMatchObject({ code: 0, stderr: expect.stringContaining(refused) });
  expect(readdirSync(cache)).toEqual([]);
  const environment = { FILETRACKER_CACHE_MIN_FREE: '0', FILETRACKER_CACHE_MODE: '2770' };
  const words = ['-c', cache, '-r', served.url, 'get', '/file', 'copy'];
  expect(await runProgram('filetracker', words, { folder, environment })).toMatchObject({
    code: 0,
    stderr: '',
  });
  expect(existsSync(join(cache, 'blobs'))).toBe(true);
});

test('a cache is never writable for everyone, and readable for no more users than the umask lets', async () => {
  const { folder } = await setting();
  for (const [umask, folders, files] of [
    ['000', 0o775, 0o444],
    ['077', 0o700, 0o400],
  ] as const) {
    const cache = join(folder, `cache-${umask}`);
    writeFileSync(join(folder, 'small'), 'content');
    writeFileSync(join(folder, 'large'), randomBytes(100_000));
    for (const name of ['small', 'large']) {
      const script = `umask ${umask}; '${process.execPath}' '${programPath('filetracker')}' -c '${cache}' put ${name} /${name}`;
      expect(await runProgramOfSystem('bash', ['-c', script], folder)).toEqual({ code: 0 });
    }
    for (const name of readdirSync(cache, { recursive: true, encoding: 'utf8' })) {
      const { mode } = statSync(join(cache, name));
      expect([name, mode & 0o002]).toEqual([name, 0]);
      if (name.startsWith('blobs/') && name.length > 60) expect(mode & 0o777).toBe(files);
    }
    expect(statSync(cache).mode & 0o777).toBe(folders);
  }
});
