import { closeSync, constants, fchmodSync, fstatSync, lstatSync, openSync, unlinkSync } from 'node:fs';
import { setTimeout as delay } from 'node:timers/promises';
import { errnoOf, FiletrackerError } from '../core/errors.ts';

/** Values of `struct flock` and fcntl(2) on Linux, the same on every architecture that Node runs on. */
const lockRead = 0;
const lockWrite = 1;
const lockNone = 2;
const setOpenFileLock = 37;
/** Type and whence, 16 bits each, are followed by start and length, 64 bits each, and the process, 32 bits. */
const flockSizeBytes = 32;

const firstPauseMs = 1;
const longestPauseMs = 25;

export type LockMode = 'shared' | 'exclusive';

/** A lock that is held; letting go twice does nothing. */
export interface RangeLock extends Disposable {
  release(): void;
}

interface SystemLocks {
  /** Sets or clears the lock on the byte at `offset`; false where another process holds it. */
  trySet(descriptor: number, type: number, offset: number): boolean;
}

let systemLocks: Promise<SystemLocks> | undefined;

/** Node has no locks. The library that calls fcntl(2) is loaded when the first lock is taken, not before. */
function loadSystemLocks(): Promise<SystemLocks> {
  systemLocks ??= loadFcntl();
  return systemLocks;
}

async function loadFcntl(): Promise<SystemLocks> {
  const { default: koffi } = await import('koffi');
  const fcntl = koffi.load(null).func('fcntl', 'int', ['int', 'int', 'void *']) as (
    descriptor: number,
    command: number,
    lock: Uint8Array,
  ) => number;
  // One structure for all calls, filled by hand: to have koffi make one from an object takes 1.2 of 2.8 µs.
  const flock = new ArrayBuffer(flockSizeBytes);
  const bytes = new Uint8Array(flock);
  const [kind, start, length] = [
    new Int16Array(flock, 0, 1),
    new BigInt64Array(flock, 8, 1),
    new BigInt64Array(flock, 16, 1),
  ];
  length[0] = 1n;
  const { EAGAIN, EACCES, EINTR } = koffi.os.errno;
  const trySet = (descriptor: number, type: number, offset: number): boolean => {
    kind[0] = type;
    start[0] = BigInt(offset);
    for (;;) {
      if (fcntl(descriptor, setOpenFileLock, bytes) === 0) return true;
      const errno = koffi.errno();
      if (errno === EINTR) continue;
      if (errno === EAGAIN || errno === EACCES) return false;
      throw new FiletrackerError('io', `Cannot lock a file: fcntl answered with errno ${errno}`);
    }
  };
  return { trySet };
}

/** Who holds a key in this process: so many readers, or one writer (-1). */
type Holders = number;
const oneWriter: Holders = -1;

/**
 * Any number of named locks in one empty file: a key is a byte offset that need not exist, locked as a range
 * of the open file (`F_OFD_SETLK`). However many keys there are, the file stays empty and alone.
 *
 * Invariant: a key is held by many `shared` or by one `exclusive`, over all processes: among processes by
 * the kernel, which frees a dead process's locks however it died; within this process by `#holders`, because
 * locks of one open file do not exclude each other. The kernel's lock is held exactly while `#holders` has
 * the key.
 *
 * Waiting is done by asking again, at most every 25 ms: a blocking call can't be cancelled and would take
 * one of the threads that all file access of the process shares.
 */
export class RangeLocks {
  readonly #path: () => string;
  readonly #fileMode: number | undefined;
  readonly #holders = new Map<number, Holders>();
  #descriptor: number | undefined;
  #closed = false;

  /** Opens nothing; the file is created with the first lock, with exactly the permissions of `fileMode` if given. */
  constructor(path: string | (() => string), options: { readonly fileMode?: number | undefined } = {}) {
    this.#path = typeof path === 'string' ? () => path : path;
    this.#fileMode = options.fileMode;
  }

  /** Takes the lock if it is free at this moment, else gives undefined. `key`: an integer from 0 to 2^53. */
  async tryAcquire(key: number, mode: LockMode): Promise<RangeLock | undefined> {
    return this.#tryAcquire(await loadSystemLocks(), key, mode);
  }

