import { lstatSync } from 'node:fs';
import { isDigest } from '../../core/digest.ts';
import type { Digest } from '../../core/digest.ts';
import { parseVersionedName } from '../../core/file-name.ts';
import { digestOfFile } from '../../fs/file-digest.ts';
import type { RangeLocks } from '../../fs/locks/range-locks.ts';
import { openBlob } from './blob.ts';
import { fileForms, hashOfName, nameLockKey } from './layout.ts';
import type { CacheLayout } from './layout.ts';
import { readRecord } from './names.ts';
import type { CachedFile, KnownVersion, NameRecord } from './names.ts';
import type { CachePins } from './pins.ts';
import type { CacheSpace } from './space.ts';
import { forEachFile, forEachSharded } from './survey.ts';
import { removeIfThere } from '../transfer/targets.ts';

/** Sizes and counts of a cache. */
export interface CacheStatus {
  readonly folder: string;
  /** Bytes of disk that contents, records and unfinished downloads take. */
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

/** What `verify` found and did. */
export interface CacheVerification {
  readonly contents: number;
  readonly contentBytes: number;
  /** Contents that were not what their name says; thrown out, but for the only copies, which stay. */
  readonly damaged: readonly Digest[];
  readonly records: number;
  /** Records that could not be read, or none of whose contents is there; removed. */
  readonly recordsRemoved: number;
  readonly sizeBytes: number;
}

interface MaintenanceOwner {
  readonly layout: CacheLayout;
  readonly pins: CachePins;
  readonly space: CacheSpace;
  findContent(digest: Digest, size: number): string | undefined;
}

/** What is done with a cache as a whole: list, look, verify, sweep. */
export class CacheMaintenance {
  readonly #cache: MaintenanceOwner;
  readonly #locks: RangeLocks;

  constructor(cache: MaintenanceOwner, locks: RangeLocks) {
    this.#cache = cache;
    this.#locks = locks;
  }

  /** Every version whose content is there, name by name, in no order. */
  async *list(): AsyncIterable<CachedFile> {
    for (const folder of this.#cache.layout.shards('names')) {
      const records: NameRecord[] = [];
      await forEachFile(folder, fileForms.record, (_name, path) => {
        const record = readRecord(path);
        if (record !== undefined) records.push(record);
      });
      for (const { name, versions } of records) {
        for (const known of versions) {
          const path = this.#cache.findContent(known.digest, known.size);
          if (path !== undefined) yield { ...known, name, path };
        }
      }
    }
  }

  async status(): Promise<CacheStatus> {
    const { layout, space } = this.#cache;
    const survey = await space.recount();
    const { freeBytes, freeMinBytes } = space.disk();
    return {
      folder: layout.folder,
      sizeBytes: survey.total,
      sizeMaxBytes: space.limits.sizeMaxBytes,
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
   * Reads every content and throws out what is not what its name says; sweeps records; puts the account
   * right. `onContent` is called after each content, with its size.
   */
  async verify(
    options: { readonly signal?: AbortSignal; readonly onContent?: (sizeBytes: number) => void } = {},
  ): Promise<CacheVerification> {
    const onlyCopies = await this.#onlyCopies();
    const contents: { digest: Digest; path: string }[] = [];
    await forEachSharded(this.#cache.layout, 'blobs', (name, path) => {
      if (isDigest(name)) contents.push({ digest: name, path });
    });
    const damaged: Digest[] = [];
    let contentBytes = 0;
    for (const { digest, path } of contents) {
      const size = await this.#verifyContent(digest, path, options.signal);
      if (size !== undefined) {
        contentBytes += size;
        options.onContent?.(size);
        continue;
      }
      damaged.push(digest);
      if (!onlyCopies.has(digest)) removeIfThere(path);
    }
    const recordsRemoved = await this.sweepRecords();
    await this.#cache.pins.sweep((digest, text) => this.#isRecorded(digest, text));
    const survey = await this.#cache.space.recount();
    return {
      contents: contents.length,
      contentBytes,
      damaged,
      records: survey.records,
      recordsRemoved,
      sizeBytes: survey.total,
    };
  }

  /** Whether a name has this content, or is just being given it: its pin comes before its record. */
  async #isRecorded(digest: Digest, text: string): Promise<boolean> {
    const { name, version } = parseVersionedName(text);
    const nameHash = hashOfName(name);
    using lock = await this.#locks.tryAcquire(nameLockKey(nameHash), 'exclusive');
    if (lock === undefined) return true;
    const record = readRecord(this.#cache.layout.record(nameHash));
    return record?.versions.some((known) => known.digest === digest && known.version === version) ?? false;
  }

  /** The size of a content that is what it should be; undefined where it is not. */
  async #verifyContent(name: Digest, path: string, signal?: AbortSignal): Promise<number | undefined> {
    // Small contents are written in their places while this lock is held.
    const before = await this.#cache.space.locked(() => lstatSync(path, { throwIfNoEntry: false }));
    // Evicted meanwhile: nothing is wrong with it.
    if (before === undefined) return 0;
    using blob = before.isFile() ? openBlob(path, name, before.size) : undefined;
    if (blob === undefined) return undefined;
    return (await digestOfFile(blob.path, signal)) === name ? before.size : undefined;
  }

  async #onlyCopies(): Promise<ReadonlySet<string>> {
    const digests = new Set<string>();
    await this.#forEachRecord((record) => {
      for (const { digest, local } of record?.versions ?? []) if (local === true) digests.add(digest);
    });
    return digests;
  }

  /** Removes records none of whose contents is there any more, unless their name is in use; gives their number. */
  async sweepRecords(): Promise<number> {
    const stale: { path: string; nameHash: string }[] = [];
    await this.#forEachRecord((record, path, nameHash) => {
      if (!this.#isAlive(record)) stale.push({ path, nameHash });
    });
    let removed = 0;
    for (const { path, nameHash } of stale) {
      using lock = await this.#locks.tryAcquire(nameLockKey(nameHash), 'exclusive');
      if (lock === undefined || this.#isAlive(readRecord(path))) continue;
      removeIfThere(path);
      removed += 1;
    }
    return removed;
  }

  #isAlive(record: NameRecord | undefined): boolean {
    const isThere = ({ digest, local }: KnownVersion): boolean =>
      local === true || lstatSync(this.#cache.layout.blob(digest), { throwIfNoEntry: false }) !== undefined;
    return record?.versions.some(isThere) ?? false;
  }

  async #forEachRecord(
    visit: (record: NameRecord | undefined, path: string, nameHash: string) => void,
  ): Promise<void> {
    await forEachSharded(this.#cache.layout, 'names', (nameHash, path) => {
      visit(readRecord(path), path, nameHash);
    });
  }
}
