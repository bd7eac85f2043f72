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
import { type RangeLock, type RangeLocks, openOrCreate } from '../../fs/locks/range-locks.ts';
import { isOnlyName, openFile, pathOfDescriptor } from './blob.ts';
import type { PartialBlob } from './files.ts';
import { fileMode, partialCharge, partialLockKey, recordCharge, spaceLockKey } from './layout.ts';
import type { CacheLayout, CachePermissions } from './layout.ts';
import { surveyCache } from './survey.ts';
import type { Candidate, Survey } from './survey.ts';
import { removeIfThere, uniqueTag } from '../transfer/targets.ts';

/** Width of the number in the account file: always the same bytes are overwritten, in one write. */
const accountDigits = 20;
const accountForm = new RegExp(`^\\d{${accountDigits}}$`);

/** Caches of more contents than this are emptied by a twentieth at a time, so that looking through them pays. */
const smallCacheBlobs = 100;
const extraShare = 0.05;

/** Records of evicted contents are swept once they are this many more than the contents. */
const recordsPerBlobMax = 2;
const recordsSpare = 64;

/** How often another user of the cache may put something else in the place of the account. */
const triesMax = 10;

/** Errnos of a file that stays: a folder, or another user's in a folder with the sticky bit. */
const refusals: ReadonlySet<string> = new Set(['EPERM', 'EACCES', 'EISDIR', 'ENOTDIR']);

const defaultFreeMinBytes = 2 ** 30;
/** Bytes that may be added before the disk is asked again how much is free. */
const watchStepBytes = 4 * 1024 * 1024;

export interface SpaceLimits {
  /** Bytes that the cache may take, counted in blocks of the disk; undefined for no limit. */
  readonly sizeMaxBytes: number | undefined;
  /** Bytes that must stay free on the cache's disk; undefined for 1 GiB, or a twentieth of a smaller disk. */
  readonly freeMinBytes: number | undefined;
}

/** A file in `partial/` that stands for room that is taken, open for writing. */
export interface Reservation extends PartialBlob {
  /** Leads to the open file, for the caller that fills it. */
  readonly path: string;
  /** Bytes in the account. */
  readonly charge: number;
  readonly lock: RangeLock;
  /** Bytes that an earlier download left in the file. */
  readonly presentBytes: number;
}

export interface CacheSpaceParts {
  readonly layout: CacheLayout;
  readonly permissions: CachePermissions;
  readonly locks: RangeLocks;
  readonly limits: SpaceLimits;
  readonly nowMs: () => number;
  /** Removes records none of whose contents is there any more; gives their number. */
  readonly sweepRecords: () => Promise<number>;
}

