import {
  closeSync,
  constants,
  fstatSync,
  lstatSync,
  openSync,
  readSync,
  statfsSync,
  writeSync,
} from 'node:fs';
import type { Digest } from '../../core/digest.ts';
import { errnoOf, FiletrackerError } from '../../core/errors.ts';
import { openOrCreate } from '../../fs/locks/range-locks.ts';
import type { RangeLock, RangeLocks } from '../../fs/locks/range-locks.ts';
import { removeIfThere, uniqueTag } from '../transfer/targets.ts';
import { isOnlyName, openFile, pathOfDescriptor } from './blob.ts';
import type { PartialBlob } from './files.ts';
import { partialCharge, partialLockKey, recordCharge, spaceLockKey } from './layout.ts';
import type { CacheLayout } from './layout.ts';
import type { CacheNames } from './names.ts';
import { surveyCache } from './survey.ts';
import type { Candidate, Survey } from './survey.ts';

/** Width of the number in the account file: every write overwrites the same bytes, at once. */
const accountDigits = 20;
const accountForm = new RegExp(`^\\d{${accountDigits}}$`);

/** A cache of more blobs is emptied by a twentieth at a time, to make up for the cost of a survey. */
const smallCacheBlobs = 100;
const extraShare = 0.05;

/** Records of evicted blobs are swept when the records exceed this multiple of the blobs. */
const recordsPerBlobMax = 2;
const recordsSpare = 64;

/** How often another user of the cache may replace the account file. */
const triesMax = 10;

/** Errnos of a file that can't be removed: a folder, or another user's in a folder with the sticky bit. */
const refusals: ReadonlySet<string> = new Set(['EPERM', 'EACCES', 'EISDIR', 'ENOTDIR']);

const defaultFreeMinBytes = 2 ** 30;
/** Bytes that may be added between two calls of statfs(2). */
const watchStepBytes = 4 * 1024 * 1024;

const { O_RDWR, O_CREAT, O_EXCL } = constants;

export interface SpaceLimits {
  /** Bytes that the cache may take, counted in blocks of the disk; `undefined` for no limit. */
  readonly sizeMaxBytes: number | undefined;
  /** Bytes that stay free on the cache's disk; `undefined` for 1 GiB, or a twentieth of a smaller disk. */
  readonly freeMinBytes: number | undefined;
}

/** A file in `partial/` with reserved space, open for writing. */
export interface Reservation extends PartialBlob {
  /** Leads to the open file. */
  readonly path: string;
  /** Bytes in the account. */
  readonly charge: number;
  readonly lock: RangeLock;
  /** Bytes in the file that an earlier download left. */
  readonly presentBytes: number;
}

export interface CacheSpaceParts {
  readonly layout: CacheLayout;
  readonly locks: RangeLocks;
  readonly names: CacheNames;
  readonly limits: SpaceLimits;
  readonly nowMs: () => number;
}

/**
 * The account of the space that a cache takes, and the eviction that keeps it within its limits.
 *
 * Invariant: the number in `space` is never less than what blobs, records and partial files take. It is raised before a
 * file appears and lowered after one is gone, and the name of a partial file has its final size. A process that dies in
 * between leaves the number too high, which the next survey, made before any eviction, corrects. All of it happens under
 * one lock among processes.
 */
export class CacheSpace {
  readonly #parts: CacheSpaceParts;
  #descriptor: number | undefined;
  #unwatchedBytes = watchStepBytes;

  constructor(parts: CacheSpaceParts) {
    this.#parts = parts;
  }

  get limits(): SpaceLimits {
    return this.#parts.limits;
  }

