import { randomBytes } from 'node:crypto';
import type { FileHandle } from 'node:fs/promises';
import { open, rename, unlink } from 'node:fs/promises';
import { basename, dirname, join } from 'node:path';
import { errnoOf, FiletrackerError, fromSystemError } from '../core/errors.ts';
import { namesIn, syncFolder } from './folders.ts';

/** Written bytes after which a sync is begun while writing goes on. */
const syncIntervalBytes = 32 * 1024 * 1024;

export interface DurableFileOptions {
  /** Permissions before the process's umask; 0o666 unless given. */
  readonly mode?: number | undefined;
}

/**
 * A file on its way in: the only way in which this project writes a file that must outlive a crash.
 *
 * Invariant: under its target nobody sees the file before `publish`, and once `publish` has resolved, name
 * and bytes survive power loss. The order that gives this is: write under a temporary path, sync the bytes,
 * rename, sync the folder. A crash leaves the old state of the target or the new one, and at the worst a
 * temporary file for the owner's sweep.
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
   * Appends bytes, which the caller gives away. One piece is written while the caller prepares the next:
   * the promise resolves when the piece before is written. A failure shows at the next call at the latest.
   */
  async write(bytes: Uint8Array): Promise<void> {
    const before = this.#pending;
    this.#pending = this.#append(before, bytes);
    await before;
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
      // A big file is synced as it grows, because a gigabyte of dirty pages synced at once makes every
      // other sync of the disk wait for seconds.
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

  /** Makes the bytes durable and ends writing; gives the size in bytes. Idempotent. */
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

  /** Seals the file and gives it its name, replacing what was there. @throws FiletrackerError of the disk. */
  async publish(target: string): Promise<void> {
    if (this.#state !== 'temporary') {
      throw new FiletrackerError('invalid-argument', `Cannot publish a file: it is ${this.#state}`);
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
    await this.#sealed?.catch(() => 0); // Who called seal() has its error; here it only must be over.
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

/** Removes a file; absence is no error. Not durable by itself. */
export async function removeFile(path: string): Promise<void> {
  try {
    await unlink(path);
  } catch (error) {
    if (errnoOf(error) !== 'ENOENT') throw fromSystemError(error, 'remove a file');
  }
}

/**
 * Writes a whole file: readers of `target` see the old content or the new one, and after the promise has
 * resolved it survives power loss. The temporary file lies beside the target; one that a writer has left who was
 * killed is removed. A target has one writer at a time, which is the caller's to see to.
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
