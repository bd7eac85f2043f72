import type { Readable } from 'node:stream';
import type { CatalogStats, Entry, ListOptions } from '../catalog/catalog.ts';
import type { Digest } from '../core/digest.ts';
import type { Encoding } from '../core/blob.ts';
import type { FileName } from '../core/file-name.ts';
import type { FileVersion, Precondition } from '../core/file-version.ts';
import * as limits from '../core/limits.ts';

export type { Entry, ListOptions };
export type StoreStats = CatalogStats;

/** What the client claims about the content. Each claim must hold. */
export interface ContentClaims {
  /** Of the content before compression. */
  readonly digest?: Digest | undefined;
  /** Bytes before compression. */
  readonly logicalSize?: number | undefined;
}

/** A put without its bytes. */
export interface PutIntent {
  readonly name: FileName;
  readonly version: FileVersion;
  readonly claims: ContentClaims;
  readonly precondition?: Precondition | undefined;
  /** Set if the request repeats an earlier one: see `PutChange.firstSentMs`. */
  readonly firstSentMs?: number | undefined;
}

/** The bytes of a put. */
export interface PutBody {
  /** A Buffer is the whole body and must not be written to afterwards: it saves the cost of a stream. */
  readonly source: Readable | Buffer;
  /** Encoding of the body. */
  readonly encoding: Encoding;
  /** Bytes of the body, if announced. A body that ends earlier is `truncated-body`. */
  readonly announcedSize?: number | undefined;
  /** Whether nothing else uses the pieces of a stream in `source`, so that their memory may be freed. */
  readonly freesPieces?: boolean | undefined;
}

/** What `putWithoutBody` found under the name. */
export interface FoundBeforePut {
  readonly current: Entry | undefined;
}

export interface PutOptions {
  readonly signal?: AbortSignal | undefined;
  /** From `putWithoutBody`: saves the put a look-up. */
  readonly found?: FoundBeforePut | undefined;
}

export interface PutResult {
  /** The version that is stored under the name now. */
  readonly version: FileVersion;
  /** Whether this put is stored; false if a newer version is. */
  readonly stored: boolean;
  /** Whether the content was in the store before. */
  readonly deduplicated: boolean;
  /** Set if nothing is stored because `version` was removed after this request was first sent. */
  readonly removed?: boolean | undefined;
}

export type PutWithoutBody =
  /** Done: a newer version is stored, or the content was stored already and is now linked to the name. */
  | { readonly kind: 'settled'; readonly result: PutResult }
  | { readonly kind: 'body-needed'; readonly found: FoundBeforePut };

export interface PutWithoutBodyOptions {
  /** Whether stored content may be linked to the name: only if the client may read that content. */
  readonly mayLink: boolean;
  /** Bytes of the body, if announced. */
  readonly announcedSize?: number | undefined;
}

export interface RemoveIntent {
  readonly name: FileName;
  /** Versions up to and including this one are removed. */
  readonly version: FileVersion;
  readonly precondition?: Precondition | undefined;
}

export interface RemoveResult {
  /** The version that was removed, or the newer one that stays. */
  readonly version: FileVersion;
  readonly removed: boolean;
}

export interface ReadOptions {
  /** `stored`: in the encoding of the entry; `identity`: decoded. */
  readonly form: 'stored' | 'identity';
  /** A range of the identity bytes, with `form: 'identity'` only. Both ends inclusive, within the logical size. */
  readonly range?: { readonly first: number; readonly last: number } | undefined;
  readonly signal?: AbortSignal | undefined;
}

/** A file open for reading: entry and bytes belong together (invariant 3). */
export interface OpenFile {
  readonly entry: Entry;
  /** Encoding of `body`: that of the entry for `stored`, else `identity`. */
  readonly encoding: Encoding;
  /** Exact number of bytes in `body`. */
  readonly size: number;
  /**
   * The bytes. A Buffer is shared: do not write to it. A stream that meets wrong or missing bytes fails with
   * `damaged-blob` and never ends early; its receiver destroys it.
   */
  readonly body: Buffer | Readable;
}

/** A file as one look-up found it. */
export interface StoredFile {
  readonly entry: Entry;
  /** Whether the content is known to be damaged. */
  readonly damaged: boolean;

