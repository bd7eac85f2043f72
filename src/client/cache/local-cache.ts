import { closeSync, fchmodSync, futimesSync, lstatSync, renameSync, statSync, utimesSync } from 'node:fs';
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
import { syncFolder } from '../../fs/folders.ts';
import { RangeLocks, type RangeLock } from '../../fs/locks/range-locks.ts';
import { syncFile } from '../../fs/durable-file.ts';
import { BlobChangedError, BlobDamagedError, materialize, setVersion } from './materialize.ts';
import type { HandOut } from './materialize.ts';
import { isOnlyName, openBlob, openContentStream } from './blob.ts';
import { CacheMaintenance } from './check.ts';
import { CacheFiles } from './files.ts';
import { CacheFolders, isOwn } from './folders.ts';
import {
  CacheLayout,
  contentLockKey,
  fileMode,
  hashOfName,
  isSealed,
  nameLockKey,
  recordCharge,
  sealOf,
  sealSeconds,
} from './layout.ts';
import type { CachePermissions } from './layout.ts';
import { readRecord, withVersion } from './names.ts';
import type { CachedFile, KnownVersion, NameRecord } from './names.ts';
import { CachePins } from './pins.ts';
import { CacheSpace } from './space.ts';
import type { Reservation } from './space.ts';
import { keepAttributes, keptAttributes, removeIfThere, temporaryPathFor } from '../transfer/targets.ts';

/** Where a cache is, and its limits. */
export interface LocalCacheOptions {
  readonly folder: string;
  /** Bytes that the cache may take, counted in blocks of the disk; no limit unless given. */
  readonly sizeMaxBytes?: number | undefined;
  /** Bytes that must stay free on the cache's disk; 1 GiB unless given, or a twentieth of a smaller disk. */
  readonly freeMinBytes?: number | undefined;
  /** Permissions of the cache's folders, such as 0o2770 for a group; what the umask leaves unless given. */
  readonly folderMode?: number | undefined;
  readonly handOut?: HandOut | undefined;
  readonly clock?: Clock | undefined;
}

/** Room asked for at once when the disk is full, so that the next contents find some too. */
const roomStepBytes = 16 * 1024 * 1024;

/** Content on its way into the cache, written to `path` by the caller. */
export interface CacheAddition {
  readonly path: string;
  /** Bytes that an earlier download left there: the beginning of the content, if its digest proves right. */
  readonly presentBytes: number;
  /** Puts what was written under its digest and name; the caller has verified it. */
  commit(name: FileName, known: KnownVersion): Promise<CachedFile>;
  /** Gives the addition up; with `keep` another download may go on from what is there. Idempotent. */
  abandon(options: { readonly keep: boolean }): Promise<void>;
}

