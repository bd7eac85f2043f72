import { getEventListeners } from 'node:events';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import type { BlobKey, BlobStore, FoundBlob, StagedUpload } from '../../src/blobs/blob-store.ts';
import { digestOf, type Digest } from '../../src/core/digest.ts';
import type { Encoding } from '../../src/core/blob.ts';
import { collected, noise } from '../support/contents.ts';
import { present } from '../support/present.ts';

export interface BlobStoreUnderTest {
  readonly store: BlobStore;
  /** Opens the same bytes anew, as after a restart; undefined where they don't outlive the store. */
  readonly reopen?: (() => Promise<BlobStore>) | undefined;
  dispose(): Promise<void>;
}

const content = noise(300_000, 'contract');
const digest = digestOf(content);

async function staged(store: BlobStore, bytes: Buffer): Promise<StagedUpload> {
  const upload = await store.stage();
  for (let start = 0; start < bytes.length; start += 65_536) {
    await upload.write(bytes.subarray(start, start + 65_536));
  }
  expect(await upload.seal()).toBe(bytes.length);
  return upload;
}

async function placed(store: BlobStore, bytes: Buffer, encoding: Encoding = 'identity'): Promise<BlobKey> {
  const upload = await staged(store, bytes);
  const [key] = await store.place([{ stagedId: upload.stagedId, digest: digestOf(bytes), encoding }]);
  if (key === undefined) throw new Error('place() gave no key');
  return key;
}

async function bytesOf(store: BlobStore, key: BlobKey): Promise<Buffer | undefined> {
  const stream = await store.open(key);
  return stream && (await collected(stream));
}

async function listed(store: BlobStore): Promise<FoundBlob[]> {
  const found: FoundBlob[] = [];
  for await (const blob of store.list()) found.push(blob);
  return found;
}

