import { createReadStream } from 'node:fs';
import { join } from 'node:path';
import { DiskBlobStore } from '../../../blobs/disk/disk-blob-store.ts';
import { LmdbCatalog } from '../../../catalog/lmdb/lmdb-catalog.ts';
import { cannot } from '../../../core/errors.ts';
import { makeFolderDurably, privateFolderMode } from '../../../fs/folders.ts';
import { ComposedFileStore } from '../../../store/composed-file-store.ts';
import type { FileStore } from '../../../store/file-store.ts';
import { migrateTree, type MigrateOptions, type MigrationReport, type MigrationTarget } from '../migrate.ts';
import { checkAdoptionTarget, folderKind, isLegacyFolder } from '../../folder-kind.ts';
import { isFolder, storeFolders } from '../../store-folders.ts';

/**
 * Adopts a folder of the legacy server, version 1, into a store: plain files under `files/`, whose times of
 * modification are the versions. The files are copied and compressed: a link would change with the plain file. After an
 * interruption it is simply run again.
 * @throws FiletrackerError `not-found`, `invalid-argument`, `store-locked`, and as `migrateTree`.
 */
export async function adoptPlainFiles(
  source: string,
  storeFolder: string,
  options: MigrateOptions = {},
): Promise<MigrationReport> {
  await checkPlainFiles(source);
  await checkAdoptionTarget(source, storeFolder);
  const inner = join(source, 'files');
  const files = (await isFolder(inner)) ? inner : source;
  await makeFolderDurably(storeFolder, privateFolderMode);
  const blobs = await DiskBlobStore.open(storeFolder);
  const catalog = await LmdbCatalog.open({ folders: storeFolders(storeFolder), placer: blobs });
  const store = new ComposedFileStore({ catalog, blobs, reportProblem: () => undefined });
  try {
    return await migrateTree(files, targetOf(store), { ...options, root: files });
  } finally {
    await store.close();
    await catalog.close();
    await blobs.close();
  }
}

/** Refuses folders whose files are not plain ones: their internals would become files of users. */
async function checkPlainFiles(source: string): Promise<void> {
  const { kind } = await folderKind(source);
  if (kind === 'absent') throw cannot('not-found', `adopt "${source}"`, 'there is no such folder');
  const refuse = (state: string): never => {
    throw cannot('invalid-argument', `adopt "${source}" as plain files`, state);
  };
  // A cache may be beside the `files/` of an old server; only `files/` is adopted.
  if (kind === 'cache' && !(await isFolder(join(source, 'files')))) refuse('it is the cache of a client');
  if (kind === 'to-adopt' || kind === 'mixed' || (await isLegacyFolder(source)))
    refuse('it is a folder of filetracker 2; use --adopt');
  if (kind === 'store' || kind === 'journal-lost') refuse('it is a store already');
}

function targetOf(store: FileStore): MigrationTarget {
  return {
    stat: async (name) => {
      const found = await store.lookUp(name);
      // A damaged blob is stored again.
      if (found === undefined || found.damaged) return undefined;
      const { version, logicalSize: size, digest } = found.entry;
      return { version, size, digest };
    },
    put: async ({ path, name, version, size }, signal) => {
      const source = createReadStream(path, { highWaterMark: 256 * 1024 });
      const body = { source, encoding: 'identity', announcedSize: size } as const;
      try {
        const result = await store.put({ name, version, claims: {} }, body, signal && { signal });
        return { stored: result.stored, sent: !result.deduplicated };
      } finally {
        source.destroy();
      }
    },
  };
}
