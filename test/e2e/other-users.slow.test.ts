import { spawnSync } from 'node:child_process';
import { chown, lchown, mkdir, readdir, readFile, rm, symlink, writeFile } from 'node:fs/promises';
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

function userInfoOf(uid: number): string {
  return (
    spawnSync('getent', ['passwd', `${uid}`])
      .stdout.toString()
      .split(':')[0] ?? ''
  );
}

/** A server that the user runs. */
async function startAsUser(store: string, ...more: readonly string[]): ReturnType<typeof startServerProgram> {
  return startServerProgram(store, ['--workers', '1', ...more], user);
}

async function stop(program: Program): Promise<void> {
  program.kill('SIGTERM');
  expect((await program.ended()).code).toBe(0);
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

/** A store of the user with one file. */
async function storeOfUser(): Promise<string> {
  const store = await folderOfUser();
  const { program, port } = await startAsUser(store);
  expect(await request(port, 'PUT', '/a', noise(100))).toBe(200);
  await stop(program);
  return store;
}

describe.runIf(canBeOthers)(
  'programs that root runs on a store of another user',
  { timeout: 300_000 },
  () => {
    const name = userInfoOf(user.uid);

    it('refuse to, with the command that runs them as that user', async () => {
      const store = await storeOfUser();
      const words = ['add', 'judge', '-d', store, '--prefix', '/', '--rights', 'read'];
      const backup = join(await temporaryFolder(), 'backup');
      const before = await readdir(store, { recursive: true });
      const commands: readonly (readonly [string, readonly string[]])[] = [
        ['filetracker-recover', [store]],
        ['filetracker-recover', ['--dry-run', store]],
        [server, ['token', ...words]],
        [server, ['backup', store, backup]],
        [server, ['restore', backup, join(store, '..', 'restored')]],
        [server, ['move', '--from', store, '--to', join(backup, '..', 'moved')]],
        [server, ['-d', store, '-p', '0']],
        ['filetracker-migrate', ['--adopt', store, join(backup, '..', 'adopted')]],
        ['filetracker-migrate', ['--adopt-1x', store, join(backup, '..', 'adopted')]],
      ];
      for (const [program, args] of commands) {
        const { code, errors } = await run(program, ...args);
        expect(code, `${program} ${args.join(' ')}`).not.toBe(0);
        expect(errors).toContain('Cannot work as root in');
        const first = args[0]?.includes(' ') === true ? `'${args[0]}'` : args[0];
        expect(errors).toContain(`runuser -u ${name} -- ${program} ${first}`);
      }
      expect(await readdir(store, { recursive: true })).toEqual(before);
      expect(await readdir(join(store, '..'))).toEqual(['store']);
      expect(await readdir(join(backup, '..'))).toEqual([]);
    });

    it("leave what a planted link leads to as it was, also where only a part of the store is that user's", async () => {
      const store = await storeOfUser();
      const victim = join(await temporaryFolder(), 'victim');
      await writeFile(victim, 'secret of root');
      const segment = join(store, 'journal', '0000000001.log');
      await rm(segment);
      await symlink(victim, segment);
      await lchown(segment, user.uid, user.gid);
      expect((await run('filetracker-recover', store)).code).not.toBe(0);
      expect(await readFile(victim, 'utf8')).toBe('secret of root');
      await chown(store, 0, 0);
      const { code, errors } = await run('filetracker-recover', store);
      expect(code).not.toBe(0);
      expect(errors).toContain('a part of it, belongs to user');
      expect(await readFile(victim, 'utf8')).toBe('secret of root');
    });

    it('work as that user', async () => {
      const store = await storeOfUser();
      const asUser = async (program: string, ...args: readonly string[]): Promise<number | null> =>
        (await new Program(program, { args, user }).ended()).code;
      expect(await asUser('filetracker-recover', store)).toBe(0);
      expect(await asUser(server, 'backup', store, join(store, '..', 'backup'))).toBe(0);
      const { program, port } = await startAsUser(store);
      expect(await request(port, 'GET', '/a')).toBe(200);
      await stop(program);
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
        // Of a folder that its user can't enter, a file in it.
        expect(told).toContain(JSON.stringify(file).slice(0, -1));
        expect(told).toContain('chown');
      }
    });
  },
);
