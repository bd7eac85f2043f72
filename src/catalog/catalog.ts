import type { BlobDescription, Encoding } from '../core/blob.ts';
import type { Digest } from '../core/digest.ts';
import type { FileName } from '../core/file-name.ts';
import type { FileVersion, Precondition } from '../core/file-version.ts';

/** A row of the catalog: one name and what is stored under it. */
export interface Entry extends BlobDescription {
  readonly name: FileName;
  readonly version: FileVersion;
}

/** Where the bytes of a blob are. */
export type BlobLocation =
  /** In the blob store, under this key. */
  | { readonly kind: 'object'; readonly key: string }
  /**
   * In the catalog itself. `read` gives the stored bytes, or undefined where they have been moved or
   * collected since the look-up (look up again), and throws `damaged-blob` where they are not what was stored.
   */
  | { readonly kind: 'inline'; read(): Promise<Buffer | undefined> };

/** What a look-up gives: the entry and the way to its bytes, of the same instant. */
export interface LocatedEntry {
  readonly entry: Entry;
  readonly location: BlobLocation;
  /** Set where the blob is known to be bad (verification, adoption): reading it must be refused. */
  readonly damaged: boolean;
}

/** A blob as the catalog knows it. */
export interface BlobRecord extends BlobDescription {
  readonly location: BlobLocation;
  /** Number of entries that name it. */
  readonly references: number;
  readonly damaged: boolean;
}

/** What stands under a name; of one without an entry the version that was removed, as long as that is remembered. */
export type NameStanding =
  | { readonly kind: 'entry'; readonly version: FileVersion; readonly digest: Digest }
  | { readonly kind: 'removed'; readonly version: FileVersion; readonly timeMs: number }
  | { readonly kind: 'nothing' };

/** Where the bytes of a put come from. */
export type PutContent =
  /** In the change; at most `capabilities.inlineSizeMaxBytes`. */
  | { readonly kind: 'inline'; readonly bytes: Buffer }
  /** Sealed in the blob store; placed only if the blob is not there already. */
  | { readonly kind: 'staged'; readonly stagedId: string }
  /** Nowhere: the caller has seen that the blob is stored. */
  | { readonly kind: 'stored' };

/** A put; what it says of its content but for the digest is ignored where the blob is stored already. */
export interface PutChange extends BlobDescription {
  readonly name: FileName;
  readonly version: FileVersion;
  readonly content: PutContent;
  /**
   * Size of the content as its sender brought it. Where it is given, a bound on all contents is held against it,
   * whether the content is stored already or not, so that the outcome does not tell.
   */
  readonly offeredSize?: number | undefined;
  readonly precondition?: Precondition;
  /**
   * Set if this put repeats a request that was sent before: when that was, in milliseconds since 1970 by the clock of
   * this machine. A removal of this version or a newer one that was made since then stays in effect, because the put
   * may have taken effect before it. Any other put is stored, whatever was removed.
   */
  readonly firstSentMs?: number | undefined;
  /**
   * Set where this change was asked for before and its answer was lost, so that it may have been made: what stood
   * under the name just before it was asked for first. If that has changed, it is not made once more over what others
   * have changed since: see `outcomeOfRepeatedPut`.
   */
  readonly stoodBefore?: NameStanding | undefined;
}

export type PutOutcome =
  | {
      readonly kind: 'stored';
      readonly version: FileVersion;
      /** The blob was there already; what the change brought was not taken: the caller discards it. */
      readonly deduplicated: boolean;
      /** Of what was there already, if it is in the blob store: whether its bytes still are is for the caller to see. */
      readonly object?: { readonly key: string; readonly storedSize: number } | undefined;
    }
  /** A newer version is stored and stays; of a put with `firstSentMs`, also: it was removed since then and stays removed. */
  | { readonly kind: 'superseded'; readonly version: FileVersion }
  | { readonly kind: 'precondition-failed' }
  /** `other` is a file above the name, or a file below it: both cannot be files (invariant 8). */
  | { readonly kind: 'name-conflict'; readonly other: FileName }
  /** A limit of the catalog stands in the way; `limit` says which, in words. */
  | { readonly kind: 'limit-reached'; readonly limit: string }
  /** The change said `stored` but the blob is gone, or is damaged: bring the content. */
  | { readonly kind: 'content-missing' };

export interface RemoveChange {
  readonly name: FileName;
  /** Stored versions up to and including this one go. */
  readonly version: FileVersion;
  readonly precondition?: Precondition;
  /** As of a put: see `outcomeOfRepeatedRemove`. */
  readonly stoodBefore?: NameStanding | undefined;
}

export type RemoveOutcome =
  | { readonly kind: 'removed'; readonly version: FileVersion }
  | { readonly kind: 'superseded'; readonly version: FileVersion }
  | { readonly kind: 'precondition-failed' }
  | { readonly kind: 'absent' };

/**
 * The part of a blob store that a catalog needs while it commits; app/ hands it over. The blob store
 * documents the guarantees of these methods.
 */
export interface BlobPlacer {
  place(
    placements: readonly {
      readonly stagedId: string;
      readonly digest: Digest;
      readonly encoding: Encoding;
    }[],
  ): Promise<readonly string[]>;
  remove(keys: readonly string[]): Promise<void>;
  /** Stored size in bytes, or undefined where there are no such bytes; asked while a lost index is rebuilt. */
  size(key: string): Promise<number | undefined>;
}

