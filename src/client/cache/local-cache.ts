import { closeSync, futimesSync, lstatSync, statSync, utimesSync } from 'node:fs';
import type { Stats } from 'node:fs';
import { constants, copyFile } from 'node:fs/promises';
import { dirname } from 'node:path';
import type { Readable } from 'node:stream';
import { systemClock } from '../../core/clock.ts';
import type { Clock } from '../../core/clock.ts';
import type { Digest } from '../../core/digest.ts';
import { errnoOf, FiletrackerError } from '../../core/errors.ts';
import type { FileName } from '../../core/file-name.ts';
import type { FileVersion } from '../../core/file-version.ts';
import { syncFile } from '../../fs/durable-file.ts';
import { syncFolder } from '../../fs/folders.ts';
import { RangeLocks } from '../../fs/locks/range-locks.ts';
import type { RangeLock } from '../../fs/locks/range-locks.ts';
import { freeStepBytes } from '../transfer/sink.ts';
import { removeIfThere } from '../transfer/targets.ts';
import { findBlob, openBlob, openBlobStream } from './blob.ts';
import { CacheFiles } from './files.ts';
import { CacheFolders } from './folders.ts';
import {
  CacheLayout,
  contentLockKey,
  hashOfName,
  isSealed,
  nameLockKey,
  recordCharge,
  sealOf,
  sealSeconds,
} from './layout.ts';
import { CacheMaintenance } from './maintenance.ts';
import { BlobChangedError, BlobDamagedError, materialize } from './materialize.ts';
import type { HandOut } from './materialize.ts';
import { CacheNames } from './names.ts';
import type { CachedFile, KnownVersion, NameRecord } from './names.ts';
import { CachePins } from './pins.ts';
import { CacheSpace } from './space.ts';

/** Where a cache is, and its limits. */
export interface LocalCacheOptions {
  readonly folder: string;
  /** Bytes that the cache may take, counted in blocks of the disk; by default no limit. */
  readonly sizeMaxBytes?: number | undefined;
  /** Bytes that stay free on the cache's disk; by default 1 GiB, or a twentieth of a smaller disk. */
  readonly freeMinBytes?: number | undefined;
  /** Permissions of the cache's folders, such as 0o2770 for a group; by default the umask decides. */
  readonly folderMode?: number | undefined;
  readonly handOut?: HandOut | undefined;
  readonly clock?: Clock | undefined;
}

/** A blob that is being added to the cache; the caller writes it to `path`. */
export interface CacheAddition {
  readonly path: string;
  /** Bytes that an earlier download left: the first ones of the blob, if its digest proves right. */
  readonly presentBytes: number;
  /** Adds the blob, which the caller has verified, under its digest and name. */
  commit(name: FileName, known: KnownVersion): Promise<CachedFile>;
  /** Ends the addition; with `keep` another download can resume it. Idempotent. */
  abandon(options: { readonly keep: boolean }): Promise<void>;
}

/**
 * A folder of blobs and of records of names, shared by any number of processes.
 *
 * Invariant: a file in `blobs/` gets its seal when it is complete and verified, and does not count without it, so a sealed
 * blob can be used without a lock. A blob that has changed since is never served. A name's record changes only under that
 * name's lock. A record does not guarantee its blobs: they may be evicted at any time, while open files stay readable.
 *
 * @example
 * ```ts
 * import { Readable } from 'node:stream';
 * import { Client, LocalCache } from 'filetracker';
 * import type { CachedFile, CacheStatus, CacheVerification, HandOut, LocalCacheOptions } from 'filetracker';
 *
 * const handOut: HandOut = 'copy';
 * const options: LocalCacheOptions = { folder: 'cache', sizeMaxBytes: 10 * 1024 ** 3, handOut };
 * const cache = new LocalCache(options);
 * const client = new Client({ localStore: cache });
 * await client.putStream('/a/b.txt@1700000000', Readable.from(['hello\n']));
 * const status: CacheStatus = await cache.maintenance.status();
 * const checked: CacheVerification = await cache.maintenance.verify();
 * const files: CachedFile[] = [];
 * for await (const file of cache.maintenance.list()) files.push(file);
 * console.log(status.names, checked.damaged.length, files[0]?.name); // 1 0 /a/b.txt
 * await client.close();
 * ```
 */
