import { readdir, readFile, rm, truncate, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { noise } from '../support/contents.ts';
import { EmbeddedStore } from '../support/embedded-store.ts';
import { run } from '../support/program.ts';
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
    expect(text).toMatch(/--rate-max <number> [^-]*of all workers together/);
    expect(text).toMatch(/--uploads-max <number> [^-]*each worker takes its part/);
  });

  it('takes no day that does not exist for the end of a token', async () => {
    const folder = await temporaryFolder();
    const add = (expires: string): ReturnType<typeof run> =>
      run(
        'filetracker-server',
        'token',
        'add',
        'a',
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
        errors: expect.stringContaining('beyond every calendar') as string,
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