/** A blob whose bytes lie in the blob store already, whole and durable. */
export interface PlacedBlob extends BlobDescription {
  readonly key: string;
  /** Whether the bytes are known to be bad. */
  readonly damaged?: boolean | undefined;
}

export interface ListOptions {
  /** Only names after this one, in byte order. */
  readonly after?: FileName | undefined;
  /** At most so many names. */
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
  /** The same of all blobs, each content counted once; undefined where the catalog does not count it. */
  readonly uniqueLogicalBytes: number | undefined;
  /** Sum of the stored sizes of all blobs, each content counted once. */
  readonly storedBytes: number;
  /** Blobs that no entry names, waiting for collection. */
  readonly unreferencedBlobs: number;
  /** Bytes that the journal takes on disk, and those of them that are still needed; 0 where there is none. */
  readonly journalBytes: number;
  readonly journalLiveBytes: number;
}

export interface CatalogCapabilities {
  /** Stored size up to which blobs lie in the catalog; 0 where it holds none. */
  readonly inlineSizeMaxBytes: number;
}

/** Reading the catalog, which every process may do. */
export interface CatalogReader {
  readonly capabilities: CatalogCapabilities;

  /** The entry under a name and the way to its bytes, as of the last change acknowledged by any process. */
  find(name: FileName): Promise<LocatedEntry | undefined>;

  findBlob(digest: Digest): Promise<BlobRecord | undefined>;

  /**
   * Whether `directory` ("/" or "/a/") holds files: for a list's 400. `file` where its path without the
   * slash is a file.
   */
  kindOfDirectory(directory: string): Promise<'directory' | 'file' | 'absent'>;

  /**
   * Names below `directory`, in byte order, in batches. Each page of some hundred names is read from a snapshot of its own
   * and goes on after the last name of the page before: a name that is there all the time is given exactly once, one that
   * comes or goes meanwhile at most once. Nothing is held between two pages, however long the receiver takes. Cost per name
   * is constant.
   */
  listNames(directory: string, options?: ListOptions): AsyncIterable<readonly FileName[]>;

  /** The same with whole entries. */
  listEntries(directory: string, options?: ListOptions): AsyncIterable<readonly Entry[]>;

  /** Every blob, in byte order of the digests, in batches, with the promises of a list of names; for collection and integrity. */
  listBlobs(options?: { after?: Digest; signal?: AbortSignal }): AsyncIterable<readonly BlobRecord[]>;

  /** Blobs that no entry has named since before `beforeMs`, oldest first, at most `limit`. */
  listUnreferenced(beforeMs: number, limit: number): Promise<readonly Digest[]>;

  stats(): Promise<CatalogStats>;

  /**
   * Milliseconds since 1970 by the clock that stamps changes: that of the database, if servers share one. Times that are
   * held against those stamps, as by `listUnreferenced` and `collect`, are taken from it.
   */
  timeMs(): Promise<number>;
}

/**
 * Names → entries, digests → blobs and their reference counts. Changes of one catalog form one sequence;
 * each is applied whole or not at all, durable before its promise resolves, and seen by every later look-up.
 * A change that rejects has not been applied, unless the error is retryable `unavailable`: then it is
 * unknown, and repeating the same change is safe (the outcome is the same but for `deduplicated`).
 */
export interface Catalog extends CatalogReader {
  /**
   * Stores an entry if no newer version is there, the precondition holds and the name fits the tree.
   * Staged content is placed inside the same step of the sequence. Where the outcome does not use what the
   * change brought, a staged upload is left to the caller to discard.
   */
  put(change: PutChange): Promise<PutOutcome>;

  remove(change: RemoveChange): Promise<RemoveOutcome>;

  /**
   * Forgets blobs that no entry names and that have been so since before `beforeMs`, and removes their
   * bytes inside the same step; others are left. Gives the records that were collected.
   */
  collect(digests: readonly Digest[], beforeMs: number): Promise<readonly BlobRecord[]>;

  /**
   * Keeps a blob from collection until released (or until the process that asked is gone). Undefined where
   * there is no such blob. For a put that relies on stored content.
   */
  pin(digest: Digest): Promise<BlobPin | undefined>;

  /** Marks a blob as damaged or sound. A put of sound content over a damaged blob replaces its bytes and clears the mark. */
  markDamaged(digest: Digest, damaged: boolean): Promise<void>;

  /**
   * Takes blobs into the catalog whose bytes lie in the blob store already (adoption, recovery), named by no
   * entry at first. A blob that is known and sound is left as it is, unless what is given corrects its
   * sizes under the same key; a damaged one is replaced. Idempotent. The caller sees to it that the
   * bytes stay until this has resolved: nobody may take them for strays meanwhile.
   */
  addBlobs(blobs: readonly PlacedBlob[]): Promise<void>;

  /** Resolves if changes can be made; for readiness. @throws FiletrackerError `unavailable`, `no-space` … */
  probe(): Promise<void>;

  /** Waits for changes under way, refuses new ones, makes all durable. Idempotent. */
  close(): Promise<void>;
}

export interface BlobPin {
  readonly blob: BlobRecord;
  /** Idempotent. */
  release(): Promise<void>;
}
