import { Readable } from 'node:stream';
import { gzipSync } from 'node:zlib';
import { describe, expect, it } from 'vitest';
import { noise, prose } from '../../test/support/contents.ts';
import { nameOf, put, read, statOf } from '../../test/support/file-stores.ts';
import { present } from '../../test/support/present.ts';
import { FiletrackerError } from '../core/errors.ts';
import type { MemoryBlobStore } from '../../test/support/doubles/memory-blob-store.ts';
import { changed, collectAll, openedFileStore } from '../../test/support/changed-file-store.ts';
import { openFile } from './get.ts';

const mib = 1024 * 1024;

describe('ComposedFileStore.open()', () => {
  it('looks up again when the bytes are gone before they are open', async () => {
    let interfere: (() => Promise<void>) | undefined;
    const parts = await openedFileStore({
      wrapBlobs: (blobs) =>
        changed(blobs, {
          open: async (key, options) => {
            const step = interfere;
            interfere = undefined;
            await step?.();
            return blobs.open(key, options);
          },
        }),
    });
    for (const sizeBytes of [100_000, mib]) {
      const path = `/a${sizeBytes}`;
      await put(parts.store, path, 1, noise(sizeBytes, 'old'));
      interfere = async () => {
        await put(parts.store, path, 2, noise(sizeBytes, 'new'));
        await collectAll(parts);
      };
      const file = present(await openFile(parts.store, nameOf(path), { form: 'identity' }));
      expect(file.entry.version).toBe(2);
      if (!Buffer.isBuffer(file.body)) file.body.destroy();
      expect((await read(parts.store, path))?.equals(noise(sizeBytes, 'new'))).toBe(true);
      await parts.store.remove({ name: nameOf(path), version: 2 });
      await collectAll(parts);
    }
  });

  it('tells of a file whether it is known to be damaged', async () => {
    const parts = await openedFileStore();
    await put(parts.store, '/a', 1, noise(mib));
    const intact = present(await parts.store.lookUp(nameOf('/a')));
    expect(intact.damaged).toBe(false);
    await parts.catalog.markDamaged(intact.entry.digest, true);
    const damaged = present(await parts.store.lookUp(nameOf('/a')));
    expect([damaged.entry, damaged.damaged]).toEqual([intact.entry, true]);
  });

  it('fails with damaged-blob, after a few tries, where the bytes are lost', async () => {
    const parts = await openedFileStore();
    await put(parts.store, '/a', 1, noise(mib));
    for await (const { key } of parts.blobs.list()) await parts.blobs.remove([key]);
    await expect(openFile(parts.store, nameOf('/a'), { form: 'identity' })).rejects.toMatchObject({
      code: 'damaged-blob',
    });
    expect((await statOf(parts.store, nameOf('/a')))?.version).toBe(1);
  });

  it.each([
    ['a small file', 20_000],
    ['a large file', mib],
  ])('returns no wrong bytes of %s that is damaged, and stores it again', async (_what, sizeBytes) => {
    const parts = await openedFileStore();
    const content = noise(sizeBytes);
    const encoding = 'gzip';
    await put(parts.store, '/a', 1, gzipSync(content), { encoding });
    for await (const { key } of parts.blobs.list()) {
      (parts.blobs as MemoryBlobStore).damage(key, (bytes) => {
        bytes[5_000] = (bytes[5_000] ?? 0) ^ 1;
        return bytes;
      });
    }
    await expect(read(parts.store, '/a')).rejects.toMatchObject({ code: 'damaged-blob' });
    expect(parts.problems.length).toBe(1);
    await new Promise((resolve) => setImmediate(resolve));
    for (const form of ['stored', 'identity'] as const) {
      await expect(openFile(parts.store, nameOf('/a'), { form })).rejects.toMatchObject({
        code: 'damaged-blob',
      });
    }
    expect(await put(parts.store, '/b', 1, gzipSync(content), { encoding })).toMatchObject({
      deduplicated: false,
    });
    expect((await read(parts.store, '/a'))?.equals(content)).toBe(true);
  });

  it('fails rather than end early when a stored file has become shorter', async () => {
    const parts = await openedFileStore();
    for (const [name, body] of [
      ['/plain', noise(mib)],
      ['/zipped', prose(20 * mib)],
      ['/small', noise(100_000)],
    ] as const) {
      await put(parts.store, name, 1, body);
      for await (const { key } of parts.blobs.list()) {
        (parts.blobs as MemoryBlobStore).damage(key, (bytes) => bytes.subarray(0, -1));
      }
      for (const form of ['stored', 'identity'] as const) {
        await expect(read(parts.store, name, { form })).rejects.toMatchObject({ code: 'damaged-blob' });
      }
    }
  });

  it('returns no earlier bytes of a blob that was stored again in another form', async () => {
    const parts = await openedFileStore();
    const content = prose(50_000);
    const bodies = [gzipSync(content, { level: 1 }), gzipSync(content, { level: 9 }), content];
    for (const [index, body] of bodies.entries()) {
      const encoding = index < 2 ? 'gzip' : 'identity';
      await put(parts.store, '/a', 1, body, { encoding });
      const file = present(await openFile(parts.store, nameOf('/a'), { form: 'stored' }));
      expect(file.size).toBe((file.body as Buffer).length);
      if (index < 2) expect((file.body as Buffer).equals(body)).toBe(true);
      expect((await read(parts.store, '/a'))?.equals(content)).toBe(true);
      await parts.store.remove({ name: nameOf('/a'), version: 1 });
      await collectAll(parts);
    }
  });

  it('reads no more of a large blob than the reader takes', async () => {
    let givenBytes = 0;
    const piece = gzipSync(noise(65_536));
    const parts = await openedFileStore({
      wrapBlobs: (blobs) =>
        changed(blobs, {
          open: async () =>
            Readable.from(
              (async function* () {
                for (;;) {
                  givenBytes += piece.length;
                  yield piece;
                }
              })(),
              { objectMode: false },
            ),
        }),
    });
    await put(parts.store, '/a', 1, gzipSync(noise(mib)), { encoding: 'gzip' });
    const file = present(await openFile(parts.store, nameOf('/a'), { form: 'identity' }));
    if (Buffer.isBuffer(file.body)) throw new Error('expected a stream');
    file.body.read();
    await new Promise((resolve) => setTimeout(resolve, 50));
    expect(givenBytes).toBeGreaterThan(0);
    expect(givenBytes).toBeLessThan(mib);
    file.body.destroy();
  });
});

describe('ComposedFileStore.probe()', () => {
  it('fails if names cannot be looked up, though changes can be made', async () => {
    const parts = await openedFileStore({
      wrapCatalog: (catalog) =>
        changed(catalog, {
          find: () => Promise.reject(new FiletrackerError('io', 'Cannot read: no reader is left')),
        }),
    });
    await expect(parts.store.probe()).rejects.toMatchObject({ code: 'io' });
  });
});
