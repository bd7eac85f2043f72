import { rm } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { cannot, fromSystemError } from '../../core/errors.ts';
import { ofFileSystem } from '../../fs/folder-marks.ts';
import { removeFile } from '../../fs/durable-file.ts';
import { FolderLock } from '../../fs/locks/folder-lock.ts';
import { makeFolderDurably, privateFolderMode, syncFolder } from '../../fs/folders.ts';
import { importFolderName } from '../../store/import/tombstones.ts';
import { namesIn, storeFolders, unfinishedRestoreName } from '../store-folders.ts';
import { tokensFileName, tokensMarkerName } from '../../access/token-files.ts';

/**
 * The folder that a restore fills.
 *
 * Invariant: the mark exists, durably, before anything else does, and is removed, durably, after everything else is
 * durable; no program opens a store with the mark. So a restore that was killed leaves nothing that could pass for the
 * whole store, and starts over when it is run again. The restore that is under way holds a lock on the mark.
 */
export class RestoreTarget implements AsyncDisposable {
  readonly #folder: string;
  readonly #lock: FolderLock;

  private constructor(folder: string, lock: FolderLock) {
    this.#folder = folder;
    this.#lock = lock;
  }

  /**
   * Claims a folder that is empty or does not exist, or that a killed restore has left, whose files are removed.
   * @throws FiletrackerError `invalid-argument` if it holds anything else, `store-locked` while another restore fills it.
   */
  static async claim(folder: string): Promise<RestoreTarget> {
    const names = ((await namesIn(folder)) ?? []).filter((name) => !ofFileSystem.has(name));
    if (names.length > 0 && !names.includes(unfinishedRestoreName)) {
      throw cannot('invalid-argument', `restore to "${folder}"`, 'it is not empty');
    }
    await makeFolderDurably(folder, privateFolderMode);
    const lock = await FolderLock.tryAcquire(folder, { mode: 'exclusive', fileName: unfinishedRestoreName });
    if (lock === undefined) {
      throw cannot('store-locked', `restore to "${folder}"`, 'another restore to it is in progress');
    }
    try {
      // A restore that was killed may have made the folder and not have synced its name.
      await syncFolder(dirname(folder));
      await syncFolder(folder);
      const { journal, catalog, blobs, uploads } = storeFolders(folder);
      const others = [tokensFileName, tokensMarkerName, importFolderName].map((name) => join(folder, name));
      for (const part of [journal, catalog, blobs, uploads, ...others]) {
        await rm(part, { recursive: true, force: true });
      }
    } catch (error) {
      await lock.release();
      throw fromSystemError(error, 'prepare the folder of the new store');
    }
    return new RestoreTarget(folder, lock);
  }

  /** Marks the store as whole. Call it when everything in it is durable. */
  async finish(): Promise<void> {
    await removeFile(join(this.#folder, unfinishedRestoreName));
    await syncFolder(this.#folder);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#lock.release();
  }
}