  /**
   * Opens this file, even if the name has another version by now. `undefined` if its bytes were moved or collected
   * since the look-up: look up again, at most `lookUpsMax` times in all.
   * @throws `damaged-blob`, `range-not-satisfiable`.
   */
  open(options: ReadOptions): Promise<OpenFile | undefined>;

  /** A URL that serves the stored form for `lifetimeSeconds`; `undefined` if the blob store has none. */
  redirectUrl(lifetimeSeconds: number): Promise<string | undefined>;
}

/**
 * The catalog and the blob store as one: what the server serves. All methods may be called concurrently.
 * Errors are FiletrackerErrors with the documented codes; any other error is a bug.
 */
export interface FileStore {
  /** The file under a name. */
  lookUp(name: FileName): Promise<StoredFile | undefined>;

  /**
   * Carries a put out from its headers alone, if that is possible; else checks that its body is worth sending.
   * @throws `precondition-failed`, `name-conflict`, `size-mismatch`, `too-large`, `quota-exceeded`.
   */
  putWithoutBody(intent: PutIntent, options: PutWithoutBodyOptions): Promise<PutWithoutBody>;

  /**
   * What must precede a put and may wait for another server. The caller awaits it before the put takes an upload slot
   * or anything of its body is read; not needed after `putWithoutBody`.
   */
  beforePut?(intent: PutIntent): Promise<void>;

  /**
   * Reads, verifies and stores a body. Leaves nothing behind unless it resolves (invariant 2). Reads the body to its
   * end even if its bytes are not needed. Does not destroy a stream in `body.source` after a failure: that would close
   * the connection of a request before the caller can respond.
   * @throws `digest-mismatch`, `size-mismatch`, `corrupt-encoding`, `truncated-body`, `too-large`,
   * `precondition-failed`, `name-conflict`, `quota-exceeded`, `no-space`, `unavailable`, `aborted`.
   */
  put(intent: PutIntent, body: PutBody, options?: PutOptions): Promise<PutResult>;

  /** `undefined` if there is no such file. @throws `precondition-failed`. */
  remove(intent: RemoveIntent): Promise<RemoveResult | undefined>;

  /** As in the catalog. */
  kindOfDirectory(directory: string): Promise<'directory' | 'file' | 'absent'>;
  listNames(directory: string, options?: ListOptions): AsyncIterable<readonly FileName[]>;
  listEntries(directory: string, options?: ListOptions): AsyncIterable<readonly Entry[]>;

  stats(): Promise<StoreStats>;

  /** Resolves if the store can serve reads and take changes. @throws the obstacle. */
  probe(): Promise<void>;

  /** Waits for changes in progress. Idempotent. */
  close(): Promise<void>;
}

/** The bounds of a file store that a flag may set; see core/limits.ts. */
export interface StoreLimits {
  readonly fileSizeMaxBytes: number;
  /** Stored bytes of all blobs; `Infinity` for no bound. The catalog enforces it. */
  readonly storedBytesMax: number;
  /** Names in the store; the same. */
  readonly entriesMax: number;
  readonly bufferedBodyMaxBytes: number;
  readonly bufferedGzipBodyMaxBytes: number;
  readonly bufferedBodiesTotalMaxBytes: number;
  readonly decodingRatioMax: number;
  readonly decodingRatioFreeBytes: number;
  readonly readCacheSizeBytes: number;
  /** 1 (fast) to 9 (small), for bodies that are not compressed. */
  readonly compressionLevel: number;
}

export const defaultStoreLimits: StoreLimits = {
  fileSizeMaxBytes: limits.fileSizeMaxBytes,
  storedBytesMax: Number.POSITIVE_INFINITY,
  entriesMax: Number.POSITIVE_INFINITY,
  bufferedBodyMaxBytes: limits.bufferedBodyMaxBytes,
  bufferedGzipBodyMaxBytes: limits.bufferedGzipBodyMaxBytes,
  bufferedBodiesTotalMaxBytes: limits.bufferedBodiesTotalMaxBytes,
  decodingRatioMax: limits.decodingRatioMax,
  decodingRatioFreeBytes: limits.decodingRatioFreeBytes,
  readCacheSizeBytes: limits.readCacheSizeBytes,
  compressionLevel: limits.compressionLevel,
};
