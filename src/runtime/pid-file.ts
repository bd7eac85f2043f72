import {
  closeSync,
  constants,
  fstatSync,
  ftruncateSync,
  openSync,
  readSync,
  realpathSync,
  statSync,
  unlinkSync,
  writeSync,
} from 'node:fs';
import { errnoOf, FiletrackerError, isFiletrackerError } from '../core/errors.ts';
import { loadSystemCalls } from '../fs/native.ts';

/** Set for a process that takes over from another: the descriptor of the pid file, which holds the lock. */
export const pidFileVariable = 'FILETRACKER_PID_FILE_DESCRIPTOR';

const states: Readonly<Record<string, string>> = {
  ENOENT: 'its folder does not exist; create it, or choose another file',
  ENOTDIR: 'a part of its path is not a folder; choose another file',
  EISDIR: 'it is a folder; choose a file',
  EACCES: 'this user may not write it; choose another file',
  EPERM: 'this user may not write it; choose another file',
  EROFS: 'its file system is read-only; choose another file',
  ENOSPC: 'its disk is full',
  ELOOP: 'it is a symbolic link that leads nowhere; choose another file',
};

const textMaxBytes = 64;
/** A server that ends can remove the file between its opening and its locking. */
const triesMax = 100;

function refuse(path: string, state: string, cause?: unknown): FiletrackerError {
  return new FiletrackerError('invalid-argument', `Cannot use the pid file "${path}": ${state}`, { cause });
}

function refuseErrno(path: string, error: unknown): unknown {
  const errno = errnoOf(error);
  if (errno === undefined) return error;
  return refuse(path, states[errno] ?? `the system reports ${errno}`, error);
}

interface OpenFile {
  readonly descriptor: number;
  readonly created: boolean;
}

function openFile(path: string): OpenFile {
  const flags = constants.O_RDWR | constants.O_NONBLOCK;
  try {
    return {
      descriptor: openSync(path, flags | constants.O_CREAT | constants.O_EXCL, 0o644),
      created: true,
    };
  } catch (error) {
    if (errnoOf(error) !== 'EEXIST') throw refuseErrno(path, error);
  }
  try {
    return { descriptor: openSync(path, flags), created: false };
  } catch (error) {
    throw refuseErrno(path, error);
  }
}

function textOf(descriptor: number): string {
  const bytes = Buffer.alloc(textMaxBytes);
  return bytes.toString('latin1', 0, readSync(descriptor, bytes, 0, textMaxBytes, 0));
}

/** Whether a path still leads to an open file. */
function leadsTo(path: string, descriptor: number): boolean {
  const named = statSync(path, { throwIfNoEntry: false });
  const opened = fstatSync(descriptor);
  return named !== undefined && named.ino === opened.ino && named.dev === opened.dev;
}

/** @throws FiletrackerError `invalid-argument` if the file holds anything but the id of a process. */
function checkContent(path: string, descriptor: number): void {
  if (!fstatSync(descriptor).isFile()) throw refuse(path, 'it is not a regular file; choose another file');
  const text = textOf(descriptor);
  if (text.length === 0 || /^\s*\d{1,10}\s*$/.test(text)) return;
  throw refuse(path, 'it holds something other than a process id; choose another file');
}

async function tryLock(path: string, descriptor: number): Promise<boolean> {
  const locks = await loadSystemCalls();
  try {
    return locks.tryLock(descriptor, 'exclusive');
  } catch (error) {
    if (!isFiletrackerError(error, 'io')) throw error;
    throw refuse(path, 'its file system has no file locks; choose a file on a local disk', error);
  }
}

/** The descriptor that a predecessor has passed, if it is that of this file. */
function inherited(path: string): OpenFile | undefined {
  const descriptor = Number(process.env[pidFileVariable] ?? '');
  delete process.env[pidFileVariable];
  if (!Number.isSafeInteger(descriptor) || descriptor <= 0) return undefined;
  return leadsTo(path, descriptor) ? { descriptor, created: false } : undefined;
}

/** Opens and locks the file; undefined if it was replaced meanwhile. */
async function openLocked(path: string): Promise<OpenFile | undefined> {
  const file = inherited(path) ?? openFile(path);
  const { descriptor } = file;
  let kept = false;
  try {
    checkContent(path, descriptor);
    if (!(await tryLock(path, descriptor))) {
      const pid = textOf(descriptor).trim();
      const holder = pid === '' ? 'a server that is starting' : `the server that runs as process ${pid}`;
      throw new FiletrackerError(
        'unavailable',
        `Cannot use the pid file "${path}": ${holder} uses it; stop that server, or choose another file`,
      );
    }
    kept = leadsTo(path, descriptor);
    return kept ? file : undefined;
  } finally {
    if (!kept) closeSync(descriptor);
  }
}

/**
 * The pid file of a server.
 *
 * Invariant: the file is locked (flock) from before it is written until it is removed, and only the holder of the
 * lock writes or removes it. So a running server is recognized by its lock and never by its number, which the
 * system reuses, and the lock of a server that was killed is free. In a takeover the predecessor passes its
 * descriptor on, and both hold the one lock.
 */
export class PidFile implements Disposable {
  readonly #path: string;
  #file: OpenFile;

  private constructor(path: string, file: OpenFile) {
    this.#path = path;
    this.#file = file;
  }

  /**
   * Locks the file, which is created if it is missing, and writes nothing yet.
   * @throws FiletrackerError `unavailable` if a running server uses the file, `invalid-argument` if it holds
   * something other than a process id or cannot be used.
   */
  static async claim(path: string): Promise<PidFile> {
    const file = await lockedFile(path);
    return new PidFile(realpathSync(path), file);
  }

  /** Stays open as long as this object. */
  get descriptor(): number {
    return this.#file.descriptor;
  }

  /** Writes the id of this process. */
  async write(): Promise<void> {
    if (!leadsTo(this.#path, this.descriptor)) {
      closeSync(this.descriptor);
      this.#file = await lockedFile(this.#path);
    }
    const text = Buffer.from(`${process.pid}\n`);
    try {
      // In this order, so that a reader never finds the file empty.
      writeSync(this.descriptor, text, 0, text.length, 0);
      ftruncateSync(this.descriptor, text.length);
    } catch (error) {
      throw refuseErrno(this.#path, error);
    }
  }

  /** Removes the file, unless it belongs to a successor after a takeover, and releases the lock. */
  [Symbol.dispose](): void {
    const { descriptor, created } = this.#file;
    try {
      const text = textOf(descriptor);
      const isOurs = text === `${process.pid}\n` || (text === '' && created);
      if (isOurs && leadsTo(this.#path, descriptor)) unlinkSync(this.#path);
    } catch {
      // Its folder is gone or read-only: the file stays, but without its lock.
    } finally {
      closeSync(descriptor);
    }
  }
}

async function lockedFile(path: string): Promise<OpenFile> {
  for (let tries = 0; tries < triesMax; tries++) {
    const file = await openLocked(path);
    if (file !== undefined) return file;
  }
  throw refuse(path, 'other programs keep replacing it; choose another file');
}
