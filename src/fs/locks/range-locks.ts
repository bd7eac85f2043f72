import { closeSync, constants, fchmodSync, fstatSync, lstatSync, openSync, unlinkSync } from 'node:fs';
import { cannot, errnoOf } from '../../core/errors.ts';
import { loadSystemCalls, type SystemCalls } from '../native.ts';
import { polled } from './polling.ts';

export type LockMode = 'shared' | 'exclusive';

/** A lock that is held. */
export interface RangeLock extends Disposable {
  /** Idempotent. */
  release(): void;
}

/** The holders of a key in this process: the number of readers, or one writer (-1). */
type Holders = number;
const oneWriter: Holders = -1;

/**
 * Any number of named locks in one empty file: a key is a byte offset that need not exist, locked as a range of the
 * open file (`F_OFD_SETLK`).
 *
 * Invariant: a key is held by many `shared` or by one `exclusive` holder over all processes: among processes by the
 * kernel, which frees a dead process's locks; within this process by `#holders`, because locks of one open file do
 * not exclude each other. The kernel's lock is held exactly while `#holders` has the key.
 *
 * `acquire` polls, at most every 25 ms: a blocking call can't be cancelled and would occupy one of the threads that
 * serve all file access of the process.
 */
export class RangeLocks {
  readonly #path: () => string;
  readonly #fileMode: number | undefined;
  readonly #holders = new Map<number, Holders>();
  #descriptor: number | undefined;
  #closed = false;

  /** The file is created with the first lock, with exactly the permissions of `fileMode` if it is set. */
  constructor(path: string | (() => string), options: { readonly fileMode?: number | undefined } = {}) {
    this.#path = typeof path === 'string' ? () => path : path;
    this.#fileMode = options.fileMode;
  }

  /** Takes the lock if it is free, or returns `undefined`. `key`: an integer from 0 to 2^53. */
  async tryAcquire(key: number, mode: LockMode): Promise<RangeLock | undefined> {
    return this.#tryAcquire(await loadSystemCalls(), key, mode);
  }

  /** Waits for the lock. @throws FiletrackerError `aborted`. */
  async acquire(
    key: number,
    mode: LockMode,
    options: { readonly signal?: AbortSignal | undefined } = {},
  ): Promise<RangeLock> {
    const calls = await loadSystemCalls();
    return polled('lock a file', options.signal, () => this.#tryAcquire(calls, key, mode));
  }

  /** Releases every lock. Idempotent. */
  close(): void {
    this.#closed = true;
    this.#holders.clear();
    if (this.#descriptor !== undefined) closeSync(this.#descriptor);
    this.#descriptor = undefined;
  }

  #tryAcquire(calls: SystemCalls, key: number, mode: LockMode): RangeLock | undefined {
    const holders = this.#holders.get(key) ?? 0;
    if (holders === oneWriter || (holders > 0 && mode === 'exclusive')) return undefined;
    if (holders === 0 && !calls.tryLockByte(this.#open(), mode, key)) return undefined;
    this.#holders.set(key, mode === 'shared' ? holders + 1 : oneWriter);
    let held = true;
    const release = (): void => {
      if (held) this.#release(calls, key);
      held = false;
    };
    return { release, [Symbol.dispose]: release };
  }

  #release(calls: SystemCalls, key: number): void {
    const holders = this.#holders.get(key);
    if (holders === undefined || this.#descriptor === undefined) return;
    if (holders > 1) {
      this.#holders.set(key, holders - 1);
      return;
    }
    this.#holders.delete(key);
    calls.tryLockByte(this.#descriptor, 'unlock', key);
  }

  /** A lock on a removed file does not exclude processes that create it again. */
  #leaveRemovedFile(): void {
    const descriptor = this.#descriptor;
    if (descriptor === undefined || this.#holders.size > 0 || fstatSync(descriptor).nlink > 0) return;
    closeSync(descriptor);
    this.#descriptor = undefined;
  }

  #open(): number {
    if (this.#closed) throw cannot('aborted', 'lock a file', 'its owner is closed');
    this.#leaveRemovedFile();
    this.#descriptor ??= openOrCreate(this.#path(), constants.O_RDWR, this.#fileMode);
    return this.#descriptor;
  }
}

const { O_CREAT, O_EXCL, O_NOFOLLOW, O_NONBLOCK } = constants;

/** Of a new file without a mode of its own, before the umask: never writable for everyone. */
const defaultMode = 0o664;

/** How often another user of the folder may replace the file by something else. */
const triesMax = 10;

/**
 * Opens a regular file that several processes share, and creates it if it is missing, with permissions that no umask
 * narrows. Anything else that another user has put there is removed: a symbolic link is not followed, and a pipe does
 * not block the process. @throws system errors.
 */
export function openOrCreate(path: string, flags: number, mode: number | undefined): number {
  for (let tries = 1; ; tries += 1) {
    const descriptor = tryOpen(path, flags) ?? tryCreate(path, flags, mode);
    if (descriptor !== undefined) {
      if (fstatSync(descriptor).isFile()) return descriptor;
      closeSync(descriptor);
    }
    if (tries === triesMax)
      throw Object.assign(new Error('EEXIST: it is not a regular file'), { code: 'EEXIST', path });
    if (lstatSync(path, { throwIfNoEntry: false })?.isFile() === false) unlinkSync(path);
  }
}

/** `undefined` if the path is missing, or a symbolic link. */
function tryOpen(path: string, flags: number): number | undefined {
  try {
    return openSync(path, flags | O_NOFOLLOW | O_NONBLOCK);
  } catch (error) {
    if (['ENOENT', 'ELOOP', 'ENXIO'].includes(errnoOf(error) ?? '')) return undefined;
    throw error;
  }
}

/** `undefined` if the path exists. */
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
