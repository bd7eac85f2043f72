import { rm } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { FiletrackerError, fromSystemError } from '../../core/errors.ts';
import { ofFileSystem } from '../../fs/folder-marks.ts';
import { removeFile } from '../../fs/durable-file.ts';
import { FolderLock } from '../../fs/locks/folder-lock.ts';
import { makeFolderDurably, privateFolderMode, syncFolder } from '../../fs/folders.ts';
import { folderNames } from './backup-layout.ts';
import { importFolderName } from '../../store/import/tombstones.ts';
import { storeFolders, unfinishedRestoreName } from './store-folders.ts';
import { tokensFileName, tokensMarkerName } from '../../access/token-files.ts';

/**
 * The folder that a restore fills.
 *
 * Invariant: the mark is there, durably, before anything else is, and goes, durably, after all else is durable; who opens
 * a store refuses a marked one. So a restore that was killed leaves nothing that could pass for the whole store, and
 * is run again, from its beginning. The mark is locked by the restore that is under way.
 */
export class RestoreTarget implements AsyncDisposable {
  readonly #folder: string;
  readonly #lock: FolderLock;

  private constructor(folder: string, lock: FolderLock) {
    this.#folder = folder;
    this.#lock = lock;
  }

  /**
   * Takes a folder that is empty, or not there, or was left by a restore that was killed, of which all is removed.
   * @throws FiletrackerError `invalid-argument` where it holds anything else, `store-locked` while another restore
   * fills it.
   */
  static async claim(folder: string): Promise<RestoreTarget> {
    const names = (await folderNames(folder)).filter((name) => !ofFileSystem.has(name));
    if (names.length > 0 && !names.includes(unfinishedRestoreName)) {
      throw new FiletrackerError('invalid-argument', `Cannot restore to "${folder}": it is not empty`);
    }
    await makeFolderDurably(folder, privateFolderMode);
    const lock = await FolderLock.tryAcquire(folder, { mode: 'exclusive', fileName: unfinishedRestoreName });
    if (lock === undefined) {
      const state = 'another restore to it is under way';
      throw new FiletrackerError('store-locked', `Cannot restore to "${folder}": ${state}`);
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

  /** Says that the store is whole; to be called when everything in it is durable. */
  async finish(): Promise<void> {
    await removeFile(join(this.#folder, unfinishedRestoreName));
    await syncFolder(this.#folder);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#lock.release();
  }
}
