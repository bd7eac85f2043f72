import { mkdir, open, readdir, readFile, stat, symlink, truncate, utimes, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { beforeEach, describe, expect, it, onTestFinished } from 'vitest';
import { LegacyFolder } from '../support/legacy-folder.ts';
import { noise, prose } from '../support/contents.ts';
import { Program, run, startServerProgram } from '../support/program.ts';
import { requestOnce, type RawAnswer } from '../support/raw-http.ts';
import { temporaryFolder } from '../support/temporary-folder.ts';
import { versionQuery } from '../support/test-server.ts';

let root: string;

/** Each test starts several programs, on a machine that may be busy. */
const slow = { timeout: 300_000 };

beforeEach(async () => {
  root = await temporaryFolder();
});

async function get(port: number, path: string): Promise<Buffer> {
  const answer = await requestOnce(port, { method: 'GET', target: `/files${encodeURI(path)}` });
  expect(answer.status, path).toBe(200);
  return answer.body;
}

async function put(port: number, path: string, body: Buffer, version?: number): Promise<void> {
  const target = `/files${path}?${versionQuery(version)}`;
  expect((await requestOnce(port, { method: 'PUT', target, body })).status).toBe(200);
}

async function namesAt(port: number): Promise<string[]> {
  const answer = await requestOnce(port, { method: 'GET', target: '/list/' });
  return answer.body.toString().split('\n').slice(0, -1);
}

async function stop(program: Program): Promise<void> {
  program.kill('SIGTERM');
  expect((await program.ended()).code).toBe(0);
}

describe('filetracker-server on a folder of the old server', () => {
  it('takes it over though it is killed on the way, serves it, and leaves it as it was', slow, async () => {
    const legacy = new LegacyFolder(join(root, 'old'));
    await legacy.prepare();
    const digests: string[] = [];
    for (let index = 0; index < 400; index += 1) digests.push(await legacy.addBlob(prose(300, `${index}`)));
    for (let index = 0; index < 800; index += 1) {
      await legacy.addLink(`/d${index % 5}/ż${index}`, digests[index % 400] ?? '', 1000 + index);
    }
    const bad = await legacy.add('/bad', noise(3000), 5);
    await writeFile(legacy.blobPath(bad), noise(1000));
    const before = (await readdir(legacy.folder, { recursive: true })).sort();
    for (const afterMs of [350, 500, 650]) {
      const killed = new Program('filetracker-server', {
        args: ['-d', legacy.folder, '-p', '0', '--workers', '1'],
      });
      await delay(afterMs);
      killed.kill('SIGKILL');
      await killed.ended();
    }
    const { program, port } = await startServerProgram(legacy.folder, ['--workers', '1']);
    expect(await namesAt(port)).toHaveLength(801);
    for (const index of [0, 399, 400, 799]) {
      expect(await get(port, `/d${index % 5}/ż${index}`)).toEqual(prose(300, `${index % 400}`));
    }
    expect((await requestOnce(port, { method: 'GET', target: '/files/bad' })).status).toBe(500);
    await expect
      .poll(
        async () => {
          const status = await requestOnce(port, { method: 'GET', target: '/status' });
          return (JSON.parse(status.body.toString()) as { verification?: { state: string } }).verification
            ?.state;
        },
        { timeout: 60_000 },
      )
      .toBe('finished');
    await stop(program);
    const after = (await readdir(legacy.folder, { recursive: true })).sort();
    expect(after.filter((path) => !path.startsWith('store-3'))).toEqual(before);
  });
});

describe('signals to a server that is starting', () => {
  it('do not end it as it takes a folder over, and are heeded once it serves', slow, async () => {
    const legacy = new LegacyFolder(join(root, 'old'));
    await legacy.prepare();
    for (let index = 0; index < 400; index += 1)
      await legacy.add(`/f${index}`, prose(300, `${index}`), index);
    const pidFile = join(root, 'pid');
    const pid = async (): Promise<number> => Number(await readFile(pidFile, 'utf8').catch(() => '0'));
    const args = ['-d', legacy.folder, '-p', '0', '--workers', '1', '--pid-file', pidFile];
    const first = new Program('filetracker-server', { args });
    onTestFinished(async () => {
      const last = await pid();
      if (last > 0) process.kill(last, 'SIGKILL');
    });
    await first.printed(/adopting a store/);
    first.kill('SIGHUP');
    first.kill('SIGUSR2');
    const [, port] = await first.printed(/listens on http:\/\/127\.0\.0\.1:(\d+)/);
    await first.printed(/log reopened[^]*another process has taken over/);
    expect(await namesAt(Number(port))).toHaveLength(400);
    const second = await pid();
    expect(second).not.toBe(first.pid);
    process.kill(second, 'SIGTERM');
    await expect.poll(pid, { timeout: 60_000 }).toBe(0);
    expect((await first.ended()).code).toBe(0);
  });

  it('do not end it while it or its workers are being loaded', slow, async () => {
    const program = new Program('filetracker-server', { args: ['-d', join(root, 'store'), '-p', '0'] });
    const takesSignals = async (): Promise<boolean> => {
      const status = await readFile(`/proc/${program.pid}/status`, 'utf8').catch(() => '');
      const caught = BigInt(`0x${/^SigCgt:\s*(\w+)$/m.exec(status)?.[1] ?? '0'}`);
      return (caught & 1n) === 1n;
    };
    await expect.poll(takesSignals, { timeout: 60_000, interval: 1 }).toBe(true);
    const again = setInterval(() => program.kill('SIGHUP'), 5);
    onTestFinished(() => clearInterval(again));
    await program.printed(/filetracker-server listens/);
    clearInterval(again);
    await program.printed(/log reopened/);
    program.kill('SIGTERM');
    const { code, output } = await program.ended();
    expect(code).toBe(0);
    expect(output).not.toContain('a worker died');
  });
});

describe('filetracker-recover', () => {
  it(
    'refuses a store in use, and brings everything back where the catalog was overwritten',
    slow,
    async () => {
      const folder = join(root, 'store');
      const { program, port } = await startServerProgram(folder, ['--workers', '1']);
      for (let index = 0; index < 50; index += 1) await put(port, `/f${index}`, prose(500, `${index}`));
      await put(port, '/large', noise(50_000));
      const refused = await run('filetracker-recover', folder);
      expect(refused).toMatchObject({ code: 1, errors: expect.stringContaining('stop it first') as string });
      await stop(program);
      const path = join(folder, 'catalog', 'data.mdb');
      const { size } = await stat(path);
      const file = await open(path, 'r+');
      for (let place = 0; place < 200; place += 1) {
        const bytes = noise(24, `place ${place}`);
        await file.write(bytes, 8, 16, bytes.readUInt32LE(0) % (size - 16));
      }
      await file.close();
      const recovered = await run('filetracker-recover', folder, '-f', '--json');
      expect(recovered.code).toBe(0);
      expect(JSON.parse(recovered.output)).toMatchObject({ entries: 51, damagedFileCount: 0 });
      const again = await run('filetracker-recover', folder, '--json');
      expect(JSON.parse(again.output)).toMatchObject({ entries: 51, actionCount: 0, actions: [] });
      const served = await startServerProgram(folder, ['--workers', '1']);
      expect(await get(served.port, '/f7')).toEqual(prose(500, '7'));
      expect(await get(served.port, '/large')).toEqual(noise(50_000));
    },
  );
});

describe('filetracker-migrate', () => {
  it('brings a file again whose content in the store is damaged', slow, async () => {
    const tree = join(root, 'tree');
    const content = noise(70_000);
    await mkdir(tree);
    await writeFile(join(tree, 'file'), content);
    const { port } = await startServerProgram(join(root, 'store'), ['--workers', '1']);
    const url = `http://127.0.0.1:${port}`;
    expect((await run('filetracker-migrate', tree, url)).code).toBe(0);
    const blobs = await readdir(join(root, 'store', 'blobs'), { recursive: true, withFileTypes: true });
    const blob = blobs.find((item) => item.isFile()) ?? expect.unreachable();
    await truncate(join(blob.parentPath, blob.name), 1000);
    await requestOnce(port, { method: 'POST', target: '/admin/verify' });
    const head = (): Promise<RawAnswer> => requestOnce(port, { method: 'HEAD', target: '/files/file' });
    await expect.poll(async () => (await head()).status, { timeout: 60_000 }).toBe(500);
    const again = await run('filetracker-migrate', tree, url, '--json');
    expect(JSON.parse(again.output)).toMatchObject({
      stored: 1,
      present: 0,
      sentBytes: 70_000,
      errorCount: 0,
    });
    expect(await get(port, '/file')).toEqual(content);
    expect((await head()).status).toBe(200);
  });

  it('takes "@" in a name for a letter, as the server does', slow, async () => {
    const tree = join(root, 'tree');
    await mkdir(tree);
    const files = ['icon', 'icon@2x.png', 'icon@1700000000', 'a@b@2'];
    for (const file of files) await writeFile(join(tree, file), prose(100, file));
    const { port } = await startServerProgram(join(root, 'store'), ['--workers', '1']);
    const migrate = async (): Promise<unknown> => {
      const { code, output } = await run('filetracker-migrate', tree, `http://127.0.0.1:${port}`, '--json');
      expect(code).toBe(0);
      return JSON.parse(output);
    };
    expect(await migrate()).toMatchObject({ stored: 4, present: 0 });
    for (const file of files) expect(await get(port, `/${file}`)).toEqual(prose(100, file));
    expect(await migrate()).toMatchObject({ stored: 0, present: 4 });
  });

  it('brings a tree, tells what it leaves out, and sends nothing twice', slow, async () => {
    const tree = join(root, 'tree');
    await mkdir(join(tree, 'sub', 'ü'), { recursive: true });
    await writeFile(join(tree, 'one'), prose(100));
    await utimes(join(tree, 'one'), 1_500_000_000, 1_500_000_000.75);
    await writeFile(join(tree, 'sub', 'ü', 'two'), noise(70_000));
    await writeFile(join(tree, 'sub', 'same'), noise(70_000));
    await symlink('one', join(tree, 'link'));
    const { port } = await startServerProgram(join(root, 'store'), ['--workers', '1']);
    const url = `http://127.0.0.1:${port}`;
    const first = await run('filetracker-migrate', tree, url, '--json', '-j', '1');
    expect(first.code).toBe(0);
    expect(JSON.parse(first.output)).toMatchObject({ files: 3, stored: 3, deduplicated: 1, skippedCount: 1 });
    expect(await namesAt(port)).toEqual(['one', 'sub/same', 'sub/ü/two']);
    const head = await requestOnce(port, { method: 'HEAD', target: '/files/one' });
    expect(head.headers.get('last-modified')).toBe(new Date(1_500_000_000_000).toUTCString());
    await writeFile(join(tree, 'new\nline'), 'refused');
    const second = await run('filetracker-migrate', join(tree, 'sub'), url, '--root', tree, '--json');
    expect(JSON.parse(second.output)).toMatchObject({ files: 2, present: 2, stored: 0, sentBytes: 0 });
    const third = await run('filetracker-migrate', tree, url);
    expect(third).toMatchObject({ code: 1, errors: expect.stringContaining('control character') as string });
    // No line of a terminal is made by the name of a file.
    expect(third.errors).toContain('new\\nline: ');
    const absent = await run('filetracker-migrate', join(tree, 'no\u001b[1m such'), url);
    expect(absent).toMatchObject({
      code: 3,
      errors: expect.stringContaining('no\\u001b[1m such"') as string,
    });
    const unreachable = await run('filetracker-migrate', '-s', tree, 'http://127.0.0.1:1');
    expect(unreachable.code).toBe(5);
  });

  it('stores again what was removed in a newer version', slow, async () => {
    const tree = join(root, 'tree');
    await mkdir(tree);
    await writeFile(join(tree, 'gone'), 'x');
    await utimes(join(tree, 'gone'), 1_500_000_000, 1_500_000_000);
    const { port } = await startServerProgram(join(root, 'store'), ['--workers', '1']);
    await put(port, '/gone', prose(10));
    const date = encodeURIComponent(new Date().toUTCString());
    await requestOnce(port, { method: 'DELETE', target: `/files/gone?last_modified=${date}` });
    const brought = await run('filetracker-migrate', tree, `http://127.0.0.1:${port}`, '--json');
    expect(brought.code).toBe(0);
    expect(JSON.parse(brought.output)).toMatchObject({ files: 1, stored: 1, superseded: 0, errorCount: 0 });
    expect(await namesAt(port)).toEqual(['gone']);
  });

  it('says in a line what is missing, or does not go together', async () => {
    const migrate = 'filetracker-migrate';
    expect(await run(migrate)).toMatchObject({
      code: 2,
      errors: `${migrate}: missing required argument 'FILES'\nSee ${migrate} --help\n`,
    });
    const whole = await run(migrate, '--adopt', '--exclude', '*.o', root, join(root, 'new'));
    expect(whole).toMatchObject({
      code: 2,
      errors: expect.stringContaining('Cannot use --exclude with --adopt'),
    });
    const pattern = await run(migrate, '--exclude', '../x', root, 'http://127.0.0.1:1');
    expect(pattern).toMatchObject({ code: 2, errors: expect.stringContaining('Cannot exclude "../x"') });
    const both = await run(migrate, '--adopt', '--adopt-1x', root, join(root, 'new'));
    expect(both).toMatchObject({
      code: 2,
      errors: expect.stringContaining('--adopt with --adopt-1x') as string,
    });
    for (const words of [['backup'], ['restore', 'x'], ['move'], ['token', 'add']]) {
      const end = await run('filetracker-server', ...words);
      expect(end.code).toBe(2);
      expect(end.errors).toMatch(
        /^filetracker-server \w+[^\n]*: (?:missing|required)[^\n]*\nSee filetracker-server \w+.* --help\n$/,
      );
    }
    const recover = await run('filetracker-recover');
    expect(recover.errors).toMatch(/^filetracker-recover: missing .*\nSee filetracker-recover --help\n$/);
    for (const program of [migrate, 'filetracker-cache-cleaner'])
      expect((await run(program, '--help')).output).not.toContain('default: "');
  });

  it('takes plain files of version 1 over', slow, async () => {
    const old = join(root, 'old');
    await mkdir(join(old, 'files', 'a'), { recursive: true });
    await writeFile(join(old, 'files', 'a', 'b'), prose(9000));
    await utimes(join(old, 'files', 'a', 'b'), 77, 77);
    expect(await run('filetracker-migrate', '--adopt-1x', old, join(root, 'store'))).toMatchObject({
      code: 0,
    });
    const { port } = await startServerProgram(join(root, 'store'), ['--workers', '1']);
    expect(await get(port, '/a/b')).toEqual(prose(9000));
  });
});

describe('filetracker-server in front of an old server', () => {
  it('imports what it is asked for, and keeps it when the old one is gone', slow, async () => {
    const old = await startServerProgram(join(root, 'old'), ['--workers', '1']);
    await put(old.port, '/a/small', prose(300), 1_500_000_000);
    await put(old.port, '/a/large', noise(200_000));
    await put(old.port, '/a/gone', prose(10), 1_500_000_000);
    const url = `http://127.0.0.1:${old.port}`;
    const flags = ['--fallback-url', url, '--fallback-mode', 'import', '--workers', '2'];
    const { port } = await startServerProgram(join(root, 'new'), flags);
    expect(await namesAt(port)).toEqual(['a/gone', 'a/large', 'a/small']);
    expect(await get(port, '/a/small')).toEqual(prose(300));
    expect(await get(port, '/a/large')).toEqual(noise(200_000));
    const target = `/files/a/gone?${versionQuery(1_500_000_000)}`;
    expect((await requestOnce(port, { method: 'DELETE', target })).status).toBe(200);
    for (let attempt = 0; attempt < 4; attempt += 1) {
      expect((await requestOnce(port, { method: 'GET', target: '/files/a/gone' })).status).toBe(404);
    }
    expect(await namesAt(port)).toEqual(['a/large', 'a/small']);
    await stop(old.program);
    expect(await get(port, '/a/large')).toEqual(noise(200_000));
    expect((await requestOnce(port, { method: 'GET', target: '/files/b' })).status).toBe(503);
  });
});

describe('filetracker-server backup and restore', () => {
  it('takes a snapshot of a server that goes on, which can be served and restored', slow, async () => {
    const folder = join(root, 'store');
    const backup = join(root, 'backup');
    const { program, port } = await startServerProgram(folder, ['--workers', '2']);
    for (let index = 0; index < 20; index += 1)
      await put(port, `/f${index}`, noise(20_000, `${index}`), index);
    const taken = await run('filetracker-server', 'backup', folder, backup);
    expect(taken).toMatchObject({ code: 0, output: expect.stringContaining('20 files') as string });
    const at = new Date().toISOString();
    await delay(20);
    await put(port, '/f1', prose(100), 500);
    await put(port, '/later', prose(100));
    expect((await run('filetracker-server', 'backup', folder, backup)).code).toBe(0);
    await stop(program);
    const served = await startServerProgram(backup, ['--workers', '1']);
    expect(await namesAt(served.port)).toHaveLength(21);
    expect(await get(served.port, '/f1')).toEqual(prose(100));
    await stop(served.program);
    const restored = await run('filetracker-server', 'restore', backup, join(root, 'then'), '--at', at);
    expect(restored.code, restored.errors).toBe(0);
    const then = await startServerProgram(join(root, 'then'), ['--workers', '1']);
    expect(await namesAt(then.port)).toHaveLength(20);
    expect(await get(then.port, '/f1')).toEqual(noise(20_000, '1'));
  });

  it('lists, checks and prunes snapshots, and restores one by its age', slow, async () => {
    const folder = join(root, 'store');
    const backup = join(root, 'backup');
    const { program, port } = await startServerProgram(folder, ['--workers', '1']);
    await put(port, '/a', noise(20_000, 'a'), 1);
    const first = await run('filetracker-server', 'backup', folder, backup);
    expect(first.output).toContain('on the disk of the store');
    await put(port, '/b', noise(20_000, 'b'), 1);
    expect((await run('filetracker-server', 'backup', folder, backup)).code).toBe(0);
    await stop(program);
    const backups = (...words: readonly string[]): ReturnType<typeof run> =>
      run('filetracker-server', 'backup', ...words);
    const listed = await backups('ls', backup);
    expect(listed.output).toMatch(/^\S+Z +1 files +19\.5 KiB\n\S+Z +2 files +39\.1 KiB\n$/);
    const rows = (await backups('ls', backup, '--json')).output.trim().split('\n');
    expect(rows.map((row) => JSON.parse(row) as unknown)).toMatchObject([{ entries: 1 }, { entries: 2 }]);
    expect(await backups('check', backup, '--full')).toMatchObject({ code: 0 });
    expect(await backups('prune', backup)).toMatchObject({ code: 2 });
    expect((await backups('prune', backup, '--keep-last', 'x')).code).toBe(2);
    const preview = await backups('prune', backup, '--keep-last', '1', '--dry-run');
    expect(preview.output).toMatch(
      /^Would remove the snapshot of \S+Z\nWould remove 0 large blobs .*1 snapshots are kept$/m,
    );
    expect((await backups('ls', backup)).output.split('\n')).toHaveLength(3);
    expect((await backups('prune', backup, '--keep-last', '1', '--json')).code).toBe(0);
    expect((await backups('ls', backup)).output.split('\n')).toHaveLength(2);
    for (const words of [['ls'], ['check'], ['prune', '--keep-last', '1']])
      expect(await backups(...words, folder)).toMatchObject({
        code: 3,
        errors: expect.stringContaining('not a backup') as string,
      });
    const early = await run('filetracker-server', 'restore', backup, join(root, 'then'), '--at', '100d');
    expect(early).toMatchObject({
      code: 3,
      errors: expect.stringContaining('nothing from before') as string,
    });
    const restored = await run('filetracker-server', 'restore', backup, join(root, 'again'));
    expect(restored.output).toContain('a new folder');
  });
});
