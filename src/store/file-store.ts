import type { Readable } from 'node:stream';
import type { CatalogStats, Entry, ListOptions as CatalogListOptions } from '../catalog/catalog.ts';
import type { Digest } from '../core/digest.ts';
import type { Encoding } from '../core/blob.ts';
import type { FileName } from '../core/file-name.ts';
import type { FileVersion, Precondition } from '../core/file-version.ts';

/** What the sender says of a content; each claim that is made must hold. */
export interface ContentClaims {
  /** Of the content before compression. */
  readonly digest?: Digest | undefined;
  /** Bytes before compression. */
  readonly logicalSize?: number | undefined;
}

/** A put, but for the bytes. */
export interface PutIntent {
  readonly name: FileName;
  readonly version: FileVersion;
  readonly claims: ContentClaims;
  readonly precondition?: Precondition | undefined;
  /** Set if it repeats a request that was sent before: see `PutChange.firstSentMs`. */
  readonly firstSentMs?: number | undefined;
}

/** The bytes of a put. */
export interface PutBody {
  /**
   * A Buffer is the whole body, read and counted already: a server that holds a small one hands it over
   * without the cost of a stream. It must not be written to afterwards.
   */
  readonly source: Readable | Buffer;
  /** How the bytes are encoded as they come. */
  readonly encoding: Encoding;
  /** Bytes that will come, as announced; undefined where it is not known. A body that ends earlier is `truncated-body`. */
  readonly announcedSize?: number | undefined;
}

export interface PutOptions {
  readonly signal?: AbortSignal | undefined;
  /** Who sends it, for bounds on what one may do at a time; undefined where none hold. */
  readonly sender?: string | undefined;
}

export interface PutResult {
  /** The version that is stored under the name now. */
  readonly version: FileVersion;
  /** Whether this put is what is stored; false where a newer version was there. */
  readonly stored: boolean;
  /** Whether the content was in the store before. */
  readonly deduplicated: boolean;
  /** Set if nothing is stored, because `version` was removed since this request was first sent. */
  readonly removed?: boolean | undefined;
}

/** What the store can say of a put from its headers alone. */
export type PutForecast =
  /** Done: the answer is known without the body (superseded, or content already stored and now named). */
  { readonly kind: 'settled'; readonly result: PutResult } | { readonly kind: 'body-needed' };

export interface ForecastOptions {
  readonly mayLink: boolean;
  /** Bytes of the body, as announced. */
  readonly announcedSize?: number | undefined;
  /** As with the put itself. */
  readonly sender?: string | undefined;
}

export interface RemoveResult {
  /** The version that was removed, or the newer one that stays. */
  readonly version: FileVersion;
  readonly removed: boolean;
}

/** How a reader wants the bytes. */
export interface ReadOptions {
  /** `stored`: as they lie in the store, whatever that is; `identity`: decoded. */
  readonly form: 'stored' | 'identity';
  /** A range of the identity bytes; with `form: 'identity'` only. Both ends inclusive, within the logical size. */
  readonly range?: { readonly first: number; readonly last: number } | undefined;
  readonly signal?: AbortSignal | undefined;
}

/** A file opened for reading: entry and bytes are of the same instant (invariant 3). */
export interface OpenFile {
  readonly entry: Entry;
  /** The encoding of `body`: the entry's for `stored`, else `identity`. */
  readonly encoding: Encoding;
  /** Exact number of bytes in `body`. */
  readonly size: number;
  /**
   * The bytes. A Buffer is shared: do not write to it. A stream fails with `damaged-blob` rather than end with
   * too few or wrong bytes; the receiver of the stream destroys it.
   */
  readonly body: Buffer | Readable;
}

/** An entry, and whether its content is known to be damaged. */
export type FileStatus = Entry & { readonly damaged?: boolean | undefined };

export interface ListOptions extends CatalogListOptions {
  /** As with a put. */
  readonly sender?: string | undefined;
}

export type { Entry };
export type StoreStats = CatalogStats;

/**
 * The catalog and the blob store as one: what the server serves. All methods may be called concurrently.
 * Errors are FiletrackerError with the codes named; what else is thrown is a bug.
 */
export interface FileStore {
  /** The entry under a name; of a damaged content too. */
  stat(name: FileName): Promise<FileStatus | undefined>;

  /**
   * Opens a file. Undefined where there is none.
   * @throws `damaged-blob` where the content is known or found to be bad.
   */
  open(name: FileName, options: ReadOptions): Promise<OpenFile | undefined>;

  /**
   * Where a reader can get the stored form of a file without this server, for a while; undefined where there is no
   * such place, or no such file.
   */
  directAddress(
    name: FileName,
    lifetimeSeconds: number,
  ): Promise<{ readonly entry: Entry; readonly url: string } | undefined>;

  /**
   * What is known before the body is read. With `mayLink`, and a claimed digest that is stored already, the
   * put is carried out without its body; set it only where the client may read that content.
   * @throws `precondition-failed`, `name-conflict`, `size-mismatch`, `too-large`, `quota-exceeded`.
   */
  forecast(intent: PutIntent, options: ForecastOptions): Promise<PutForecast>;

  /**
   * Reads, verifies and stores a body. Nothing is left behind unless it resolves (invariant 2). A body that
   * is not needed is read to its end all the same. After a failure a stream in `body.source` is left where
   * reading stopped, not destroyed: with a request its connection would go, and with that the answer, so the
   * caller decides between answering first and destroying.
   * @throws `digest-mismatch`, `size-mismatch`, `corrupt-encoding`, `truncated-body`, `too-large`,
   * `precondition-failed`, `name-conflict`, `no-space`, `busy`, `rate-limited`, `aborted`.
   */
  put(intent: PutIntent, body: PutBody, options?: PutOptions): Promise<PutResult>;

  /** Removes versions up to `version`. Undefined where there is no such file. @throws `precondition-failed`. */
  remove(intent: {
    readonly name: FileName;
    readonly version: FileVersion;
    readonly precondition?: Precondition | undefined;
  }): Promise<RemoveResult | undefined>;

  /** As in the catalog; `kind` tells whether the directory is one. */
  kindOfDirectory(directory: string): Promise<'directory' | 'file' | 'absent'>;
  listNames(directory: string, options?: ListOptions): AsyncIterable<readonly FileName[]>;
  listEntries(directory: string, options?: ListOptions): AsyncIterable<readonly Entry[]>;

  stats(): Promise<StoreStats>;

  /** Resolves if the store can serve and take changes. @throws what stands in the way. */
  probe(): Promise<void>;

  /** Waits for what is under way and makes all durable. Idempotent. */
  close(): Promise<void>;
}
