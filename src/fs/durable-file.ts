import { randomBytes } from 'node:crypto';
import type { FileHandle } from 'node:fs/promises';
import { open, rename, unlink } from 'node:fs/promises';
import { basename, dirname, join } from 'node:path';
import { cannot, errnoOf, fromSystemError } from '../core/errors.ts';
import { namesIn, syncFolder } from './folders.ts';

/** Bytes after which a sync starts while writing continues. */
const syncIntervalBytes = 32 * 1024 * 1024;

export interface DurableFileOptions {
  /** Permissions before the process's umask; 0o666 unless given. */
  readonly mode?: number | undefined;
}

/**
 * A file that is being written: the only way in which this project writes a file that must survive a crash.
 *
 * Invariant: no reader sees the file under its target before `publish`, and once `publish` has resolved, name and
 * bytes survive power loss. The order: write under a temporary path, sync the bytes, rename, sync the folder. A crash
 * leaves the old target or the new one, and at most a temporary file for the owner's sweep.
 */
export class DurableFile implements AsyncDisposable {
  readonly temporaryPath: string;
  readonly #handle: FileHandle;
  #pending: Promise<void> = Promise.resolve();
  #failure: { readonly error: unknown } | undefined;
  #sizeBytes = 0;
  #unsyncedBytes = 0;
  #sealed: Promise<number> | undefined;
  #state: 'temporary' | 'published' | 'discarded' = 'temporary';

  private constructor(temporaryPath: string, handle: FileHandle) {
    this.temporaryPath = temporaryPath;
    this.#handle = handle;
  }

  /**
   * Creates the temporary file; its folder must be on the file system of the target.
   * @throws FiletrackerError `no-space`, `read-only`, `busy`, `io`.
   */
  static async create(temporaryPath: string, options: DurableFileOptions = {}): Promise<DurableFile> {
    try {
      return new DurableFile(temporaryPath, await open(temporaryPath, 'wx', options.mode));
    } catch (error) {
      throw fromSystemError(error, 'create a file');
    }
  }

  get sizeBytes(): number {
    return this.#sizeBytes;
  }

  /**
   * Appends bytes, which then belong to the file. One piece is written while the caller prepares the next: the
   * promise resolves when the previous piece is written. A failure is reported by the next call at the latest.
   */
  async write(bytes: Uint8Array): Promise<void> {
    const before = this.#pending;
    this.#pending = this.#append(before, bytes);
    await before;
    this.#throwFailure();
  }

  /** Resolves when all bytes so far are written, or fails. */
  async written(): Promise<void> {
    await this.#pending;
    this.#throwFailure();
  }

  async #append(before: Promise<void>, bytes: Uint8Array): Promise<void> {
    await before;
    if (this.#failure !== undefined) return;
    try {
      for (let written = 0; written < bytes.length;) {
        const { bytesWritten } = await this.#handle.write(bytes, written);
        written += bytesWritten;
      }
      this.#sizeBytes += bytes.length;
      this.#unsyncedBytes += bytes.length;
      // A big file is synced as it grows, because syncing a gigabyte of dirty pages at once makes every other sync of
      // the disk wait for seconds.
      if (this.#unsyncedBytes >= syncIntervalBytes) {
        this.#unsyncedBytes = 0;
        await this.#handle.datasync();
      }
    } catch (error) {
      this.#failure = { error: fromSystemError(error, 'write a file') };
    }
  }

  #throwFailure(): void {
    if (this.#failure !== undefined) throw this.#failure.error;
  }

  /** Makes the bytes durable and ends writing; returns the size in bytes. Idempotent. */
  seal(): Promise<number> {
    this.#sealed ??= this.#seal();
    return this.#sealed;
  }

  async #seal(): Promise<number> {
    await this.#pending;
    this.#throwFailure();
    try {
      await this.#handle.datasync();
      await this.#handle.close();
    } catch (error) {
      throw fromSystemError(error, 'write a file');
    }
    return this.#sizeBytes;
  }

  /** Seals the file and renames it to `target`, replacing an existing file. @throws FiletrackerError of the disk. */
  async publish(target: string): Promise<void> {
    if (this.#state !== 'temporary') {
      throw cannot('invalid-argument', 'publish a file', `it is ${this.#state}`);
    }
    await this.seal();
    try {
      await rename(this.temporaryPath, target);
    } catch (error) {
      throw fromSystemError(error, 'write a file');
    }
    this.#state = 'published';
    await syncFolder(dirname(target));
  }

  /** Removes the file unless it is published. Idempotent. */
  async discard(): Promise<void> {
    if (this.#state !== 'temporary') return;
    this.#state = 'discarded';
    await this.#pending;
    await this.#sealed?.catch(() => 0); // The caller of seal() has its error; here it only must be over.
    try {
      await this.#handle.close();
    } catch (error) {
      throw fromSystemError(error, 'close a file');
    } finally {
      await removeFile(this.temporaryPath);
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.discard();
  }
}

/** Makes the bytes of a file durable, no matter which process wrote them. @throws system errors. */
export async function syncFile(path: string): Promise<void> {
  const file = await open(path, 'r');
  try {
    await file.sync();
  } finally {
    await file.close();
  }
}

/** Removes a file; a missing file is no error. Not durable by itself. */
export async function removeFile(path: string): Promise<void> {
  try {
    await unlink(path);
  } catch (error) {
    if (errnoOf(error) !== 'ENOENT') throw fromSystemError(error, 'remove a file');
  }
}

/**
 * Writes a whole file: readers of `target` see the old content or the new one, and when the promise has resolved it
 * survives power loss. The temporary file is beside the target; that of a killed writer is removed. The caller
 * ensures that a target has one writer at a time.
 */
export async function writeFileDurably(
  target: string,
  bytes: Uint8Array,
  options: DurableFileOptions = {},
): Promise<void> {
  await removeLeftOver(target);
  const temporaryPath = `${target}.${randomBytes(6).toString('hex')}.temporary`;
  await using file = await DurableFile.create(temporaryPath, options);
  await file.write(bytes);
  await file.publish(target);
}

async function removeLeftOver(target: string): Promise<void> {
  const folder = dirname(target);
  const start = `${basename(target)}.`;
  for (const name of (await namesIn(folder, 'write a file')) ?? []) {
    const middle = name.startsWith(start) ? name.slice(start.length) : '';
    if (/^[0-9a-f]{12}\.temporary$/.test(middle)) await removeFile(join(folder, name));
  }
}
