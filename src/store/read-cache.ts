import { LRUCache } from 'lru-cache';
import { readCacheItemMaxBytes, readCacheItemOverheadBytes } from '../core/limits.ts';

/**
 * Blobs that were read lately, evicted in least-recently-used order. A key must include all that determines the bytes, so
 * that an item never becomes wrong; whether an entry names it is up to the catalog.
 *
 * Invariant: all items and their overhead take at most `sizeMaxBytes`, and concurrent loads of one key share one load.
 */
export class ReadCache {
  readonly #items: LRUCache<string, Buffer> | undefined;
  readonly #loading = new Map<string, Promise<Buffer | undefined>>();

  /** 0 keeps nothing. */
  constructor(sizeMaxBytes: number) {
    if (sizeMaxBytes === 0) return;
    this.#items = new LRUCache<string, Buffer>({
      maxSize: sizeMaxBytes,
      maxEntrySize: readCacheItemMaxBytes + readCacheItemOverheadBytes,
      sizeCalculation: (bytes) => bytes.length + readCacheItemOverheadBytes,
    });
  }

  get(key: string): Buffer | undefined {
    return this.#items?.get(key);
  }

  /** For bytes that turned out to be damaged. */
  forget(key: string): void {
    this.#items?.delete(key);
  }

  /** The bytes, loaded if they are not here. `undefined`, which is not kept, if `load` finds none. */
  async load(key: string, load: () => Promise<Buffer | undefined>): Promise<Buffer | undefined> {
    const cached = this.#items?.get(key);
    if (cached !== undefined) return cached;
    let loading = this.#loading.get(key);
    if (loading === undefined) {
      loading = this.#load(key, load);
      this.#loading.set(key, loading);
    }
    return loading;
  }

  async #load(key: string, load: () => Promise<Buffer | undefined>): Promise<Buffer | undefined> {
    try {
      const bytes = await load();
      if (bytes !== undefined) this.#items?.set(key, bytes);
      return bytes;
    } finally {
      this.#loading.delete(key);
    }
  }
}
