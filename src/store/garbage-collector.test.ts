import { describe, expect, it, onTestFinished, vi } from 'vitest';
import { noise } from '../../test/support/contents.ts';
import {
  leftovers,
  memoryFileStore,
  nameOf,
  put,
  type FileStoreParts,
} from '../../test/support/file-stores.ts';
import { MemoryBlobStore } from '../../test/support/doubles/memory-blob-store.ts';
import { MemoryCatalog } from '../../test/support/doubles/memory-catalog.ts';
import { ManualClock } from '../../test/support/manual-clock.ts';
import { digestOf } from '../core/digest.ts';
import { stagedLifetimeMs } from '../core/limits.ts';
import { ComposedFileStore } from './composed-file-store.ts';
import { GarbageCollector, type GarbageCollectorOptions } from './garbage-collector.ts';

const content = noise(40_000);

interface CollectorUnderTest extends FileStoreParts {
  readonly clock: ManualClock;
  readonly collector: GarbageCollector;
}

async function create(options: Partial<GarbageCollectorOptions> = {}): Promise<CollectorUnderTest> {
  const clock = new ManualClock();
  const blobs = new MemoryBlobStore({ clock });
  const catalog = new MemoryCatalog(blobs, { clock });
  const problems: { problem: string; error: unknown }[] = [];
  const reportProblem = (problem: string, error: unknown): void => {
    problems.push({ problem, error });
  };
  const collector = new GarbageCollector({ catalog, blobs, reportProblem, ...options });
  const store = new ComposedFileStore({
    catalog,
    blobs,
    reportProblem,
    onRelease: () => collector.hint(),
  });
  const close = async (): Promise<void> => collector.stop();
  onTestFinished(close);
  return { store, catalog, blobs, problems, close, clock, collector };
}

describe('GarbageCollector', () => {
  it('keeps a blob for the grace period after its last name is gone, and collects it then', async () => {
    const parts = await create({ graceMs: 1_000 });
    await put(parts.store, '/a', 1, content);
    await put(parts.store, '/b', 1, content);
    parts.clock.advance(5_000);
    await parts.store.remove({ name: nameOf('/a'), version: 1 });
    await parts.store.remove({ name: nameOf('/b'), version: 1 });
    parts.clock.advance(999);
    expect(await parts.collector.run()).toMatchObject({ collectedBlobs: 0 });
    parts.clock.advance(1);
    expect(await parts.collector.run()).toMatchObject({ collectedBlobs: 1, collectedBytes: 40_000 });
    expect(await leftovers(parts)).toEqual({ blobs: 0, uploads: 0 });
  });

  it('collects at once with no grace period', async () => {
    const parts = await create({ graceMs: 0 });
    await put(parts.store, '/a', 1, content);
    await put(parts.store, '/a', 2, noise(50_000, 'newer'));
    expect(await parts.collector.run()).toMatchObject({ collectedBlobs: 1 });
    expect(await parts.store.stats()).toMatchObject({ blobs: 1, unreferencedBlobs: 0 });
  });

  it('keeps a blob that has a name again', async () => {
    const parts = await create({ graceMs: 1_000 });
    await put(parts.store, '/a', 1, content);
    await parts.store.remove({ name: nameOf('/a'), version: 1 });
    parts.clock.advance(2_000);
    expect(await put(parts.store, '/b', 1, content)).toMatchObject({ deduplicated: true });
    expect(await parts.collector.run()).toMatchObject({ collectedBlobs: 0 });
    expect(await leftovers(parts)).toMatchObject({ blobs: 1 });
  });

  it('keeps a blob that is pinned, and ends', async () => {
    const parts = await create({ graceMs: 0 });
    await put(parts.store, '/a', 1, content);
    await parts.store.remove({ name: nameOf('/a'), version: 1 });
    const pin = await parts.catalog.pin(digestOf(content));
    expect(await parts.collector.run()).toMatchObject({ collectedBlobs: 0 });
    await pin?.release();
    expect(await parts.collector.run()).toMatchObject({ collectedBlobs: 1 });
  });

  it('collects more blobs than fit in one change', async () => {
    const parts = await create({ graceMs: 0 });
    for (let index = 0; index < 600; index += 1) await put(parts.store, '/a', index, Buffer.from(`${index}`));
    expect(await parts.collector.run()).toMatchObject({ collectedBlobs: 599 });
  });

  it('sweeps all uploads at the start if it is alone, else old ones only', async () => {
    for (const exclusive of [true, false]) {
      const parts = await create({ exclusive });
      const upload = await parts.blobs.stage();
      await upload.write(content);
      await parts.collector.start();
      expect((parts.blobs as MemoryBlobStore).stagedCount).toBe(exclusive ? 0 : 1);
      parts.clock.advance(stagedLifetimeMs + 1);
      await parts.collector.run();
      expect((parts.blobs as MemoryBlobStore).stagedCount).toBe(0);
    }
  });

  it('leaves uploads under way alone after the start', async () => {
    const parts = await create({ exclusive: true });
    await parts.collector.start();
    const upload = await parts.blobs.stage();
    await upload.write(content);
    parts.clock.advance(stagedLifetimeMs - 1);
    await parts.collector.run();
    expect((parts.blobs as MemoryBlobStore).stagedCount).toBe(1);
  });

  it('runs soon after a hint when the grace period is short', async () => {
    const parts = await create({ graceMs: 0, intervalMs: 3_600_000 });
    await parts.collector.start();
    await put(parts.store, '/a', 1, content);
    await parts.store.remove({ name: nameOf('/a'), version: 1 });
    await vi.waitFor(async () => expect((await parts.store.stats()).blobs).toBe(0), { timeout: 2_000 });
  });

  it('runs again after its interval, and reports a run that failed', async () => {
    const parts = await create({ graceMs: 0, intervalMs: 20 });
    const failing = vi.spyOn(parts.catalog, 'listUnreferenced').mockRejectedValueOnce(new Error('no index'));
    await parts.collector.start();
    await vi.waitFor(() => expect(failing.mock.calls.length).toBeGreaterThan(2), { timeout: 2_000 });
    expect(parts.problems).toMatchObject([{ problem: 'Cannot collect garbage' }]);
  });

  it('waits for a run under way when it stops, and does not run any more', async () => {
    const parts = await create({ graceMs: 0, intervalMs: 10 });
    let running = false;
    vi.spyOn(parts.catalog, 'listUnreferenced').mockImplementation(async () => {
      running = true;
      await new Promise((resolve) => setTimeout(resolve, 50));
      running = false;
      return [];
    });
    await parts.collector.start();
    await vi.waitFor(() => expect(running).toBe(true));
    await parts.collector.stop();
    expect(running).toBe(false);
    await new Promise((resolve) => setTimeout(resolve, 50));
    expect(running).toBe(false);
  });
});

describe('GarbageCollector over a store in memory', () => {
  it('finds nothing to do in a fresh store', async () => {
    const parts = await memoryFileStore();
    const { catalog, blobs } = parts;
    const collector = new GarbageCollector({ catalog, blobs, reportProblem: () => undefined });
    expect(await collector.run()).toEqual({ collectedBlobs: 0, collectedBytes: 0, sweptUploads: 0 });
    await parts.close();
  });
});
