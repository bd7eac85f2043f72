import { PassThrough, Readable } from 'node:stream';
import { gunzipSync, gzipSync } from 'node:zlib';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { digestOf, type Digest } from '../../src/core/digest.ts';
import type { FileStore } from '../../src/store/file-store.ts';
import { noise, prose } from '../support/contents.ts';
import {
  bodyOf,
  leftovers,
  nameOf,
  put,
  read,
  streamOf,
  type FileStoreFactory,
  type FileStoreParts,
  statOf,
} from '../support/file-stores.ts';
import { present } from '../support/present.ts';
import { openFile } from '../../src/store/get.ts';

const kib = 1024;

/** Contents of each path that a body can take through the store. */
const contents: readonly (readonly [string, Buffer])[] = [
  ['nothing', Buffer.alloc(0)],
  ['one byte', Buffer.from('x')],
  ['4 KiB of text', prose(4 * kib)],
  ['4 KiB of noise', noise(4 * kib)],
  ['100 KiB of text', prose(100 * kib)],
  ['100 KiB of noise', noise(100 * kib)],
  ['1.5 MiB of text', prose(1.5 * kib * kib)],
  ['1.5 MiB of noise', noise(1.5 * kib * kib)],
  ['5 MiB of zeros', Buffer.alloc(5 * kib * kib)],
];

function flipped(bytes: Buffer, index: number): Buffer {
  const copy = Buffer.from(bytes);
  copy[index] = (copy[index] ?? 0) ^ 0xff;
  return copy;
}

