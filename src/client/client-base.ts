import type { CallOptions } from '../core/concurrency.ts';
import { formatVersionedName, parseDirectory, parseVersionedName } from '../core/file-name.ts';
import type { FileName, GivenName } from '../core/file-name.ts';
import { checkVersion, type FileVersion } from '../core/file-version.ts';
import type { ListQuery } from '../protocol/query.ts';
import type { FileInfo, NameListOptions, RemoteListOptions } from './file-client.ts';

/** The methods of FileClient that follow from others. */
export abstract class ClientBase implements AsyncDisposable {
  /** Aborted by `close()`. */
  protected readonly closing = new AbortController();

  abstract stat(name: GivenName, options?: CallOptions): Promise<FileInfo | undefined>;
  abstract close(): Promise<void>;
  /** The names on the server below `directory`. */
  protected abstract listNames(
    directory: string,
    query: ListQuery,
    options: CallOptions,
  ): AsyncIterable<FileName>;

  async fileVersion(name: GivenName, options: CallOptions = {}): Promise<FileVersion | undefined> {
    return (await this.stat({ name: parseVersionedName(name).name }, options))?.version;
  }

  async fileSize(name: GivenName, options: CallOptions = {}): Promise<number | undefined> {
    return (await this.stat(name, options))?.size;
  }

  async exists(name: GivenName, options: CallOptions = {}): Promise<boolean> {
    return (await this.stat(name, options)) !== undefined;
  }

  async *listRemoteFiles(options: NameListOptions = {}): AsyncIterable<string> {
    const { directory, query } = listArguments(options);
    const absolute = options.absolutePaths ?? true;
    for await (const name of this.listNames(directory, query, options)) {
      yield absolute ? name : name.slice(directory.length);
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.close();
  }
}

/** @throws FiletrackerError `invalid-name`, `invalid-version`. */
export function listArguments({ subpath = '/', cutoff }: RemoteListOptions): {
  readonly directory: string;
  readonly query: ListQuery;
} {
  const upTo = cutoff === undefined ? undefined : checkVersion(cutoff);
  return { directory: parseDirectory(subpath), query: { upTo } };
}

export function infoOf({ name, version, size, digest }: Omit<FileInfo, 'versionedName'>): FileInfo {
  return { name, version, versionedName: formatVersionedName(name, version), size, digest };
}
