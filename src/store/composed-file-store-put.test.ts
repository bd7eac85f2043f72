import { PassThrough, Readable } from 'node:stream';
import { gzipSync } from 'node:zlib';
import { describe, expect, it } from 'vitest';
import { noise, prose } from '../../test/support/contents.ts';
import {
  leftovers,
  memoryFileStore,
  nameOf,
  put,
  read,
  streamOf,
  statOf,
} from '../../test/support/file-stores.ts';
import { present } from '../../test/support/present.ts';
import type { StageOptions } from '../blobs/blob-store.ts';
import type { MemoryBlobStore } from '../../test/support/doubles/memory-blob-store.ts';
import type { Catalog, PutChange } from '../catalog/catalog.ts';
import { parseFileName } from '../core/file-name.ts';
import { FiletrackerError } from '../core/errors.ts';
import {
  changed,
  collectAll,
  openedFileStore,
  uploadsChanged,
} from '../../test/support/changed-file-store.ts';

const mib = 1024 * 1024;

describe('ComposedFileStore.put()', () => {
  it('passes the encoding and the announced size of a body to the blob store', async () => {
    const told: StageOptions[] = [];
    const parts = await openedFileStore({
      wrapBlobs: (blobs) =>
        changed(blobs, {
          stage: (options = {}) => {
            told.push({ encoding: options.encoding, announcedSize: options.announcedSize });
            return blobs.stage(options);
          },
        }),
    });
    const put = async (bytes: Buffer, { announced = false } = {}) => {
      const claims = announced ? {} : { logicalSize: bytes.length };
      const announcedSize = announced ? bytes.length : undefined;
      const body = { source: Readable.from([bytes]), encoding: 'identity', announcedSize } as const;
      await parts.store.put({ name: parseFileName(`/${told.length}`), version: 1, claims }, body);
    };
    await put(noise(2_000_000, 'first'), { announced: true });
    await put(noise(2_000_000, 'second'));
    await put(prose(4_000_000, 'third'));
    expect(told).toEqual([
      { encoding: 'identity', announcedSize: 2_000_000 },
      { encoding: 'identity', announcedSize: 2_000_000 },
      { encoding: 'gzip', announcedSize: 4_000_000 },
    ]);
  });

  it('is worth another try where its upload was swept away', async () => {
    const parts = await openedFileStore({
      wrapBlobs: (blobs) =>
        uploadsChanged(blobs, (upload) => ({
          seal: async () => {
            const sizeBytes = await upload.seal();
            await blobs.discard(upload.stagedId);
            return sizeBytes;
          },
        })),
    });
    const body = { source: noise(100_000), encoding: 'identity' } as const;
    const putting = parts.store.put({ name: parseFileName('/a'), version: 1, claims: {} }, body);
    await expect(putting).rejects.toMatchObject({ code: 'unavailable', retryable: true });
    expect(await statOf(parts.store, parseFileName('/a'))).toBeUndefined();
  });

  it('makes staged content durable before the catalog hears of it', async () => {
    const order: string[] = [];
    const parts = await openedFileStore({
      wrapBlobs: (blobs) =>
        uploadsChanged(blobs, (upload) => ({
          seal: async () => {
            await new Promise((resolve) => setTimeout(resolve, 5));
            order.push('sealed');
            return upload.seal();
          },
        })),
      wrapCatalog: (catalog) =>
        changed(catalog, {
          put: async (change: PutChange) => {
            order.push(`put ${change.content.kind}`);
            return catalog.put(change);
          },
        }),
    });
    await put(parts.store, '/buffered', 1, noise(100_000));
    await put(parts.store, '/streamed', 1, streamOf(noise(2 * mib)));
    expect(order).toEqual(['sealed', 'put staged', 'sealed', 'put staged']);
  });

  it('tells the catalog nothing of a body that does not hold what it claims', async () => {
    const changes: PutChange[] = [];
    const parts = await openedFileStore({
      wrapCatalog: (catalog) =>
        changed(catalog, {
          put: async (change: PutChange) => {
            changes.push(change);
            return catalog.put(change);
          },
        }),
    });
    const claims = { logicalSize: 7 };
    for (const body of [prose(100), noise(100_000), streamOf(noise(2 * mib))]) {
      await expect(put(parts.store, '/a', 1, body, { claims })).rejects.toMatchObject({
        code: 'size-mismatch',
      });
    }
    expect(changes).toEqual([]);
  });

  it('brings the content when the catalog has lost it in between', async () => {
    let collected = false;
    const parts = await openedFileStore({
      wrapCatalog: (catalog) =>
        changed(catalog, {
          put: async (change: PutChange) => {
            if (change.content.kind === 'stored' && !collected) {
              collected = true;
              await collectAll(parts);
            }
            return catalog.put(change);
          },
        }),
    });
    for (const body of [prose(5_000), noise(100_000), noise(2 * mib)]) {
      collected = false;
      await put(parts.store, '/a', 1, body);
      await parts.store.remove({ name: nameOf('/a'), version: 1 });
      expect(await put(parts.store, '/b', 1, streamOf(body))).toMatchObject({ deduplicated: false });
      expect(collected).toBe(true);
      expect((await read(parts.store, '/b'))?.equals(body)).toBe(true);
      await parts.store.remove({ name: nameOf('/b'), version: 1 });
      await collectAll(parts);
    }
  });

  it('does not mark a blob as damaged that another put stores again while its bytes are looked for', async () => {
    const body = noise(100_000);
    let restored = false;
    const marks: string[] = [];
    const parts = await openedFileStore({
      wrapCatalog: (catalog) =>
        changed(catalog, {
          markDamaged: async (digest, damaged) => {
            marks.push(digest);
            await catalog.markDamaged(digest, damaged);
          },
        }),
      wrapBlobs: (blobs) =>
        changed(blobs, {
          size: async (key: string) => {
            if (restored) return blobs.size(key);
            restored = true;
            await collectAll(parts);
            const seen = await blobs.size(key);
            await put(parts.store, '/c', 1, body);
            return seen;
          },
        }),
    });
    restored = true;
    await put(parts.store, '/a', 1, body);
    const { digest } = present(await statOf(parts.store, nameOf('/a')));
    await parts.store.remove({ name: nameOf('/a'), version: 1 });
    restored = false;
    await put(parts.store, '/b', 1, body);
    expect(marks).toEqual([]);
    expect(await parts.catalog.findBlob(digest)).toMatchObject({ damaged: false, references: 2 });
    expect((await read(parts.store, '/b'))?.equals(body)).toBe(true);
  });

  it('keeps a claimed content from collection while the body is verified', async () => {
    const parts = await openedFileStore();
    const content = noise(2 * mib);
    await put(parts.store, '/a', 1, content);
    const { digest } = present(await statOf(parts.store, nameOf('/a')));
    await parts.store.remove({ name: nameOf('/a'), version: 1 });
    const source = new PassThrough();
    const putting = put(parts.store, '/b', 1, source, { claims: { digest }, announcedSize: content.length });
    source.write(content.subarray(0, mib));
    await new Promise((resolve) => setTimeout(resolve, 20));
    await collectAll(parts);
    source.end(content.subarray(mib));
    expect(await putting).toMatchObject({ stored: true, deduplicated: true });
    expect((await read(parts.store, '/b'))?.equals(content)).toBe(true);
    await parts.store.remove({ name: nameOf('/b'), version: 1 });
    await collectAll(parts);
    expect(await leftovers(parts)).toEqual({ blobs: 0, uploads: 0 });
  });

  it('writes nothing for a large body whose claimed content is stored', async () => {
    let stages = 0;
    const parts = await openedFileStore({
      wrapBlobs: (blobs) =>
        uploadsChanged(blobs, () => {
          stages += 1;
          return {};
        }),
    });
    const content = noise(2 * mib);
    await put(parts.store, '/a', 1, streamOf(content));
    const { digest } = present(await statOf(parts.store, nameOf('/a')));
    await put(parts.store, '/b', 1, streamOf(content), { claims: { digest } });
    expect(stages).toBe(1);
  });

  it.each(['write', 'seal'] as const)('leaves nothing when the disk is full at %s', async (method) => {
    const full = async (): Promise<never> => {
      throw new FiletrackerError('no-space', 'Cannot write a file: the disk of the store is full');
    };
    const parts = await openedFileStore({
      wrapBlobs: (blobs) => uploadsChanged(blobs, () => ({ [method]: full })),
    });
    for (const body of [noise(100_000), streamOf(noise(2 * mib)), streamOf(prose(2 * mib))]) {
      await expect(put(parts.store, '/a', 1, body)).rejects.toMatchObject({ code: 'no-space' });
    }
    expect(await leftovers(parts)).toEqual({ blobs: 0, uploads: 0 });
    expect(parts.problems).toEqual([]);
  });

  it('leaves no upload when the catalog fails, and reports one that it cannot discard', async () => {
    const failure = new FiletrackerError('io', 'Cannot write the journal: the disk reports EIO');
    const wrapCatalog = (catalog: Catalog): Catalog =>
      changed(catalog, { put: async () => Promise.reject(failure) });
    const parts = await openedFileStore({ wrapCatalog });
    await expect(put(parts.store, '/a', 1, noise(100_000))).rejects.toBe(failure);
    expect(await leftovers(parts)).toEqual({ blobs: 0, uploads: 0 });

    const discardFailure = new Error('no disk');
    const stuck = await openedFileStore({
      wrapCatalog,
      wrapBlobs: (blobs) =>
        uploadsChanged(blobs, () => ({ discard: async () => Promise.reject(discardFailure) })),
    });
    await expect(put(stuck.store, '/a', 1, noise(100_000))).rejects.toBe(failure);
    expect(stuck.problems).toEqual([{ problem: 'Cannot discard an upload', error: discardFailure }]);
  });

  it('refuses files over the largest size, from what is announced and from what comes', async () => {
    const parts = await openedFileStore({
      limits: { fileSizeMaxBytes: 100_000, bufferedBodyMaxBytes: 50_000, bufferedGzipBodyMaxBytes: 50_000 },
    });
    const largest = noise(100_000);
    await put(parts.store, '/largest', 1, largest);
    await put(parts.store, '/largest-streamed', 1, streamOf(largest));
    const over = noise(100_001);
    const refused = async (body: Buffer | Readable, options = {}): Promise<void> => {
      await expect(put(parts.store, '/a', 1, body, options)).rejects.toMatchObject({ code: 'too-large' });
    };
    await refused(over);
    await refused(streamOf(over));
    await refused(new PassThrough(), { announcedSize: 100_001 });
    await refused(new PassThrough(), { claims: { logicalSize: 100_001 } });
    await refused(gzipSync(over), { encoding: 'gzip' });
    await refused(gzipSync(Buffer.alloc(100_001)), { encoding: 'gzip' });
    await refused(streamOf(gzipSync(over)), { encoding: 'gzip' });
    expect(await parts.store.stats()).toMatchObject({ entries: 2, blobs: 1 });
    expect((await leftovers(parts)).uploads).toBe(0);
  });

  it('refuses a body that unpacks to nothing for ever', async () => {
    const parts = await openedFileStore({
      limits: { fileSizeMaxBytes: 100_000, bufferedBodyMaxBytes: 50_000, bufferedGzipBodyMaxBytes: 50_000 },
    });
    const member = Buffer.concat(Array.from({ length: 1_000 }, () => gzipSync(Buffer.alloc(0))));
    let givenBytes = 0;
    const endless = Readable.from(
      (async function* () {
        for (;;) {
          givenBytes += member.length;
          yield member;
        }
      })(),
    );
    await expect(put(parts.store, '/a', 1, endless, { encoding: 'gzip' })).rejects.toMatchObject({
      code: 'too-large',
    });
    expect(givenBytes).toBeLessThan(3 * mib);
    endless.destroy();
  });

  it('refuses what unpacks to very much more than it is', async () => {
    const limits = { decodingRatioMax: 100, decodingRatioFreeBytes: mib };
    const parts = await openedFileStore({ limits });
    await put(parts.store, '/free', 1, gzipSync(Buffer.alloc(mib)), { encoding: 'gzip' });
    const bomb = gzipSync(Buffer.alloc(20 * mib));
    for (const source of [bomb, streamOf(bomb)]) {
      await expect(put(parts.store, '/a', 1, source, { encoding: 'gzip' })).rejects.toMatchObject({
        code: 'too-large',
      });
    }
  });

  it('takes bodies through a file when memory for them is short', async () => {
    const parts = await openedFileStore({ limits: { bufferedBodiesTotalMaxBytes: 250_000 } });
    const slow = Array.from({ length: 5 }, () => new PassThrough());
    const contents = slow.map((_, index) => noise(400_000, `slow ${index}`));
    const puts = slow.map((source, index) => put(parts.store, `/${index}`, 1, source));
    for (const [index, source] of slow.entries()) source.write(present(contents[index]).subarray(0, 200_000));
    await new Promise((resolve) => setTimeout(resolve, 20));
    expect((parts.blobs as MemoryBlobStore).stagedCount).toBe(4);
    for (const [index, source] of slow.entries()) source.end(present(contents[index]).subarray(200_000));
    await Promise.all(puts);
    for (const [index, content] of contents.entries()) {
      expect((await read(parts.store, `/${index}`))?.equals(content)).toBe(true);
    }
  });

  it.each(['identity', 'gzip'] as const)(
    'reads no more of a %s body than the disk takes',
    async (encoding) => {
      const never = new Promise<never>(() => undefined);
      const parts = await memoryFileStore({
        wrapBlobs: (blobs) => uploadsChanged(blobs, () => ({ write: () => never })),
      });
      let givenBytes = 0;
      const piece = encoding === 'gzip' ? gzipSync(noise(65_536)) : noise(65_536);
      const endless = Readable.from(
        (async function* () {
          for (;;) {
            givenBytes += piece.length;
            yield piece;
          }
        })(),
        { objectMode: false },
      );
      void put(parts.store, '/a', 1, endless, { encoding, announcedSize: 2 ** 40 });
      await new Promise((resolve) => setTimeout(resolve, 100));
      expect(givenBytes).toBeGreaterThan(0);
      expect(givenBytes).toBeLessThan(2 * mib);
      endless.destroy();
    },
  );
});
