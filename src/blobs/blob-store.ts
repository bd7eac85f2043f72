import type { Readable } from 'node:stream';
import type { Digest } from '../core/digest.ts';
import type { Encoding } from '../core/blob.ts';

/**
 * Names the bytes of one blob in one blob store; made by the store when a blob is placed, opaque to all
 * others, kept in the catalog. ASCII, at most 128 characters.
 */
export type BlobKey = string;

/** A range of stored bytes: from `start`, at most `length` of them. */
export interface ByteRange {
  readonly start: number;
  readonly length: number;
}

export interface BlobReadOptions {
  readonly range?: ByteRange | undefined;
  /** The stored size, where the caller knows it: saves the store the question, and is held against the bytes. */
  readonly storedSize?: number | undefined;
  readonly signal?: AbortSignal | undefined;
}

export interface StageOptions {
  /** Encoding of the bytes to come, for stores that label what they hold; `place` is what counts. */
  readonly encoding?: Encoding | undefined;
  /** About as many bytes will come, where that is known: it bounds the memory that a very large upload takes. */
  readonly announcedSize?: number | undefined;
  readonly signal?: AbortSignal | undefined;
}

/** Content on its way in: durable once sealed, visible to nobody before it is placed. */
export interface StagedUpload {
  /** Names the staged bytes for `place` and `discard`, in this and every other process. ASCII. */
  readonly stagedId: string;
  /**
   * Appends bytes, which the caller gives away. Resolves when the next piece may be given; at most a few pieces are held in memory.
   * @throws FiletrackerError `no-space`, `io` … ; the upload can then only be discarded.
   */
  write(bytes: Uint8Array): Promise<void>;
  /** Makes what was written durable (fsync) and ends writing. Resolves to the size in bytes. */
  seal(): Promise<number>;
  /** Gives the upload up, sealed or not, and removes its bytes. Idempotent; a no-op once it is placed. */
  discard(): Promise<void>;
}

/** A staged content that shall become a blob. */
export interface Placement {
  readonly stagedId: string;
  readonly digest: Digest;
  readonly encoding: Encoding;
}

/** What a look through the whole store finds. */
export interface FoundBlob {
  readonly key: BlobKey;
  /** Undefined where the store cannot tell from the key. */
  readonly digest?: Digest;
  readonly encoding?: Encoding;
  readonly storedSize: number;
  readonly modifiedMs: number;
}

export interface BlobStoreCapabilities {
  /** Whether keys follow from digest and encoding, so that placing a content twice gives the same key. */
  readonly keysFollowContent: boolean;
  /** Whether who reads a whole content is to check its digest, because the bytes come from a service of which little is known. */
  readonly digestOnRead: boolean;
  /** Whether `presign` gives addresses that a client may read from directly. */
  readonly presign: boolean;
}

/**
 * Digests → bytes. A blob store knows nothing of names, counts or liveness: the catalog's transactions
 * decide what is placed and removed; here are only bytes that never change once placed.
 */
export interface BlobStore {
  readonly capabilities: BlobStoreCapabilities;

  /** Begins an upload. `signal` aborts it; the caller still discards it. */
  stage(options?: StageOptions): Promise<StagedUpload>;

  /**
   * Turns sealed uploads into blobs. Durable on return, folder entries included; one call may share its
   * syncs among all its placements. Keys come in the order of the placements. Placing over bytes that are
   * there already replaces them atomically with equal content. Safe to retry with the same stagedId: a
   * placement that has happened gives the same key again.
   * @throws FiletrackerError `not-found` where a staged upload is gone (swept, discarded).
   */
  place(placements: readonly Placement[]): Promise<readonly BlobKey[]>;

  /** Removes a staged upload by its name; idempotent; absence is no error. */
  discard(stagedId: string): Promise<void>;

  /**
   * Opens stored bytes for reading. What is open stays readable, whole, though the blob be removed
   * meanwhile, or the stream fails; it never ends early without an error. `undefined` where there is no such blob.
   * @throws FiletrackerError `damaged-blob`, at once or by the stream, where the blob is shorter than it was or
   * than `storedSize` says; `range-not-satisfiable` for a range that begins beyond the end.
   */
  open(key: BlobKey, options?: BlobReadOptions): Promise<Readable | undefined>;

  /** Stored size in bytes, or undefined where there is no such blob. */
  size(key: BlobKey): Promise<number | undefined>;

  /** Removes blobs; idempotent; absence is no error. Durability is not promised: a crash may bring bytes back as strays. */
  remove(keys: readonly BlobKey[]): Promise<void>;

  /** Every placed blob, in no order; what is placed or removed meanwhile may show or not. */
  list(options?: { signal?: AbortSignal }): AsyncIterable<FoundBlob>;

  /** Removes staged uploads last written before `beforeMs`; gives their number. Idempotent. */
  sweepStaged(beforeMs: number): Promise<number>;

  /**
   * An address for direct reading, valid for `lifetimeSeconds`; undefined where the store has none. What is read
   * there is labelled with the encoding that is given.
   */
  presign(key: BlobKey, lifetimeSeconds: number, encoding?: Encoding): Promise<string | undefined>;

  /** Resolves if the store can be reached and written to; for readiness. @throws FiletrackerError `unavailable`, `no-space` … */
  probe(options?: { signal?: AbortSignal }): Promise<void>;

  /** Idempotent. */
  close(): Promise<void>;
}
