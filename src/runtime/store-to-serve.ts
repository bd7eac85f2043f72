import { join } from 'node:path';
import type { Logger } from 'pino';
import { ImportingFileStore } from '../store/import/importing-file-store.ts';
import { importFolderName } from '../store/import/tombstones.ts';
import type { FileStore } from '../store/file-store.ts';
import type { ServerConfig } from '../config/server-config.ts';

/** The store itself, or in a migration by import the one that brings files of the old server into it. */
export async function storeToServe(
  files: FileStore,
  config: Pick<ServerConfig, 'fallbackUrl' | 'fallbackMode' | 'folder'>,
  logger: Logger,
): Promise<FileStore> {
  const { fallbackUrl, fallbackMode, folder } = config;
  if (fallbackUrl === undefined || fallbackMode !== 'import') return files;
  const { connectOldServer } = await import('./old-server.ts');
  return ImportingFileStore.open({
    store: files,
    oldServer: connectOldServer(fallbackUrl, (name) =>
      logger.warn({ name }, 'left out of lists: the old server has what cannot be a name here'),
    ),
    folder: join(folder, importFolderName),
    onImported: (name, version) => logger.debug({ name, version }, 'imported from the old server'),
  });
}
