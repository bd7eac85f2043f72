import { onTestFinished } from 'vitest';
import { memoryFileStore, type FileStoreChanges, type FileStoreParts } from './file-stores.ts';
import type { BlobStore, StagedUpload } from '../../src/blobs/blob-store.ts';

export async function openedFileStore(changes: FileStoreChanges = {}): Promise<FileStoreParts> {
  const parts = await memoryFileStore(changes);
  onTestFinished(() => parts.close());
  return parts;
}

/** The object with some of its methods replaced; the others work on the object itself. */
export function changed<T extends object>(target: T, methods: Partial<T>): T {
  return new Proxy(target, {
    get: (_, key) => {
      const value: unknown = Reflect.get(key in methods ? methods : target, key, target);
      return typeof value === 'function' ? value.bind(target) : value;
    },
  });
}

export function uploadsChanged(
  blobs: BlobStore,
  change: (upload: StagedUpload) => Partial<StagedUpload>,
): BlobStore {
  return changed(blobs, {
    stage: async (options) => {
      const upload = await blobs.stage(options);
      return changed(upload, change(upload));
    },
  });
}

export async function collectAll(parts: FileStoreParts): Promise<void> {
  const all = await parts.catalog.listUnreferenced(Number.MAX_SAFE_INTEGER, 1_000);
  await parts.catalog.collect(all, Number.MAX_SAFE_INTEGER);
}
