import { randomBytes } from 'node:crypto';
import { Readable } from 'node:stream';
import { throwIfAborted } from '../../../src/core/concurrency.ts';
import { systemClock, type Clock } from '../../../src/core/clock.ts';
import type { Digest } from '../../../src/core/digest.ts';
import type { Encoding } from '../../../src/core/blob.ts';
import { FiletrackerError } from '../../../src/core/errors.ts';
import { chunkSizeBytes } from '../../../src/core/limits.ts';
import type {
  BlobKey,
  BlobReadOptions,
  BlobStore,
  BlobStoreCapabilities,
  FoundBlob,
  Placement,
  StagedUpload,
} from '../../../src/blobs/blob-store.ts';

interface MemoryBlob {
  readonly bytes: Buffer;
  readonly digest: Digest;
  readonly encoding: Encoding;
  readonly modifiedMs: number;
}

/** Blobs in memory: for tests, and the model of what a blob store does. Nothing is durable. */
export class MemoryBlobStore implements BlobStore {
  readonly capabilities: BlobStoreCapabilities = {
    keysFollowContent: true,
    digestOnRead: false,
    presign: false,
  };
  readonly #blobs = new Map<BlobKey, MemoryBlob>();
  readonly #uploads = new Map<string, MemoryUpload>();
  readonly #clock: Clock;

  constructor(options: { clock?: Clock } = {}) {
    this.#clock = options.clock ?? systemClock;
  }

  async stage(options: { signal?: AbortSignal } = {}): Promise<StagedUpload> {
    const stagedId = randomBytes(12).toString('hex');
    const upload = new MemoryUpload(stagedId, this.#clock, options.signal, () =>
      this.#uploads.delete(stagedId),
    );
    this.#uploads.set(stagedId, upload);
    return upload;
  }

  async place(placements: readonly Placement[]): Promise<readonly BlobKey[]> {
    return placements.map((placement) => this.#place(placement));
  }

  #place({ stagedId, digest, encoding }: Placement): BlobKey {
    const key = `${encoding}-${digest}`;
    const upload = this.#uploads.get(stagedId);
    if (upload !== undefined) {
      this.#uploads.delete(stagedId);
      this.#blobs.set(key, { bytes: upload.bytes(), digest, encoding, modifiedMs: this.#clock.nowMs() });
    } else if (!this.#blobs.has(key)) {
      throw new FiletrackerError('not-found', `Cannot place the upload "${stagedId}": it is gone`);
    }
    return key;
  }

  async discard(stagedId: string): Promise<void> {
    this.#uploads.delete(stagedId);
  }

  async open(key: BlobKey, options: BlobReadOptions = {}): Promise<Readable | undefined> {
    throwIfAborted(options.signal, 'open a blob');
    const bytes = this.#blobs.get(key)?.bytes;
    if (bytes === undefined) return undefined;
    if (bytes.length < (options.storedSize ?? 0)) throw shortBlob();
    const { start, length } = options.range ?? { start: 0, length: bytes.length };
    if (start > bytes.length) throw shortBlob();
    return Readable.from(chunksOf(bytes.subarray(start, start + length)), {
      objectMode: false,
      signal: options.signal,
    });
  }

  async size(key: BlobKey): Promise<number | undefined> {
    return this.#blobs.get(key)?.bytes.length;
  }

  async remove(keys: readonly BlobKey[]): Promise<void> {
    for (const key of keys) this.#blobs.delete(key);
  }

  async *list(): AsyncIterable<FoundBlob> {
    for (const [key, { bytes, digest, encoding, modifiedMs }] of this.#blobs) {
      yield { key, digest, encoding, storedSize: bytes.length, modifiedMs };
    }
  }

  async sweepStaged(beforeMs: number): Promise<number> {
    const old = [...this.#uploads.values()].filter((upload) => upload.writtenMs < beforeMs);
    for (const upload of old) this.#uploads.delete(upload.stagedId);
    return old.length;
  }

  async presign(): Promise<undefined> {
    return undefined;
  }

  async probe(): Promise<void> {
    // Memory is always there.
  }

  async close(): Promise<void> {
    // Nothing is held that would have to be let go.
  }

  /** For tests: replaces the bytes of a blob, as a failing disk would. */
  damage(key: BlobKey, change: (bytes: Buffer) => Buffer): void {
    const blob = this.#blobs.get(key);
    if (blob !== undefined) this.#blobs.set(key, { ...blob, bytes: change(Buffer.from(blob.bytes)) });
  }

  /** For tests: uploads that were neither placed nor discarded. */
  get stagedCount(): number {
    return this.#uploads.size;
  }
}

class MemoryUpload implements StagedUpload {
  readonly stagedId: string;
  readonly #clock: Clock;
  readonly #signal: AbortSignal | undefined;
  readonly #forget: () => void;
  readonly #parts: Buffer[] = [];
  writtenMs: number;

  constructor(stagedId: string, clock: Clock, signal: AbortSignal | undefined, forget: () => void) {
    this.stagedId = stagedId;
    this.#clock = clock;
    this.#signal = signal;
    this.#forget = forget;
    this.writtenMs = clock.nowMs();
  }

  async write(bytes: Uint8Array): Promise<void> {
    throwIfAborted(this.#signal, 'write an upload');
    this.#parts.push(Buffer.from(bytes));
    this.writtenMs = this.#clock.nowMs();
  }

  async seal(): Promise<number> {
    return this.bytes().length;
  }

  async discard(): Promise<void> {
    this.#forget();
  }

  bytes(): Buffer {
    return Buffer.concat(this.#parts);
  }
}

function* chunksOf(bytes: Buffer): Generator<Buffer> {
  for (let start = 0; start < bytes.length; start += chunkSizeBytes) {
    yield bytes.subarray(start, start + chunkSizeBytes);
  }
}

function shortBlob(): FiletrackerError {
  return new FiletrackerError(
    'damaged-blob',
    'Cannot read the content: the blob in the store has become shorter',
  );
}
