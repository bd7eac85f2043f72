import { FiletrackerError } from '../../core/errors.ts';
import { parseDirectory } from '../../core/file-name.ts';
import type { FileClient, FileInfo, RemoteListOptions } from '../file-client.ts';

/**
 * The files that a client can get: those on the server or, where there is none or it is not asked, the newest version of each
 * that is in the cache, in no order. Of a server that is not asked that is not all that it has.
 * @throws FiletrackerError `not-a-directory` where nothing is, as from a server.
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
  // Name by name, with the newest version first.
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
