import {
  createReadStream,
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  statSync,
  utimesSync,
  writeFileSync,
} from 'node:fs';
import { join } from 'node:path';
import { Readable } from 'node:stream';
import { setTimeout as delay } from 'node:timers/promises';
import { describe, expect, test } from 'vitest';
import type { FileClient } from '../../src/client/file-client.ts';
import { digestOf } from '../../src/core/digest.ts';
import { collected, noise, prose } from '../support/contents.ts';
import { temporaryFolder } from '../support/temporary-folder.ts';

export interface ClientFixture {
  readonly client: FileClient;
  /** Whether the client has a cache. */
  readonly caches: boolean;
}

/** How many files and sockets this process has open. */
function descriptors(): number {
  return readdirSync('/proc/self/fd').length;
}

/** What every client with a server must do, whatever it is made of. */
export function describeFileClient(title: string, open: () => Promise<ClientFixture>): void {
  const contents: readonly (readonly [string, Buffer])[] = [
    ['nothing', Buffer.alloc(0)],
    ['a line', Buffer.from('hello\n')],
    ['text of 20 KB', prose(20_000)],
    ['text of 3 MB', prose(3_000_000)],
    ['noise of 300 KB', noise(300_000)],
  ];

  async function given(): Promise<{
    client: FileClient;
    caches: boolean;
    folder: string;
    local: (bytes: Buffer, mtime?: number) => string;
  }> {
    const { client, caches } = await open();
    const folder = await temporaryFolder();
    let count = 0;
    const local = (bytes: Buffer, mtime = 1_700_000_000): string => {
      const path = join(folder, `local-${(count += 1)}`);
      writeFileSync(path, bytes);
      utimesSync(path, mtime, mtime);
      return path;
    };
    return { client, caches, folder, local };
  }

  describe(title, () => {
    test.each(contents)('putFile() and getFile() carry %s byte for byte', async (_what, bytes) => {
      const { client, folder, local } = await given();
      const put = await client.putFile('/a/b.txt', local(bytes));
      expect(put).toMatchObject({
        name: '/a/b.txt',
        version: 1_700_000_000,
        versionedName: '/a/b.txt@1700000000',
        size: bytes.length,
        digest: digestOf(bytes),
        stored: true,
      });
      for (const name of ['/a/b.txt', '/a/b.txt@1700000000']) {
        const target = join(folder, 'out');
        const got = await client.getFile(name, target);
        expect(got).toMatchObject({ versionedName: '/a/b.txt@1700000000', size: bytes.length });
        expect(readFileSync(target).equals(bytes)).toBe(true);
        expect(Math.floor(statSync(target).mtimeMs / 1000)).toBe(1_700_000_000);
      }
    });

    test.each(contents)('getStream() gives %s', async (_what, bytes) => {
      const { client, local } = await given();
      await client.putFile('/s@5', local(bytes), { toLocalStore: false });
      for (const serveFromCache of [false, true]) {
        const { stream, ...info } = await client.getStream('/s', { serveFromCache });
        expect(info).toMatchObject({ versionedName: '/s@5' });
        expect((await collected(stream)).equals(bytes)).toBe(true);
      }
    });

    test.each([false, true])(
      'a stream that is cancelled before it is read fails and lets go of its file (from the cache: %j)',
      async (serveFromCache) => {
        const { client, local } = await given();
        await client.putFile('/s@5', local(noise(300_000)));
        const before = descriptors();
        for (let count = 0; count < 20; count += 1) {
          const stop = new AbortController();
          const { stream } = await client.getStream('/s', { serveFromCache, signal: stop.signal });
          stop.abort();
          expect(stream.destroyed).toBe(true);
          await expect(collected(stream)).rejects.toMatchObject({ code: 'aborted' });
        }
        // Those of connections and locks stay, and what closes does so by and by.
        await expect.poll(descriptors, { timeout: 60_000 }).toBeLessThan(before + 10);
      },
    );

    test('putStream() stores bytes that come, with the version of the name', async () => {
      const { client } = await given();
      const bytes = prose(200_000);
      const put = await client.putStream(
        '/piped@77',
        Readable.from([bytes.subarray(0, 9), bytes.subarray(9)]),
      );
      expect(put).toMatchObject({ versionedName: '/piped@77', size: 200_000 });
      const { stream } = await client.getStream('/piped');
      expect((await collected(stream)).equals(bytes)).toBe(true);
    });

    test('putFile() keeps the newer version and says which it is', async () => {
      const { client, folder, local } = await given();
      await client.putFile('/v@200', local(Buffer.from('new')));
      const older = await client.putFile('/v@100', local(Buffer.from('old')));
      expect(older).toMatchObject({ version: 200, stored: false });
      await client.getFile('/v', join(folder, 'out'));
      expect(readFileSync(join(folder, 'out'), 'utf8')).toBe('new');
      const equal = await client.putFile('/v@200', local(Buffer.from('again')));
      expect(equal).toMatchObject({ version: 200, stored: true });
      await client.getFile('/v', join(folder, 'out'));
      expect(readFileSync(join(folder, 'out'), 'utf8')).toBe('again');
    });

    test('getFile() of a version that is not stored finds nothing, and leaves the target alone', async () => {
      const { client, folder, local } = await given();
      await client.putFile('/v@200', local(Buffer.from('new')));
      const target = join(folder, 'out');
      writeFileSync(target, 'before');
      for (const name of ['/v@199', '/v@201', '/w', '/v/w']) {
        await expect(client.getFile(name, target)).rejects.toMatchObject({ code: 'not-found' });
        await expect(client.getStream(name)).rejects.toMatchObject({ code: 'not-found' });
        expect(await client.stat(name)).toBeUndefined();
        expect(await client.exists(name)).toBe(false);
      }
      expect(readFileSync(target, 'utf8')).toBe('before');
    });

    test('look-ups tell version, size and digest', async () => {
      const { client, local } = await given();
      const bytes = prose(5000);
      await client.putFile('/x/y@42', local(bytes), { toLocalStore: false });
      expect(await client.stat('/x/y')).toMatchObject({ version: 42, size: 5000, digest: digestOf(bytes) });
      expect(await client.fileVersion('/x/y')).toBe(42);
      expect(await client.fileVersion('/x/y@7')).toBe(42);
      expect(await client.fileSize('/x/y')).toBe(5000);
      expect(await client.exists('/x/y@42')).toBe(true);
      expect(await client.fileVersion('/x')).toBeUndefined();
    });

    test('deleteFile() removes a file everywhere', async () => {
      const { client, folder, local } = await given();
      await client.putFile('/d@10', local(Buffer.from('x')));
      await client.getFile('/d', join(folder, 'out'));
      expect(await client.deleteFile('/d')).toMatchObject({ keptVersion: undefined });
      expect(await client.exists('/d')).toBe(false);
      await expect(client.getFile('/d@10', join(folder, 'out'))).rejects.toMatchObject({ code: 'not-found' });
      await expect(client.deleteFile('/d')).rejects.toMatchObject({ code: 'not-found' });
    });

    test('deleteFile() of an older version leaves the newer one', async () => {
      const { client, local } = await given();
      await client.putFile('/d@10', local(Buffer.from('x')));
      expect(await client.deleteFile('/d@9')).toMatchObject({ keptVersion: 10 });
      expect(await client.fileVersion('/d')).toBe(10);
      expect(await client.deleteFile('/d@11')).toMatchObject({ keptVersion: undefined });
      expect(await client.exists('/d')).toBe(false);
    });

    test('putFile() stores an older version than was removed', async () => {
      const { client, local } = await given();
      for (const bytes of [Buffer.from('x'), noise(300_000)]) {
        await client.putFile('/d@10', local(bytes));
        await client.deleteFile('/d');
        expect(await client.putFile('/d@9', local(bytes))).toMatchObject({ stored: true, version: 9 });
        expect(await client.fileVersion('/d')).toBe(9);
        await client.deleteFile('/d');
      }
    });

    test('lists name what is stored, below a directory and up to a version', async () => {
      const { client, local } = await given();
      const path = local(Buffer.from('x'));
      for (const name of ['/b/c@3', '/a@1', '/b/a b@2', '/b/ż/d@4']) await client.putFile(name, path);
      const list = async (options = {}): Promise<string[]> => {
        const names: string[] = [];
        for await (const name of client.listRemoteFiles(options)) names.push(name);
        return names;
      };
      expect(await list()).toEqual(['/a', '/b/a b', '/b/c', '/b/ż/d']);
      expect(await list({ subpath: '/b' })).toEqual(['/b/a b', '/b/c', '/b/ż/d']);
      expect(await list({ subpath: '/b/', absolutePaths: false })).toEqual(['a b', 'c', 'ż/d']);
      expect(await list({ cutoff: 2 })).toEqual(['/a', '/b/a b']);
      await expect(list({ subpath: '/none' })).rejects.toMatchObject({ code: 'not-a-directory' });
      const entries = [];
      for await (const entry of client.listRemoteEntries({ subpath: '/b', cutoff: 3 })) entries.push(entry);
      expect(entries).toMatchObject([
        { versionedName: '/b/a b@2', size: 1 },
        { versionedName: '/b/c@3', size: 1 },
      ]);
    });

    test('a list of an empty store is empty', async () => {
      const { client } = await given();
      for await (const name of client.listRemoteFiles()) expect(name).toBeUndefined();
    });

    test('names form a tree', async () => {
      const { client, local } = await given();
      const path = local(Buffer.from('x'));
      await client.putFile('/t/a@1', path);
      for (const name of ['/t@1', '/t/a/b@1']) {
        await expect(client.putFile(name, path)).rejects.toMatchObject({ code: 'name-conflict' });
      }
    });

    test.each([
      '',
      'a',
      '/',
      '//a',
      '/a//b',
      '/../a',
      '/a@1/',
      '/a@1234567890123',
      '/a\nb',
      `/${'x'.repeat(300)}`,
    ])('the name %j is refused before anything happens', async (name) => {
      const { client, folder, local } = await given();
      const path = local(Buffer.from('x'));
      const refusal = { code: 'invalid-name' };
      await expect(client.getFile(name, join(folder, 'out'))).rejects.toMatchObject(refusal);
      await expect(client.getStream(name)).rejects.toMatchObject(refusal);
      await expect(client.putFile(name, path)).rejects.toMatchObject(refusal);
      await expect(client.deleteFile(name)).rejects.toMatchObject(refusal);
      await expect(client.stat(name)).rejects.toMatchObject(refusal);
      expect(existsSync(join(folder, 'out'))).toBe(false);
    });

    test('deleteFile() removes the only copy of a file, which the cache has', async () => {
      const { client, caches, local } = await given();
      const put = client.putFile('/only@5', local(Buffer.from('x')), { toRemoteStore: false });
      if (!caches) {
        await expect(put).rejects.toMatchObject({ code: 'invalid-argument' });
        return;
      }
      await put;
      expect(await client.deleteFile('/only')).toEqual({ name: '/only', keptVersion: undefined });
      expect(await client.exists('/only@5')).toBe(false);
      await expect(client.deleteFile('/only')).rejects.toMatchObject({ code: 'not-found' });
    });

    test('"@" is a letter of a name, but for a version at its end', async () => {
      const { client, folder, local } = await given();
      const names = ['/@types/a@2x.png', '/a@b', '/a@1/b', '/x@-', '/x@'];
      for (const name of names) {
        await client.putFile(name, local(Buffer.from(name), 7));
        expect(await client.stat(`${name}@7`)).toMatchObject({ name, version: 7 });
        await client.getFile(name, join(folder, 'out'));
        expect(readFileSync(join(folder, 'out'), 'utf8')).toBe(name);
      }
      await client.putFile('/x@12@-3', local(Buffer.from('x')));
      expect(await client.stat('/x@12@-3')).toMatchObject({ name: '/x@12', version: -3 });
      expect(await client.stat('/x@12')).toBeUndefined();
      for (const name of [...names, '/x@12']) await client.deleteFile({ name });
      for await (const name of client.listRemoteFiles()) expect.fail(`${name} is still there`);
    });

    test('a name that is given apart from its version is taken as it is', async () => {
      const { client, folder, local } = await given();
      const name = '/x@12';
      expect(await client.putFile({ name }, local(Buffer.from('one')))).toMatchObject({ name });
      expect(await client.putStream({ name: '/y@1', version: 8 }, Readable.from(['two']))).toMatchObject({
        versionedName: '/y@1@8',
      });
      expect(await client.fileVersion({ name })).toBe(1_700_000_000);
      expect(await client.getFile({ name, version: 1_700_000_000 }, join(folder, 'out'))).toMatchObject({
        name,
      });
      for await (const file of client.listRemoteEntries()) {
        const { stream, versionedName } = await client.getStream(file);
        await collected(stream);
        expect(versionedName).toBe(file.versionedName);
      }
      await expect(client.stat({ name, version: 0.5 })).rejects.toMatchObject({ code: 'invalid-version' });
      await client.deleteFile({ name, version: 1_700_000_000 });
      expect(await client.exists({ name })).toBe(false);
    });

    test('local mistakes are told before anything is fetched', async () => {
      const { client, folder, local } = await given();
      await client.putFile('/a@1', local(Buffer.from('x')));
      mkdirSync(join(folder, 'directory'));
      for (const target of ['directory', 'missing/out']) {
        await expect(client.getFile('/a', join(folder, target))).rejects.toMatchObject({ code: 'io' });
      }
      for (const path of ['directory', 'missing']) {
        await expect(client.putFile('/b', join(folder, path))).rejects.toMatchObject({ code: 'io' });
      }
      expect(await client.exists('/b')).toBe(false);
    });

    test('a call that is cancelled rejects', async () => {
      const { client, folder, local } = await given();
      const path = local(Buffer.from('x'));
      await client.putFile('/a@1', path, { toLocalStore: false });
      const options = { signal: AbortSignal.abort() };
      await expect(client.getFile('/a', join(folder, 'out'), options)).rejects.toMatchObject({
        code: 'aborted',
      });
      await expect(client.putFile('/b', path, options)).rejects.toMatchObject({ code: 'aborted' });
      expect(existsSync(join(folder, 'out'))).toBe(false);
    });

    test('putStream() takes text as UTF-8, and refuses what is neither text nor bytes', async () => {
      const { client } = await given();
      const text = async function* (): AsyncGenerator<string | Uint8Array> {
        yield 'zażółć ';
        yield new Uint8Array([0x21]);
      };
      await client.putStream('/text@1', text() as never);
      expect((await collected((await client.getStream('/text')).stream)).toString()).toBe('zażółć !');
      for (const source of [Readable.from([1, 2]), Readable.from([{}]), [null], undefined, 'text', 5]) {
        const put = client.putStream('/odd@1', source as never);
        await expect(put).rejects.toMatchObject({ code: 'invalid-argument' });
      }
      expect(await client.exists('/odd')).toBe(false);
    });

    test.each(['signal', 'close'] as const)(
      'putStream() ends by %s, whatever its source does, and lets go of it',
      async (way) => {
        const { client } = await given();
        let [begun, returned] = [false, false];
        const endless = async function* (): AsyncGenerator<Buffer> {
          begun = true;
          try {
            for (;;) {
              yield Buffer.alloc(1000);
              await delay(1);
            }
          } finally {
            returned = true;
          }
        };
        const stalled = new Readable({ read: () => undefined });
        const stop = new AbortController();
        const puts = [endless(), stalled].map((source) =>
          client.putStream('/ab@1', source, { signal: stop.signal }),
        );
        const ended = Promise.allSettled(puts);
        await expect.poll(() => begun, { timeout: 60_000 }).toBe(true);
        if (way === 'signal') stop.abort();
        else await client.close();
        expect(await ended).toMatchObject([
          { status: 'rejected', reason: { code: 'aborted' } },
          { status: 'rejected', reason: { code: 'aborted' } },
        ]);
        expect(stalled.destroyed).toBe(true);
        await expect.poll(() => returned, { timeout: 60_000 }).toBe(true);
        if (way === 'signal') expect(await client.exists('/ab')).toBe(false);
        else await expect(client.putStream('/ab@1', endless())).rejects.toMatchObject({ code: 'aborted' });
      },
    );

    test('putStream() rejects with what its stream fails with, however early', async () => {
      const { client, folder } = await given();
      const missing = (): Readable => createReadStream(join(folder, 'missing'));
      const put = client.putStream('/x@1', missing());
      await expect(put).rejects.toMatchObject({ code: 'io', cause: { code: 'ENOENT' } });
      await expect(client.putStream('no name', missing())).rejects.toMatchObject({ code: 'invalid-name' });
      const failing = new Readable({ read: () => failing.destroy(new Error('it broke')) });
      await expect(client.putStream('/x@1', failing)).rejects.toThrow('it broke');
      expect(await client.exists('/x')).toBe(false);
    });

    test('calls with what is no text are refused', async () => {
      const { client, folder, local } = await given();
      const refusal = { code: 'invalid-argument' };
      const path = local(Buffer.from('x'));
      await client.putFile('/a@1', path);
      for (const odd of [undefined, null, 5, {}] as unknown[] as string[]) {
        await expect(client.putFile(odd, path)).rejects.toMatchObject(refusal);
        await expect(client.putFile('/b', odd)).rejects.toMatchObject(refusal);
        await expect(client.getFile(odd, join(folder, 'out'))).rejects.toMatchObject(refusal);
        await expect(client.getFile('/a', odd)).rejects.toMatchObject(refusal);
        await expect(client.getStream(odd)).rejects.toMatchObject(refusal);
        await expect(client.stat(odd)).rejects.toMatchObject(refusal);
        await expect(client.deleteFile(odd)).rejects.toMatchObject(refusal);
      }
      const nowhere = { toLocalStore: false, toRemoteStore: false };
      await expect(client.putFile('/b', path, nowhere)).rejects.toMatchObject(refusal);
      const listed = async (): Promise<void> => {
        for await (const name of client.listRemoteFiles({ cutoff: 'x' as never })) expect(name).toBe('/a');
      };
      await expect(listed()).rejects.toMatchObject({ code: 'invalid-version' });
    });

    test('close() ends a client, and may be called again', async () => {
      const { client } = await given();
      await client.close();
      await client.close();
      await expect(client.exists('/a')).rejects.toMatchObject({ code: 'aborted' });
    });
  });
}
