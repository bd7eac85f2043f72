import { cannot } from '../core/errors.ts';
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
  #staging: Promise<StagedUpload> | undefined;
  #isDiscarded = false;

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
    // A piece may come after the body was refused; it must not begin an upload that nothing removes.
    if (this.#isDiscarded) throw cannot('aborted', 'write an upload', 'it was given up');
    this.#sizeBytes += bytes.length;
    if (this.#upload !== undefined) return this.#upload.write(bytes);
    this.#parts.push(bytes);
    if (this.#sizeBytes > this.#options.inlineSizeMaxBytes) await this.#spill();
  }

  /** Waits until the bytes so far are written. Returns false if something may still use their memory. */
  async written(): Promise<boolean> {
    if (this.#upload?.written === undefined) return false;
    await this.#upload.written();
    return true;
  }

  async #spill(): Promise<void> {
    const { encoding, announcedSize, signal } = this.#options;
    this.#staging = this.#blobs.stage({ encoding, announcedSize, signal });
    this.#upload = await this.#staging;
    const parts = this.#parts;
    this.#parts = [];
    await this.#upload.write(joined(parts));
  }

  /** Ends writing and makes the content ready for the catalog, durably if it is staged. */
  async seal(): Promise<PutContent> {
    if (this.#upload === undefined) return { kind: 'inline', bytes: joined(this.#parts) };
    const writtenBytes = await this.#upload.seal();
    // Memory that is freed too early would leave bytes out, after they were digested.
    if (writtenBytes !== this.#sizeBytes) {
      const state = `${writtenBytes} of ${this.#sizeBytes} bytes were written`;
      throw cannot('io', 'store the content', `${state}; retry`);
    }
    return { kind: 'staged', stagedId: this.#upload.stagedId };
  }

  /** Removes what was staged and not placed. Idempotent. */
  async discard(): Promise<void> {
    this.#isDiscarded = true;
    // A decoder may have refused the body while its upload was being opened.
    const upload = await this.#staging?.catch(() => undefined);
    await upload?.discard();
  }
}
