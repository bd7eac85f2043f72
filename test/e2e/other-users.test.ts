import { chown, mkdir, readdir, rename, stat } from 'node:fs/promises';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { noise } from '../support/contents.ts';
import { Program, run, startServerProgram } from '../support/program.ts';
import { requestOnce } from '../support/raw-http.ts';
import { temporaryFolder } from '../support/temporary-folder.ts';
import { versionQuery } from '../support/test-server.ts';

const server = 'filetracker-server';
const user = { uid: 65_534, gid: 65_534 };

/** Only root can be somebody else. */
const canBeOthers = process.getuid?.() === 0;

/** The folder of a store that is the user's. */
async function folderOfUser(): Promise<string> {
  const folder = join(await temporaryFolder(), 'home');
  await mkdir(folder);
  await chown(folder, user.uid, user.gid);
  await chown(join(folder, '..'), user.uid, user.gid);
  return join(folder, 'store');
}

/** A server that the user runs. */
async function startAsUser(store: string, ...more: readonly string[]): ReturnType<typeof startServerProgram> {
  return startServerProgram(store, ['--workers', '1', ...more], user);
}

async function stop(program: Program): Promise<void> {
  program.kill('SIGTERM');
  expect((await program.ended()).code).toBe(0);
}

async function foreignFiles(folder: string): Promise<string[]> {
  const names = await readdir(folder, { recursive: true });
  const owners = await Promise.all(names.map(async (name) => (await stat(join(folder, name))).uid));
  return names.filter((_, at) => owners[at] !== user.uid);
}

async function request(
  port: number,
  method: string,
  path: string,
  body: Buffer = Buffer.alloc(0),
): Promise<number> {
  const query = method === 'GET' ? '' : `?${versionQuery()}`;
  return (await requestOnce(port, { method, target: `/files${path}${query}`, body })).status;
}

describe.runIf(canBeOthers)('programs that root runs on a store of another user', { timeout: 90_000 }, () => {
  it('close it with a token that its server can read', async () => {
    const store = await folderOfUser();
    const { port } = await startAsUser(store);
    expect(await request(port, 'PUT', '/a', noise(100))).toBe(200);
    const words = ['token', 'add', 'judge', '-d', store, '--prefix', '/', '--rights', 'read'];
    const { code, output } = await run(server, ...words);
    expect(code).toBe(0);
    await expect.poll(() => request(port, 'GET', '/a'), { timeout: 20_000 }).toBe(401);
    const headers = { Authorization: `Bearer ${output.trim()}` };
    expect((await requestOnce(port, { target: '/files/a', headers })).status).toBe(200);
    expect(await foreignFiles(store)).toEqual([]);
  });

  it('leave nothing in its way: backups to a folder of root, and recovery', async () => {
    const store = await folderOfUser();
    const running = await startAsUser(store, '--gc-grace', '0s');
    expect(await request(running.port, 'PUT', '/a', noise(40_000))).toBe(200);
    const backup = join(await temporaryFolder(), 'backup');
    expect(await run(server, 'backup', store, backup)).toMatchObject({ code: 0 });
    expect(await foreignFiles(store)).toEqual([]);
    expect((await stat(join(backup, 'journal'))).uid).toBe(0);
    await stop(running.program);
    await rename(join(store, 'catalog'), join(store, '..', 'catalog'));
    expect(await run(server, 'backup', store, backup)).toMatchObject({ code: 0 });
    await rename(join(store, 'catalog'), join(store, '..', 'catalog-2'));
    expect(await run('filetracker-recover', store)).toMatchObject({ code: 0 });
    expect(await foreignFiles(store)).toEqual([]);
    const again = await startAsUser(store);
    expect(await request(again.port, 'GET', '/a')).toBe(200);
    // A backup beside the store, in the same hands, is the user's too.
    const beside = join(store, '..', 'backup');
    expect(await run(server, 'backup', store, beside)).toMatchObject({ code: 0 });
    expect(await foreignFiles(beside)).toEqual([]);
  });

  it('hand over what they made where the owner does not reach the folder, or there are several', async () => {
    const store = await folderOfUser();
    const { program, port } = await startAsUser(store);
    expect(await request(port, 'PUT', '/a', noise(40_000))).toBe(200);
    await stop(program);
    const home = join(store, '..', '..');
    await chown(home, 0, 0);
    await rename(join(store, 'catalog'), join(home, 'catalog'));
    const words = ['token', 'add', 'judge', '-d', store, '--prefix', '/', '--rights', 'read'];
    expect(await run(server, ...words)).toMatchObject({ code: 0 });
    expect(await run('filetracker-recover', store)).toMatchObject({ code: 0 });
    const backup = join(await temporaryFolder(), 'backup');
    expect(await run(server, 'backup', store, backup)).toMatchObject({ code: 0 });
    expect(await foreignFiles(store)).toEqual([]);
    await chown(home, user.uid, user.gid);
    const restored = join(store, '..', 'restored');
    expect(await run(server, 'restore', backup, restored)).toMatchObject({ code: 0 });
    expect((await stat(restored)).uid).toBe(user.uid);
    await stop((await startAsUser(restored)).program);
  });

  it('are told of by a server that finds files of root: which, and what to do', async () => {
    const store = await folderOfUser();
    await stop((await startAsUser(store)).program);
    const tell = async (path: string): Promise<string> => {
      await chown(path, 0, 0);
      const args = ['-d', store, '-p', '0', '--workers', '1'];
      const { code, errors } = await new Program(server, { args, user }).ended();
      await chown(path, user.uid, user.gid);
      expect(code).toBe(1);
      return errors;
    };
    for (const path of ['catalog/lock.mdb', 'catalog/data.mdb', 'catalog', 'journal/lock']) {
      const file = join(store, path);
      const told = await tell(file);
      expect(told.split('\n'), path).toHaveLength(2);
      expect(told).toContain(JSON.stringify(file));
      expect(told).toContain('chown');
    }
  });
});
