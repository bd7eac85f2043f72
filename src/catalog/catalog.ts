import type { BlobDescription, Encoding } from '../core/blob.ts';
import type { Digest } from '../core/digest.ts';
import type { FileName } from '../core/file-name.ts';
import type { FileVersion, Precondition } from '../core/file-version.ts';

/** A row of the catalog: a name and the blob that is stored under it. */
export interface Entry extends BlobDescription {
  readonly name: FileName;
  readonly version: FileVersion;
}

/** Where the bytes of a blob are. */
export type BlobLocation =
  /** In the blob store, under this key. */
  | { readonly kind: 'object'; readonly key: string }
  /**
   * In the catalog. `read` returns the stored bytes, or `undefined` if they were moved or collected since the look-up
   * (look up again). @throws FiletrackerError `damaged-blob`.
   */
  | { readonly kind: 'inline'; read(): Promise<Buffer | undefined> };

/** An entry and the location of its bytes, of the same instant. */
export interface LocatedEntry {
  readonly entry: Entry;
  readonly location: BlobLocation;
  /** The blob is known to be damaged (by verification or adoption): reading it must fail. */
  readonly damaged: boolean;
}

/** A blob as the catalog knows it. */
export interface BlobRecord extends BlobDescription {
  readonly location: BlobLocation;
  /** The number of entries that name it. */
  readonly references: number;
  readonly damaged: boolean;
}

/** The entry under a name; without one, the version that was removed, as long as that is remembered. */
export type NameStanding =
  | { readonly kind: 'entry'; readonly version: FileVersion; readonly digest: Digest }
  | { readonly kind: 'removed'; readonly version: FileVersion; readonly timeMs: number }
  | { readonly kind: 'nothing' };

/** Where the bytes of a put are. */
export type PutContent =
  /** In the change; at most `capabilities.inlineSizeMaxBytes`. */
  | { readonly kind: 'inline'; readonly bytes: Buffer }
  /** Sealed in the blob store; placed only if the blob is not stored already. */
  | { readonly kind: 'staged'; readonly stagedId: string }
  /** In the store already, as the caller has seen. */
  | { readonly kind: 'stored' };

/** A put. If the blob is stored already, its description is ignored but for the digest. */
export interface PutChange extends BlobDescription {
  readonly name: FileName;
  readonly version: FileVersion;
  readonly content: PutContent;
  /**
   * Size of the content as the client sent it. It is held against the bound on all blobs whether the blob is stored already
   * or not, so that the outcome does not reveal that.
   */
  readonly offeredSize?: number | undefined;
  readonly precondition?: Precondition;
  /**
   * Set if this put repeats an earlier request: its time, in milliseconds since 1970 by the clock of this machine. A removal
   * of this version or a newer one since then stays in effect, because the put may have taken effect before it. Any other
   * put is stored, whatever was removed.
   */
  readonly firstSentMs?: number | undefined;
  /**
   * Set if this change may have been made already, because the response to an earlier request was lost: the state of the
   * name just before that request. See `outcomeOfRepeatedPut`.
   */
  readonly stoodBefore?: NameStanding | undefined;
}

export type PutOutcome =
  | {
      readonly kind: 'stored';
      readonly version: FileVersion;
      /** The blob was stored already; the change's content was not used: the caller discards it. */
      readonly deduplicated: boolean;
      /** The object of a blob that was stored already: the caller checks that its bytes still exist. */
      readonly object?: { readonly key: string; readonly storedSize: number } | undefined;
    }
  /** A newer version is stored; for a put with `firstSentMs` also: it was removed since then. */
  | { readonly kind: 'superseded'; readonly version: FileVersion }
  | { readonly kind: 'precondition-failed' }
  /** `other` is a file above or below the name: both cannot be files (invariant 8). */
  | { readonly kind: 'name-conflict'; readonly other: FileName }
  /** A limit of the catalog would be exceeded; `limit` describes it in words. */
  | { readonly kind: 'limit-reached'; readonly limit: string }
  /** The content was `stored`, but the blob is gone or damaged: send the content. */
  | { readonly kind: 'content-missing' };

export interface RemoveChange {
  readonly name: FileName;
  /** Stored versions up to and including this one are removed. */
  readonly version: FileVersion;
  readonly precondition?: Precondition;
  /** As in a put: see `outcomeOfRepeatedRemove`. */
  readonly stoodBefore?: NameStanding | undefined;
}

export type RemoveOutcome =
  | { readonly kind: 'removed'; readonly version: FileVersion }
  | { readonly kind: 'superseded'; readonly version: FileVersion }
  | { readonly kind: 'precondition-failed' }
  | { readonly kind: 'absent' };

/** The part of a blob store that a catalog needs while it commits. `BlobStore` documents the guarantees. */
export interface BlobPlacer {
  place(
    placements: readonly {
      readonly stagedId: string;
      readonly digest: Digest;
      readonly encoding: Encoding;
    }[],
  ): Promise<readonly string[]>;
  remove(keys: readonly string[]): Promise<void>;
  /** Stored size in bytes, or `undefined` if there is no such object; for the rebuild of a lost index. */
  size(key: string): Promise<number | undefined>;
}

/** A blob whose bytes are complete and durable in the blob store. */
export interface PlacedBlob extends BlobDescription {
  readonly key: string;
  /** Whether the bytes are known to be damaged. */
  readonly damaged?: boolean | undefined;
}

