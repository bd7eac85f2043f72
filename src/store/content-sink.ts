import type { BlobStore, StagedUpload } from '../blobs/blob-store.ts';
import type { PutContent } from '../catalog/catalog.ts';
import type { Encoding } from '../core/blob.ts';
import { joined, type Chunks } from '../streams/chunks.ts';

/**
 * Takes the stored form of a content whose size is not known before its end: what stays small stays in
 * memory and travels inside the change, what grows is staged in the blob store.
 *
 * Invariant: bytes are either all in `#parts` or all in `#upload`. Who opens a sink discards it, whatever
 * came of it; discarding takes nothing back that was placed.
 */
export class ContentSink {
  readonly #blobs: BlobStore;
  readonly #inlineSizeMaxBytes: number;
  readonly #signal: AbortSignal | undefined;
  #parts: Uint8Array[] = [];
  #sizeBytes = 0;
  #upload: StagedUpload | undefined;
  #encoding: Encoding | undefined;
  #announcedSize: number | undefined;

  constructor(blobs: BlobStore, inlineSizeMaxBytes: number, signal?: AbortSignal) {
    this.#blobs = blobs;
    this.#inlineSizeMaxBytes = inlineSizeMaxBytes;
    this.#signal = signal;
  }

  /** Stored size, in bytes, of what was written. */
  get sizeBytes(): number {
    return this.#sizeBytes;
  }

  /** Tells, before anything is written, in which encoding it comes, and about how much, where that is known. */
  expect(encoding: Encoding, announcedSize?: number): void {
    this.#encoding = encoding;
    this.#announcedSize = announcedSize;
  }

  /** Passes bytes on once they are written. */
  async *tee(source: Chunks): AsyncGenerator<Uint8Array> {
    for await (const chunk of source) {
      await this.write(chunk);
      yield chunk;
    }
  }

  async write(bytes: Uint8Array): Promise<void> {
    this.#sizeBytes += bytes.length;
    if (this.#upload === undefined) {
      this.#parts.push(bytes);
      if (this.#sizeBytes > this.#inlineSizeMaxBytes) await this.#spill();
    } else {
      await this.#upload.write(bytes);
    }
  }

  async #spill(): Promise<void> {
    this.#upload = await this.#blobs.stage({
      encoding: this.#encoding,
      announcedSize: this.#announcedSize,
      signal: this.#signal,
    });
    const parts = this.#parts;
    this.#parts = [];
    await this.#upload.write(joined(parts));
  }

  /** Ends writing and makes the content ready for the catalog, durably where it is staged. */
  async seal(): Promise<PutContent> {
    if (this.#upload === undefined) return { kind: 'inline', bytes: joined(this.#parts) };
    await this.#upload.seal();
    return { kind: 'staged', stagedId: this.#upload.stagedId };
  }

  /** Removes what was staged and not placed. Idempotent. */
  async discard(): Promise<void> {
    await this.#upload?.discard();
  }
}
