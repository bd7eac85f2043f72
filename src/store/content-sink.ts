import type { BlobStore, StagedUpload, StageOptions } from '../blobs/blob-store.ts';
import type { PutContent } from '../catalog/catalog.ts';
import type { Encoding } from '../core/blob.ts';
import { joined, type Chunks } from '../streams/chunks.ts';

export interface ContentSinkOptions extends StageOptions {
  readonly inlineSizeMaxBytes: number;
  readonly encoding: Encoding;
}

/**
 * Takes the stored form of content whose size is unknown until its end. A small one stays in memory and travels
 * inside the change; a larger one is staged in the blob store.
 *
 * Invariant: bytes are either all in `#parts` or all in `#upload`. The owner of a sink discards it unless its bytes
 * have become a blob.
 */
export class ContentSink {
  readonly #blobs: BlobStore;
  readonly #options: ContentSinkOptions;
  #parts: Uint8Array[] = [];
  #sizeBytes = 0;
  #upload: StagedUpload | undefined;

  constructor(blobs: BlobStore, options: ContentSinkOptions) {
    this.#blobs = blobs;
    this.#options = options;
  }

  get encoding(): Encoding {
    return this.#options.encoding;
  }

  /** Stored size, in bytes, of what was written. */
  get sizeBytes(): number {
    return this.#sizeBytes;
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
    if (this.#upload !== undefined) return this.#upload.write(bytes);
    this.#parts.push(bytes);
    if (this.#sizeBytes > this.#options.inlineSizeMaxBytes) await this.#spill();
  }

  async #spill(): Promise<void> {
    const { encoding, announcedSize, signal } = this.#options;
    this.#upload = await this.#blobs.stage({ encoding, announcedSize, signal });
    const parts = this.#parts;
    this.#parts = [];
    await this.#upload.write(joined(parts));
  }

  /** Ends writing and makes the content ready for the catalog, durably if it is staged. */
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
