import { readdir, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { blobFoldersToRead, reservedNames } from '../../blobs/disk/blob-folders.ts';
import type { BlobStore } from '../../blobs/blob-store.ts';
import { DiskBlobStore } from '../../blobs/disk/disk-blob-store.ts';
import type { PlacedBlob } from '../../catalog/catalog.ts';
import type { LmdbReader } from '../../catalog/lmdb/index/lmdb-reader.ts';
import { type BlobDescription, encodings } from '../../core/blob.ts';
import type { Digest } from '../../core/digest.ts';
import { errnoOf, FiletrackerError, fromSystemError } from '../../core/errors.ts';
import { checkStoredBytes } from '../../store/integrity.ts';
import { listSnapshots } from '../backup/backup-layout.ts';
import type { Quarantine } from './quarantine.ts';
import type { StoreFolders } from '../backup/store-folders.ts';

/** A content whose bytes are looked for. */
export interface WantedContent extends BlobDescription {
  /** The key that the catalog names, if it names one. */
  readonly key?: string | undefined;
}

/** What lies where contents lie and nothing in the catalog names. */
export interface Strays {
  /** To be set aside; each is a key, or ends in `/` and a key where it is in a folder. */
  readonly found: readonly string[];
  /** What is to be said of others that stay. */
  readonly notes: readonly string[];
}

/**
 * Where a store with an embedded catalog has its contents, as recovery deals with them: a folder, or a bucket. The
 * catalog that is asked is the one that was made anew from the journal.
 */
export interface ContentPlace {
  readonly blobs: BlobStore;
  /** @throws FiletrackerError where this cannot be the place of what the catalog names. */
  checkKey(key: string): void;
  /** @throws FiletrackerError `corrupt-store` where nothing at all is there of what the catalog names elsewhere than in itself. */
  checkAddress(reader: LmdbReader): Promise<void>;
  /** Whole and sound bytes of a content, under whatever key, named by a blob or not. */
  findSoundBytes(wanted: WantedContent, reader: LmdbReader): Promise<PlacedBlob | undefined>;
  findStrays(reader: LmdbReader): Promise<Strays>;
  /** Moves what lies under a key to the quarantine. */
  setKeyAside(key: string, quarantine: Quarantine): Promise<void>;
  setStrayAside(stray: string, quarantine: Quarantine): Promise<void>;
  /** Uploads that were never finished. */
  findUploads(): Promise<readonly string[]>;
  removeUploads(found: readonly string[]): Promise<void>;
  close(): Promise<void>;
}

/** Contents as files of the store's own folder. */
export class FolderContents implements ContentPlace {
  readonly blobs: DiskBlobStore;
  readonly #folders: StoreFolders;

  private constructor(folders: StoreFolders, blobs: DiskBlobStore) {
    this.#folders = folders;
    this.blobs = blobs;
  }

  /** With `readOnly` nothing is made. */
  static async open(folders: StoreFolders, readOnly: boolean): Promise<FolderContents> {
    return new FolderContents(folders, await DiskBlobStore.open(folders.root, { readOnly }));
  }

  checkKey(key: string): void {
    if (/^[0-9a-f]{64}/.test(key)) return;
    throw new FiletrackerError(
      'invalid-argument',
      'Cannot recover this store with the contents of its folder: it has them in a bucket; name it as DIR,s3://…',
    );
  }

  async checkAddress(): Promise<void> {
    // The journal lies in the same folder.
  }

  /** Its key follows from the content: whatever its encoding, and whoever wrote it. */
  async findSoundBytes({ digest }: WantedContent): Promise<PlacedBlob | undefined> {
    for (const encoding of encodings) {
      const key = encoding === 'gzip' ? `${digest}.gz` : digest;
      const verdict = await checkStoredBytes(key, { digest, encoding }, this.blobs);
      if (verdict.kind !== 'sound') continue;
      return { digest, encoding, key, logicalSize: verdict.logicalSize, storedSize: verdict.storedSize };
    }
    return undefined;
  }

  /**
   * Files under `blobs/` that no blob of the catalog names, as paths relative to it. None of a backup: its catalog names
   * what the last snapshot needs, and no more.
   */
  async findStrays(reader: LmdbReader): Promise<Strays> {
    const found: string[] = [];
    for await (const stray of straysIn(reader, this.#folders.blobs)) found.push(stray);
    if (found.length === 0 || (await listSnapshots(this.#folders.root)).length === 0)
      return { found, notes: [] };
    const note = `${found.length} files in blobs/ that the catalog does not name stay: the snapshots in history/ may need them`;
    return { found: [], notes: [note] };
  }

  setKeyAside(key: string, quarantine: Quarantine): Promise<void> {
    return this.setStrayAside(join(key.slice(0, 2), key), quarantine);
  }

  async setStrayAside(stray: string, quarantine: Quarantine): Promise<void> {
    await quarantine.take(join(this.#folders.blobs, stray), join('blobs', stray));
  }

  findUploads(): Promise<string[]> {
    return this.#findUploads();
  }

  async removeUploads(found: readonly string[]): Promise<void> {
    for (const folder of this.#uploadsFolders) {
      for (const upload of found) await rm(join(folder, upload), { force: true });
    }
  }

  get #uploadsFolders(): readonly string[] {
    return blobFoldersToRead(this.#folders.root).uploadsEver;
  }

  async #findUploads(): Promise<string[]> {
    const names = await Promise.all(this.#uploadsFolders.map(namesIn));
    return names.flat().filter((name) => !reservedNames.has(name));
  }

  close(): Promise<void> {
    return this.blobs.close();
  }
}

async function* straysIn(reader: LmdbReader, blobsFolder: string): AsyncGenerator<string> {
  for (const folder of await namesIn(blobsFolder)) {
    if (reservedNames.has(folder)) continue;
    if (!/^[0-9a-f]{2}$/.test(folder)) {
      yield folder;
      continue;
    }
    for (const name of await namesIn(join(blobsFolder, folder))) {
      const digest = /^([0-9a-f]{64})(?:\.gz)?$/.exec(name)?.[1];
      const record = digest === undefined ? undefined : await reader.findBlob(digest as Digest);
      const named = record?.location.kind === 'object' && record.location.key === name;
      if (!named || !name.startsWith(folder)) yield join(folder, name);
    }
  }
}

/** What a folder holds; nothing where it is not there. */
async function namesIn(folder: string): Promise<string[]> {
  try {
    return (await readdir(folder)).sort();
  } catch (error) {
    if (errnoOf(error) === 'ENOENT') return [];
    throw fromSystemError(error, 'list a folder');
  }
}
