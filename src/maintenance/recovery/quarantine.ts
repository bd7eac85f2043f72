import { lstat, mkdir, open } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import type { Clock } from '../../core/clock.ts';
import { errnoOf, fromSystemError } from '../../core/errors.ts';
import { writeFileDurably } from '../../fs/durable-file.ts';
import { makeFolders, privateFolderMode } from '../../fs/folders.ts';
import { moveFile, moveFolder } from '../../fs/copy-and-move.ts';

const tailSizeMaxBytes = 16 * 1024 * 1024;

/** The folder of one recovery below `quarantine/`, for what is damaged. It is created when first needed. */
export class Quarantine {
  readonly #parent: string;
  readonly #stamp: string;
  #folder: string | undefined;

  constructor(folder: string, clock: Clock) {
    this.#stamp = new Date(clock.nowMs()).toISOString().replaceAll(/[-:]/g, '').replace(/\.\d+/, '');
    this.#parent = folder;
  }

  /** The folder, if anything was moved to it. */
  get folder(): string | undefined {
    return this.#folder;
  }

  /** A path in the quarantine; creates its folder. */
  async pathFor(relative: string): Promise<string> {
    try {
      this.#folder ??= await this.#makeFolder();
      const path = join(this.#folder, relative);
      makeFolders(dirname(path), privateFolderMode);
      return path;
    } catch (error) {
      throw fromSystemError(error, 'create the quarantine');
    }
  }

  async #makeFolder(): Promise<string> {
    makeFolders(this.#parent, privateFolderMode);
    for (let attempt = 1; ; attempt += 1) {
      const folder = join(this.#parent, attempt === 1 ? this.#stamp : `${this.#stamp}-${attempt}`);
      try {
        await mkdir(folder, privateFolderMode);
        return folder;
      } catch (error) {
        if (errnoOf(error) !== 'EEXIST') throw error;
      }
    }
  }

  /** Moves a file, folder or link of the store here, across file systems if necessary. */
  async take(path: string, relative: string): Promise<void> {
    const isFolder = (await lstat(path).catch(failToMove)).isDirectory();
    const target = await this.pathFor(relative);
    await (isFolder ? moveFolder(path, target) : moveFile(path, target)).catch(failToMove);
  }

  /** Moves the contents of a folder of the store here; a link or mount in its place stays, as an operator made it. */
  async takePart(path: string, relative: string): Promise<void> {
    await moveFolder(path, await this.pathFor(relative)).catch(failToMove);
  }

  async write(relative: string, text: string): Promise<void> {
    await writeFileDurably(await this.pathFor(relative), Buffer.from(text));
  }

  /** Copies what follows `offset` in a file, at most 16 MiB. */
  async copyTail(path: string, offset: number, length: number, relative: string): Promise<void> {
    const file = await open(path, 'r');
    try {
      const bytes = Buffer.alloc(Math.min(length, tailSizeMaxBytes));
      const { bytesRead } = await file.read(bytes, 0, bytes.length, offset);
      await writeFileDurably(await this.pathFor(relative), bytes.subarray(0, bytesRead));
    } finally {
      await file.close();
    }
  }
}

function failToMove(error: unknown): never {
  throw fromSystemError(error, 'move a damaged file to the quarantine');
}
