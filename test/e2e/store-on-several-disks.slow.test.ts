import { access, lstat, mkdir, readdir, readFile, symlink, truncate, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { noise, prose } from '../support/contents.ts';
import { EmbeddedStore } from '../support/embedded-store.ts';
import { present } from '../support/present.ts';
import { run, startServerProgram } from '../support/program.ts';
import { requestOnce } from '../support/raw-http.ts';
import { folderOnAnotherDisk, temporaryFolder } from '../support/temporary-folder.ts';
import { versionQuery } from '../support/test-server.ts';

const good = versionQuery();

/** A folder for a store, some parts of which are links to another disk; undefined if there is no other disk. */
async function splitFolder(
  ...parts: readonly string[]
): Promise<{ store: string; other: string } | undefined> {
  const other = await folderOnAnotherDisk();
  if (other === undefined) {
    console.warn('This machine has one file system only: a store on several was not tried');
    return undefined;
  }
  const store = join(await temporaryFolder(), 'store');
  await mkdir(store);
  for (const part of parts) {
    await mkdir(join(other, part));
    await symlink(join(other, part), join(store, part));
  }
  return { store, other };
}

async function filesIn(folder: string): Promise<string[]> {
  const items = await readdir(folder, { recursive: true, withFileTypes: true });
  return items.filter((item) => item.isFile()).map(({ name }) => name);
}

describe('a store whose parts are on several file systems', { timeout: 180_000 }, () => {
  it.each([
    [['blobs']],
    [['uploads']],
    [['journal', 'catalog']],
    [['journal', 'catalog', 'blobs', 'uploads']],
  ])('is served, checked, backed up and restored with links for %j', async (parts) => {
    const split = await splitFolder(...parts);
    if (split === undefined) return;
    const { store } = split;
    const { program, port } = await startServerProgram(store, ['--workers', '1']);
    const large = noise(300_000);
    for (const [name, body] of [
      ['large', large],
      ['small', prose(100)],
    ] as const) {
      const put = await requestOnce(port, { method: 'PUT', target: `/files/${name}?${good}`, body });
      expect(put).toMatchObject({ status: 200 });
    }
    expect((await requestOnce(port, { target: '/readyz' })).status).toBe(200);
    expect((await requestOnce(port, { target: '/files/large' })).body.equals(large)).toBe(true);
    program.kill('SIGTERM');
    expect((await program.ended()).code).toBe(0);
    for (const part of parts) expect((await lstat(join(store, part))).isSymbolicLink()).toBe(true);
    const checked = await run('filetracker-recover', '-f', store);
    expect(checked).toMatchObject({ code: 0 });
    expect(checked.output).toContain('nothing to do');
    const [backup, restored] = [`${store}-backup`, `${store}-restored`];
    expect(await run('filetracker-server', 'backup', '-s', store, backup)).toMatchObject({ code: 0 });
    expect(await run('filetracker-server', 'restore', '-s', backup, restored)).toMatchObject({ code: 0 });
    const copy = await EmbeddedStore.open(restored);
    const read = await copy.read('/large');
    await copy.close();
    expect(read).toEqual(large);
  });

  it('receives uploads on the disk of the blobs, and sweeps what was left on either', async () => {
    const split = await splitFolder('blobs');
    if (split === undefined) return;
    const { store, other } = split;
    const [before, now] = [join(store, 'uploads'), join(other, 'blobs', 'uploads')];
    for (const folder of [before, now]) {
      await mkdir(folder);
      await writeFile(join(folder, 'a'.repeat(24)), 'half');
    }
    const { program } = await startServerProgram(store, ['--workers', '1']);
    await expect.poll(async () => [...(await readdir(before)), ...(await readdir(now))]).toEqual([]);
    program.kill('SIGTERM');
    await program.ended();
    await writeFile(join(now, 'b'.repeat(24)), 'half');
    const recovered = await run('filetracker-recover', store);
    expect(recovered.output).toContain(`remove-upload ${'b'.repeat(24)}`);
    expect(await readdir(now)).toEqual([]);
  });

  it('has damaged parts put aside on the disk of the folder, and its links kept', async () => {
    const split = await splitFolder('blobs', 'catalog', 'journal');
    if (split === undefined) return;
    const { store, other } = split;
    const opened = await EmbeddedStore.open(store);
    await opened.put('/lost', 1, noise(100));
    await opened.put('/large', 1, noise(300_000));
    await opened.close();
    const [blob = ''] = (await readdir(join(other, 'blobs'), { recursive: true })).filter((path) =>
      /^..\/\w{64}/.test(path),
    );
    await truncate(join(other, 'blobs', blob), 100);
    const segment = join(other, 'journal', '0000000001.log');
    const bytes = await readFile(segment);
    bytes.write('X', bytes.indexOf('/lost'));
    await writeFile(segment, bytes);
    await mkdir(join(other, 'blobs', 'lost+found'));
    const recovered = await run('filetracker-recover', store);
    expect(recovered.errors).not.toContain('Cannot');
    const aside = await filesIn(join(store, 'quarantine'));
    expect(aside).toEqual(expect.arrayContaining([blob.slice(3), '0000000001.log']));
    for (const part of ['blobs', 'catalog', 'journal']) {
      expect((await lstat(join(store, part))).isSymbolicLink()).toBe(true);
    }
    await access(join(other, 'blobs', 'lost+found'));
    expect((await run('filetracker-recover', store)).output).toContain('nothing to do');
    const again = await EmbeddedStore.open(store);
    expect(present(await again.read('/large'))).toBe('damaged');
    await again.close();
  });
});

describe('a new disk, which holds lost+found and nothing else', { timeout: 180_000 }, () => {
  it('takes a backup, a restored store, and a new store', async () => {
    const root = await temporaryFolder();
    const [store, backup, restored, fresh] = ['store', 'backup', 'restored', 'fresh'].map((name) =>
      join(root, name),
    ) as [string, string, string, string];
    for (const disk of [backup, restored, fresh]) await mkdir(join(disk, 'lost+found'), { recursive: true });
    const opened = await EmbeddedStore.open(store);
    await opened.put('/a', 1, noise(300_000));
    await opened.close();
    for (let times = 0; times < 2; times += 1) {
      expect(await run('filetracker-server', 'backup', '-s', store, backup)).toMatchObject({ code: 0 });
    }
    expect(await run('filetracker-server', 'restore', '-s', backup, restored)).toMatchObject({ code: 0 });
    const moved = await run('filetracker-server', 'move', '-s', '--from', restored, '--to', fresh);
    expect(moved).toMatchObject({ code: 0 });
    for (const disk of [backup, restored, fresh]) await access(join(disk, 'lost+found'));
    const { port } = await startServerProgram(fresh, ['--workers', '1']);
    expect((await requestOnce(port, { target: '/list/' })).text).toBe('a\n');
  });
});