/**
 * A folder of contents and of what is known of names, shared by any number of processes.
 *
 * Invariant: a file in `blobs/` gets its seal when it is complete and verified, and counts for nothing
 * without it, so that whoever finds it sealed may use it without a lock; one that is not as it was sealed is
 * never handed out. Records of a name are changed under that name's lock only, and one that can't be read is
 * none. Nothing relies on a record's content being there: it may be evicted at any time, and a file once
 * opened stays readable.
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
  readonly #handOut: HandOut;
  readonly #clock: Clock;
  readonly #locks: RangeLocks;
  readonly #files: CacheFiles;

  /** Touches nothing on disk: folders are created with the first addition. */
  constructor(options: LocalCacheOptions, folders = new CacheFolders(options.folder, options.folderMode)) {
    this.layout = new CacheLayout(folders);
    this.#handOut = options.handOut ?? 'auto';
    this.#clock = options.clock ?? systemClock;
    const permissions: CachePermissions = { folderMode: options.folderMode };
    const nowMs = (): number => this.#clock.nowMs();
    this.#locks = new RangeLocks(() => this.layout.lock, { fileMode: fileMode(permissions) });
    this.#files = new CacheFiles(this.layout, permissions, nowMs);
    this.space = new CacheSpace({
      layout: this.layout,
      permissions,
      locks: this.#locks,
      limits: { sizeMaxBytes: options.sizeMaxBytes, freeMinBytes: options.freeMinBytes },
      nowMs,
      sweepRecords: () => this.maintenance.sweepRecords(),
    });
    this.pins = new CachePins(this.layout, this.space, this.#files);
    this.maintenance = new CacheMaintenance(this, this.#locks);
  }

  get folder(): string {
    return this.layout.folder;
  }

  /** What is known of a name, whether its contents are there or not. */
  record(name: FileName): NameRecord | undefined {
    const record = readRecord(this.layout.record(hashOfName(name)));
    return record?.name === name ? record : undefined;
  }

  /**
   * The given version of a name, or the newest that is there, if its content is in the cache and as it was
   * when it was added.
   */
  find(name: FileName, version?: FileVersion): CachedFile | undefined {
    const record = this.record(name);
    if (record === undefined) return undefined;
    for (const known of record.versions) {
      if (version !== undefined && known.version !== version) continue;
      const path = this.findContent(known.digest, known.size);
      if (path !== undefined) return { ...known, name, path };
    }
    return undefined;
  }

  /** The path of a content, if it is there and as it was when it was added. */
  findContent(digest: Digest, size: number): string | undefined {
    const path = this.layout.blob(digest);
    const attributes = lstatSync(path, { throwIfNoEntry: false });
    if (attributes?.isFile() !== true) return undefined;
    // What is not sealed stays until it is replaced: it may be another process's, on its way in.
    return isSealed(attributes, digest, size) ? path : undefined;
  }

  /** Held by whoever fetches or changes a name. */
  async lockName(name: FileName, signal?: AbortSignal): Promise<RangeLock> {
    this.#files.prepare();
    return await this.#locks.acquire(nameLockKey(hashOfName(name)), 'exclusive', { signal });
  }

  /**
   * Makes the content appear at `target`. False where it was evicted or changed meanwhile.
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
    // Before, because a hard link would keep it from being done after; and after, because reading sets a
    // coarser time. What was just added has a time that will do.
    if (bytes === undefined) this.touch(cached);
    try {
      const { isPrivate } = this.layout.folders;
      await materialize(
        { ...cached, local: cached.local === true, bytes, isShared: !isPrivate },
        target,
        how,
      );
    } catch (error) {
      if (error instanceof BlobDamagedError) this.#tryToDiscard(cached);
      if (error instanceof BlobChangedError) return false;
      throw error;
    }
    if (bytes === undefined) this.touch(cached);
    return true;
  }

  /**
   * Moves a content out of the cache to `target`, where the disk has no room for two of it. False where it
   * must stay or the target is on another file system.
   */
  giveAway(cached: CachedFile, target: string): boolean {
    if (cached.local === true) return false;
    using blob = openBlob(cached.path, cached.digest, cached.size);
    if (blob?.attributes.nlink !== 1 || !isOwn(blob.attributes)) return false;
    const temporaryPath = temporaryPathFor(target);
    const kept = keptAttributes(target);
    try {
      renameSync(cached.path, temporaryPath);
    } catch (error) {
      if (errnoOf(error) === 'EXDEV') return false;
      throw error;
    }
    // Another user of the cache may have put something else in its place just before.
    if (!isOnlyName(temporaryPath, blob.descriptor)) {
      removeIfThere(temporaryPath);
      return false;
    }
    if (kept === undefined) fchmodSync(blob.descriptor, 0o644);
    else keepAttributes(blob.descriptor, kept);
    setVersion(blob.path, cached.version);
    renameSync(temporaryPath, target);
    return true;
  }

  /** Held, eviction leaves a content alone. */
  async lockContent(digest: Digest): Promise<RangeLock> {
    return await this.#locks.acquire(contentLockKey(digest), 'shared');
  }

  /** Whether a file at `target` would take room on the cache's disk. */
  sharesDiskWith(target: string): boolean {
    return statSync(dirname(target)).dev === statSync(this.layout.folders.at()).dev;
  }

  /** Opens a content for reading; eviction leaves it alone until the stream is closed. */
  async openStream(cached: CachedFile): Promise<Readable | undefined> {
    const lock = await this.lockContent(cached.digest);
    try {
      const stream = openContentStream(cached, () => this.#tryToDiscard(cached));
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
   * Notes that a content was used. Not while a hard link shares the file: setting its time of access sets
   * its time of modification too, and would seal what the link's owner may have written just now.
   */
  touch(cached: CachedFile): void {
    const attributes = lstatSync(cached.path, { throwIfNoEntry: false });
    if (attributes?.nlink !== 1 || !isSealed(attributes, cached.digest, cached.size)) return;
    try {
      if (this.layout.folders.isPrivate) this.#stamp(cached.path, cached.digest, attributes);
      else {
        using blob = openBlob(cached.path, cached.digest, cached.size);
        if (blob?.attributes.nlink === 1) this.#stamp(blob.descriptor, cached.digest, blob.attributes);
      }
    } catch (error) {
      // Another user's file: its use shows by the time of access that the kernel keeps. Or it was evicted.
      if (!['EPERM', 'EACCES', 'ENOENT', 'EROFS'].includes(errnoOf(error) ?? '')) throw error;
    }
  }

  #stamp(file: string | number, digest: Digest, attributes: Stats): void {
    const times = [this.#files.stampSeconds(), sealOf(digest, sealSeconds(attributes))] as const;
    if (typeof file === 'string') utimesSync(file, ...times);
    else futimesSync(file, ...times);
  }

  /** Puts one version into a name's record. The caller holds the name's lock. */
  async remember(name: FileName, known: KnownVersion): Promise<void> {
    const path = this.layout.record(hashOfName(name));
    if (readRecord(path) === undefined)
      await this.space.change(recordCharge, () => this.#record(name, known));
    else this.#record(name, known);
  }

  #record(name: FileName, known: KnownVersion): void {
    const path = this.#recordPath(name);
    // Tried first, because most names are new where contents are, and to look would cost a sixth of the writing.
    if (this.#files.writeFirstRecord(path, withVersion(undefined, name, known))) return;
    const before = readRecord(path());
    const record = withVersion(before?.name === name ? before : undefined, name, known);
    this.#files.replaceFile('names', path, JSON.stringify(record));
  }

  #recordPath(name: FileName): () => string {
    const nameHash = hashOfName(name);
    return () => this.layout.record(nameHash);
  }

  /** Takes versions out of a name's record, up to and including `upTo`, or all. The caller holds the name's lock. */
  async forget(name: FileName, upTo?: FileVersion): Promise<readonly KnownVersion[]> {
    const record = this.record(name);
    if (record === undefined) return [];
    const gone = record.versions.filter(({ version }) => upTo === undefined || version <= upTo);
    const kept = record.versions.filter((version) => !gone.includes(version));
    const path = this.#recordPath(name);
    if (kept.length > 0) this.#files.replaceFile('names', path, JSON.stringify({ name, versions: kept }));
    else removeIfThere(path());
    for (const version of gone) {
      const unused = await this.pins.remove(version.digest, name, version.version);
      if (version.local === true && unused) removeIfThere(this.layout.blob(version.digest));
    }
    return gone;
  }

  /** Makes room for a content and gives a place to write it to; undefined where the cache can't take it. */
  async begin(
    size: number,
    digest: Digest | undefined,
    signal?: AbortSignal,
  ): Promise<CacheAddition | undefined> {
    this.#files.prepare();
    const reservation = await this.space.reserve(size, digest, signal);
    return reservation === undefined ? undefined : this.#addition(reservation, size);
  }

  #addition(reservation: Reservation, size: number): CacheAddition {
    let open = true;
    const abandon = async ({ keep }: { readonly keep: boolean }): Promise<void> => {
      if (!open) return;
      open = false;
      closeSync(reservation.descriptor);
      if (!keep) {
        const remove = (): void => removeIfThere(`${this.layout.partial}/${reservation.name}`);
        await this.space.change(-reservation.charge, remove);
      }
      reservation.lock.release();
    };
    const commit = async (name: FileName, known: KnownVersion): Promise<CachedFile> => {
      if (known.size !== size) {
        throw new FiletrackerError('size-mismatch', `Cannot cache "${name}": its size changed on the way`);
      }
      if (known.local === true) await this.pins.add(known.digest, 'local', name, known.version);
      if (this.findContent(known.digest, size) === undefined) {
        // In one step for whoever counts: the room that was taken is that of both.
        await this.space.locked(() => {
          this.#files.placeBlob(reservation, known.digest, known.version);
          this.#record(name, known);
        });
        open = false;
        closeSync(reservation.descriptor);
        reservation.lock.release();
      } else {
        await abandon({ keep: false });
        await this.remember(name, known);
      }
      return { ...known, name, path: this.layout.blob(known.digest) };
    };
    return { path: reservation.path, presentBytes: reservation.presentBytes, commit, abandon };
  }

  /** Adds a content that lies in memory, verified by the caller. Undefined where the cache can't take it. */
  async addBytes(name: FileName, known: KnownVersion, bytes: Buffer): Promise<CachedFile | undefined> {
    this.#files.prepare();
    const { digest, version } = known;
    if (known.local === true) await this.pins.add(digest, 'local', name, version);
    if (this.findContent(digest, bytes.length) !== undefined) {
      await this.remember(name, known);
      return { ...known, name, path: this.layout.blob(digest) };
    }
    const isThere = (): boolean => this.findContent(digest, bytes.length) !== undefined;
    const write = (): void => {
      this.#files.writeBlob(known, bytes, isThere);
      this.#record(name, known);
    };
    if (!(await this.#takeRoom(bytes.length, write))) return undefined;
    return { ...known, name, path: this.layout.blob(digest) };
  }

  /** Writes into room that is made; where the disk is full all the same, more is evicted once. */
  async #takeRoom(size: number, write: () => void): Promise<boolean> {
    try {
      return await this.space.take(size, write);
    } catch (error) {
      if (errnoOf(error) !== 'ENOSPC' || (await this.space.freeDisk(roomStepBytes)) === 0) throw error;
      return await this.space.take(size, write);
    }
  }

  /**
   * Adds the content of a file. Undefined where the cache can't take it. `check` is called after it was copied
   * and throws if the file has changed since `known` was true of it.
   */
  async addFile(
    name: FileName,
    known: KnownVersion,
    path: string,
    { check, signal }: { readonly check: () => void; readonly signal?: AbortSignal | undefined },
  ): Promise<CachedFile | undefined> {
    const present = this.findContent(known.digest, known.size);
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

  /** Makes a content that has no other copy, and what leads to it, survive power loss. */
  async makeDurable({ name, digest, path }: CachedFile): Promise<void> {
    const recordPath = this.layout.record(hashOfName(name));
    for (const file of [path, recordPath, this.layout.pin(digest)]) await syncFile(file);
    const { pins, folders: all } = this.layout;
    const folders = [dirname(path), dirname(recordPath), pins, all.at('blobs'), all.at('names'), all.at()];
    // Folders above that were there before are not ours to open.
    for (const folder of [...folders, ...this.#files.newFolders]) await syncFolder(folder);
  }

  /** Throws a content out that proved to be wrong. */
  discard(digest: Digest): void {
    removeIfThere(this.layout.blob(digest));
  }

  /** Throws out what another user stored, unless it is the only copy or the system does not let this user. */
  #tryToDiscard(cached: CachedFile): void {
    if (cached.local === true) return;
    try {
      this.discard(cached.digest);
    } catch (error) {
      if (!['EPERM', 'EACCES'].includes(errnoOf(error) ?? '')) throw error;
    }
  }

  /** Lets go of every lock. Idempotent. */
  close(): void {
    this.space.close();
    this.#locks.close();
    this.layout.folders.close();
  }

  [Symbol.dispose](): void {
    this.close();
  }
}
