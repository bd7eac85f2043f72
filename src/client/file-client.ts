import type { Readable } from 'node:stream';
import type { Digest } from '../core/digest.ts';
import type { FileName, GivenName } from '../core/file-name.ts';
import type { FileVersion } from '../core/file-version.ts';
import type { Chunks } from '../streams/chunks.ts';
import type { ProgressListener } from './transfer/download.ts';

/** What is known of a file. */
export interface FileInfo {
  readonly name: FileName;
  readonly version: FileVersion;
  /** `name@version`: names this very content for good. */
  readonly versionedName: string;
  /** Bytes of the content; undefined where a legacy server does not tell. */
  readonly size: number | undefined;
  /** SHA-256 of the content; undefined where a legacy server does not tell. */
  readonly digest: Digest | undefined;
}

export interface CallOptions {
  readonly signal?: AbortSignal | undefined;
}

export interface GetOptions extends CallOptions {
  /** Fetch from the server whatever the cache has, and replace what the cache has. */
  readonly forceRefresh?: boolean | undefined;
  /** Serve from the cache alone: the newest version there, unless one is named. */
  readonly offline?: boolean | undefined;
  /** Compute the digest of what the cache serves before it is handed out; what is bad is fetched again. */
  readonly verify?: boolean | undefined;
  readonly onProgress?: ProgressListener | undefined;
}

export interface GetFileOptions extends GetOptions {
  /** Keep the content in the cache; true unless given. */
  readonly addToCache?: boolean | undefined;
  /**
   * Put the file in place of a symbolic link, pipe or device at `saveTo`; false unless given: then the content is
   * written through it, as by a shell's `>`.
   */
  readonly replaceSpecial?: boolean | undefined;
}

export interface GetStreamOptions extends GetOptions {
  /** Bring the content into the cache first and stream it from there. Without it what is not cached streams from the server. */
  readonly serveFromCache?: boolean | undefined;
}

export interface FetchedFile extends FileInfo {
  /** Whether the content came from the cache. */
  readonly cached: boolean;
}

export interface FetchedStream extends FetchedFile {
  /** The content; fails rather than ends if it is not whole and right. The receiver reads or destroys it. */
  readonly stream: Readable;
}

export interface PutOptions extends CallOptions {
  /** Keep the content in the cache; true unless given. */
  readonly toLocalStore?: boolean | undefined;
  /** Send the content to the server, if there is one; true unless given. */
  readonly toRemoteStore?: boolean | undefined;
  /** Compress where that pays; true unless given. */
  readonly compressHint?: boolean | undefined;
  readonly onProgress?: ProgressListener | undefined;
}

export interface StoredFile extends FileInfo {
  /** Whether this put is what is stored now; false where a newer version was there and stays. */
  readonly stored: boolean;
  /** Whether the content travelled; false where the server had it, or there is no server. */
  readonly sent: boolean;
}

export interface DeletedFile {
  readonly name: FileName;
  /** The newer version that stays because only older ones were to go; undefined where the file is gone. */
  readonly keptVersion: FileVersion | undefined;
}

export interface ListOptions extends CallOptions {
  /** Only files in this directory and those below it; `/` unless given. */
  readonly subpath?: string | undefined;
}

export interface RemoteListOptions extends ListOptions {
  /** Only versions up to and including this one. */
  readonly cutoff?: FileVersion | undefined;
}

export interface NameListOptions extends RemoteListOptions {
  /** Give `/a/b` rather than the name relative to `subpath`; true unless given. */
  readonly absolutePaths?: boolean | undefined;
}

/**
 * Files by name, as programs use them: `Client` with a server and a cache, `MemoryClient` for tests. A name
 * may carry a version (`/a/b@1700000000`), which then is asked for and no other. Names that others chose are given
 * as `{ name }` or `{ name, version }`, because one that ends in `@` and digits would be read as a version.
 *
 * All methods reject with FiletrackerError. `invalid-name` for what is no name; `not-found` where a command
 * finds no file (a look-up gives undefined); `unreachable` and `timeout` for the server; `aborted` by the
 * signal; `io`, `no-space`, `read-only` for local files.
 */
export interface FileClient extends AsyncDisposable {
  /** Makes the content appear at the path `saveTo`, whole and verified or not at all. */
  getFile(name: GivenName, saveTo: string, options?: GetFileOptions): Promise<FetchedFile>;
  getStream(name: GivenName, options?: GetStreamOptions): Promise<FetchedStream>;

  /** What is known of a file; of the newest version unless one is named. */
  stat(name: GivenName, options?: CallOptions): Promise<FileInfo | undefined>;
  /** The newest version; a version in `name` is ignored. */
  fileVersion(name: GivenName, options?: CallOptions): Promise<FileVersion | undefined>;
  fileSize(name: GivenName, options?: CallOptions): Promise<number | undefined>;
  exists(name: GivenName, options?: CallOptions): Promise<boolean>;

  /** Stores the file at `path`. Its version is that of `name`, else its time of modification. */
  putFile(name: GivenName, path: string, options?: PutOptions): Promise<StoredFile>;
  /**
   * Stores bytes that come. Their version is that of `name`, else the time now. The source is the put's: it is destroyed,
   * or returned, where it is not read to its end, which the signal and `close()` see to at once.
   */
  putStream(name: GivenName, source: Readable | Chunks, options?: PutOptions): Promise<StoredFile>;

  /** Removes a file, on the server and in the cache, or where the cache has the only copy; with a version in `name`, only up to that one. */
  deleteFile(name: GivenName, options?: CallOptions): Promise<DeletedFile>;

  /** Every version in the cache, in no order. */
  listLocalFiles(options?: ListOptions): AsyncIterable<FileInfo>;
  /** Names on the server, sorted if the server sorts. */
  listRemoteFiles(options?: NameListOptions): AsyncIterable<string>;
  /** Files on the server, with what the server tells of each. */
  listRemoteEntries(options?: RemoteListOptions): AsyncIterable<FileInfo>;

  /** Idempotent. */
  close(): Promise<void>;
}
