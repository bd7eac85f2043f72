import type { Digest } from '../../core/digest.ts';

const digitsKept = 12;
const firstCapacity = 65_536;

/**
 * A set of digests that may call a digest a member that is none, and never the other way round: it keeps 48 bits of each.
 * Takes 8 bytes per digest, so a backup of ten million blobs is pruned within 160 MB.
 */
export class DigestSieve {
  #values = new Float64Array(firstCapacity);
  #count = 0;
  #sorted = true;

  add(digest: Digest): void {
    if (this.#count === this.#values.length) this.#makeSpace();
    this.#values[this.#count] = valueOf(digest);
    this.#count += 1;
    this.#sorted = false;
  }

  has(digest: Digest): boolean {
    if (!this.#sorted) this.#settle();
    const wanted = valueOf(digest);
    let [low, high] = [0, this.#count];
    while (low < high) {
      const middle = (low + high) >>> 1;
      if ((this.#values[middle] ?? 0) < wanted) low = middle + 1;
      else high = middle;
    }
    return low < this.#count && this.#values[low] === wanted;
  }

  /** Removes repeated values, and doubles the space if that left it more than half full. */
  #makeSpace(): void {
    this.#settle();
    if (this.#count <= this.#values.length / 2) return;
    const larger = new Float64Array(this.#values.length * 2);
    larger.set(this.#values);
    this.#values = larger;
  }

  #settle(): void {
    const values = this.#values.subarray(0, this.#count).sort();
    let distinct = 0;
    for (const value of values) {
      if (distinct > 0 && values[distinct - 1] === value) continue;
      values[distinct] = value;
      distinct += 1;
    }
    this.#count = distinct;
    this.#sorted = true;
  }
}

function valueOf(digest: Digest): number {
  return Number.parseInt(digest.slice(0, digitsKept), 16);
}
