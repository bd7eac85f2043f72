import { FiletrackerError } from '../../core/errors.ts';
import { parseDirectory } from '../../core/file-name.ts';
import type { FileClient, FileInfo, RemoteListOptions } from '../file-client.ts';

/**
 * The files that a client can get: those on the server or, with `fromCache`, the newest cached version of each name, in no
 * order, which may be fewer.
 * @throws FiletrackerError `not-a-directory` if there are none, as from a server.
 */
export async function* listFiles(
  client: FileClient,
  options: RemoteListOptions,
  { fromCache }: { readonly fromCache: boolean },
): AsyncGenerator<FileInfo> {
  if (!fromCache) {
    yield* client.listRemoteEntries(options);
    return;
  }
  const { subpath = '/', cutoff = Infinity } = options;
  let isEmpty = true;
  let last = '';
  // Grouped by name, the newest version first.
  for await (const file of client.listLocalFiles(options)) {
    isEmpty = false;
    if (file.version > cutoff || file.name === last) continue;
    last = file.name;
    yield file;
  }
  const directory = parseDirectory(subpath);
  if (!isEmpty || directory === '/') return;
  throw new FiletrackerError(
    'not-a-directory',
    `Cannot list "${directory}": the cache holds no files below it`,
  );
}
