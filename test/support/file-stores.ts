import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { Readable } from 'node:stream';
import type { BlobStore } from '../../src/blobs/blob-store.ts';
import { DiskBlobStore } from '../../src/blobs/disk/disk-blob-store.ts';
import { MemoryBlobStore } from './doubles/memory-blob-store.ts';
import type { Catalog } from '../../src/catalog/catalog.ts';
import { LmdbCatalog } from '../../src/catalog/lmdb/lmdb-catalog.ts';
import { MemoryCatalog } from './doubles/memory-catalog.ts';
import { parseFileName, type FileName } from '../../src/core/file-name.ts';
import { ComposedFileStore } from '../../src/store/composed-file-store.ts';
import type {
  Entry,
  FileStore,
  OpenFile,
  PutBody,
  PutIntent,
  PutResult,
  ReadOptions,
  StoreLimits,
} from '../../src/store/file-store.ts';
import { openFile } from '../../src/store/get.ts';
import { collected, pieces } from './contents.ts';

/** A file store and its parts, for tests that look behind it or put another part in. */
export interface FileStoreParts {
  readonly store: ComposedFileStore;
  readonly catalog: Catalog;
  readonly blobs: BlobStore;
  /** What was reported instead of thrown. */
  readonly problems: { readonly problem: string; readonly error: unknown }[];
  close(): Promise<void>;
}

export interface FileStoreChanges {
  readonly limits?: Partial<StoreLimits> | undefined;
  readonly onRelease?: (() => void) | undefined;
  /** Puts another catalog or blob store between the file store and the real one. */
  readonly wrapCatalog?: ((catalog: Catalog) => Catalog) | undefined;
  readonly wrapBlobs?: ((blobs: BlobStore) => BlobStore) | undefined;
}

export type FileStoreFactory = (changes?: FileStoreChanges) => Promise<FileStoreParts>;

export function composed(
  catalog: Catalog,
  blobs: BlobStore,
  changes: FileStoreChanges,
  dispose: () => Promise<void>,
): FileStoreParts {
  const problems: { problem: string; error: unknown }[] = [];
  const store = new ComposedFileStore({
    catalog: changes.wrapCatalog?.(catalog) ?? catalog,
    blobs: changes.wrapBlobs?.(blobs) ?? blobs,
    reportProblem: (problem, error) => problems.push({ problem, error }),
    onRelease: changes.onRelease,
    limits: changes.limits,
  });
  const close = async (): Promise<void> => {
    await store.close();
    await catalog.close();
    await blobs.close();
    await dispose();
  };
  return { store, catalog, blobs, problems, close };
}

export const memoryFileStore: FileStoreFactory = async (changes = {}) => {
  const blobs = new MemoryBlobStore();
  return composed(new MemoryCatalog(blobs), blobs, changes, async () => undefined);
};

/** The embedded store, in a folder of its own. */
export const embeddedFileStore: FileStoreFactory = async (changes = {}) => {
  const folder = await mkdtemp(join(tmpdir(), 'filetracker-store-'));
  const blobs = await DiskBlobStore.open(folder);
  const folders = { journal: join(folder, 'journal'), catalog: join(folder, 'catalog') };
  const catalog = await LmdbCatalog.open({ folders, placer: blobs });
  return composed(catalog, blobs, changes, () => rm(folder, { recursive: true, force: true }));
};

export function nameOf(text: string): FileName {
  return parseFileName(text);
}

export type PutOptions = Partial<Omit<PutIntent, 'name' | 'version'>> &
  Partial<Omit<PutBody, 'source'>> & { readonly signal?: AbortSignal };

/** Puts bytes: as a Buffer, or in pieces through a stream. */
export function put(
  store: FileStore,
  name: string,
  version: number,
  bytes: Buffer | Readable,
  options: PutOptions = {},
): Promise<PutResult> {
  const { claims = {}, precondition, encoding = 'identity', announcedSize, signal } = options;
  return store.put(
    { name: nameOf(name), version, claims, precondition },
    { source: bytes, encoding, announcedSize },
    signal === undefined ? {} : { signal },
  );
}

export function streamOf(bytes: Buffer, pieceSizeBytes = 10_000): Readable {
  return Readable.from(pieces(bytes, pieceSizeBytes), { objectMode: false });
}

/** The entry under a name. */
export async function statOf(store: FileStore, name: FileName): Promise<Entry | undefined> {
  return (await store.lookUp(name))?.entry;
}

export async function read(
  store: FileStore,
  name: string,
  options: ReadOptions = { form: 'identity' },
): Promise<Buffer | undefined> {
  const file = await openFile(store, nameOf(name), options);
  return file && (await bodyOf(file));
}

export async function bodyOf(file: OpenFile): Promise<Buffer> {
  return Buffer.isBuffer(file.body) ? file.body : await collected(file.body);
}

/** Everything that the blob store holds: blobs, and uploads that were left. */
export async function leftovers(parts: FileStoreParts): Promise<{ blobs: number; uploads: number }> {
  let blobs = 0;
  for await (const _blob of parts.blobs.list()) blobs += 1;
  return { blobs, uploads: await parts.blobs.sweepStaged(Number.MAX_SAFE_INTEGER) };
}
