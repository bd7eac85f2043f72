import { join } from 'node:path';
import { afterEach, describe, expect, it, vi } from 'vitest';
import { liveBytesOfName } from '../../src/catalog/lmdb/index/live-bytes.ts';
import { IndexDatabase, type EmbeddedFolders } from '../../src/catalog/lmdb/index/database.ts';
import {
  decodeBlobRow,
  encodeBlobRow,
  encodeSegmentRow,
  segmentKey,
} from '../../src/catalog/lmdb/index/rows.ts';
import { LmdbCatalog, type LmdbCatalogOptions } from '../../src/catalog/lmdb/lmdb-catalog.ts';
import { digestOf } from '../../src/core/digest.ts';
import { namesOf, putOf, RecordingPlacer } from '../support/catalogs.ts';
import { checkLiveBytes } from '../support/live-bytes.ts';
import { present } from '../support/present.ts';
import { fc } from '../support/properties.ts';
import { temporaryFolder } from '../support/temporary-folder.ts';

const segmentSizeBytes = 4096;
const count = 300;

/** A catalog whose records are counted. If there are far more than were asked for, it is closed. */
class CountedCatalog {
  readonly folders: EmbeddedFolders;
  records = 0;
  #catalog: LmdbCatalog | undefined;
  #closing: Promise<void> | undefined;

  private constructor(folder: string) {
    this.folders = { journal: join(folder, 'journal'), catalog: join(folder, 'catalog') };
  }

  static async open(folder: string, placer = new RecordingPlacer()): Promise<CountedCatalog> {
    const counted = new CountedCatalog(folder);
    const { folders } = counted;
    const onCommit: LmdbCatalogOptions['onCommit'] = ({ changes }) => counted.#count(changes);
    counted.#catalog = await LmdbCatalog.open({ folders, placer, segmentSizeBytes, onCommit });
    return counted;
  }

  get catalog(): LmdbCatalog {
    return present(this.#catalog);
  }

  #count(records: number): void {
    this.records += records;
    if (this.records > 20 * count) this.#closing = this.#catalog?.close();
  }

  /** Compacts; returns the number of records that this wrote. */
  async compact(): Promise<number> {
    const before = this.records;
    // A catalog that was closed meanwhile rejects, and has written too much.
    await this.catalog.compact().catch(() => undefined);
    await this.#closing;
    return this.records - before;
  }
}

type Fill = (catalog: LmdbCatalog, index: number) => Promise<unknown>;

const staged = { content: { kind: 'staged', stagedId: 's' } } as const;
const shapes: { shape: string; fill: Fill }[] = [
  {
    shape: 'large files with short names',
    fill: (catalog, index) => catalog.put(putOf(`/${index}`, 1, `content ${index}`, staged)),
  },
  {
    shape: 'blobs of an adopted folder',
    fill: async (catalog, index) => {
      const digest = digestOf(Buffer.from(`${index}`));
      const sizes = { encoding: 'gzip', logicalSize: 40_000, storedSize: 20_000 } as const;
      await catalog.addBlobs([{ digest, ...sizes, key: `${digest.slice(0, 2)}/${digest}.gz` }]);
    },
  },
  {
    shape: 'tiny blobs that no entry names',
    fill: (catalog, index) => catalog.put(putOf('/a', index, `${index}`)),
  },
  {
    shape: 'tiny files stored again',
    fill: (catalog, index) => catalog.put(putOf(`/${index % 100}`, index, `${index % 100}`)),
  },
  {
    shape: 'blobs marked again and again',
    fill: async (catalog, index) => {
      const text = `${index % 100}`;
      if (index < 100) await catalog.put(putOf(`/${text}`, 1, text));
      await catalog.markDamaged(digestOf(Buffer.from(text)), index % 200 < 100);
    },
  },
];

afterEach(() => {
  vi.restoreAllMocks();
});