  /** Free bytes on the cache's disk, the part that must stay free, and the rest. */
  disk(): { readonly freeBytes: number; readonly freeMinBytes: number; readonly spareBytes: number } {
    const { bavail, bsize, blocks } = statfsSync(this.#parts.layout.folders.at());
    const freeBytes = bavail * bsize;
    const freeMinBytes = this.limits.freeMinBytes ?? Math.min(defaultFreeMinBytes, (blocks * bsize) / 20);
    return { freeBytes, freeMinBytes, spareBytes: freeBytes - freeMinBytes };
  }

  /** Runs `work` while no other process changes the account or the pins. */
  async locked<T>(work: () => T | Promise<T>, signal?: AbortSignal): Promise<T> {
    using _lock = await this.#parts.locks.acquire(spaceLockKey, 'exclusive', { signal });
    return await work();
  }

  /**
   * Reserves space for a blob and a record, evicting others if necessary, and creates a file for the blob. With a digest,
   * another process may have started the file. `undefined` if there is no capacity, or another process is writing this
   * very blob.
   */
  async reserve(
    size: number,
    digest: Digest | undefined,
    signal?: AbortSignal,
  ): Promise<Reservation | undefined> {
    const name = digest === undefined ? `t-${uniqueTag()}-${size}` : `d-${digest}-${size}`;
    const lock = await this.#parts.locks.tryAcquire(partialLockKey(name), 'exclusive');
    if (lock === undefined) return undefined;
    try {
      const reservation = await this.locked(() => this.#reserve(name, size, lock), signal);
      if (reservation === undefined) lock.release();
      return reservation;
    } catch (error) {
      lock.release();
      throw error;
    }
  }

  async #reserve(name: string, size: number, lock: RangeLock): Promise<Reservation | undefined> {
    const { layout } = this.#parts;
    const path = `${layout.partial}/${name}`;
    const charge = partialCharge(size);
    const present = lstatSync(path, { throwIfNoEntry: false });
    let descriptor = present === undefined ? undefined : openOwnLeftover(path);
    if (descriptor === undefined && present === undefined) {
      if (!(await this.#charge(charge))) return undefined;
    } else if (descriptor === undefined) {
      // Only the owner of a file can seal it. The space that this one took is what ours will take.
      removeIfThere(path);
    }
    // Only its owner can write it. Others may read what they can read when it is complete.
    descriptor ??= openSync(path, O_RDWR | O_CREAT | O_EXCL, 0o644);
    const { mode, size: presentBytes } = fstatSync(descriptor);
    // By its descriptor the caller writes to this very file, even if another user replaces its name.
    const own = layout.folders.isPrivate ? path : pathOfDescriptor(descriptor, path);
    return { name, descriptor, mode, path: own, charge, lock, presentBytes };
  }

  /** Reserves space for a blob and a record, and runs `write` under the lock. False if there is no capacity. */
  async take(size: number, write: () => void): Promise<boolean> {
    return await this.locked(async () => {
      if (!(await this.#charge(partialCharge(size)))) return false;
      write();
      return true;
    });
  }

  /**
   * Adds `bytes`, which may be negative, to the account for the files that `act` creates or removes. Under one lock: a
   * survey between the two steps would count the files already, and the account would become too low.
   */
  async change(bytes: number, act: () => void): Promise<void> {
    await this.locked(() => {
      if (bytes > 0) this.#add(bytes);
      act();
      if (bytes < 0) this.#add(bytes);
    });
  }

  #add(bytes: number): void {
    const total = this.#read();
    if (total !== undefined) this.#write(Math.max(0, total + bytes));
  }

  /** Evicts blobs to free `bytes` on a full disk; returns the bytes evicted. */
  async freeDisk(bytes: number): Promise<number> {
    return await this.#surveyed((survey) => this.#evict(survey, bytes, { freesDisk: true }));
  }

  /** Evicts until the account is at most `targetBytes`, and removes stale records; returns the bytes removed. */
  async shrink(targetBytes: number): Promise<number> {
    let evicted = 0;
    for (;;) {
      const [step, total] = await this.#surveyed(async (survey) => {
        const before = survey.total;
        await this.#sweepRecords(survey);
        await this.#evict(survey, survey.total - targetBytes, { withRecords: true });
        await this.#sweepRecords(survey);
        return [before - survey.total, survey.total];
      });
      evicted += step;
      // One survey remembers a bounded number of candidates, and some records share a blob: repeat while that helps.
      if (step === 0 || total <= targetBytes) return evicted;
    }
  }

  /** Removes unused candidates, and the records that are stale then; returns the number of files and all bytes. */
  async evict(candidates: readonly Candidate[]): Promise<{ readonly files: number; readonly bytes: number }> {
    return await this.locked(async () => {
      let [files, bytes] = [0, 0];
      for (const candidate of candidates) {
        if (!(await this.#removeUnused(candidate))) continue;
        files += 1;
        bytes += candidate.charge;
      }
      bytes += (await this.#parts.names.sweep()) * recordCharge;
      this.#add(-bytes);
      return { files, bytes };
    });
  }

  /** Surveys the cache, removes leftovers, and corrects the account. */
  async recount(): Promise<Survey> {
    return await this.#surveyed((survey) => survey);
  }

  async #surveyed<T>(work: (survey: Survey) => T | Promise<T>): Promise<T> {
    return await this.locked(async () => {
      const survey = await this.#survey();
      const result = await work(survey);
      this.#write(survey.total);
      return result;
    });
  }

  /** Adds `charge` to the account, after evicting as much as necessary. False if there is no capacity. */
  async #charge(charge: number): Promise<boolean> {
    const { sizeMaxBytes } = this.limits;
    const overLimit = (total: number): number => Math.max(0, total + charge - (sizeMaxBytes ?? Infinity));
    const shortOnDisk = (): number => {
      this.#unwatchedBytes = 0;
      return Math.max(0, charge - this.disk().spareBytes);
    };
    // Not every small file costs a statfs(2).
    this.#unwatchedBytes += charge;
    const isWatched = this.#unwatchedBytes < watchStepBytes;
    const counted = this.#read();
    if (counted !== undefined && overLimit(counted) === 0 && (isWatched || shortOnDisk() === 0)) {
      this.#write(counted + charge);
      return true;
    }
    if (sizeMaxBytes !== undefined && charge > sizeMaxBytes) return false;
    const survey = await this.#survey();
    if (survey.records > recordsPerBlobMax * survey.blobs + recordsSpare) await this.#sweepRecords(survey);
    const extra = survey.blobs > smallCacheBlobs ? (sizeMaxBytes ?? survey.total) * extraShare : 0;
    const over = overLimit(survey.total);
    if (over > 0) await this.#evict(survey, over + extra);
    if (overLimit(survey.total) > 0) await this.#sweepRecords(survey);
    const short = shortOnDisk();
    if (short > 0) await this.#evict(survey, short + extra, { freesDisk: true });
    const fits = overLimit(survey.total) === 0 && shortOnDisk() === 0;
    this.#write(survey.total + (fits ? charge : 0));
    return fits;
  }

  async #sweepRecords(survey: Survey): Promise<void> {
    const swept = await this.#parts.names.sweep();
    survey.records -= swept;
    survey.total -= swept * recordCharge;
  }

  async #survey(): Promise<Survey> {
    const survey = await surveyCache(this.#parts.layout, this.#parts.nowMs());
    for (const file of survey.abandoned) {
      if (await this.#removeUnused(file)) survey.total -= file.charge;
    }
    return survey;
  }

  /**
   * Removes candidates until `bytes` are gone or none is left; returns the bytes, and subtracts them from the survey.
   * @param options.freesDisk only candidates whose removal frees disk space.
   * @param options.withRecords count one record per blob, because records are swept next.
   */
  async #evict(
    survey: Survey,
    bytes: number,
    options: { readonly freesDisk?: boolean; readonly withRecords?: boolean } = {},
  ): Promise<number> {
    const recordBytes = options.withRecords === true ? recordCharge : 0;
    let evicted = 0;
    let expected = 0;
    const left: Candidate[] = [];
    for (const candidate of survey.candidates) {
      const isWanted = expected < bytes && !(options.freesDisk === true && candidate.shared);
      if (isWanted && (await this.#removeUnused(candidate))) {
        evicted += candidate.charge;
        expected += candidate.charge + recordBytes;
      } else {
        left.push(candidate);
      }
    }
    survey.candidates = left;
    survey.total -= evicted;
    return evicted;
  }

  /** Removes a file unless its lock is held, or the system refuses. */
  async #removeUnused(file: Candidate): Promise<boolean> {
    using lock = await this.#parts.locks.tryAcquire(file.lockKey, 'exclusive');
    if (lock === undefined) return false;
    try {
      removeIfThere(file.path);
      return true;
    } catch (error) {
      if (!refusals.has(errnoOf(error) ?? '')) throw error;
      return false;
    }
  }

  /** The account file, opened once; again if its folder was removed and recreated. */
  #account(): number {
    const known = this.#descriptor;
    if (known !== undefined && fstatSync(known).nlink > 0) return known;
    this.close();
    const { layout } = this.#parts;
    for (let tries = 1; ; tries += 1) {
      const path = layout.space;
      const descriptor = openOrCreate(path, O_RDWR, layout.fileMode);
      if (isOnlyName(path, descriptor)) return (this.#descriptor = descriptor);
      // It is overwritten, so it must not be another file that was linked to this name.
      closeSync(descriptor);
      if (tries === triesMax) {
        const state = 'its file "space" keeps changing';
        throw new FiletrackerError('io', `Cannot use the cache folder "${layout.folder}": ${state}`);
      }
      removeIfThere(path);
    }
  }

  /** The number in the account; `undefined` if it is damaged. */
  #read(): number | undefined {
    const bytes = Buffer.alloc(accountDigits + 1);
    const text = bytes.toString('latin1', 0, readSync(this.#account(), bytes, 0, bytes.length, 0));
    return accountForm.test(text) ? Number(text) : undefined;
  }

  #write(total: number): void {
    writeSync(this.#descriptor ?? this.#account(), String(total).padStart(accountDigits, '0'), 0, 'latin1');
  }

  /** Idempotent. */
  close(): void {
    if (this.#descriptor !== undefined) closeSync(this.#descriptor);
    this.#descriptor = undefined;
  }
}

/** Opens the leftover of an earlier download of this user; `undefined` if the file belongs to another user. */
function openOwnLeftover(path: string): number | undefined {
  const uid = process.geteuid?.();
  if (lstatSync(path, { throwIfNoEntry: false })?.uid !== uid) return undefined;
  const descriptor = openFile(path, O_RDWR);
  if (descriptor === undefined) return undefined;
  if (isOnlyName(path, descriptor) && fstatSync(descriptor).uid === uid) return descriptor;
  closeSync(descriptor);
  return undefined;
}
