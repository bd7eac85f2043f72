import { stat, statfs } from 'node:fs/promises';
import { join } from 'node:path';
import { freeSpaceMinBytes, freeSpaceMinPart } from '../core/limits.ts';
import { unlessMissing } from '../fs/folders.ts';
import { adoptedStoreName } from '../maintenance/store-folders.ts';

/** Parts of a store that may be on other file systems, as links or mounts. */
const parts = ['.', 'journal', 'catalog', 'blobs'];

/**
 * The file systems that hold a store: usually one. Uploads are refused as soon as one of them is short of space,
 * because a change needs them all.
 */
export class StoreDisks {
  readonly #folders: readonly string[];

  private constructor(folders: readonly string[]) {
    this.#folders = folders;
  }

  /** @param folder of the store, which exists. */
  static async open(folder: string): Promise<StoreDisks> {
    const byDevice = new Map<number, string>();
    for (const root of [folder, join(folder, adoptedStoreName)]) {
      for (const part of parts) {
        const path = join(root, part);
        const device = await deviceOf(path);
        if (device !== undefined && !byDevice.has(device)) byDevice.set(device, path);
      }
    }
    return new StoreDisks([...byDevice.values()]);
  }

  /** Bytes that uploads leave free by default: on a small disk a part of it. */
  async defaultFreeBytesMin(): Promise<number> {
    const sizes = await Promise.all(
      this.#folders.map(async (folder) => {
        const { blocks, bsize } = await statfs(folder);
        return blocks * bsize;
      }),
    );
    return Math.min(freeSpaceMinBytes, Math.floor(Math.min(...sizes) * freeSpaceMinPart));
  }

  /** Free bytes of the fullest of them; `undefined` if the store was moved away. */
  async freeBytes(): Promise<number | undefined> {
    const free = Promise.all(
      this.#folders.map(async (folder) => {
        const { bavail, bsize } = await statfs(folder);
        return bavail * bsize;
      }),
    );
    // The store itself reports that its folder is missing.
    const freeBytes = await unlessMissing(free, 'read the free space');
    return freeBytes && Math.min(...freeBytes);
  }
}

async function deviceOf(path: string): Promise<number | undefined> {
  return (await unlessMissing(stat(path), 'read the folders of the store', 'ENOTDIR'))?.dev;
}
