import { join } from 'node:path';
import type { Clock } from '../../../src/core/clock.ts';
import { DiskBlobStore } from '../../../src/blobs/disk/disk-blob-store.ts';
import { LmdbCatalog } from '../../../src/catalog/lmdb/lmdb-catalog.ts';
import { ComposedFileStore } from '../../../src/store/composed-file-store.ts';
import { GarbageCollector } from '../../../src/store/garbage-collector.ts';

export interface ProofStore extends AsyncDisposable {
  readonly files: ComposedFileStore;
  readonly catalog: LmdbCatalog;
  readonly blobs: DiskBlobStore;
  readonly collector: GarbageCollector;
}

export interface ProofStoreOptions {
  readonly onProblem?: (problem: string, error: unknown) => void;
  readonly rebuild?: boolean;
  readonly clock?: Clock;
  readonly segmentSizeBytes?: number;
}

/** The embedded store as the server opens it, with segments so short that compaction has work in seconds. */
export async function openProofStore(folder: string, options: ProofStoreOptions = {}): Promise<ProofStore> {
  const { onProblem = () => undefined, rebuild, clock } = options;
  const blobs = await DiskBlobStore.open(folder);
  const catalog = await LmdbCatalog.open({
    folders: { journal: join(folder, 'journal'), catalog: join(folder, 'catalog') },
    placer: blobs,
    segmentSizeBytes: options.segmentSizeBytes ?? 128 * 1024,
    rebuild,
    clock,
    onBackgroundError: (error) => onProblem('tidy the journal', error),
  });
  const reportProblem = onProblem;
  const collector = new GarbageCollector({ catalog, blobs, reportProblem, graceMs: 0, exclusive: true });
  const files = new ComposedFileStore({ catalog, blobs, reportProblem });
  await collector.start();
  const close = async (): Promise<void> => {
    await files.close();
    await collector.stop();
    await catalog.close();
    await blobs.close();
  };
  return { files, catalog, blobs, collector, [Symbol.asyncDispose]: close };
}