/** What every file store promises. */
export function describeFileStore(title: string, create: FileStoreFactory): void {
  describe(title, () => {
    let parts: FileStoreParts;
    let store: FileStore;

    beforeEach(async () => {
      parts = await create();
      ({ store } = parts);
    });

    afterEach(async () => {
      await parts.close();
      expect(parts.problems).toEqual([]);
    });

    async function expectNothingStored(): Promise<void> {
      expect(await store.stats()).toMatchObject({ entries: 0, blobs: 0 });
      expect(await leftovers(parts)).toEqual({ blobs: 0, uploads: 0 });
    }

    describe('put() and open()', () => {
      for (const [what, content] of contents) {
        it.each([
          ['plain, in memory', 'identity', false],
          ['gzipped, in memory', 'gzip', false],
          ['plain, streamed', 'identity', true],
          ['gzipped, streamed', 'gzip', true],
        ] as const)(`give back ${what} that came %s`, async (_how, encoding, streamed) => {
          const body = encoding === 'gzip' ? gzipSync(content) : content;
          const claims = { digest: digestOf(content), logicalSize: content.length };
          const source = streamed ? streamOf(body) : body;
          const result = await put(store, '/a', 7, source, { encoding, claims, announcedSize: body.length });
          expect(result).toEqual({ version: 7, stored: true, deduplicated: false });

          const entry = present(await statOf(store, nameOf('/a')));
          expect(entry).toMatchObject({ name: '/a', version: 7, ...claims, logicalSize: content.length });
          if (encoding === 'gzip') expect(entry.storedSize).toBe(body.length);
          expect(entry.storedSize).toBeLessThanOrEqual(Math.max(content.length * 1.01, body.length));

          const plain = present(await openFile(store, nameOf('/a'), { form: 'identity' }));
          expect(plain).toMatchObject({ encoding: 'identity', size: content.length, entry });
          expect((await bodyOf(plain)).equals(content)).toBe(true);

          const stored = present(await openFile(store, nameOf('/a'), { form: 'stored' }));
          expect(stored).toMatchObject({ encoding: entry.encoding, size: entry.storedSize });
          const bytes = await bodyOf(stored);
          expect((entry.encoding === 'gzip' ? gunzipSync(bytes) : bytes).equals(content)).toBe(true);
          expect((await leftovers(parts)).uploads).toBe(0);
        });
      }

      it('keep gzip as it came, several members too', async () => {
        const body = Buffer.concat([gzipSync(prose(1_000)), gzipSync(prose(2_000, 'second'))]);
        await put(store, '/a', 1, body, { encoding: 'gzip' });
        expect((await read(store, '/a', { form: 'stored' }))?.equals(body)).toBe(true);
        const content = Buffer.concat([prose(1_000), prose(2_000, 'second')]);
        expect((await read(store, '/a'))?.equals(content)).toBe(true);
      });

      it('take a body whose size is not announced', async () => {
        for (const sizeBytes of [0, 100, 200 * kib, 2 * kib * kib]) {
          await put(store, `/of-${sizeBytes}`, 1, streamOf(noise(sizeBytes)));
          expect((await read(store, `/of-${sizeBytes}`))?.equals(noise(sizeBytes))).toBe(true);
        }
      });

      it('compress what is worth it, and only that', async () => {
        await put(store, '/text', 1, prose(300 * kib));
        await put(store, '/noise', 1, noise(300 * kib));
        await put(store, '/tiny', 1, Buffer.from('tiny'));
        expect(await statOf(store, nameOf('/text'))).toMatchObject({ encoding: 'gzip' });
        expect(await statOf(store, nameOf('/noise'))).toMatchObject({ encoding: 'identity' });
        expect(await statOf(store, nameOf('/tiny'))).toMatchObject({ encoding: 'identity' });
      });
    });

    describe('put()', () => {
      it('keeps the newer version', async () => {
        await put(store, '/a', 10, prose(100));
        for (const body of [prose(50), noise(50 * kib), streamOf(noise(1.5 * kib * kib))]) {
          const result = await put(store, '/a', 9, body);
          expect(result).toEqual({ version: 10, stored: false, deduplicated: false });
        }
        expect((await read(store, '/a'))?.equals(prose(100))).toBe(true);
        expect(await store.stats()).toMatchObject({ entries: 1, blobs: 1 });
        expect((await leftovers(parts)).uploads).toBe(0);
      });

      it('stores an older version than was removed, which can be read', async () => {
        for (const body of [prose(50), noise(1.5 * kib * kib)]) {
          await put(store, '/a', 10, prose(100));
          await store.remove({ name: nameOf('/a'), version: 10 });
          expect(await put(store, '/a', 9, streamOf(body))).toMatchObject({ version: 9, stored: true });
          expect((await read(store, '/a'))?.equals(body)).toBe(true);
        }
      });

      it('does not let a repeat of a put bring back what was removed since, and says so', async () => {
        await put(store, '/a', 10, prose(100));
        await store.remove({ name: nameOf('/a'), version: 10 });
        for (const source of [prose(50), streamOf(noise(1.5 * kib * kib))]) {
          const intent = { name: nameOf('/a'), version: 10, claims: {}, firstSentMs: 0 };
          const result = await store.put(intent, { source, encoding: 'identity' });
          expect(result).toEqual({ version: 10, stored: false, deduplicated: false, removed: true });
        }
        expect(await statOf(store, nameOf('/a'))).toBeUndefined();
      });

      it('stores the bytes of a content again if the blob store has lost them', async () => {
        const { catalog, blobs } = parts;
        const bodies = [noise(50 * kib), noise(1.5 * kib * kib, 'large')];
        for (const [at, body] of bodies.entries()) {
          const digest = digestOf(body);
          const names = [`/lost${at}/first`, `/lost${at}/small`, `/lost${at}/streamed`, `/lost${at}/claimed`];
          const lose = async (): Promise<void> => {
            const blob = await catalog.findBlob(digest);
            if (blob?.location.kind !== 'object') expect.unreachable();
            else await blobs.remove([blob.location.key]);
          };
          const [first = '', ...others] = names;
          await put(store, first, 1, body);
          for (const [way, path] of others.entries()) {
            await lose();
            const claims = way === 2 ? { digest, logicalSize: body.length } : {};
            const intent = { name: nameOf(path), version: 1, claims };
            if (way === 2) {
              const outcome = await store.putWithoutBody(intent, {
                mayLink: true,
                announcedSize: body.length,
              });
              expect(outcome.kind).toBe('body-needed');
            }
            const source = way === 0 ? body : streamOf(body);
            const result = await store.put(intent, { source, encoding: 'identity' });
            expect(result).toMatchObject({ stored: true, deduplicated: false });
            for (const name of [first, path]) expect((await read(store, name))?.equals(body)).toBe(true);
          }
          // The very same file, too.
          await lose();
          await put(store, first, 1, body);
          for (const name of names) expect((await read(store, name))?.equals(body)).toBe(true);
        }
        expect((await leftovers(parts)).uploads).toBe(0);
        expect(parts.problems.splice(0)).not.toEqual([]);
      });

      it('stores a small content again if the blob store has lost it', async () => {
        const body = prose(500);
        const digest = digestOf(body);
        const sizes = { logicalSize: body.length, storedSize: body.length };
        // As recovery and adoption bring it; others lie in the catalog.
        const upload = await parts.blobs.stage();
        await upload.write(Buffer.from(body));
        await upload.seal();
        const placement = { stagedId: upload.stagedId, digest, encoding: 'identity' } as const;
        const [key = ''] = await parts.blobs.place([placement]);
        await parts.catalog.addBlobs([{ digest, key, encoding: 'identity', ...sizes }]);
        await put(store, '/small/a', 1, body);
        await parts.blobs.remove([key]);
        const intent = { name: nameOf('/small/b'), version: 1, claims: {} };
        await store.put(intent, { source: gzipSync(body), encoding: 'gzip' });
        expect(parts.problems.splice(0)).toHaveLength(1);
        for (const name of ['/small/a', '/small/b'])
          expect((await read(store, name))?.equals(body)).toBe(true);
      });

      it('replaces an equal version', async () => {
        await put(store, '/a', 10, prose(100));
        expect(await put(store, '/a', 10, prose(200))).toMatchObject({ version: 10, stored: true });
        expect((await read(store, '/a'))?.equals(prose(200))).toBe(true);
      });

      it('stores a content once, whatever its names and however it came', async () => {
        const content = prose(300 * kib);
        await put(store, '/a', 1, content);
        const others = [
          put(store, '/b', 1, content),
          put(store, '/c', 1, gzipSync(content), { encoding: 'gzip' }),
          put(store, '/d', 1, streamOf(content), { claims: { digest: digestOf(content) } }),
          put(store, '/e', 1, streamOf(gzipSync(content)), { encoding: 'gzip' }),
        ];
        for (const result of await Promise.all(others)) expect(result.deduplicated).toBe(true);
        expect(await store.stats()).toMatchObject({ entries: 5, blobs: 1, unreferencedBlobs: 0 });
        expect(await leftovers(parts)).toEqual({ blobs: 1, uploads: 0 });
        expect((await read(store, '/e'))?.equals(content)).toBe(true);
      });

      it('stores large contents once, with a claim and without', async () => {
        const content = noise(1.5 * kib * kib);
        const claims = { digest: digestOf(content) };
        await put(store, '/a', 1, streamOf(content));
        expect(await put(store, '/b', 1, streamOf(content))).toMatchObject({ deduplicated: true });
        expect(await put(store, '/c', 1, streamOf(content), { claims })).toMatchObject({
          deduplicated: true,
        });
        expect(await leftovers(parts)).toEqual({ blobs: 1, uploads: 0 });
      });

      it('takes many bodies of one content at once', async () => {
        const content = noise(200 * kib);
        const puts = Array.from({ length: 20 }, (_, index) => put(store, `/${index}`, 1, streamOf(content)));
        const results = await Promise.all(puts);
        expect(results.filter(({ deduplicated }) => !deduplicated).length).toBe(1);
        expect(await leftovers(parts)).toEqual({ blobs: 1, uploads: 0 });
        expect(await store.stats()).toMatchObject({ entries: 20, blobs: 1 });
      });

      it('keeps /a and /a/b from both being files', async () => {
        await put(store, '/a/b', 1, prose(10));
        const body = noise(40 * kib);
        await expect(put(store, '/a', 1, body)).rejects.toMatchObject({ code: 'name-conflict' });
        await expect(put(store, '/a/b/c', 1, body)).rejects.toMatchObject({ code: 'name-conflict' });
        expect((await leftovers(parts)).uploads).toBe(0);
        expect(await store.stats()).toMatchObject({ entries: 1, blobs: 1 });
      });

      it('holds preconditions', async () => {
        const absent = { precondition: { kind: 'absent' } } as const;
        await put(store, '/a', 1, prose(10), absent);
        await expect(put(store, '/a', 2, noise(40 * kib), absent)).rejects.toMatchObject({
          code: 'precondition-failed',
        });
        const match = (digest: Digest): object => ({ precondition: { kind: 'match', digests: [digest] } });
        await expect(put(store, '/a', 2, prose(20), match(digestOf(prose(20))))).rejects.toMatchObject({
          code: 'precondition-failed',
        });
        await put(store, '/a', 2, prose(20), match(digestOf(prose(10))));
        expect((await read(store, '/a'))?.equals(prose(20))).toBe(true);
        expect((await leftovers(parts)).uploads).toBe(0);
      });
    });

    describe('put() refuses, and leaves nothing of', () => {
      const small = prose(3 * kib);
      const large = noise(1.5 * kib * kib);
      const both = [
        ['a small body', small],
        ['a large body', large],
      ] as const;

      it.each(both)('%s with a wrong digest', async (_what, content) => {
        const claims = { digest: digestOf(Buffer.from('another')) };
        for (const encoding of ['identity', 'gzip'] as const) {
          const body = encoding === 'gzip' ? gzipSync(content) : content;
          for (const source of [body, streamOf(body)]) {
            await expect(put(store, '/a', 1, source, { claims, encoding })).rejects.toMatchObject({
              code: 'digest-mismatch',
            });
          }
        }
        await expectNothingStored();
      });

      it.each(both)('%s with a wrong logical size', async (_what, content) => {
        for (const logicalSize of [content.length - 1, content.length + 1, 0]) {
          for (const encoding of ['identity', 'gzip'] as const) {
            const body = encoding === 'gzip' ? gzipSync(content) : content;
            for (const source of [body, streamOf(body)]) {
              await expect(
                put(store, '/a', 1, source, { claims: { logicalSize }, encoding }),
              ).rejects.toMatchObject({
                code: 'size-mismatch',
              });
            }
          }
        }
        await expectNothingStored();
      });

      it.each(both)('%s of gzip that is broken', async (_what, content) => {
        const sound = gzipSync(content);
        const broken = [
          sound.subarray(0, -1),
          sound.subarray(0, sound.length >> 1),
          Buffer.concat([sound, Buffer.from('garbage')]),
          Buffer.concat([sound, Buffer.alloc(9)]),
          flipped(sound, sound.length - 7),
          content,
          Buffer.alloc(0),
        ];
        for (const body of broken) {
          for (const source of [body, streamOf(body)]) {
            await expect(put(store, '/a', 1, source, { encoding: 'gzip' })).rejects.toMatchObject({
              code: 'corrupt-encoding',
            });
          }
        }
        await expectNothingStored();
      });

      it.each(both)('%s that is shorter or longer than announced', async (_what, content) => {
        for (const source of [content, streamOf(content)]) {
          const options = { announcedSize: content.length + 1 };
          await expect(put(store, '/a', 1, source, options)).rejects.toMatchObject({
            code: 'truncated-body',
          });
        }
        for (const source of [content, streamOf(content)]) {
          const options = { announcedSize: content.length - 1 };
          await expect(put(store, '/a', 1, source, options)).rejects.toMatchObject({ code: 'size-mismatch' });
        }
        await expectNothingStored();
      });

      it.each(both)('%s whose sender goes away', async (_what, content) => {
        for (const announced of [false, true]) {
          for (const encoding of ['identity', 'gzip'] as const) {
            const body = encoding === 'gzip' ? gzipSync(content) : content;
            const source = new PassThrough();
            const announcedSize = announced ? body.length : undefined;
            const putting = put(store, '/a', 1, source, { announcedSize, encoding });
            source.write(body.subarray(0, body.length - 100));
            setTimeout(() => source.destroy(), 10);
            await expect(putting).rejects.toMatchObject({ code: 'aborted' });
          }
        }
        await expectNothingStored();
      });

      it.each(both)('%s when the signal says so, without destroying the source', async (_what, content) => {
        const source = new PassThrough();
        const controller = new AbortController();
        const putting = put(store, '/a', 1, source, { signal: controller.signal });
        source.write(content.subarray(0, 1_000));
        setTimeout(() => controller.abort(), 10);
        await expect(putting).rejects.toMatchObject({ code: 'aborted' });
        expect(source.destroyed).toBe(false);
        source.destroy();
        await expectNothingStored();
      });

      it('bodies with a wrong claim of a content that is stored already', async () => {
        await put(store, '/a', 1, large);
        const claims = { digest: digestOf(large) };
        const other = noise(1.5 * kib * kib, 'other');
        await expect(put(store, '/b', 1, streamOf(other), { claims })).rejects.toMatchObject({
          code: 'digest-mismatch',
        });
        await expect(put(store, '/c', 1, small, { claims })).rejects.toMatchObject({
          code: 'digest-mismatch',
        });
        expect(await store.stats()).toMatchObject({ entries: 1, blobs: 1 });
        expect(await leftovers(parts)).toEqual({ blobs: 1, uploads: 0 });
      });

      it('bodies with a wrong claim under a name that has a newer version', async () => {
        await put(store, '/a', 9, small);
        const claims = { digest: digestOf(large), logicalSize: 5 };
        await expect(put(store, '/a', 1, streamOf(large), { claims })).rejects.toMatchObject({
          code: 'size-mismatch',
        });
      });
    });

    describe('open()', () => {
      it('is undefined where there is no file', async () => {
        expect(await openFile(store, nameOf('/none'), { form: 'identity' })).toBeUndefined();
        expect(await statOf(store, nameOf('/none'))).toBeUndefined();
      });

      it.each(contents.filter(([, content]) => content.length > 1))(
        'gives ranges of %s',
        async (_what, content) => {
          await put(store, '/plain', 1, content);
          await put(store, '/gzip', 2, gzipSync(content), { encoding: 'gzip' });
          const last = content.length - 1;
          const ranges = [
            [0, 0],
            [0, last],
            [1, last],
            [last, last],
            [last >> 1, Math.min(last, (last >> 1) + 70_000)],
          ] as const;
          for (const [first, end] of ranges) {
            for (const name of ['/plain', '/gzip']) {
              const options = { form: 'identity', range: { first, last: end } } as const;
              const file = present(await openFile(store, nameOf(name), options));
              expect(file.size).toBe(end - first + 1);
              expect((await bodyOf(file)).equals(content.subarray(first, end + 1))).toBe(true);
            }
          }
        },
      );

      it('refuses ranges beyond the end', async () => {
        await put(store, '/a', 1, prose(100));
        for (const range of [
          { first: 0, last: 100 },
          { first: 100, last: 100 },
          { first: 5, last: 4 },
        ]) {
          await expect(openFile(store, nameOf('/a'), { form: 'identity', range })).rejects.toMatchObject({
            code: 'range-not-satisfiable',
          });
        }
      });

      it('gives the file of one instant, though it is replaced and collected meanwhile', async () => {
        const first = noise(1.5 * kib * kib, 'first');
        await put(store, '/a', 1, first);
        const open = present(await openFile(store, nameOf('/a'), { form: 'stored' }));
        await put(store, '/a', 2, noise(1.5 * kib * kib, 'second'));
        const old = await parts.catalog.listUnreferenced(Number.MAX_SAFE_INTEGER, 10);
        expect((await parts.catalog.collect(old, Number.MAX_SAFE_INTEGER)).length).toBe(1);
        expect(open.entry.version).toBe(1);
        expect((await bodyOf(open)).equals(first)).toBe(true);
        expect(await leftovers(parts)).toEqual({ blobs: 1, uploads: 0 });
      });

      it('lets go of streams that are given up', async () => {
        await put(store, '/a', 1, gzipSync(noise(1.5 * kib * kib)), { encoding: 'gzip' });
        for (const form of ['stored', 'identity'] as const) {
          for (const read of [false, true]) {
            const file = present(await openFile(store, nameOf('/a'), { form }));
            if (!(file.body instanceof Readable)) throw new Error('expected a stream');
            if (read) file.body.read();
            file.body.destroy();
            await new Promise((resolve) => (file.body as Readable).once('close', resolve));
          }
        }
      });
    });

    describe('putWithoutBody()', () => {
      const content = noise(50 * kib);
      const claims = { digest: digestOf(content), logicalSize: content.length };
      const intent = { name: nameOf('/b'), version: 5, claims };

      it('asks for the body where the content is not known', async () => {
        expect(await store.putWithoutBody(intent, { mayLink: true })).toMatchObject({ kind: 'body-needed' });
        expect(await store.putWithoutBody({ ...intent, claims: {} }, { mayLink: true })).toMatchObject({
          kind: 'body-needed',
        });
        await expectNothingStored();
      });

      it('names a content that is stored, only where the client may read it', async () => {
        await put(store, '/a', 1, content);
        expect(await store.putWithoutBody(intent, { mayLink: false })).toMatchObject({ kind: 'body-needed' });
        expect(await statOf(store, intent.name)).toBeUndefined();
        const settled = { kind: 'settled', result: { version: 5, stored: true, deduplicated: true } };
        expect(await store.putWithoutBody(intent, { mayLink: true })).toEqual(settled);
        expect((await read(store, '/b'))?.equals(content)).toBe(true);
      });

      it('settles what is older than what is stored', async () => {
        await put(store, '/b', 6, prose(10));
        const settled = { kind: 'settled', result: { version: 6, stored: false, deduplicated: false } };
        expect(await store.putWithoutBody(intent, { mayLink: false })).toEqual(settled);
      });

      it('refuses what cannot be', async () => {
        await put(store, '/a', 1, content);
        await put(store, '/dir/file', 1, content);
        const refusal = async (changes: object, code: string): Promise<void> => {
          await expect(
            store.putWithoutBody({ ...intent, ...changes }, { mayLink: true }),
          ).rejects.toMatchObject({
            code,
          });
        };
        await refusal({ name: nameOf('/dir') }, 'name-conflict');
        await refusal({ name: nameOf('/a/below') }, 'name-conflict');
        await refusal({ claims: { ...claims, logicalSize: 1 } }, 'size-mismatch');
        await refusal({ claims: { logicalSize: 2 ** 50 } }, 'too-large');
        await refusal({ name: nameOf('/a'), precondition: { kind: 'absent' } }, 'precondition-failed');
      });
    });

    describe('remove()', () => {
      it('removes what is not newer', async () => {
        await put(store, '/a', 5, prose(10));
        expect(await store.remove({ name: nameOf('/a'), version: 4 })).toEqual({
          version: 5,
          removed: false,
        });
        expect(await read(store, '/a')).toBeDefined();
        expect(await store.remove({ name: nameOf('/a'), version: 6 })).toEqual({ version: 5, removed: true });
        expect(await read(store, '/a')).toBeUndefined();
        expect(await store.remove({ name: nameOf('/a'), version: 6 })).toBeUndefined();
      });

      it('holds preconditions', async () => {
        await put(store, '/a', 5, prose(10));
        const precondition = { kind: 'match', digests: [digestOf(prose(20))] } as const;
        await expect(store.remove({ name: nameOf('/a'), version: 5, precondition })).rejects.toMatchObject({
          code: 'precondition-failed',
        });
      });
    });

    it('lists names and entries', async () => {
      for (const name of ['/b/2', '/a', '/b/1', '/c']) await put(store, name, 3, prose(10));
      const names = [];
      for await (const batch of store.listNames('/b/')) names.push(...batch);
      expect(names).toEqual(['/b/1', '/b/2']);
      const entries = [];
      for await (const batch of store.listEntries('/')) entries.push(...batch);
      expect(entries.map(({ name, version }) => [name, version])).toEqual([
        ['/a', 3],
        ['/b/1', 3],
        ['/b/2', 3],
        ['/c', 3],
      ]);
      expect(await store.kindOfDirectory('/b/')).toBe('directory');
      expect(await store.kindOfDirectory('/a/')).toBe('file');
      expect(await store.kindOfDirectory('/x/')).toBe('absent');
    });

    it('waits for puts under way when it closes, and refuses new ones', async () => {
      const source = new PassThrough();
      const putting = put(store, '/a', 1, source);
      let closed = false;
      const closing = store.close().then(() => {
        closed = true;
      });
      await expect(put(store, '/b', 1, prose(10))).rejects.toMatchObject({ code: 'unavailable' });
      source.write(prose(10));
      await new Promise((resolve) => setTimeout(resolve, 10));
      expect(closed).toBe(false);
      source.end();
      expect(await putting).toMatchObject({ stored: true });
      await closing;
    });

    it('answers a probe', async () => {
      await store.probe();
    });
  });
}
