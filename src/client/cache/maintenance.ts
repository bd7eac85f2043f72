import { lstatSync } from 'node:fs';
import { isDigest } from '../../core/digest.ts';
import type { Digest } from '../../core/digest.ts';
import { digestOfFile } from '../../fs/file-digest.ts';
import { removeIfThere } from '../transfer/targets.ts';
import { findBlob, openBlob } from './blob.ts';
import { fileForms } from './layout.ts';
import type { CacheLayout } from './layout.ts';
import { readRecord } from './names.ts';
import type { CachedFile, CacheNames, NameRecord } from './names.ts';
import type { CachePins } from './pins.ts';
import type { CacheSpace } from './space.ts';
import { forEachFile, forEachSharded } from './survey.ts';

/** Sizes and counts of a cache. */
export interface CacheStatus {
  readonly folder: string;
  /** Bytes of disk that blobs, records and unfinished downloads take. */
  readonly sizeBytes: number;
  readonly sizeMaxBytes: number | undefined;
  readonly freeBytes: number;
  readonly freeMinBytes: number;
  readonly contents: number;
  readonly names: number;
  readonly pinned: number;
  readonly pinnedBytes: number;
  readonly unfinished: number;
}

/** The result of `verify`. */
export interface CacheVerification {
  readonly contents: number;
  readonly contentBytes: number;
  /** Damaged blobs; removed, except those that have no other copy. */
  readonly damaged: readonly Digest[];
  readonly records: number;
  /** Unreadable records, and records without any cached blob; removed. */
  readonly recordsRemoved: number;
  readonly sizeBytes: number;
}

/** Operations on a cache as a whole. */
export class CacheMaintenance {
  readonly #layout: CacheLayout;
  readonly #names: CacheNames;
  readonly #pins: CachePins;
  readonly #space: CacheSpace;

  constructor(layout: CacheLayout, names: CacheNames, pins: CachePins, space: CacheSpace) {
    this.#layout = layout;
    this.#names = names;
    this.#pins = pins;
    this.#space = space;
  }

  /** Every version whose blob is cached, grouped by name, in no order. */
  async *list(): AsyncIterable<CachedFile> {
    for (const folder of this.#layout.shards('names')) {
      const records: NameRecord[] = [];
      await forEachFile(folder, fileForms.record, (_name, path) => {
        const record = readRecord(path);
        if (record !== undefined) records.push(record);
      });
      for (const { name, versions } of records) {
        for (const known of versions) {
          const path = findBlob(this.#layout, known.digest, known.size);
          if (path !== undefined) yield { ...known, name, path };
        }
      }
    }
  }

  async status(): Promise<CacheStatus> {
    const survey = await this.#space.recount();
    const { freeBytes, freeMinBytes } = this.#space.disk();
    return {
      folder: this.#layout.folder,
      sizeBytes: survey.total,
      sizeMaxBytes: this.#space.limits.sizeMaxBytes,
      freeBytes,
      freeMinBytes,
      contents: survey.blobs,
      names: survey.records,
      pinned: survey.pinned,
      pinnedBytes: survey.pinnedBytes,
      unfinished: survey.partials,
    };
  }

  /**
   * Reads every blob and removes damaged ones, sweeps records and pins, and corrects the account.
   * @param options.onContent called after each intact blob, with its size.
   */
  async verify(
    options: { readonly signal?: AbortSignal; readonly onContent?: (sizeBytes: number) => void } = {},
  ): Promise<CacheVerification> {
    const onlyCopies = new Set<Digest>();
    await this.#names.forEach((record) => {
      for (const { digest, local } of record?.versions ?? []) if (local === true) onlyCopies.add(digest);
    });
    const blobs: { digest: Digest; path: string }[] = [];
    await forEachSharded(this.#layout, 'blobs', (name, path) => {
      if (isDigest(name)) blobs.push({ digest: name, path });
    });
    const damaged: Digest[] = [];
    let contentBytes = 0;
    for (const { digest, path } of blobs) {
      const size = await this.#verifyBlob(digest, path, options.signal);
      if (size !== undefined) {
        contentBytes += size;
        options.onContent?.(size);
        continue;
      }
      damaged.push(digest);
      if (!onlyCopies.has(digest)) removeIfThere(path);
    }
    const recordsRemoved = await this.sweepRecords();
    await this.#pins.sweep(this.#names);
    const { records, total: sizeBytes } = await this.#space.recount();
    return { contents: blobs.length, contentBytes, damaged, records, recordsRemoved, sizeBytes };
  }

  /** The size of an intact blob; `undefined` if it is damaged. */
  async #verifyBlob(digest: Digest, path: string, signal?: AbortSignal): Promise<number | undefined> {
    // Small blobs are written in their places under this lock.
    const before = await this.#space.locked(() => lstatSync(path, { throwIfNoEntry: false }));
    // Evicted meanwhile, not damaged.
    if (before === undefined) return 0;
    using blob = before.isFile() ? openBlob(path, digest, before.size) : undefined;
    if (blob === undefined) return undefined;
    return (await digestOfFile(blob.path, signal)) === digest ? before.size : undefined;
  }

  /** Removes records without any cached blob; returns their number. */
  async sweepRecords(): Promise<number> {
    return await this.#names.sweep();
  }
}
