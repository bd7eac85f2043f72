import { join } from 'node:path';
import type { Logger } from 'pino';
import { HttpTransport } from '../client/http/transport.ts';
import { remoteVersion } from '../client/http/remote-store.ts';
import type { ServerConfig } from '../config/server-config.ts';
import { isFiletrackerError } from '../core/errors.ts';
import type { FileStore } from '../store/file-store.ts';
import { ImportingFileStore, type OldServer } from '../store/import/importing-file-store.ts';
import { importFolderName } from '../store/import/tombstones.ts';
import type { UploadGate } from '../store/upload-gate.ts';

const reportedNamesMax = 1000;

/** The store that imports missing files from the server at `--fallback-url`. */
export function importingStore(
  fallbackUrl: string,
  { store, uploads }: { readonly store: FileStore; readonly uploads: UploadGate },
  { folder }: Pick<ServerConfig, 'folder'>,
  logger: Logger,
): Promise<FileStore> {
  return ImportingFileStore.open({
    store,
    uploads,
    oldServer: connectOldServer(fallbackUrl, (name) =>
      logger.warn({ name }, 'left out of lists: the old server has a file whose name is not valid here'),
    ),
    folder: join(folder, importFolderName),
    onImported: (name, version) => logger.debug({ name, version }, 'imported from the old server'),
  });
}

/**
 * The server to import from, reached as a client reaches any server. Old servers accept any name: lists leave out
 * names that are not valid here, and `onUnusable` receives each of them once.
 */
export function connectOldServer(
  url: string,
  onUnusable: (name: string) => void = () => undefined,
): OldServer & { close(): void } {
  const transport = new HttpTransport(url);
  const reported = new Set<string>();
  const report = (name: string): void => {
    if (reported.size >= reportedNamesMax || reported.has(name)) return;
    reported.add(name);
    onUnusable(name);
  };
  return {
    version: (name, signal) => remoteVersion(transport, name, { signal }),
    open: async (name, signal) => {
      const response = await transport.open(name, { signal });
      if (response.kind !== 'content') return undefined;
      const { file, encoding, transferSize, body } = response;
      const { version, size, digest } = file;
      return { version, size, digest, encoding, transferSize, body, cancel: () => response.cancel() };
    },
    list: async function* list(directory, upTo, signal) {
      try {
        const options = { signal, onUnusable: (line: string) => report(directory + line) };
        yield* transport.listNames(directory, { upTo }, options);
      } catch (error) {
        // The response for a directory that the server does not have.
        const absent =
          isFiletrackerError(error) && (error.details.status === 400 || error.details.status === 404);
        if (!absent) throw error;
      }
    },
    close: () => transport.close(),
  };
}
