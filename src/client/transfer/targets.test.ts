import {
  closeSync,
  chmodSync,
  lstatSync,
  mkdirSync,
  openSync,
  readFileSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { createServer } from 'node:net';
import { once } from 'node:events';
import { join } from 'node:path';
import { expect, test } from 'vitest';
import { temporaryFolder } from '../../../test/support/temporary-folder.ts';
import { Client } from '../client.ts';
import type { FileClient } from '../file-client.ts';
import type { HandOut } from '../cache/materialize.ts';
import { MemoryClient } from '../memory-client.ts';

const large = Buffer.alloc(300_000, 'large');

/** Clients with `/small` and `/large`, from memory and from a cache with each link mode. */
async function clients(folder: string): Promise<FileClient[]> {
  writeFileSync(join(folder, 'small'), 'small');
  writeFileSync(join(folder, 'large'), large);
  const handOuts: readonly HandOut[] = ['auto', 'link', 'copy'];
  const all: FileClient[] = handOuts.map(
    (handOut) => new Client({ cacheDir: join(folder, `cache-${handOut}`), cacheMinFree: 0, handOut }),
  );
  all.push(new MemoryClient());
  for (const client of all) {
    await client.putFile('/small', join(folder, 'small'));
    await client.putFile('/large', join(folder, 'large'));
  }
  return all;
}

test('an overwritten file keeps its permissions in every link mode', async () => {
  const folder = await temporaryFolder();
  for (const client of await clients(folder)) {
    for (const name of ['small', 'large']) {
      for (const mode of [0o600, 0o755, 0o444, 0o640]) {
        const target = join(folder, 'target');
        writeFileSync(target, 'old');
        chmodSync(target, mode);
        await client.getFile(`/${name}`, target);
        expect([name, (statSync(target).mode & 0o7777).toString(8)]).toEqual([name, mode.toString(8)]);
        expect(readFileSync(target).equals(readFileSync(join(folder, name)))).toBe(true);
        chmodSync(target, 0o600);
      }
    }
    await client.close();
  }
});

test.skipIf(process.getuid?.() !== 0)('a file that root overwrites keeps its owner', async () => {
  const folder = await temporaryFolder();
  const { chownSync } = await import('node:fs');
  for (const client of await clients(folder)) {
    for (const name of ['small', 'large']) {
      const target = join(folder, 'target');
      writeFileSync(target, 'old');
      chownSync(target, 4321, 1234);
      chmodSync(target, 0o4750);
      await client.getFile(`/${name}`, target);
      const { uid, gid, mode } = statSync(target);
      // Set-uid was granted to the old content.
      expect([name, uid, gid, mode & 0o7777]).toEqual([name, 4321, 1234, 0o750]);
    }
    await client.close();
  }
});

test('a get through symbolic links writes the file at their end and keeps the links', async () => {
  const folder = await temporaryFolder();
  const at = (path: string): string => join(folder, path);
  mkdirSync(at('d'));
  symlinkSync('link', at('outer'));
  symlinkSync('d/file', at('link'));
  for (const client of await clients(folder)) {
    for (const before of ['missing', 'there']) {
      if (before === 'there') chmodSync(at('d/file'), 0o600);
      await client.getFile('/small', at('outer'));
      expect(lstatSync(at('outer')).isSymbolicLink() && lstatSync(at('link')).isSymbolicLink()).toBe(true);
      expect(readFileSync(at('d/file'), 'utf8')).toBe('small');
    }
    expect(statSync(at('d/file')).mode & 0o777).toBe(0o600);
    await client.getFile('/small', at('outer'), { replaceSpecial: true });
    expect(lstatSync(at('outer')).isFile()).toBe(true);
    await client.close();
    const { rmSync } = await import('node:fs');
    rmSync(at('outer'));
    rmSync(at('d/file'));
    symlinkSync('link', at('outer'));
  }
});

test('a get to an open descriptor writes at its position and leaves it open', async () => {
  const folder = await temporaryFolder();
  for (const client of await clients(folder)) {
    for (const name of ['small', 'large']) {
      const descriptor = openSync(join(folder, 'out'), 'w');
      writeFileSync(descriptor, 'before ');
      await client.getFile(`/${name}`, `/dev/fd/${descriptor}`);
      writeFileSync(descriptor, ' after');
      closeSync(descriptor);
      const content = readFileSync(join(folder, name), 'utf8');
      expect(readFileSync(join(folder, 'out'), 'utf8') === `before ${content} after`).toBe(true);
    }
    await client.close();
  }
});

test('an impossible target fails in one line, before anything is fetched', async () => {
  const folder = await temporaryFolder();
  const at = (path: string): string => join(folder, path);
  writeFileSync(at('file'), '');
  symlinkSync('loop', at('loop'));
  symlinkSync('missing/x', at('dangling'));
  mkdirSync(at('folder'));
  symlinkSync('folder', at('to-folder'));
  const socket = createServer().listen(at('socket'));
  await once(socket, 'listening');
  // Nothing is stored: a look-up of the file first would fail with not-found.
  const client = new MemoryClient();
  for (const [path, state] of [
    [at('missing/d/x'), `the folder "${at('missing')}" does not exist`],
    [at('dangling'), `the folder "${at('missing')}" does not exist`],
    [at('file/d/x'), `"${at('file')}" is a file and not a folder`],
    [at('file/x'), `"${at('file')}" is a file and not a folder`],
    [at('folder'), 'it is a folder'],
    [at('to-folder'), 'it is a folder'],
    [at('loop'), 'its path is a loop of symbolic links'],
    [at('socket'), 'it is a socket'],
    ['/dev/fd/9999', 'no file is open under this number'],
    ['/proc/x', 'permission is denied'],
  ] as const) {
    const message = `Cannot write "${path}": ${state}`;
    const failure = client.getFile('/none', path).then(undefined, (error: unknown) => error);
    if (path !== '/proc/x') expect(await failure).toMatchObject({ code: 'io', message });
    else expect(await failure).toMatchObject({ message: expect.stringMatching(/^Cannot /) });
  }
  socket.close();
});
