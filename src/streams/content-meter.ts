import { DigestMeter, type Digest } from '../core/digest.ts';
import type { Chunks } from './chunks.ts';

/** Digest and size of content that was read. */
export interface ContentMeasure {
  readonly digest: Digest;
  readonly sizeBytes: number;
}

/** Computes digest and size of content while it passes. */
export class ContentMeter {
  readonly #digest = new DigestMeter();
  #sizeBytes = 0;

  get sizeBytes(): number {
    return this.#sizeBytes;
  }

  update(bytes: Uint8Array): void {
    this.#digest.update(bytes);
    this.#sizeBytes += bytes.length;
  }

  /** Passes bytes on and measures them. */
  async *measure(source: Chunks): AsyncGenerator<Uint8Array> {
    for await (const chunk of source) {
      this.update(chunk);
      yield chunk;
    }
  }

  /** Ends the measurement; can be called once. */
  finish(): ContentMeasure {
    return { digest: this.#digest.finish(), sizeBytes: this.#sizeBytes };
  }
}

/**
 * Passes bytes on and counts them, and fails by `excess` as soon as there are more than `sizeMaxBytes`, or
 * by `shortage` if at the end there are fewer than `sizeMinBytes`.
 */
export async function* boundedChunks(
  source: Chunks,
  bounds: {
    readonly sizeMaxBytes: number;
    readonly excess: () => Error;
    readonly sizeMinBytes?: number | undefined;
    readonly shortage?: ((sizeBytes: number) => Error) | undefined;
  },
): AsyncGenerator<Uint8Array> {
  let sizeBytes = 0;
  for await (const chunk of source) {
    sizeBytes += chunk.length;
    if (sizeBytes > bounds.sizeMaxBytes) throw bounds.excess();
    yield chunk;
  }
  if (bounds.shortage !== undefined && sizeBytes < (bounds.sizeMinBytes ?? 0))
    throw bounds.shortage(sizeBytes);
}