export class LocalCache implements Disposable {
  readonly layout: CacheLayout;
  readonly pins: CachePins;
  readonly space: CacheSpace;
  readonly maintenance: CacheMaintenance;
  readonly #names: CacheNames;
  readonly #handOut: HandOut;
  readonly #locks: RangeLocks;
  readonly #files: CacheFiles;

  /** Does no I/O: the first addition creates the folders. */
  constructor(options: LocalCacheOptions, folders = new CacheFolders(options.folder, options.folderMode)) {
    const { sizeMaxBytes, freeMinBytes, handOut = 'auto', clock = systemClock } = options;
    const layout = new CacheLayout(folders);
    const nowMs = (): number => clock.nowMs();
    const locks = new RangeLocks(() => layout.lock, { fileMode: layout.fileMode });
    const files = new CacheFiles(layout, nowMs);
    const names = new CacheNames(layout, files, locks);
    this.layout = layout;
    this.space = new CacheSpace({ layout, locks, names, limits: { sizeMaxBytes, freeMinBytes }, nowMs });
    this.pins = new CachePins(layout, this.space, files);
    this.maintenance = new CacheMaintenance(layout, names, this.pins, this.space);
    this.#names = names;
    this.#handOut = handOut;
    this.#locks = locks;
    this.#files = files;
  }

  get folder(): string {
    return this.layout.folder;
  }

  /** The known versions of a name, whether their blobs are cached or not. */
  record(name: FileName): NameRecord | undefined {
    return this.#names.read(name);
  }

  /** A version of a name, by default the newest, whose blob is cached and unchanged. */
  find(name: FileName, version?: FileVersion): CachedFile | undefined {
    const record = this.#names.read(name);
    if (record === undefined) return undefined;
    for (const known of record.versions) {
      if (version !== undefined && known.version !== version) continue;
      const path = findBlob(this.layout, known.digest, known.size);
      if (path !== undefined) return { ...known, name, path };
    }
    return undefined;
  }

  /** The path of a blob, if it is cached and unchanged. */
  findBlob(digest: Digest, size: number): string | undefined {
    return findBlob(this.layout, digest, size);
  }

  /** Held while a name's blob is fetched or its record changed. */
  async lockName(name: FileName, signal?: AbortSignal): Promise<RangeLock> {
    this.#files.prepare();
    return await this.#locks.acquire(nameLockKey(hashOfName(name)), 'exclusive', { signal });
  }

  /** Keeps eviction from a blob. */
  async lockBlob(digest: Digest): Promise<RangeLock> {
    return await this.#locks.acquire(contentLockKey(digest), 'shared');
  }

  /**
   * Puts a cached blob at `target`. False if the blob was evicted or changed meanwhile.
   * @throws system errors about the target as they come.
   */
  async materialize(
    cached: CachedFile,
    target: string,
    {
      how = this.#handOut,
      bytes,
    }: { readonly how?: HandOut | undefined; readonly bytes?: Buffer | undefined } = {},
  ): Promise<boolean> {
    // Before, because a hard link would prevent it afterwards; and after, because reading sets a coarser time.
    // A blob that was added for this call has a recent time.
    if (bytes === undefined) this.touch(cached);
    try {
      await materialize(cached, target, { how, bytes, isShared: !this.layout.folders.isPrivate });
    } catch (error) {
      if (error instanceof BlobDamagedError) this.#tryToDiscard(cached);
      if (error instanceof BlobChangedError) return false;
      throw error;
    }
    if (bytes === undefined) this.touch(cached);
    return true;
  }

