import type { Readable } from 'node:stream';
import type { CallOptions } from '../core/concurrency.ts';
import type { Digest } from '../core/digest.ts';
import type { FileName, GivenName } from '../core/file-name.ts';
import type { FileVersion } from '../core/file-version.ts';
import type { Chunks } from '../streams/chunks.ts';
import type { ProgressListener } from './transfer/download.ts';

/**
 * A file in a version.
 *
 * @example
 * ```ts
 * import { Readable } from 'node:stream';
 * import { Client } from 'filetracker';
 * import type { DeletedFile, Digest, FetchedFile, FileInfo, FileVersion, StoredFile } from 'filetracker';
 *
 * const client = Client.fromEnvironment();
 * const put: StoredFile = await client.putStream('/examples/info.txt', Readable.from(['hello\n']));
 * const got: FetchedFile = await client.getFile(put.versionedName, 'info.txt');
 * const info: FileInfo | undefined = await client.stat('/examples/info.txt');
 * const [version, digest]: [FileVersion, Digest | undefined] = [put.version, info?.digest];
 * console.log(version, digest, put.sent, got.cached);
 * const deleted: DeletedFile = await client.deleteFile('/examples/info.txt');
 * console.log(deleted.keptVersion);
 * await client.close();
 * ```
 */
export interface FileInfo {
  readonly name: FileName;
  /** Seconds since 1970 UTC; may be negative. */
  readonly version: FileVersion;
  /** `name@version`, which always names the same content. */
  readonly versionedName: string;
  /** Bytes of the content; `undefined` if a legacy server does not state them. */
  readonly size: number | undefined;
  /** SHA-256 of the content; `undefined` from a legacy server. */
  readonly digest: Digest | undefined;
}

/** Options of every call that fetches a file. */
export interface GetOptions extends CallOptions {
  /** Fetch from the server even if the file is cached, and replace the cached copy. */
  readonly forceRefresh?: boolean | undefined;
  /** Serve from the cache only: the newest cached version, unless the name has one. */
  readonly offline?: boolean | undefined;
  /** Check the digest of a cached copy before it is used; a damaged copy is fetched again. */
  readonly verify?: boolean | undefined;
  readonly onProgress?: ProgressListener | undefined;
}

/**
 * Options of `getFile`.
 *
 * @example
 * ```ts
 * import { Readable } from 'node:stream';
 * import { Client } from 'filetracker';
 * import type { GetFileOptions } from 'filetracker';
 *
 * const client = Client.fromEnvironment();
 * await client.putStream('/examples/get-options.txt', Readable.from(['hello\n']));
 * const options: GetFileOptions = { addToCache: false, signal: AbortSignal.timeout(60_000) };
 * await client.getFile('/examples/get-options.txt', 'get-options.txt', options);
 * await client.close();
 * ```
 */
export interface GetFileOptions extends GetOptions {
  /** Keep the content in the cache; `true` unless given. */
  readonly addToCache?: boolean | undefined;
  /**
   * Replace a symbolic link, pipe or device at the target path; `false` unless given: the content is then written through
   * it, as by `>` in a shell.
   */
  readonly replaceSpecial?: boolean | undefined;
}

/**
 * Options of `getStream`.
 *
 * @example
 * ```ts
 * import { Readable } from 'node:stream';
 * import { Client } from 'filetracker';
 * import type { CallOptions, FetchedStream, GetOptions, GetStreamOptions } from 'filetracker';
 *
 * const client = Client.fromEnvironment();
 * const call: CallOptions = { signal: AbortSignal.timeout(60_000) };
 * await client.putStream('/examples/stream.txt', Readable.from(['hello\n']), call);
 * const verified: GetOptions = { ...call, verify: true };
 * const options: GetStreamOptions = { ...verified, serveFromCache: true };
 * const fetched: FetchedStream = await client.getStream('/examples/stream.txt', options);
 * for await (const piece of fetched.stream) console.log(String(piece));
 * await client.close();
 * ```
 */
export interface GetStreamOptions extends GetOptions {
  /** Fetch the content into the cache and stream it from there; `false` unless given: it then streams from the server. */
  readonly serveFromCache?: boolean | undefined;
}

/** A file that was fetched. */
export interface FetchedFile extends FileInfo {
  /** Whether the content came from the cache. */
  readonly cached: boolean;
}

/** A file that is being fetched. */
export interface FetchedStream extends FetchedFile {
  /** The content. Fails, rather than ends, if it is incomplete or damaged. The caller must read or destroy it. */
  readonly stream: Readable;
}

/**
 * Options of `putFile` and `putStream`.
 *
 * @example
 * ```ts
 * import { Readable } from 'node:stream';
 * import { Client } from 'filetracker';
 * import type { PutOptions } from 'filetracker';
 *
 * const client = Client.fromEnvironment();
 * const options: PutOptions = {
 *   toLocalStore: false, // not needed on this machine again
 *   onProgress: ({ phase, done, total }) => console.log(`${phase}: ${done} of ${total} bytes`),
 * };
 * await client.putStream('/examples/put-options.txt', Readable.from(['hello\n']), options);
 * await client.close();
 * ```
 */
export interface PutOptions extends CallOptions {
  /** Keep the content in the cache; `true` unless given. */
  readonly toLocalStore?: boolean | undefined;
  /** Send the content to the server, if there is one; `true` unless given. */
  readonly toRemoteStore?: boolean | undefined;
  /** Compress the content if that pays; `true` unless given. */
  readonly compressHint?: boolean | undefined;
  readonly onProgress?: ProgressListener | undefined;
}