/**
 * The account of what a cache takes, and the eviction that keeps it in bounds.
 *
 * Invariant: the number in `space` is never less than what blobs, records and partial files take. It is
 * raised before a file appears and lowered after one has gone, and a file on its way in has its final size
 * in its name. A process that dies in between leaves the number too high, which the next look through the
 * cache, made before anything is evicted, puts right. All of it happens under one lock among processes.
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

  /** What is free on the cache's disk, the part of it that must stay free, and what may be taken. */
  disk(): { readonly freeBytes: number; readonly freeMinBytes: number; readonly spareBytes: number } {
    const { bavail, bsize, blocks } = statfsSync(this.#parts.layout.folders.at());
    const freeBytes = bavail * bsize;
    const freeMinBytes =
      this.#parts.limits.freeMinBytes ?? Math.min(defaultFreeMinBytes, (blocks * bsize) / 20);
    return { freeBytes, freeMinBytes, spareBytes: freeBytes - freeMinBytes };
  }

  /** Runs `work` while no other process changes the account or the pins. */
  async locked<T>(work: () => T | Promise<T>, signal?: AbortSignal): Promise<T> {
    using _lock = await this.#parts.locks.acquire(spaceLockKey, 'exclusive', { signal });
    return await work();
  }

  /**
   * Makes room for `size` bytes and a record, evicting where needed, and creates the file for them. With a
   * digest it is a file that another process may have begun and left. Undefined where there is no room, or
   * where another is writing this very content.
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
    const path = `${this.#parts.layout.partial}/${name}`;
    const charge = partialCharge(size);
    const present = lstatSync(path, { throwIfNoEntry: false });
    const left = present === undefined ? undefined : openLeft(path);
    const reservation = (descriptor: number): Reservation => {
      const { mode, size: presentBytes } = fstatSync(descriptor);
      // Whatever another user puts in the place of the name, the caller writes to this very file.
      const own = this.#parts.layout.folders.isPrivate ? path : pathOfDescriptor(descriptor, path);
      return { name, descriptor, mode, path: own, charge, lock, presentBytes };
    };
    if (left !== undefined) return reservation(left);
    if (present === undefined) {
      const total = await this.#roomFor(charge);
      if (total === undefined) return undefined;
      this.#write(total + charge);
    } else {
      // Another user's file can't be sealed by us. What it took is what ours will take.
      removeIfThere(path);
    }
    // Only its owner can write it. Others may read what they can read when it is complete.
    return reservation(openSync(path, newFileFlags, 0o644));
  }

  /**
   * Makes room for `size` bytes and a record, and lets `write` take it while no other process changes the
   * account. Gives whether there was room.
   */
  async take(size: number, write: () => void): Promise<boolean> {
    return await this.locked(async () => {
      const charge = partialCharge(size);
      const total = await this.#roomFor(charge);
      if (total === undefined) return false;
      this.#write(total + charge);
      write();
      return true;
    });
  }

  /**
   * Takes or, with a negative number, gives back room for the files that `act` makes or removes. Under one lock:
   * whoever looked through the cache between the two steps would have counted them already, and the account
   * would come to be too low.
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

  /** Evicts what gives the disk `bytes` back, for whoever hit its end; gives how many bytes that were. */
  async freeDisk(bytes: number): Promise<number> {
    return await this.locked(async () => {
      const survey = await this.#survey();
      const evicted = await this.#evict(survey, bytes, { may: notShared });
      this.#write(survey.total);
      return evicted;
    });
  }

  /** Evicts until the account is at most `targetBytes`, records that lead nowhere then included; gives the bytes. */
  async shrink(targetBytes: number): Promise<number> {
    let evicted = 0;
    for (;;) {
      const [step, total] = await this.locked(async () => {
        const survey = await this.#survey();
        const before = survey.total;
        await this.#sweepRecords(survey);
        await this.#evict(survey, survey.total - targetBytes, { recordsToo: true });
        await this.#sweepRecords(survey);
        this.#write(survey.total);
        return [before - survey.total, survey.total];
      });
      evicted += step;
      // One look remembers only so many candidates, and not every record goes with one content: go on while that helps.
      if (step === 0 || total <= targetBytes) return evicted;
    }
  }

  /** Removes these, but for those in use, and records that lead nowhere then; gives the number of these files and all bytes. */
  async evict(candidates: readonly Candidate[]): Promise<{ readonly files: number; readonly bytes: number }> {
    return await this.locked(async () => {
      let [files, bytes] = [0, 0];
      for (const candidate of candidates) {
        if (!(await this.#removeUnused(candidate))) continue;
        files += 1;
        bytes += candidate.charge;
      }
      bytes += (await this.#parts.sweepRecords()) * recordCharge;
      const total = this.#read();
      if (total !== undefined) this.#write(Math.max(0, total - bytes));
      return { files, bytes };
    });
  }

  /** Looks through the cache, sweeps what was left over, and puts the account right. */
  async recount(): Promise<Survey> {
    return await this.locked(async () => {
      const survey = await this.#survey();
      this.#write(survey.total);
      return survey;
    });
  }

  /** The account if `charge` more bytes fit, after evicting what was needed; undefined where they can't. */
  async #roomFor(charge: number): Promise<number | undefined> {
    const { sizeMaxBytes } = this.#parts.limits;
    const overLimit = (total: number): number => Math.max(0, total + charge - (sizeMaxBytes ?? Infinity));
    const shortOnDisk = (): number => {
      this.#unwatchedBytes = 0;
      return Math.max(0, charge - this.disk().spareBytes);
    };
    // The disk is not asked for each small file.
    this.#unwatchedBytes += charge;
    const watched = this.#unwatchedBytes < watchStepBytes;
    const counted = this.#read();
    if (counted !== undefined && overLimit(counted) === 0 && (watched || shortOnDisk() === 0)) {
      return counted;
    }
    if (sizeMaxBytes !== undefined && charge > sizeMaxBytes) return undefined;
    const survey = await this.#survey();
    if (survey.records > recordsPerBlobMax * survey.blobs + recordsSpare) await this.#sweepRecords(survey);
    const extra = survey.blobs > smallCacheBlobs ? (sizeMaxBytes ?? survey.total) * extraShare : 0;
    const over = overLimit(survey.total);
    if (over > 0) await this.#evict(survey, over + extra);
    if (overLimit(survey.total) > 0) await this.#sweepRecords(survey);
    const short = shortOnDisk();
    if (short > 0) await this.#evict(survey, short + extra, { may: notShared });
    this.#write(survey.total);
    return overLimit(survey.total) === 0 && shortOnDisk() === 0 ? survey.total : undefined;
  }

  async #sweepRecords(survey: Survey): Promise<void> {
    const swept = await this.#parts.sweepRecords();
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
   * Removes candidates until `bytes` are gone or none is left; gives the bytes, and takes them off the survey.
   * `recordsToo` says that the records will be swept, one with each content as a rule.
   */
  async #evict(
    survey: Survey,
    bytes: number,
    {
      may,
      recordsToo,
    }: { readonly may?: (candidate: Candidate) => boolean; readonly recordsToo?: boolean } = {},
  ): Promise<number> {
    const recordBytes = recordsToo === true ? recordCharge : 0;
    let evicted = 0;
    let expected = 0;
    const left: Candidate[] = [];
    for (const candidate of survey.candidates) {
      const wanted = expected < bytes && (may === undefined || may(candidate));
      if (wanted && (await this.#removeUnused(candidate))) {
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

  /** Removes a file unless somebody holds its lock, or the system does not let this user. */
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

  /** The account file, opened once; again if its folder was removed and made again. */
  #account(): number {
    const known = this.#descriptor;
    if (known !== undefined && fstatSync(known).nlink > 0) return known;
    this.close();
    const { layout, permissions } = this.#parts;
    for (let tries = 1; ; tries += 1) {
      const path = layout.space;
      const descriptor = openOrCreate(path, constants.O_RDWR, fileMode(permissions));
      if (isOnlyName(path, descriptor)) return (this.#descriptor = descriptor);
      // Its bytes are overwritten, so it must be no other file that was linked to here.
      closeSync(descriptor);
      if (tries === triesMax) {
        throw new FiletrackerError(
          'io',
          `Cannot use the cache folder "${layout.folder}": its file "space" keeps changing`,
        );
      }
      removeIfThere(path);
    }
  }

  /** The number in the account; undefined where there is none that can be trusted. */
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

const { O_RDWR, O_CREAT, O_EXCL } = constants;
const newFileFlags = O_RDWR | O_CREAT | O_EXCL;

/** Opens what an earlier download of this user left; `undefined` if somebody else put something there. */
function openLeft(path: string): number | undefined {
  const attributes = lstatSync(path, { throwIfNoEntry: false });
  if (attributes?.uid !== process.geteuid?.()) return undefined;
  const descriptor = openFile(path, O_RDWR);
  if (descriptor === undefined) return undefined;
  if (isOnlyName(path, descriptor) && fstatSync(descriptor).uid === process.geteuid?.()) return descriptor;
  closeSync(descriptor);
  return undefined;
}

function notShared(candidate: Candidate): boolean {
  return !candidate.shared;
}