export interface ListOptions {
  /** Only names after this one, in byte order. */
  readonly after?: FileName | undefined;
  /** The maximum number of names. */
  readonly limit?: number | undefined;
  /** Only versions up to and including this one. */
  readonly upTo?: FileVersion | undefined;
  readonly signal?: AbortSignal | undefined;
}

export interface CatalogStats {
  readonly entries: number;
  readonly blobs: number;
  /** Sum of the logical sizes of all entries, each name counted. */
  readonly logicalBytes: number;
  /** Sum of the logical sizes of all blobs, each counted once; `undefined` if the catalog does not count it. */
  readonly uniqueLogicalBytes: number | undefined;
  /** Sum of the stored sizes of all blobs, each counted once. */
  readonly storedBytes: number;
  /** Blobs that no entry names, waiting for collection. */
  readonly unreferencedBlobs: number;
  /** Bytes of the journal on disk, and its live bytes; 0 without a journal. */
  readonly journalBytes: number;
  readonly journalLiveBytes: number;
}

export interface CatalogCapabilities {
  /** Stored size up to which blobs are kept in the catalog; 0 if none are. */
  readonly inlineSizeMaxBytes: number;
}

/** Reads the catalog, in any process. */
export interface CatalogReader {
  readonly capabilities: CatalogCapabilities;

  /** The entry under a name and the location of its bytes, as of the last acknowledged change of any process. */
  find(name: FileName): Promise<LocatedEntry | undefined>;

  findBlob(digest: Digest): Promise<BlobRecord | undefined>;

  /** Whether `directory` ("/" or "/a/") holds files; `file` if its path without the slash is a file. */
  kindOfDirectory(directory: string): Promise<'directory' | 'file' | 'absent'>;

  /**
   * Names below `directory`, in byte order, in batches. Each page of some hundred names is read from its own snapshot and
   * starts after the last name of the page before: a name that exists all the time is yielded exactly once, one that
   * appears or disappears meanwhile at most once. Nothing is held between two pages, however slow the consumer. The cost
   * per name is constant.
   */
  listNames(directory: string, options?: ListOptions): AsyncIterable<readonly FileName[]>;

  /** As `listNames`, with whole entries. */
  listEntries(directory: string, options?: ListOptions): AsyncIterable<readonly Entry[]>;

  /** All blobs, in byte order of the digests, in batches, with the guarantees of `listNames`. */
  listBlobs(options?: { after?: Digest; signal?: AbortSignal }): AsyncIterable<readonly BlobRecord[]>;

  /** Blobs that no entry has named since before `beforeMs`, oldest first, at most `limit`. */
  listUnreferenced(beforeMs: number, limit: number): Promise<readonly Digest[]>;

  stats(): Promise<CatalogStats>;

  /**
   * Milliseconds since 1970 by the clock that stamps changes: that of the database, if servers share one. Times that are
   * compared with those stamps, as in `listUnreferenced` and `collect`, come from it.
   */
  timeMs(): Promise<number>;
}

/**
 * Names → entries, digests → blobs and their reference counts. The changes of one catalog form one sequence; each is
 * applied whole or not at all, durable before its promise resolves, and visible to every later look-up. A change that
 * rejects has not been applied, unless the error is retryable `unavailable`: then that is unknown, and repeating the same
 * change is safe (the outcome is the same but for `deduplicated`).
 */
export interface Catalog extends CatalogReader {
  /**
   * Stores an entry if no newer version is stored, the precondition holds and the name fits the tree. Staged content is
   * placed inside the same step of the sequence. If the outcome does not use it, the caller discards the staged upload.
   */
  put(change: PutChange): Promise<PutOutcome>;

  remove(change: RemoveChange): Promise<RemoveOutcome>;

  /**
   * Forgets those of the blobs that no entry has named since before `beforeMs`, and removes their bytes inside the same
   * step. Returns the collected records.
   */
  collect(digests: readonly Digest[], beforeMs: number): Promise<readonly BlobRecord[]>;

  /**
   * Keeps a blob from collection until it is released or the calling process ends; for a put that relies on a stored blob.
   * `undefined` if there is no such blob.
   */
  pin(digest: Digest): Promise<BlobPin | undefined>;

  /** Marks a blob as damaged or intact. A put of intact content replaces the bytes of a damaged blob and clears the mark. */
  markDamaged(digest: Digest, damaged: boolean): Promise<void>;

  /**
   * Adds blobs whose bytes are in the blob store already (adoption, recovery), without an entry at first. A known intact
   * blob stays, unless the new description corrects its sizes under the same key; a damaged one is replaced. Idempotent. The
   * caller makes sure that the bytes stay until this resolves: nothing may remove them as orphans meanwhile.
   */
  addBlobs(blobs: readonly PlacedBlob[]): Promise<void>;

  /** Resolves if changes can be made; for readiness. @throws FiletrackerError `unavailable`, `no-space` … */
  probe(): Promise<void>;

  /** Waits for changes under way, refuses new ones, makes everything durable. Idempotent. */
  close(): Promise<void>;
}

export interface BlobPin {
  readonly blob: BlobRecord;
  /** Idempotent. */
  release(): Promise<void>;
}