/** The result of a put. */
export interface StoredFile extends FileInfo {
  /** Whether this put is what is stored now; `false` if a newer version was stored already and stays. */
  readonly stored: boolean;
  /** Whether the content was sent; `false` if the server had it already, or there is no server. */
  readonly sent: boolean;
}

/** The result of a removal. */
export interface DeletedFile {
  readonly name: FileName;
  /** The newer version that stays, if only older ones were to be removed. */
  readonly keptVersion: FileVersion | undefined;
}

/** Options of every list. */
export interface ListOptions extends CallOptions {
  /** Only files below this directory; `/` unless given. */
  readonly subpath?: string | undefined;
}

/** Options of `listRemoteEntries`. */
export interface RemoteListOptions extends ListOptions {
  /** Only versions up to and including this one. */
  readonly cutoff?: FileVersion | undefined;
}

/**
 * Options of `listRemoteFiles`.
 *
 * @example
 * ```ts
 * import { Readable } from 'node:stream';
 * import { Client } from 'filetracker';
 * import type { ListOptions, NameListOptions, RemoteListOptions } from 'filetracker';
 *
 * const client = Client.fromEnvironment();
 * await client.putStream('/examples/list.txt', Readable.from(['hello\n']));
 * const below: ListOptions = { subpath: '/examples' };
 * const old: RemoteListOptions = { ...below, cutoff: 1_700_000_000 };
 * const relative: NameListOptions = { ...below, absolutePaths: false };
 * for await (const file of client.listLocalFiles(below)) console.log(file.versionedName);
 * for await (const file of client.listRemoteEntries(old)) console.log(file.name, file.size);
 * for await (const name of client.listRemoteFiles(relative)) console.log(name); // list.txt
 * await client.close();
 * ```
 */
export interface NameListOptions extends RemoteListOptions {
  /** Whole names, rather than names relative to `subpath`; `true` unless given. */
  readonly absolutePaths?: boolean | undefined;
}

/**
 * Files by name: `Client` with a server and a cache, `MemoryClient` for tests.
 *
 * A name may include a version (`/a/b@1700000000`): then only that version counts. Pass a name from elsewhere as
 * `{ name }` or `{ name, version }`, because one that ends in `@` and digits would be read as a versioned name.
 *
 * All methods reject with FiletrackerError: `invalid-name` and `invalid-version` for the name, `invalid-argument` for any
 * other argument, `not-found` if a command finds no file (a look-up returns `undefined`), `unreachable` and `timeout` for the
 * server, `aborted` by the signal, `io`, `no-space` and `read-only` for local files, and the server's own codes.
 *
 * @example
 * ```ts
 * import { Readable } from 'node:stream';
 * import { MemoryClient } from 'filetracker';
 * import type { FileClient } from 'filetracker';
 *
 * async function lineCount(files: FileClient, name: string): Promise<number> {
 *   const { stream } = await files.getStream(name);
 *   return (await stream.setEncoding('utf8').toArray()).join('').split('\n').length - 1;
 * }
 *
 * const files = new MemoryClient();
 * await files.putStream('/lines.txt', Readable.from(['one\n', 'two\n']));
 * console.log(await lineCount(files, '/lines.txt')); // 2
 * ```
 */
export interface FileClient extends AsyncDisposable {
  /** Writes a file to the path `saveTo`: complete and verified, or not at all. */
  getFile(name: GivenName, saveTo: string, options?: GetFileOptions): Promise<FetchedFile>;
  /** Streams a file. */
  getStream(name: GivenName, options?: GetStreamOptions): Promise<FetchedStream>;

  /** Looks a file up: the newest version, unless the name has one. Returns `undefined` if there is none. */
  stat(name: GivenName, options?: CallOptions): Promise<FileInfo | undefined>;
  /** The newest version, whether or not the name has one; `undefined` if there is no such file. */
  fileVersion(name: GivenName, options?: CallOptions): Promise<FileVersion | undefined>;
  /** Bytes of the content; `undefined` if there is no such file, or a legacy server does not state them. */
  fileSize(name: GivenName, options?: CallOptions): Promise<number | undefined>;
  exists(name: GivenName, options?: CallOptions): Promise<boolean>;

  /**
   * Stores the file at `path`. Its version is that of the name, else its time of modification.
   * @throws FiletrackerError also `changed-during-upload`; `removed` if another client removed the file during retries.
   */
  putFile(name: GivenName, path: string, options?: PutOptions): Promise<StoredFile>;
  /**
   * Stores the bytes, or the UTF-8 text, of `source`. The version is that of the name, else the current time. The call owns
   * the source: if it is not read to its end, it is destroyed, at once on an abort or `close()`.
   * @throws FiletrackerError also `removed` if another client removed the file during retries.
   */
  putStream(name: GivenName, source: Readable | Chunks, options?: PutOptions): Promise<StoredFile>;

  /** Removes a file from the server and the cache; with a version in the name, only versions up to that one. */
  deleteFile(name: GivenName, options?: CallOptions): Promise<DeletedFile>;

  /** Lists every cached version, unordered. */
  listLocalFiles(options?: ListOptions): AsyncIterable<FileInfo>;
  /** Lists the names on the server, sorted by bytes unless a legacy server does not sort. */
  listRemoteFiles(options?: NameListOptions): AsyncIterable<string>;
  /** Lists the files on the server. */
  listRemoteEntries(options?: RemoteListOptions): AsyncIterable<FileInfo>;

  /** Aborts transfers and closes all connections. Idempotent. */
  close(): Promise<void>;
}
