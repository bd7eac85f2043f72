import type { Readable } from 'node:stream';
import type { Digest } from '../core/digest.ts';
import type { Encoding } from '../core/blob.ts';

/**
 * Names the bytes of one blob in one blob store. The store makes it when it places a blob; the catalog keeps it; it is
 * opaque to everything else. ASCII, at most 128 characters.
 */
export type BlobKey = string;

/** At most `length` stored bytes from `start`. */
export interface ByteRange {
  readonly start: number;
  readonly length: number;
}

export interface BlobReadOptions {
  readonly range?: ByteRange | undefined;
  /** The stored size, if the caller knows it: saves a request, and is compared with the bytes. */
  readonly storedSize?: number | undefined;
  readonly signal?: AbortSignal | undefined;
}

export interface StageOptions {
  /** Encoding of the bytes, for stores that label them; that of `place` is authoritative. */
  readonly encoding?: Encoding | undefined;
  /** About how many bytes will come, if known: bounds the memory of a very large upload. */
  readonly announcedSize?: number | undefined;
  readonly signal?: AbortSignal | undefined;
}

/** The bytes of an upload: durable once sealed, and invisible until they are placed. */
export interface StagedUpload {
  /** Names the staged bytes for `place` and `discard`, in this and every other process. ASCII. */
  readonly stagedId: string;
  /**
   * Appends bytes, which the caller must not write to afterwards. Resolves when the next piece may follow; at most a few
   * pieces are held in memory.
   * @throws FiletrackerError such as `no-space`, `io`; the upload can then only be discarded.
   */
  write(bytes: Uint8Array): Promise<void>;
  /**
   * Resolves when all bytes that were passed to `write` are written and no longer used, so that their memory may be freed.
   * Absent if the store keeps them. @throws as `write`.
   */
  written?(): Promise<void>;
  /** Ends writing and makes the bytes durable (fsync). Resolves to the size in bytes. */
  seal(): Promise<number>;
  /** Removes the bytes of the upload, sealed or not. Idempotent; a no-op once it is placed. */
  discard(): Promise<void>;
}

/** A staged upload that is to become a blob. */
export interface Placement {
  readonly stagedId: string;
  readonly digest: Digest;
  readonly encoding: Encoding;
}

/** A blob as a list of the store finds it. */
export interface FoundBlob {
  readonly key: BlobKey;
  /** `undefined` if the key does not say. */
  readonly digest?: Digest;
  readonly encoding?: Encoding;
  readonly storedSize: number;
  readonly modifiedMs: number;
}

export interface BlobStoreCapabilities {
  /** Whether keys follow from digest and encoding, so that placing the same bytes twice results in the same key. */
  readonly keysFollowContent: boolean;
  /** Whether the reader of a whole blob must check its digest, because the service that stores it may not. */
  readonly digestOnRead: boolean;
  /** Whether `presign` returns URLs that clients can read from directly. */
  readonly presign: boolean;
}

/**
 * Digests → bytes that never change once placed. A blob store knows nothing of names, reference counts or liveness: the
 * catalog's changes decide what is placed and removed.
 */
export interface BlobStore {
  readonly capabilities: BlobStoreCapabilities;

  /** Begins an upload. If `signal` aborts it, the caller still discards it. */
  stage(options?: StageOptions): Promise<StagedUpload>;

  /**
   * Turns sealed uploads into blobs. Durable on return, folder entries included; one call may share its syncs among all
   * its placements. Keys are in the order of the placements. Placing over existing bytes replaces them atomically with
   * equal content. Safe to repeat with the same stagedId: a placement that has happened returns the same key again.
   * @throws FiletrackerError `not-found` if a staged upload is gone (swept, discarded).
   */
  place(placements: readonly Placement[]): Promise<readonly BlobKey[]>;

  /** Removes a staged upload by its name. Idempotent; absence is no error. */
  discard(stagedId: string): Promise<void>;

  /**
   * Opens stored bytes for reading; `undefined` if there is no such blob. An open stream stays readable even if the blob is
   * removed meanwhile, or it fails; it never ends early without an error.
   * @throws FiletrackerError `damaged-blob`, at once or through the stream, if the blob is shorter than it was or than
   * `storedSize` says; `range-not-satisfiable` for a range that begins beyond the end.
   */
  open(key: BlobKey, options?: BlobReadOptions): Promise<Readable | undefined>;

  /** Stored size in bytes; `undefined` if there is no such blob. */
  size(key: BlobKey): Promise<number | undefined>;

  /** Removes blobs. Idempotent; absence is no error. Not durable: after a crash the bytes may be there again, as orphans. */
  remove(keys: readonly BlobKey[]): Promise<void>;

  /** Every placed blob, in no order. Blobs placed or removed meanwhile may be in the list or not. */
  list(options?: { signal?: AbortSignal }): AsyncIterable<FoundBlob>;

  /** Removes staged uploads last written before `beforeMs`. Resolves to their number. Idempotent. */
  sweepStaged(beforeMs: number): Promise<number>;

  /**
   * A URL for direct reads, valid for `lifetimeSeconds`; `undefined` if the store has none. Its responses are labelled with
   * `encoding`.
   */
  presign(key: BlobKey, lifetimeSeconds: number, encoding?: Encoding): Promise<string | undefined>;

  /** Resolves if the store can be reached and written to. @throws FiletrackerError such as `unavailable`, `no-space`. */
  probe(options?: { signal?: AbortSignal }): Promise<void>;

  /** Idempotent. */
  close(): Promise<void>;
}
