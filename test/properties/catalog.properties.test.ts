import { fc } from '../support/properties.ts';
import { cp, mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import type { Catalog } from '../../src/catalog/catalog.ts';
import { LmdbCatalog, type LmdbCatalogOptions } from '../../src/catalog/lmdb/lmdb-catalog.ts';
import { MemoryCatalog } from '../support/doubles/memory-catalog.ts';
import { checkLiveBytes } from '../support/live-bytes.ts';
import { ManualClock } from '../support/manual-clock.ts';
import { digestOf } from '../../src/core/digest.ts';
import { name, putOf, RecordingPlacer } from '../support/catalogs.ts';

type Operation =
  | {
      kind: 'put';
      path: string;
      version: number;
      text: string;
      staged: boolean;
      /** How long ago it was first sent, if it is a repeat. */
      agoMs: number | undefined;
    }
  | { kind: 'remove'; path: string; version: number }
  | { kind: 'collect' }
  | { kind: 'mark'; text: string; damaged: boolean }
  | { kind: 'compact' | 'reopen' | 'rebuild' };

const paths = ['/a', '/a/b', '/a/b/c', '/a/d', '/e', '/e/f', '/g', '/h', '/i/j/k', '/i/j/l'];
const texts = ['', 'x', 'yy'.repeat(400), 'z'.repeat(900), 'w'.repeat(2000)];
const path = fc.constantFrom(...paths);
const version = fc.integer({ min: -3, max: 6 });
const text = fc.constantFrom(...texts);
const operation: fc.Arbitrary<Operation> = fc.oneof(
  {
    weight: 12,
    arbitrary: fc.record({
      kind: fc.constant('put' as const),
      path,
      version,
      text,
      staged: fc.boolean(),
      agoMs: fc.option(fc.nat({ max: 100 }), { nil: undefined }),
    }),
  },
  { weight: 6, arbitrary: fc.record({ kind: fc.constant('remove' as const), path, version }) },
  { weight: 2, arbitrary: fc.record({ kind: fc.constant('collect' as const) }) },
  {
    weight: 1,
    arbitrary: fc.record({ kind: fc.constant('mark' as const), text, damaged: fc.boolean() }),
  },
  {
    weight: 2,
    arbitrary: fc.record({
      kind: fc.constantFrom('compact' as const, 'reopen' as const, 'rebuild' as const),
    }),
  },
);

async function apply(catalog: Catalog, step: Operation, clock: ManualClock): Promise<unknown> {
  switch (step.kind) {
    case 'put': {
      const staged = step.staged ? ({ content: { kind: 'staged', stagedId: 's' } } as const) : {};
      const firstSentMs = step.agoMs === undefined ? undefined : clock.nowMs() - step.agoMs;
      return catalog.put(putOf(step.path, step.version, step.text, { ...staged, firstSentMs }));
    }
    case 'remove':
      return catalog.remove({ name: name(step.path), version: step.version });
    case 'collect': {
      const digests = await catalog.listUnreferenced(clock.nowMs(), 100);
      const collected = await catalog.collect(digests, clock.nowMs());
      return collected.map((record) => record.digest).toSorted();
    }
    case 'mark':
      return catalog.markDamaged(digestOf(Buffer.from(step.text)), step.damaged);
    case 'compact':
    case 'reopen':
    case 'rebuild':
      return undefined;
  }
}

/** All files, and of each whether its bytes are there and right, wherever they lie. */
async function contentOf(catalog: Catalog, placer: RecordingPlacer): Promise<unknown> {
  const files: unknown[] = [];
  for await (const batch of catalog.listEntries('/')) {
    for (const entry of batch) {
      const found = await catalog.find(entry.name);
      let whole = false;
      if (found?.location.kind === 'object') whole = placer.objects.has(found.location.key);
      if (found?.location.kind === 'inline') {
        const bytes = await found.location.read();
        whole = bytes !== undefined && digestOf(bytes) === entry.digest;
      }
      files.push({ entry, found: found?.entry, damaged: found?.damaged, whole });
    }
  }
  return files;
}

async function countsOf(catalog: Catalog): Promise<unknown> {
  const { entries, logicalBytes, uniqueLogicalBytes } = await catalog.stats();
  const blobs: unknown[] = [];
  let countedBytes = 0;
  for await (const batch of catalog.listBlobs()) {
    for (const { digest, references, storedSize, logicalSize } of batch) {
      countedBytes += logicalSize;
      if (references > 0) blobs.push({ digest, references, storedSize });
    }
  }
  // Not compared: what was collected may be back after a rebuild. It is the sum all the same.
  expect(uniqueLogicalBytes).toBe(countedBytes);
  return { entries, logicalBytes, blobs };
}

describe('the embedded catalog', () => {
  let folder: string;
  beforeEach(async () => {
    folder = await mkdtemp(join(tmpdir(), 'filetracker-'));
  });
  afterEach(() => rm(folder, { recursive: true }));

  const optionsFor = (placer: RecordingPlacer, clock: ManualClock, at = folder): LmdbCatalogOptions => ({
    folders: { journal: join(at, 'journal'), catalog: join(at, 'catalog') },
    placer,
    clock,
    segmentSizeBytes: 4096,
    onBackgroundError: (error) => {
      throw error;
    },
  });

  it('behaves as the model through restarts, rebuilds and compactions', async () => {
    await fc.assert(
      fc.asyncProperty(fc.array(operation, { minLength: 1, maxLength: 60 }), async (steps) => {
        await rm(folder, { recursive: true, force: true });
        const clock = new ManualClock();
        const placer = new RecordingPlacer();
        const modelPlacer = new RecordingPlacer();
        const model = new MemoryCatalog(modelPlacer, { clock });
        let catalog = await LmdbCatalog.open(optionsFor(placer, clock));
        try {
          for (const step of steps) {
            clock.advance(10);
            if (step.kind === 'compact') await catalog.compact();
            if (step.kind === 'reopen' || step.kind === 'rebuild') {
              await catalog.close();
              await checkLiveBytes(optionsFor(placer, clock).folders);
              const rebuild = step.kind === 'rebuild';
              catalog = await LmdbCatalog.open({ ...optionsFor(placer, clock), rebuild });
              expect(catalog.replay.rebuilt).toBe(rebuild);
              expect(catalog.replay.lost).toEqual([]);
            }
            const outcome = await apply(catalog, step, clock);
            const expected = await apply(model, step, clock);
            // What was collected before a rebuild may be known again after it, and so be found as stored.
            if (step.kind === 'put') {
              expect({ ...(outcome as object), deduplicated: 0 }).toEqual({
                ...(expected as object),
                deduplicated: 0,
              });
            } else if (step.kind !== 'collect') expect(outcome).toEqual(expected);
          }
          expect(await contentOf(catalog, placer)).toEqual(await contentOf(model, modelPlacer));
          expect(await countsOf(catalog)).toEqual(await countsOf(model));
        } finally {
          await catalog.close();
        }
        await checkLiveBytes(optionsFor(placer, clock).folders);
      }),
      { numRuns: Number(process.env['FILETRACKER_PROPERTY_RUNS'] ?? 60) },
    );
  });

  it('gives the same from a copy that was taken while it ran, rolled forward or rebuilt', async () => {
    const clock = new ManualClock();
    const placer = new RecordingPlacer();
    await using catalog = await LmdbCatalog.open(optionsFor(placer, clock));
    for (let index = 0; index < 200; index++) {
      clock.advance(10);
      await catalog.put(putOf(`/d${index % 7}/f${index % 31}`, index, `text ${index % 50} `.repeat(20)));
      if (index % 9 === 0)
        await catalog.remove({ name: name(`/d${index % 7}/f${index % 31}`), version: index });
    }
    await catalog.compact();
    const copy = join(folder, 'copy');
    await cp(join(folder, 'journal'), join(copy, 'journal'), { recursive: true });
    await using rebuilt = await LmdbCatalog.open(optionsFor(placer, clock, copy));
    expect(rebuilt.replay.rebuilt).toBe(true);
    expect(await contentOf(rebuilt, placer)).toEqual(await contentOf(catalog, placer));
    expect(await countsOf(rebuilt)).toEqual(await countsOf(catalog));
  });
});
