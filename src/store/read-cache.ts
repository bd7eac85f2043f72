import { LRUCache } from 'lru-cache';
import { readCacheItemMaxBytes, readCacheItemOverheadBytes } from '../core/limits.ts';

/**
 * Contents that were read lately; those used least recently go first. A key must say all that determines the
 * bytes: then what the cache gives is right for ever, and whether an entry still names it is the catalog's word.
 *
 * Invariant: items and their overhead take at most `sizeMaxBytes` together, and what is asked for by many at
 * the same time is loaded once.
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

  /** For bytes that turned out not to be what the key says. */
  forget(key: string): void {
    this.#items?.delete(key);
  }

  /** The content, loaded if it is not here. Undefined, and not kept, where `load` finds none. */
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
