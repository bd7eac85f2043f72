import { mkdir, readdir, readFile, rm, truncate, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { noise } from '../support/contents.ts';
import { EmbeddedStore } from '../support/embedded-store.ts';
import { run, startServerProgram } from '../support/program.ts';
import { requestOnce } from '../support/raw-http.ts';
import { temporaryFolder } from '../support/temporary-folder.ts';

describe('filetracker-server', () => {
  it('lists its commands, and helps with each', async () => {
    const { output } = await run('filetracker-server', '--help');
    for (const command of ['token', 'backup', 'restore', 'move']) {
      expect(output).toMatch(new RegExp(`^  ${command}\\b|^  \\w+, ${command}\\b`, 'm'));
      const help = await run('filetracker-server', 'help', command);
      expect(help).toMatchObject({ code: 0, errors: '' });
      expect(help.output).toContain(`filetracker-server ${command}`);
    }
    expect(await run('filetracker-server', 'help')).toMatchObject({ code: 0, output });
  });

  it('says of limits whether they are divided', async () => {
    const { output } = await run('filetracker-server', '--help');
    const text = output.replaceAll(/\s+/g, ' ');
    expect(text).toMatch(/--rate-max <number> [^-]*over all workers/);
    expect(text).toMatch(/--uploads-max <number> [^-]*divided among the workers/);
  });

  it('takes no day that does not exist for the end of a token', async () => {
    const folder = await temporaryFolder();
    const add = (expires: string): ReturnType<typeof run> =>
      run(
        'filetracker-server',
        'token',
        'add',
        'a',
        '--create',
        '-d',
        folder,
        '--prefix',
        '/',
        '--rights',
        'read',
        '--expires',
        expires,
      );
    expect(await add('2090-02-31')).toMatchObject({
      code: 2,
      errors: expect.stringContaining('no such day') as string,
    });
    for (const expires of ['99999999d', `${'9'.repeat(400)}d`]) {
      expect(await add(expires)).toMatchObject({
        code: 2,
        errors: expect.stringContaining('too far in the future') as string,
      });
    }
    expect(await add('2088-02-29')).toMatchObject({ code: 0 });
    // As an earlier release took it.
    const path = join(folder, 'tokens.json');
    const text = await readFile(path, 'utf8');
    await writeFile(path, text.replace(/"expiresAtMs": \d+/, '"expiresAtMs": 8641790000000000'));
    expect(await run('filetracker-server', 'token', 'ls', '-d', folder)).toMatchObject({
      code: 0,
      output: expect.stringMatching(/^a\t.*\tnever\n$/) as string,
    });
  });
});

describe('a folder that was mistyped', { timeout: 180_000 }, () => {
  const store = 'filetracker-server';
  it.each([
    ['token ls', store, ['token', 'ls', '-d', 'TYPO']],
    ['token add', store, ['token', 'add', 'x', '-d', 'TYPO', '--prefix', '/', '--rights', 'read']],
    ['token rm', store, ['token', 'rm', 'x', '-d', 'TYPO']],
    ['backup', store, ['backup', 'TYPO', 'NEW']],
    ['restore', store, ['restore', 'TYPO', 'NEW']],
    ['move', store, ['move', '--from', 'TYPO', '--to', 'NEW']],
    ['recover', 'filetracker-recover', ['TYPO']],
    ['migrate --adopt', 'filetracker-migrate', ['--adopt', 'TYPO', 'NEW']],
    ['migrate --adopt-1x', 'filetracker-migrate', ['--adopt-1x', 'TYPO', 'NEW']],
  ] as const)('is refused by name and not created: %s', async (_, program, words) => {
    const root = await temporaryFolder();
    const [typo, target] = [join(root, 'typo'), join(root, 'new')];
    const args = words.map((word) => (word === 'TYPO' ? typo : word === 'NEW' ? target : word));
    const absent = await run(program, ...args);
    expect(absent).toMatchObject({ code: 3, output: '' });
    expect(absent.errors).toMatch(/^[^\n]+: Cannot [^\n]+\n$/);
    expect(absent.errors).toContain(`"${typo}"`);
    expect(await readdir(root)).toEqual([]);
    // One that is there, as the parent of the right one may be.
    await mkdir(typo);
    await writeFile(join(typo, 'other'), '');
    const other = await run(program, ...args);
    if (!args.includes('--adopt-1x')) expect(other).toMatchObject({ code: 3, output: '' });
    expect(await readdir(typo)).toEqual(['other']);
  });

  it('gets tokens with "token add --create" alone, and is then closed from the first start', async () => {
    const folder = join(await temporaryFolder(), 'store');
    const token = (...words: readonly string[]): ReturnType<typeof run> =>
      run('filetracker-server', 'token', ...words, '-d', folder);
    const rights = ['--prefix', '/', '--rights', 'read'];
    expect((await token('add', 'a', ...rights)).errors).toContain('token add --create');
    expect(await token('add', 'a', '--create', ...rights)).toMatchObject({ code: 0 });
    expect(await token('add', 'b', ...rights)).toMatchObject({ code: 0 });
    expect((await token('ls')).output).toMatch(/^a\t[^\n]+\nb\t[^\n]+\n$/);
    expect(await token('rm', 'a')).toMatchObject({ code: 0 });
    const { port } = await startServerProgram(folder, ['--workers', '1']);
    expect((await requestOnce(port, { target: '/list/' })).status).toBe(401);
  });
});

describe('filetracker-recover', () => {
  it('ends with 1 as long as the content of a file is lost', async () => {
    const folder = join(await temporaryFolder(), 'store');
    const store = await EmbeddedStore.open(folder);
    await store.put('/large', 1, noise(50_000));
    await store.close();
    expect(await run('filetracker-recover', '-s', folder)).toMatchObject({ code: 0 });
    const blobs = await readdir(join(folder, 'blobs'), { recursive: true, withFileTypes: true });
    for (const file of blobs) if (file.isFile()) await truncate(join(file.parentPath, file.name), 10);
    for (let times = 0; times < 2; times += 1) {
      expect(await run('filetracker-recover', '-s', folder)).toMatchObject({ code: 1 });
    }
    const again = await EmbeddedStore.open(folder);
    await again.put('/large', 2, noise(50_000));
    await again.close();
    expect(await run('filetracker-recover', '-s', folder)).toMatchObject({ code: 0 });
  });

  it('ends with 1 where records are damaged and no catalog tells what they said', async () => {
    const folder = join(await temporaryFolder(), 'store');
    const store = await EmbeddedStore.open(folder);
    await store.put('/damaged', 1, noise(100));
    await store.put('/small', 1, noise(100, 'small'));
    await store.close();
    const segment = join(folder, 'journal', '0000000001.log');
    const bytes = await readFile(segment);
    bytes.write('X', bytes.indexOf('/damaged'));
    await writeFile(segment, bytes);
    await rm(join(folder, 'catalog'), { recursive: true });
    const recovered = await run('filetracker-recover', folder);
    expect(recovered).toMatchObject({ code: 1, output: expect.stringContaining('are lost') as string });
    expect(await run('filetracker-recover', '-s', folder)).toMatchObject({ code: 0 });
  });
});