describe('compaction ends', () => {
  it.each(shapes)('with a journal full of $shape', async ({ fill }) => {
    const counted = await CountedCatalog.open(await temporaryFolder());
    for (let index = 0; index < count; index += 1) await fill(counted.catalog, index);
    await counted.compact();
    expect(counted.records).toBeLessThanOrEqual(3 * count);
    expect(await counted.compact()).toBe(0);
    await counted.catalog.close();
    await checkLiveBytes(counted.folders);
  });

  it.each(shapes)('with an index of release 3.0 and a journal full of $shape', async ({ fill }) => {
    const folder = await temporaryFolder();
    const placer = new RecordingPlacer();
    const first = await CountedCatalog.open(folder, placer);
    for (let index = 0; index < count; index += 1) await fill(first.catalog, index);
    const damaged = await damagedBlobs(first.catalog);
    const names = await namesOf(first.catalog);
    await first.catalog.close();
    await makeOldIndex(first.folders);

    const second = await CountedCatalog.open(folder, placer);
    await second.compact();
    expect(second.records).toBeLessThanOrEqual(3 * count);
    expect(await second.compact()).toBe(0);
    await second.catalog.close();

    const { folders } = second;
    const rebuilt = await LmdbCatalog.open({ folders, placer, segmentSizeBytes, rebuild: true });
    expect(await namesOf(rebuilt)).toEqual(names);
    expect(await damagedBlobs(rebuilt)).toEqual(damaged);
    await rebuilt.close();
    await checkLiveBytes(folders);
  });

  it('even if the sums of the segments are wrong, and begins again when half a segment was written', async () => {
    const counted = await CountedCatalog.open(await temporaryFolder());
    const { catalog } = counted;
    for (let index = 0; index < count; index += 1) await catalog.put(putOf(`/${index}`, 1, 'x'.repeat(50)));
    const rows = counted.catalog.index.segmentRows.bind(counted.catalog.index);
    vi.spyOn(catalog.index, 'segmentRows').mockImplementation(() =>
      rows().map((row) => ({ ...row, liveBytes: row.liveBytes / 2 })),
    );
    const copied = await counted.compact();
    expect(copied).toBeGreaterThan(count / 2);
    expect(copied).toBeLessThanOrEqual(count);
    // Collecting nothing asks whether compaction is due.
    await catalog.collect([], 0);
    await catalog.put(putOf('/one-more', 1, 'more'));
    await catalog.collect([], 0);
    expect(counted.records).toBeLessThanOrEqual(2 * count + 1);
    const before = counted.records;
    const rest = Array.from({ length: 60 }, (_, index) => putOf(`/more/${index}`, 1, 'more'));
    for (const put of rest) await catalog.put(put);
    await expect.poll(() => counted.records).toBeGreaterThan(before + rest.length);
    await catalog.close();
  });
});

describe('after a run that did not pay', () => {
  it('compaction resumes when enough has died, even if little was written', async () => {
    const counted = await CountedCatalog.open(await temporaryFolder());
    const { catalog } = counted;
    // The removals of so few files are far from half a segment.
    const files = 16;
    const puts = Array.from({ length: files }, (_, index) => putOf(`/${index}`, 1, `${index}`.padEnd(1000)));
    for (const put of puts) await catalog.put(put);
    const rows = catalog.index.segmentRows.bind(catalog.index);
    const wrong = vi
      .spyOn(catalog.index, 'segmentRows')
      .mockImplementation(() => rows().map((row) => ({ ...row, liveBytes: row.liveBytes / 2 })));
    expect(await counted.compact()).toBeGreaterThan(files / 2);
    wrong.mockRestore();
    for (const { name } of puts) await catalog.remove({ name, version: 1 });
    const beforeMs = Date.now() + 1000;
    await catalog.collect(await catalog.listUnreferenced(beforeMs, files), beforeMs);
    const sumOf = (key: 'sizeBytes' | 'liveBytes'): number => rows().reduce((sum, row) => sum + row[key], 0);
    await expect
      .poll(() => sumOf('sizeBytes') - 1.5 * sumOf('liveBytes'))
      .toBeLessThanOrEqual(segmentSizeBytes);
    await catalog.close();
  });
});