  /** Waits for the lock. @throws FiletrackerError `aborted` when `signal` says so. */
  async acquire(
    key: number,
    mode: LockMode,
    options: { readonly signal?: AbortSignal | undefined } = {},
  ): Promise<RangeLock> {
    const locks = await loadSystemLocks();
    const { signal } = options;
    for (let pauseMs = firstPauseMs; ; pauseMs = Math.min(pauseMs * 1.5, longestPauseMs)) {
      if (signal?.aborted === true) throw waitAborted(signal.reason);
      const lock = this.#tryAcquire(locks, key, mode);
      if (lock !== undefined) return lock;
      // A random part keeps many waiters from asking in step.
      const pause = pauseMs * (0.5 + Math.random() / 2);
      await delay(pause, undefined, signal === undefined ? {} : { signal }).catch((error: unknown) => {
        throw waitAborted(error);
      });
    }
  }

  /** Lets go of every lock. Idempotent. */
  close(): void {
    this.#closed = true;
    this.#holders.clear();
    if (this.#descriptor !== undefined) closeSync(this.#descriptor);
    this.#descriptor = undefined;
  }

  #tryAcquire(locks: SystemLocks, key: number, mode: LockMode): RangeLock | undefined {
    const holders = this.#holders.get(key) ?? 0;
    if (holders === oneWriter || (holders > 0 && mode === 'exclusive')) return undefined;
    if (holders === 0) {
      const type = mode === 'shared' ? lockRead : lockWrite;
      if (!locks.trySet(this.#open(), type, key)) return undefined;
    }
    this.#holders.set(key, mode === 'shared' ? holders + 1 : oneWriter);
    let held = true;
    const release = (): void => {
      if (held) this.#release(locks, key);
      held = false;
    };
    return { release, [Symbol.dispose]: release };
  }

  #release(locks: SystemLocks, key: number): void {
    const holders = this.#holders.get(key);
    if (holders === undefined || this.#descriptor === undefined) return;
    if (holders > 1) {
      this.#holders.set(key, holders - 1);
      return;
    }
    this.#holders.delete(key);
    locks.trySet(this.#descriptor, lockNone, key);
  }

  /** A lock on a file that somebody removed excludes nobody who comes later. */
  #leaveRemovedFile(): void {
    const descriptor = this.#descriptor;
    if (descriptor === undefined || this.#holders.size > 0 || fstatSync(descriptor).nlink > 0) return;
    closeSync(descriptor);
    this.#descriptor = undefined;
  }

  #open(): number {
    if (this.#closed) throw new FiletrackerError('aborted', 'Cannot lock a file: its owner is closed');
    this.#leaveRemovedFile();
    this.#descriptor ??= openOrCreate(this.#path(), constants.O_RDWR, this.#fileMode);
    return this.#descriptor;
  }
}

const { O_CREAT, O_EXCL, O_NOFOLLOW, O_NONBLOCK } = constants;

/** Of a new file without a mode of its own, before the umask: never writable for everyone. */
const defaultMode = 0o664;

/** How often another user of the folder may put something else in the place of a file. */
const triesMax = 10;

/**
 * Opens a regular file that several processes share, and creates it if it is missing, with permissions that no umask
 * narrows. What another user may have put there instead is removed: a symbolic link leads to no other file, and a pipe
 * does not make the process wait.
 */
export function openOrCreate(path: string, flags: number, mode: number | undefined): number {
  for (let tries = 1; ; tries += 1) {
    const descriptor = tryOpen(path, flags) ?? tryCreate(path, flags, mode);
    if (descriptor !== undefined) {
      if (fstatSync(descriptor).isFile()) return descriptor;
      closeSync(descriptor);
    }
    if (tries === triesMax)
      throw Object.assign(new Error('EEXIST: it is no regular file'), { code: 'EEXIST', path });
    if (lstatSync(path, { throwIfNoEntry: false })?.isFile() === false) unlinkSync(path);
  }
}

/** `undefined` if there is no file, or a link. */
function tryOpen(path: string, flags: number): number | undefined {
  try {
    return openSync(path, flags | O_NOFOLLOW | O_NONBLOCK);
  } catch (error) {
    if (['ENOENT', 'ELOOP', 'ENXIO'].includes(errnoOf(error) ?? '')) return undefined;
    throw error;
  }
}

/** `undefined` if something is there. */
function tryCreate(path: string, flags: number, mode: number | undefined): number | undefined {
  try {
    const descriptor = openSync(path, flags | O_CREAT | O_EXCL, mode ?? defaultMode);
    if (mode !== undefined) fchmodSync(descriptor, mode);
    return descriptor;
  } catch (error) {
    if (errnoOf(error) === 'EEXIST') return undefined;
    throw error;
  }
}

function waitAborted(cause: unknown): FiletrackerError {
  return new FiletrackerError('aborted', 'Cannot lock a file: the wait for it was aborted', { cause });
}
