import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import type { Catalog, PutChange } from '../../src/catalog/catalog.ts';
import { ManualClock } from '../support/manual-clock.ts';
import { digestOf, type Digest } from '../../src/core/digest.ts';
import { name, namesOf, putOf, RecordingPlacer, textOf } from '../support/catalogs.ts';

export interface CatalogUnderTest {
  readonly catalog: Catalog;
  dispose(): Promise<void>;
}

export type CatalogFactory = (placer: RecordingPlacer, clock: ManualClock) => Promise<CatalogUnderTest>;

/** What every catalog promises. */
export function describeCatalog(title: string, create: CatalogFactory): void {
  describe(title, () => {
    let catalog: Catalog;
    let placer: RecordingPlacer;
    let clock: ManualClock;
    let dispose: () => Promise<void>;

    beforeEach(async () => {
      placer = new RecordingPlacer();
      clock = new ManualClock();
      const made = await create(placer, clock);
      catalog = made.catalog;
      dispose = () => made.dispose();
    });
    afterEach(() => dispose());

    describe('put()', () => {
      it('stores an entry that find() gives back with its bytes', async () => {
        const change = putOf('/a/b.txt', 5, 'hello', { encoding: 'gzip', logicalSize: 99 });
        expect(await catalog.put(change)).toEqual({ kind: 'stored', version: 5, deduplicated: false });
        const found = await catalog.find(change.name);
        expect(found?.entry).toEqual({
          name: '/a/b.txt',
          version: 5,
          digest: change.digest,
          logicalSize: 99,
          storedSize: 5,
          encoding: 'gzip',
        });
        expect(found?.damaged).toBe(false);
        expect(await textOf(catalog, '/a/b.txt')).toBe('hello');
        expect(await catalog.find(name('/a/c.txt'))).toBeUndefined();
      });

      it('keeps a newer version and tells it', async () => {
        await catalog.put(putOf('/a', 5, 'new'));
        expect(await catalog.put(putOf('/a', 4, 'old'))).toEqual({ kind: 'superseded', version: 5 });
        expect(await textOf(catalog, '/a')).toBe('new');
      });

      it('overwrites an older and an equal version', async () => {
        await catalog.put(putOf('/a', 5, 'first'));
        await catalog.put(putOf('/a', 5, 'second'));
        expect(await textOf(catalog, '/a')).toBe('second');
        await catalog.put(putOf('/a', 6, 'third'));
        expect(await textOf(catalog, '/a')).toBe('third');
      });

      it('takes negative and far versions', async () => {
        await catalog.put(putOf('/old', -62_135_596_800, 'x'));
        await catalog.put(putOf('/far', 253_402_300_799, 'y'));
        expect((await catalog.find(name('/old')))?.entry.version).toBe(-62_135_596_800);
        expect((await catalog.find(name('/far')))?.entry.version).toBe(253_402_300_799);
      });

      it('lets the newest of many concurrent versions win', async () => {
        const versions = Array.from({ length: 60 }, (_, index) => (index * 37) % 61);
        await Promise.all(versions.map((version) => catalog.put(putOf('/hot', version, `v${version}`))));
        expect((await catalog.find(name('/hot')))?.entry.version).toBe(60);
        expect(await textOf(catalog, '/hot')).toBe('v60');
        expect((await catalog.stats()).entries).toBe(1);
      });

      it('stores a content once for concurrent puts of it', async () => {
        const paths = Array.from({ length: 50 }, (_, index) => `/n${index}`);
        await Promise.all(paths.map((path) => catalog.put(putOf(path, 1, 'same'))));
        const stats = await catalog.stats();
        expect(stats).toMatchObject({ entries: 50, blobs: 1, storedBytes: 4, logicalBytes: 200 });
        expect((await catalog.findBlob(digestOf(Buffer.from('same'))))?.references).toBe(50);
        for (const path of paths) expect(await textOf(catalog, path)).toBe('same');
      });

      it('refuses a file below a file and a file in the place of a directory', async () => {
        await catalog.put(putOf('/a/b', 1, 'x'));
        expect(await catalog.put(putOf('/a/b/c', 1, 'y'))).toEqual({ kind: 'name-conflict', other: '/a/b' });
        expect(await catalog.put(putOf('/a', 1, 'y'))).toEqual({ kind: 'name-conflict', other: '/a/b' });
        expect((await catalog.put(putOf('/a/b2', 1, 'y'))).kind).toBe('stored');
        expect((await catalog.put(putOf('/a/b.c/d', 1, 'y'))).kind).toBe('stored');
      });

      it('lets one of two conflicting concurrent puts win', async () => {
        const outcomes = await Promise.all([
          catalog.put(putOf('/d/e', 1, 'file')),
          catalog.put(putOf('/d/e/f', 1, 'below')),
          catalog.put(putOf('/d', 1, 'above')),
        ]);
        expect(outcomes.map((outcome) => outcome.kind)).toEqual(['stored', 'name-conflict', 'name-conflict']);
        expect(await namesOf(catalog)).toEqual(['/d/e']);
      });

      it('lets a name change from directory to file and back', async () => {
        await catalog.put(putOf('/a/b', 1, 'x'));
        await catalog.remove({ name: name('/a/b'), version: 1 });
        expect((await catalog.put(putOf('/a', 1, 'y'))).kind).toBe('stored');
        await catalog.remove({ name: name('/a'), version: 1 });
        expect((await catalog.put(putOf('/a/b', 1, 'x'))).kind).toBe('stored');
      });

      it('checks preconditions before versions', async () => {
        const change = putOf('/a', 5, 'one');
        const digests = [change.digest];
        const failed = { kind: 'precondition-failed' };
        expect(await catalog.put({ ...change, precondition: { kind: 'match', digests } })).toEqual(failed);
        expect((await catalog.put({ ...change, precondition: { kind: 'absent' } })).kind).toBe('stored');
        const next = putOf('/a', 6, 'two');
        expect(await catalog.put({ ...next, precondition: { kind: 'absent' } })).toEqual(failed);
        expect(
          await catalog.put({ ...next, precondition: { kind: 'match', digests: [next.digest] } }),
        ).toEqual(failed);
        expect((await catalog.put({ ...next, precondition: { kind: 'match', digests } })).kind).toBe(
          'stored',
        );
        const any = { kind: 'match', digests: undefined } as const;
        expect((await catalog.put({ ...putOf('/a', 7, 'three'), precondition: any })).kind).toBe('stored');
        expect((await catalog.put({ ...putOf('/b', 7, 'three'), precondition: any })).kind).toBe(
          'precondition-failed',
        );
      });

      it('stores only over what is not newer than a date, or over nothing', async () => {
        const since = (version: number) => ({ precondition: { kind: 'unmodified-since', version } }) as const;
        const failed = { kind: 'precondition-failed' };
        expect((await catalog.put(putOf('/a', 5, 'one', since(1)))).kind).toBe('stored');
        expect(await catalog.put(putOf('/a', 6, 'two', since(4)))).toEqual(failed);
        expect(await catalog.put(putOf('/a', 3, 'old', since(4)))).toEqual(failed);
        expect(await catalog.put(putOf('/a', 3, 'old', since(5)))).toEqual({
          kind: 'superseded',
          version: 5,
        });
        expect(await textOf(catalog, '/a')).toBe('one');
        expect((await catalog.put(putOf('/a', 6, 'two', since(5)))).kind).toBe('stored');
        expect((await catalog.put(putOf('/a', 7, 'three', since(9)))).kind).toBe('stored');
        expect((await catalog.put(putOf('/a/b', 1, 'x', since(9)))).kind).toBe('name-conflict');
        await catalog.remove({ name: name('/a'), version: 7 });
        expect((await catalog.put(putOf('/a', 8, 'four', since(1)))).kind).toBe('stored');
      });

      it('lets one of many pass that want to change the same version', async () => {
        for (const begun of [false, true]) {
          const path = begun ? '/begun' : '/new';
          if (begun) await catalog.put(putOf(path, 1, 'first'));
          const outcomes = await Promise.all(
            Array.from({ length: 30 }, (_, index) =>
              catalog.put(
                putOf(path, 2, `by ${index}`, { precondition: { kind: 'unmodified-since', version: 1 } }),
              ),
            ),
          );
          const stored = outcomes.flatMap(({ kind }, index) => (kind === 'stored' ? [index] : []));
          expect(stored).toHaveLength(1);
          expect(await textOf(catalog, path)).toBe(`by ${stored[0]}`);
        }
      });

      it('creates once where fifty want to create', async () => {
        const outcomes = await Promise.all(
          Array.from({ length: 50 }, (_, index) =>
            catalog.put({ ...putOf('/once', 1, `by ${index}`), precondition: { kind: 'absent' } }),
          ),
        );
        expect(outcomes.filter((outcome) => outcome.kind === 'stored')).toHaveLength(1);
      });

      it('places staged content that is new and leaves alone what is stored', async () => {
        const staged = (id: string): Partial<PutChange> => ({ content: { kind: 'staged', stagedId: id } });
        await catalog.put(putOf('/a', 1, 'large', staged('s1')));
        const found = await catalog.find(name('/a'));
        expect(found?.location).toMatchObject({ kind: 'object', key: `key-${found?.entry.digest}` });
        const again = await catalog.put(putOf('/b', 1, 'large', staged('s2')));
        const object = { key: `key-${found?.entry.digest}`, storedSize: 5 };
        expect(again).toEqual({ kind: 'stored', version: 1, deduplicated: true, object });
        expect(await catalog.put(putOf('/a', 0, 'other', staged('s3')))).toMatchObject({
          kind: 'superseded',
        });
        expect(placer.placed).toEqual(['s1']);
      });

      it('changes nothing where placing fails', async () => {
        placer.place = async () => {
          throw new Error('disk on fire');
        };
        const change = putOf('/a', 1, 'large', { content: { kind: 'staged', stagedId: 's' } });
        await expect(catalog.put(change)).rejects.toThrow();
        expect(await catalog.find(change.name)).toBeUndefined();
        expect(await catalog.findBlob(change.digest)).toBeUndefined();
        expect((await catalog.put(putOf('/a', 1, 'small'))).kind).toBe('stored');
      });

      it('points to stored content without bytes, or says that it is missing', async () => {
        const stored: Partial<PutChange> = { content: { kind: 'stored' } };
        expect(await catalog.put(putOf('/b', 1, 'x', stored))).toEqual({ kind: 'content-missing' });
        await catalog.put(putOf('/a', 1, 'x'));
        expect(await catalog.put(putOf('/b', 1, 'x', stored))).toMatchObject({ deduplicated: true });
        expect(await textOf(catalog, '/b')).toBe('x');
      });
    });

    describe('remove()', () => {
      it('removes up to the version and tells which', async () => {
        await catalog.put(putOf('/a', 5, 'x'));
        expect(await catalog.remove({ name: name('/a'), version: 4 })).toEqual({
          kind: 'superseded',
          version: 5,
        });
        expect(await catalog.remove({ name: name('/a'), version: 9 })).toEqual({
          kind: 'removed',
          version: 5,
        });
        expect(await catalog.remove({ name: name('/a'), version: 9 })).toEqual({ kind: 'absent' });
        expect(await catalog.find(name('/a'))).toBeUndefined();
      });

      it('checks its precondition', async () => {
        const change = putOf('/a', 5, 'x');
        await catalog.put(change);
        const match = (digest: Digest) => ({ kind: 'match', digests: [digest] }) as const;
        const removal = { name: change.name, version: 5 };
        expect(await catalog.remove({ ...removal, precondition: match(digestOf(Buffer.from('y'))) })).toEqual(
          { kind: 'precondition-failed' },
        );
        expect(await catalog.remove({ ...removal, precondition: match(change.digest) })).toEqual({
          kind: 'removed',
          version: 5,
        });
      });
    });

    describe('remove() of what is not newer than a date', () => {
      it('removes that, and nothing newer', async () => {
        await catalog.put(putOf('/a', 5, 'x'));
        const remove = async (version: number, since: number): Promise<string> => {
          const precondition = { kind: 'unmodified-since', version: since } as const;
          return (await catalog.remove({ name: name('/a'), version, precondition })).kind;
        };
        expect(await remove(9, 4)).toBe('precondition-failed');
        expect(await remove(3, 4)).toBe('precondition-failed');
        expect(await remove(3, 5)).toBe('superseded');
        expect(await catalog.find(name('/a'))).toBeDefined();
        expect(await remove(9, 5)).toBe('removed');
        expect(await remove(9, 5)).toBe('absent');
      });
    });

    describe('a put that is refused', () => {
      it('makes no directory of what is above its name', async () => {
        const missing = putOf('/a/b', 1, 'x', { content: { kind: 'stored' } });
        expect(await catalog.put(missing)).toEqual({ kind: 'content-missing' });
        expect((await catalog.put(putOf('/a', 1, 'file'))).kind).toBe('stored');
        expect(await catalog.put(putOf('/a/c', 1, 'x'))).toEqual({ kind: 'name-conflict', other: '/a' });
      });
    });

    describe('a removal', () => {
      it('lets any version be stored again, older ones too', async () => {
        for (const [version, text] of [
          [9, 'older'],
          [10, 'same'],
          [11, 'newer'],
        ] as const) {
          await catalog.put(putOf('/a', 10, 'x'));
          await catalog.remove({ name: name('/a'), version: 12 });
          const precondition = { kind: 'absent' } as const;
          const change = { ...putOf('/a', version, text), precondition };
          expect(await catalog.put(change)).toMatchObject({ kind: 'stored', version });
          expect(await textOf(catalog, '/a')).toBe(text);
          expect((await catalog.put(putOf('/a', 8, 'oldest'))).kind).toBe('superseded');
          await catalog.remove({ name: name('/a'), version: 12 });
        }
      });

      it('keeps a repeat of an earlier put from bringing back this version or an older one', async () => {
        await catalog.put(putOf('/a', 10, 'x'));
        const firstSentMs = clock.nowMs();
        clock.advance(1000);
        await catalog.remove({ name: name('/a'), version: 12 });
        clock.advance(1000);
        const absent = { kind: 'absent' } as const;
        for (const change of [putOf('/a', 9, 'late'), putOf('/a', 10, 'x')]) {
          for (const more of [{}, { precondition: absent }]) {
            expect(await catalog.put({ ...change, ...more, firstSentMs })).toEqual({
              kind: 'superseded',
              version: 10,
            });
          }
        }
        expect(await catalog.find(name('/a'))).toBeUndefined();
        expect((await catalog.put({ ...putOf('/a', 11, 'newer'), firstSentMs })).kind).toBe('stored');
      });

      it('does not count for a put that was first sent after it', async () => {
        await catalog.put(putOf('/a', 10, 'x'));
        await catalog.remove({ name: name('/a'), version: 10 });
        clock.advance(1000);
        const repeat = { ...putOf('/a', 9, 'older'), firstSentMs: clock.nowMs() };
        clock.advance(1000);
        expect((await catalog.put(repeat)).kind).toBe('stored');
      });

      it('stands in the way of no other name', async () => {
        const firstSentMs = clock.nowMs();
        await catalog.put(putOf('/a/b', 10, 'x'));
        await catalog.remove({ name: name('/a/b'), version: 10 });
        expect((await catalog.put({ ...putOf('/a', 1, 'file'), firstSentMs })).kind).toBe('stored');
      });
    });

    describe('collect()', () => {
      const digest = digestOf(Buffer.from('x'));

      it('forgets what no entry has named for the grace period, and removes its bytes', async () => {
        await catalog.put(putOf('/a', 1, 'x', { content: { kind: 'staged', stagedId: 's' } }));
        await catalog.remove({ name: name('/a'), version: 1 });
        const removedMs = clock.nowMs();
        expect(await catalog.listUnreferenced(removedMs, 10)).toEqual([]);
        expect(await catalog.collect([digest], removedMs)).toEqual([]);
        clock.advance(1000);
        expect(await catalog.listUnreferenced(clock.nowMs(), 10)).toEqual([digest]);
        expect(placer.objects.size).toBe(1);
        expect(await catalog.collect([digest], clock.nowMs())).toMatchObject([{ digest, storedSize: 1 }]);
        expect(placer.objects.size).toBe(0);
        expect(await catalog.findBlob(digest)).toBeUndefined();
        expect(await catalog.listUnreferenced(clock.nowMs(), 10)).toEqual([]);
        expect(await catalog.stats()).toMatchObject({
          entries: 0,
          blobs: 0,
          storedBytes: 0,
          logicalBytes: 0,
        });
      });

      it('leaves what is named, named again, or pinned', async () => {
        await catalog.put(putOf('/a', 1, 'x'));
        clock.advance(1000);
        expect(await catalog.collect([digest], clock.nowMs())).toEqual([]);
        await catalog.remove({ name: name('/a'), version: 1 });
        clock.advance(1000);
        const pin = await catalog.pin(digest);
        expect(pin?.blob.digest).toBe(digest);
        expect(await catalog.collect([digest], clock.nowMs())).toEqual([]);
        expect(await catalog.put(putOf('/b', 1, 'x', { content: { kind: 'stored' } }))).toMatchObject({
          kind: 'stored',
        });
        await pin?.release();
        await pin?.release();
        expect(await catalog.collect([digest], clock.nowMs())).toEqual([]);
        expect(await textOf(catalog, '/b')).toBe('x');
        await catalog.remove({ name: name('/b'), version: 1 });
        clock.advance(1);
        expect(await catalog.collect([digest], clock.nowMs())).toHaveLength(1);
        expect(await catalog.pin(digest)).toBeUndefined();
      });

      it('counts an overwritten content as unnamed', async () => {
        await catalog.put(putOf('/a', 1, 'x'));
        await catalog.put(putOf('/a', 2, 'y'));
        clock.advance(1);
        expect(await catalog.listUnreferenced(clock.nowMs(), 10)).toEqual([digest]);
        expect((await catalog.stats()).unreferencedBlobs).toBe(1);
      });
    });

    describe('markDamaged()', () => {
      it('shows in look-ups and is mended by a put of the content', async () => {
        await catalog.put(putOf('/a', 1, 'x', { content: { kind: 'staged', stagedId: 's1' } }));
        const digest = digestOf(Buffer.from('x'));
        await catalog.markDamaged(digest, true);
        expect((await catalog.find(name('/a')))?.damaged).toBe(true);
        expect(await catalog.put(putOf('/b', 1, 'x', { content: { kind: 'stored' } }))).toEqual({
          kind: 'content-missing',
        });
        await catalog.put(putOf('/b', 1, 'x'));
        expect((await catalog.find(name('/a')))?.damaged).toBe(false);
        expect(await textOf(catalog, '/a')).toBe('x');
        expect(placer.objects.size).toBe(0);
        expect((await catalog.stats()).blobs).toBe(1);
      });
    });

    describe('addBlobs()', () => {
      const digest = digestOf(Buffer.from('x'));
      const blob = {
        digest,
        encoding: 'gzip',
        logicalSize: 1,
        storedSize: 21,
        key: `key-${digest}`,
      } as const;

      it('takes bytes of the blob store in, for puts to name', async () => {
        await catalog.addBlobs([blob]);
        await catalog.addBlobs([blob]);
        expect(await catalog.stats()).toMatchObject({ blobs: 1, unreferencedBlobs: 1, storedBytes: 21 });
        const put = await catalog.put(putOf('/a', 1, 'x', { content: { kind: 'stored' } }));
        expect(put).toMatchObject({ kind: 'stored', deduplicated: true });
        expect(await catalog.find(name('/a'))).toMatchObject({
          entry: { storedSize: 21, encoding: 'gzip' },
          location: { kind: 'object', key: blob.key },
        });
      });

      it('corrects sizes, mends what is damaged, and leaves sound content as it is', async () => {
        await catalog.addBlobs([{ ...blob, damaged: true }]);
        expect((await catalog.findBlob(digest))?.damaged).toBe(true);
        await catalog.addBlobs([blob]);
        expect((await catalog.findBlob(digest))?.damaged).toBe(false);
        await catalog.put(putOf('/a', 1, 'x', { content: { kind: 'stored' } }));
        await catalog.addBlobs([{ ...blob, logicalSize: 5 }]);
        expect((await catalog.stats()).logicalBytes).toBe(5);
        const inline = digestOf(Buffer.from('inline'));
        await catalog.put(putOf('/b', 1, 'inline'));
        await catalog.addBlobs([{ ...blob, digest: inline }]);
        expect((await catalog.findBlob(inline))?.location.kind).toBe('inline');
      });
    });

    describe('lists', () => {
      beforeEach(async () => {
        const paths = ['/a/b/1', '/a/b2', '/a/b.txt', '/c', '/a/b/\u{1F600}', '/a/b/\uFFFD', '/z/1', '/z/2'];
        let version = 0;
        for (const path of paths) await catalog.put(putOf(path, (version += 10), path));
      });

      it('listNames() gives names below a directory in byte order', async () => {
        expect(await namesOf(catalog, '/a/b/')).toEqual(['/a/b/1', '/a/b/\uFFFD', '/a/b/\u{1F600}']);
        expect(await namesOf(catalog, '/a/')).toEqual([
          '/a/b.txt',
          '/a/b/1',
          '/a/b/\uFFFD',
          '/a/b/\u{1F600}',
          '/a/b2',
        ]);
        expect(await namesOf(catalog)).toHaveLength(8);
        expect(await namesOf(catalog, '/b/')).toEqual([]);
      });

      it('listNames() pages, and keeps to a cutoff', async () => {
        const options = { after: name('/a/b/1'), limit: 2 };
        expect(await namesOf(catalog, '/a/', options)).toEqual(['/a/b/\uFFFD', '/a/b/\u{1F600}']);
        expect(await namesOf(catalog, '/', { upTo: 30 })).toEqual(['/a/b.txt', '/a/b/1', '/a/b2']);
        expect(await namesOf(catalog, '/', { upTo: 30, limit: 1 })).toEqual(['/a/b.txt']);
      });

      it('listEntries() gives whole entries', async () => {
        for await (const batch of catalog.listEntries('/z/')) {
          expect(batch.map(({ name, version }) => [name, version])).toEqual([
            ['/z/1', 70],
            ['/z/2', 80],
          ]);
          expect(batch[0]).toMatchObject({ logicalSize: 4, storedSize: 4, encoding: 'identity' });
        }
      });

      it('lists give each name that is there all the time exactly once, whatever changes meanwhile', async () => {
        const kept = Array.from({ length: 2600 }, (_, index) => `/p/${String(index).padStart(5, '0')}`);
        for (let at = 0; at < kept.length; at += 100) {
          await Promise.all(kept.slice(at, at + 100).map((path) => catalog.put(putOf(path, 5, 'x'))));
        }
        const namesIn = async function* (): AsyncGenerator<readonly string[]> {
          for await (const batch of catalog.listEntries('/p/')) yield batch.map((entry) => entry.name);
        };
        for (const list of [catalog.listNames('/p/'), catalog.listNames('/p/', { upTo: 6 }), namesIn()]) {
          const seen: string[] = [];
          for await (const batch of list) {
            const last = batch.at(-1) ?? '';
            seen.push(...batch);
            // Behind what was listed, at it, and before what is still to come.
            for (const path of ['/p/0', `${last}-late`, '/p/99999'])
              await catalog.put(putOf(path, 5, 'late'));
            await catalog.remove({ name: name(`${last}-late`), version: 9 });
            await catalog.put(putOf(last, 6, 'overwritten'));
          }
          expect(seen.filter((path) => kept.includes(path))).toEqual(kept);
          expect(new Set(seen).size).toBe(seen.length);
        }
        expect(await namesOf(catalog, '/p/', { limit: 2100 })).toHaveLength(2100);
        expect(await namesOf(catalog, '/p/', { upTo: 4 })).toEqual([]);
      });

      it('kindOfDirectory() tells directories, files and nothing apart', async () => {
        expect(await catalog.kindOfDirectory('/')).toBe('directory');
        expect(await catalog.kindOfDirectory('/a/b/')).toBe('directory');
        expect(await catalog.kindOfDirectory('/c/')).toBe('file');
        expect(await catalog.kindOfDirectory('/q/')).toBe('absent');
      });

      it('listBlobs() gives every blob once with its count', async () => {
        await catalog.put(putOf('/again', 1, '/c'));
        const records = [];
        for await (const batch of catalog.listBlobs()) records.push(...batch);
        expect(records).toHaveLength(8);
        expect(records.map((record) => record.digest)).toEqual(
          records.map((record) => record.digest).toSorted(),
        );
        expect(records.find((record) => record.digest === digestOf(Buffer.from('/c')))?.references).toBe(2);
      });
    });

    it('close() finishes what is under way and refuses more', async () => {
      const pending = catalog.put(putOf('/a', 1, 'x'));
      await catalog.close();
      expect((await pending).kind).toBe('stored');
      await expect((async () => catalog.put(putOf('/b', 1, 'x')))()).rejects.toMatchObject({
        code: 'unavailable',
      });
      await catalog.close();
    });
  });
}
