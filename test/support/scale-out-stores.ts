import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { DiskBlobStore } from '../../src/blobs/disk/disk-blob-store.ts';
import { S3BlobStore } from '../../src/blobs/s3/s3-blob-store.ts';
import { LmdbCatalog } from '../../src/catalog/lmdb/lmdb-catalog.ts';
import { PostgresCatalog } from '../../src/catalog/postgres/postgres-catalog.ts';
import { freshBucket, freshSchema, postgresUrl } from './engines.ts';
import { composed, type FileStoreFactory } from './file-stores.ts';

async function folderOfTest(): Promise<string> {
  return await mkdtemp(join(tmpdir(), 'filetracker-store-'));
}

/** Catalog in PostgreSQL, blobs in S3. */
export const scaleOutFileStore: FileStoreFactory = async (changes = {}) => {
  const { schema, drop } = freshSchema();
  const blobs = await S3BlobStore.open(freshBucket());
  const catalog = await PostgresCatalog.open({ url: postgresUrl(), schema, placer: blobs });
  return composed(catalog, blobs, changes, drop);
};

/** Catalog in PostgreSQL, blobs in a folder that servers share. */
export const sharedFolderFileStore: FileStoreFactory = async (changes = {}) => {
  const { schema, drop } = freshSchema();
  const folder = await folderOfTest();
  const blobs = await DiskBlobStore.open(folder, { uniqueKeys: true });
  const catalog = await PostgresCatalog.open({ url: postgresUrl(), schema, placer: blobs });
  return composed(catalog, blobs, changes, async () => {
    await drop();
    await rm(folder, { recursive: true, force: true });
  });
};

/** The embedded catalog, blobs in S3. */
export const embeddedWithBucketFileStore: FileStoreFactory = async (changes = {}) => {
  const folder = await folderOfTest();
  const blobs = await S3BlobStore.open(freshBucket());
  const folders = { journal: join(folder, 'journal'), catalog: join(folder, 'catalog') };
  const catalog = await LmdbCatalog.open({ folders, placer: blobs });
  return composed(catalog, blobs, changes, () => rm(folder, { recursive: true, force: true }));
};