  /** Whether a file at `target` takes space on the cache's disk. */
  sharesDiskWith(target: string): boolean {
    return statSync(dirname(target)).dev === statSync(this.layout.folders.at()).dev;
  }

  /** Opens a blob for reading; eviction skips it until the stream is closed. */
  async openStream(cached: CachedFile): Promise<Readable | undefined> {
    const lock = await this.lockBlob(cached.digest);
    try {
      const stream = openBlobStream(cached, () => this.#tryToDiscard(cached));
      if (stream === undefined) lock.release();
      stream?.once('close', () => lock.release());
      this.touch(cached);
      return stream;
    } catch (error) {
      lock.release();
      throw error;
    }
  }

  /**
   * Records the use of a blob. Not while a hard link shares the file: setting its access time sets its modification time
   * too, and would seal what the link's owner may just have written.
   */
  touch(cached: CachedFile): void {
    const attributes = lstatSync(cached.path, { throwIfNoEntry: false });
    if (attributes?.nlink !== 1 || !isSealed(attributes, cached.digest, cached.size)) return;
    try {
      if (this.layout.folders.isPrivate) utimesSync(cached.path, ...this.#stamps(cached.digest, attributes));
      else {
        using blob = openBlob(cached.path, cached.digest, cached.size);
        if (blob?.attributes.nlink !== 1) return;
        futimesSync(blob.descriptor, ...this.#stamps(cached.digest, blob.attributes));
      }
    } catch (error) {
      // Another user's file, whose access time the kernel keeps; or it was evicted.
      if (!['EPERM', 'EACCES', 'ENOENT', 'EROFS'].includes(errnoOf(error) ?? '')) throw error;
    }
  }

  #stamps(digest: Digest, attributes: Stats): [accessed: number, modified: number] {
    return [this.#files.stampSeconds(), sealOf(digest, sealSeconds(attributes))];
  }

  /** Adds one version to a name's record. The caller holds the name's lock. */
  async remember(name: FileName, known: KnownVersion): Promise<void> {
    const put = (): void => this.#names.put(name, known);
    if (this.#names.isCharged(name)) put();
    else await this.space.change(recordCharge, put);
  }

  /**
   * Removes versions up to and including `upTo`, or all, from a name's record, and returns them. The caller holds the
   * name's lock.
   */
  async forget(name: FileName, upTo?: FileVersion): Promise<readonly KnownVersion[]> {
    const gone = this.#names.remove(name, upTo);
    for (const { digest, version, local } of gone) {
      const isUnpinned = await this.pins.remove(digest, name, version);
      if (local === true && isUnpinned) this.discard(digest);
    }
    return gone;
  }

  /** Reserves space for a blob; `undefined` if the cache has no capacity for it. */
  async begin(
    size: number,
    digest: Digest | undefined,
    signal?: AbortSignal,
  ): Promise<CacheAddition | undefined> {
    this.#files.prepare();
    const reservation = await this.space.reserve(size, digest, signal);
    if (reservation === undefined) return undefined;
    const { path, presentBytes, descriptor, lock, charge, name: fileName } = reservation;
    let isOpen = true;
    const end = (): void => {
      isOpen = false;
      closeSync(descriptor);
    };
    const abandon = async ({ keep }: { readonly keep: boolean }): Promise<void> => {
      if (!isOpen) return;
      end();
      const remove = (): void => removeIfThere(`${this.layout.partial}/${fileName}`);
      if (!keep) await this.space.change(-charge, remove);
      lock.release();
    };
    const commit = async (name: FileName, known: KnownVersion): Promise<CachedFile> => {
      if (known.size !== size) {
        throw new FiletrackerError(
          'size-mismatch',
          `Cannot cache "${name}": its size changed during the transfer`,
        );
      }
      if (known.local === true) await this.pins.add(known.digest, 'local', name, known.version);
      if (this.findBlob(known.digest, size) === undefined) {
        // The reservation covers both, so a survey must not see one without the other.
        await this.space.locked(() => {
          this.#files.placeBlob(reservation, known.digest, known.version);
          this.#names.put(name, known);
        });
        end();
        lock.release();
      } else {
        await abandon({ keep: false });
        await this.remember(name, known);
      }
      return { ...known, name, path: this.layout.blob(known.digest) };
    };
    return { path, presentBytes, commit, abandon };
  }

  /** Adds a blob from memory, which the caller has verified. `undefined` if the cache has no capacity for it. */
  async addBytes(name: FileName, known: KnownVersion, bytes: Buffer): Promise<CachedFile | undefined> {
    this.#files.prepare();
    const { digest, version } = known;
    if (known.local === true) await this.pins.add(digest, 'local', name, version);
    const isThere = (): boolean => this.findBlob(digest, bytes.length) !== undefined;
    const write = (): void => {
      this.#files.writeBlob(known, bytes, isThere);
      this.#names.put(name, known);
    };
    if (isThere()) await this.remember(name, known);
    else if (!(await this.#take(bytes.length, write))) return undefined;
    return { ...known, name, path: this.layout.blob(digest) };
  }

  /** Writes after reserving space; if the disk is full all the same, evicts more and tries once more. */
  async #take(size: number, write: () => void): Promise<boolean> {
    try {
      return await this.space.take(size, write);
    } catch (error) {
      if (errnoOf(error) !== 'ENOSPC' || (await this.space.freeDisk(freeStepBytes)) === 0) throw error;
      return await this.space.take(size, write);
    }
  }

  /**
   * Adds a copy of a file. `undefined` if the cache has no capacity for it.
   * @param options.check called after the copy; throws if the file has changed since `known` was determined.
   */
  async addFile(
    name: FileName,
    known: KnownVersion,
    path: string,
    { check, signal }: { readonly check: () => void; readonly signal?: AbortSignal | undefined },
  ): Promise<CachedFile | undefined> {
    const present = this.findBlob(known.digest, known.size);
    if (present !== undefined) {
      if (known.local === true) await this.pins.add(known.digest, 'local', name, known.version);
      await this.remember(name, known);
      return { ...known, name, path: present };
    }
    const addition = await this.begin(known.size, undefined, signal);
    if (addition === undefined) return undefined;
    try {
      await copyFile(path, addition.path, constants.COPYFILE_FICLONE);
      check();
      return await addition.commit(name, known);
    } catch (error) {
      await addition.abandon({ keep: false });
      throw error;
    }
  }

  /** Makes a blob that has no other copy, its record and its pin survive power loss. */
  async makeDurable({ name, digest, path }: CachedFile): Promise<void> {
    const recordPath = this.layout.record(hashOfName(name));
    for (const file of [path, recordPath, this.layout.path('pins', digest)]) await syncFile(file);
    const { pins, folders: all } = this.layout;
    const folders = [dirname(path), dirname(recordPath), pins, all.at('blobs'), all.at('names'), all.at()];
    // Folders above that existed before are not ours to open.
    for (const folder of [...folders, ...this.#files.newFolders]) await syncFolder(folder);
  }

  /** Removes a blob that proved to be damaged. */
  discard(digest: Digest): void {
    removeIfThere(this.layout.blob(digest));
  }

  /** Removes another user's blob, unless it is the only copy or the system refuses. */
  #tryToDiscard(cached: CachedFile): void {
    if (cached.local === true) return;
    try {
      this.discard(cached.digest);
    } catch (error) {
      if (!['EPERM', 'EACCES'].includes(errnoOf(error) ?? '')) throw error;
    }
  }

  /** Releases every lock. Idempotent. */
  close(): void {
    this.space.close();
    this.#locks.close();
    this.layout.folders.close();
  }

  [Symbol.dispose](): void {
    this.close();
  }
}
