import type { Digest } from '../../../core/digest.ts';
import type { BlobPin, BlobRecord } from '../../catalog.ts';

/** The blobs that must not be collected, each with the number of those who rely on it. */
export class BlobPins {
  readonly #counts = new Map<Digest, number>();

  has(digest: Digest): boolean {
    return this.#counts.has(digest);
  }

  /** Holds a blob until the pin is released. */
  hold(blob: BlobRecord): BlobPin {
    const { digest } = blob;
    this.#counts.set(digest, (this.#counts.get(digest) ?? 0) + 1);
    let held = true;
    const release = async (): Promise<void> => {
      if (!held) return;
      held = false;
      const left = (this.#counts.get(digest) ?? 1) - 1;
      if (left === 0) this.#counts.delete(digest);
      else this.#counts.set(digest, left);
    };
    return { blob, release };
  }
}