describe('the live bytes of a segment', () => {
  const action = fc.record({
    kind: fc.constantFrom(
      'put',
      'put',
      'put',
      'stage',
      'remove',
      'add',
      'mark',
      'collect',
      'compact',
      'reopen',
    ),
    name: fc.constantFrom('/a', '/bb', '/c/ddd', '/e/ffffffff'),
    text: fc.constantFrom('', 'x', 'yyy', 'z'.repeat(500)),
    flag: fc.boolean(),
  });

  it('are what a copy of it takes, after any history', async () => {
    const folder = await temporaryFolder();
    let run = 0;
    await fc.assert(
      fc.asyncProperty(fc.array(action, { minLength: 1, maxLength: 80 }), async (actions) => {
        run += 1;
        const placer = new RecordingPlacer();
        const at = join(folder, `${run}`);
        const folders = { journal: join(at, 'journal'), catalog: join(at, 'catalog') };
        const open = (rebuild: boolean): Promise<LmdbCatalog> =>
          LmdbCatalog.open({ folders, placer, segmentSizeBytes: 1024, rebuild });
        let catalog = await open(false);
        for (const [index, { kind, name, text, flag }] of actions.entries()) {
          const put = putOf(name, index, text);
          const { digest } = put;
          if (kind === 'put') await catalog.put(put);
          if (kind === 'stage') await catalog.put({ ...put, ...staged });
          if (kind === 'remove') await catalog.remove({ name: put.name, version: index });
          if (kind === 'mark') await catalog.markDamaged(digest, flag);
          if (kind === 'compact') await catalog.compact();
          if (kind === 'add') {
            await placer.place([{ stagedId: 's', digest }]);
            const { encoding, logicalSize, storedSize } = put;
            await catalog.addBlobs([
              { key: `key-${digest}`, digest, encoding, logicalSize, storedSize, damaged: flag },
            ]);
          }
          if (kind === 'collect') {
            const beforeMs = Date.now() + 1000;
            await catalog.collect(await catalog.listUnreferenced(beforeMs, 2), beforeMs);
          }
          if (kind !== 'reopen') continue;
          await catalog.close();
          await checkLiveBytes(folders);
          catalog = await open(flag);
        }
        await catalog.close();
        await checkLiveBytes(folders);
      }),
      { numRuns: Number(process.env['FILETRACKER_PROPERTY_RUNS'] ?? 60) },
    );
  });
});

async function damagedBlobs(catalog: LmdbCatalog): Promise<string[]> {
  const digests: string[] = [];
  for await (const batch of catalog.listBlobs()) {
    for (const { digest, damaged } of batch) if (damaged) digests.push(digest);
  }
  return digests;
}

/** Turns a closed index into what release 3.0 would have written: without flags and marks, and with its sums. */
async function makeOldIndex(folders: EmbeddedFolders): Promise<void> {
  const index = IndexDatabase.open(folders.catalog);
  const live = new Map<number, number>();
  const count = (segment: number, bytes: number): void => {
    live.set(segment, (live.get(segment) ?? 0) + bytes);
  };
  for (const { key } of index.entries.getRange({})) {
    const entry = index.entry(key.toString() as Parameters<typeof index.entry>[0]);
    count(entry?.segment ?? 0, liveBytesOfName(key));
  }
  for (const { key } of index.removals.getRange({})) {
    const removal = index.removal(key.toString() as Parameters<typeof index.removal>[0]);
    count(removal?.segment ?? 0, liveBytesOfName(key));
  }
  const rows = [...index.blobs.getRange({})].map(({ key, value }) => ({ key, row: decodeBlobRow(value) }));
  index.root.transactionSync(() => {
    for (const { key, row } of rows) {
      if (row.place.kind === 'journal') count(row.segment, row.storedSize);
      index.blobs.putSync(key, encodeBlobRow({ ...row, counted: false, alone: false, mark: undefined }));
    }
    for (const { number, sizeBytes } of index.segmentRows()) {
      index.segments.putSync(
        segmentKey(number),
        encodeSegmentRow({ sizeBytes, liveBytes: live.get(number) ?? 0 }),
      );
    }
  });
  await index.close();
}