/** What every blob store promises. */
export function describeBlobStore(title: string, create: () => Promise<BlobStoreUnderTest>): void {
  describe(title, () => {
    let store: BlobStore;
    let reopen: BlobStoreUnderTest['reopen'];
    let dispose: () => Promise<void>;

    beforeEach(async () => {
      const underTest = await create();
      ({ store, reopen } = underTest);
      dispose = () => underTest.dispose();
    });

    afterEach(async () => {
      await store.close();
      await dispose();
    });

    describe('stage()', () => {
      it('shows nothing before it is placed', async () => {
        await staged(store, content);
        expect(await listed(store)).toEqual([]);
      });

      it('takes uploads of nothing', async () => {
        const key = await placed(store, Buffer.alloc(0));
        expect(await store.size(key)).toBe(0);
        expect((await bytesOf(store, key))?.length).toBe(0);
      });

      it('takes several uploads side by side', async () => {
        const contents = Array.from({ length: 10 }, (_, index) => noise(50_000, `side ${index}`));
        const keys = await Promise.all(contents.map((bytes) => placed(store, bytes)));
        for (const [index, key] of keys.entries()) {
          expect((await bytesOf(store, key))?.equals(contents[index] ?? Buffer.alloc(0))).toBe(true);
        }
      });

      it('refuses to write once it is aborted, and can then be discarded', async () => {
        const controller = new AbortController();
        const upload = await store.stage({ signal: controller.signal });
        await upload.write(content);
        controller.abort();
        await expect(upload.write(content)).rejects.toMatchObject({ code: 'aborted' });
        await upload.discard();
        expect(await store.sweepStaged(Number.MAX_SAFE_INTEGER)).toBe(0);
      });

      it('leaves nothing of an upload that is discarded at any stage', async () => {
        const fresh = await store.stage();
        await fresh.discard();
        const written = await store.stage();
        await written.write(content);
        await written.discard();
        const sealed = await staged(store, content);
        await sealed.discard();
        await sealed.discard();
        const byName = await staged(store, content);
        await store.discard(byName.stagedId);
        await store.discard(byName.stagedId);
        expect(await store.sweepStaged(Number.MAX_SAFE_INTEGER)).toBe(0);
      });
    });

    describe('place()', () => {
      it('gives keys in order, of short ASCII', async () => {
        const uploads = [await staged(store, content), await staged(store, noise(10, 'small'))];
        const keys = await store.place([
          { stagedId: uploads[0]?.stagedId ?? '', digest, encoding: 'identity' },
          { stagedId: uploads[1]?.stagedId ?? '', digest: digestOf(noise(10, 'small')), encoding: 'gzip' },
        ]);
        expect(await Promise.all(keys.map((key) => store.size(key)))).toEqual([300_000, 10]);
        for (const key of keys) expect(key).toMatch(/^[!-~]{1,128}$/);
      });

      it('gives the same key when it is repeated', async () => {
        const upload = await staged(store, content);
        const placement = { stagedId: upload.stagedId, digest, encoding: 'identity' } as const;
        const first = await store.place([placement]);
        expect(await store.place([placement])).toEqual(first);
        expect((await bytesOf(store, first[0] ?? ''))?.equals(content)).toBe(true);
      });

      it('replaces equal content, and leaves no upload', async () => {
        const first = await placed(store, content);
        const second = await placed(store, content);
        expect(second === first).toBe(store.capabilities.keysFollowContent);
        expect((await bytesOf(store, second))?.equals(content)).toBe(true);
        expect(await store.sweepStaged(Number.MAX_SAFE_INTEGER)).toBe(0);
      });

      it('fails where the upload is gone', async () => {
        const upload = await staged(store, content);
        await upload.discard();
        const placement = { stagedId: upload.stagedId, digest, encoding: 'identity' } as const;
        await expect(store.place([placement])).rejects.toMatchObject({ code: 'not-found' });
        expect(await listed(store)).toEqual([]);
      });

      it('is not undone by discarding the upload afterwards', async () => {
        const upload = await staged(store, content);
        const [key = ''] = await store.place([{ stagedId: upload.stagedId, digest, encoding: 'identity' }]);
        await upload.discard();
        await store.discard(upload.stagedId);
        expect(await store.size(key)).toBe(content.length);
      });

      it('keeps the forms of one content apart', async () => {
        const plain = await placed(store, content, 'identity');
        const gzip = await placed(store, content, 'gzip');
        expect(gzip).not.toBe(plain);
        await store.remove([plain]);
        expect(await store.size(gzip)).toBe(content.length);
      });

      it('outlives the store', async () => {
        const key = await placed(store, content);
        if (reopen === undefined) return;
        await store.close();
        store = await reopen();
        expect((await bytesOf(store, key))?.equals(content)).toBe(true);
      });
    });

    describe('open()', () => {
      it('is undefined for what is not there', async () => {
        const key = await placed(store, content);
        await store.remove([key]);
        expect(await store.open(key)).toBeUndefined();
        expect(await store.size(key)).toBeUndefined();
      });

      it.each([
        [0, 1],
        [0, 300_000],
        [100_000, 65_537],
        [299_999, 1],
        [299_999, 100],
        [300_000, 5],
      ])('gives the range from %d of %d bytes', async (start, length) => {
        const key = await placed(store, content);
        const stream = await store.open(key, { range: { start, length }, storedSize: content.length });
        const bytes = stream && (await collected(stream));
        expect(bytes?.equals(content.subarray(start, start + length))).toBe(true);
      });

      it('keeps what is open readable after the blob is removed, or fails', async () => {
        const key = await placed(store, content);
        const stream = await store.open(key);
        await store.remove([key]);
        const bytes = stream && (await collected(stream).catch((error: unknown) => error));
        if (Buffer.isBuffer(bytes)) expect(bytes.equals(content)).toBe(true);
        else expect(bytes).toBeInstanceOf(Error);
      });

      it('fails where the blob is shorter than it should be', async () => {
        const key = await placed(store, content);
        const reading = async (): Promise<Buffer | undefined> => {
          const stream = await store.open(key, { storedSize: content.length + 1 });
          return stream && (await collected(stream));
        };
        await expect(reading()).rejects.toMatchObject({ code: 'damaged-blob' });
      });

      it('stops when the signal says so', async () => {
        const key = await placed(store, content);
        await expect(store.open(key, { signal: AbortSignal.abort() })).rejects.toMatchObject({
          code: 'aborted',
        });
        const controller = new AbortController();
        const stream = await store.open(key, { signal: controller.signal });
        controller.abort();
        await expect(collected(present(stream))).rejects.toThrow();
      });

      it('leaves nothing with a signal that outlives what was read', async () => {
        const key = await placed(store, content);
        const { signal } = new AbortController();
        for (let round = 0; round < 5; round += 1) {
          await collected(present(await store.open(key, { signal })));
        }
        await expect.poll(() => getEventListeners(signal, 'abort').length).toBe(0);
      });

      it('lets go of a stream that is given up', async () => {
        const key = await placed(store, content);
        for (let round = 0; round < 50; round += 1) {
          const stream = await store.open(key);
          stream?.once('readable', () => stream.destroy());
          await new Promise((resolve) => stream?.once('close', resolve));
        }
        expect((await bytesOf(store, key))?.equals(content)).toBe(true);
      });
    });

    describe('remove()', () => {
      it('takes absence for success', async () => {
        const key = await placed(store, content);
        const other = await placed(store, noise(10, 'other'));
        await store.remove([key]);
        await store.remove([key, other]);
        await store.remove([]);
        expect(await listed(store)).toEqual([]);
      });
    });

    describe('list()', () => {
      it('gives every placed blob with what its key tells', async () => {
        const contents = Array.from({ length: 20 }, (_, index) => noise(100 + index, `listed ${index}`));
        const keys = new Map<BlobKey, Digest>();
        for (const bytes of contents) keys.set(await placed(store, bytes, 'gzip'), digestOf(bytes));
        await staged(store, content);
        const found = await listed(store);
        expect(new Set(found.map(({ key }) => key))).toEqual(new Set(keys.keys()));
        expect(found.length).toBe(20);
        for (const blob of found) {
          expect(blob.storedSize).toBe(await store.size(blob.key));
          expect(blob.digest ?? keys.get(blob.key)).toBe(keys.get(blob.key));
          expect(blob.encoding ?? 'gzip').toBe('gzip');
          expect(blob.modifiedMs).toBeGreaterThan(0);
        }
      });
    });

    describe('sweepStaged()', () => {
      it('removes old uploads only, and no blobs', async () => {
        const key = await placed(store, content);
        await staged(store, content);
        const open = await store.stage();
        await open.write(content);
        expect(await store.sweepStaged(0)).toBe(0);
        expect(await store.sweepStaged(Date.now() + 60_000)).toBe(2);
        expect(await store.sweepStaged(Date.now() + 60_000)).toBe(0);
        expect(await store.size(key)).toBe(content.length);
        await open.discard();
      });
    });

    it('answers a probe and leaves nothing of it', async () => {
      await store.probe();
      expect(await listed(store)).toEqual([]);
      expect(await store.sweepStaged(Number.MAX_SAFE_INTEGER)).toBe(0);
    });

    it('closes twice', async () => {
      await store.close();
      await store.close();
    });
  });
}
