import { rm } from 'node:fs/promises';
import { join } from 'node:path';
import { blobFoldersToRead, reservedNames } from '../../blobs/disk/blob-folders.ts';
import type { BlobStore } from '../../blobs/blob-store.ts';
import { DiskBlobStore } from '../../blobs/disk/disk-blob-store.ts';
import type { PlacedBlob } from '../../catalog/catalog.ts';
import type { LmdbReader } from '../../catalog/lmdb/index/lmdb-reader.ts';
import { type BlobDescription, encodings } from '../../core/blob.ts';
import type { Digest } from '../../core/digest.ts';
import { cannot } from '../../core/errors.ts';
import { checkStoredBytes } from '../../store/integrity.ts';
import { listSnapshots } from '../backup/backup-layout.ts';
import { namesIn, type StoreFolders } from '../store-folders.ts';
import type { Quarantine } from './quarantine.ts';

/** Orphans: files or objects among the blobs that the catalog does not name. */
export interface Orphans {
  /** To be moved to the quarantine: keys, in a folder with the folder before them. */
  readonly found: readonly string[];
  /** Notes about others that stay. */
  readonly notes: readonly string[];
}

/**
 * The place where a store with an embedded catalog keeps its blobs: a folder or a bucket. Every `reader` is of the catalog that
 * was rebuilt from the journal.
 */
export interface BlobPlace extends AsyncDisposable {
  readonly blobs: BlobStore;
  /** @throws FiletrackerError `invalid-argument` if the catalog names keys of the other kind of place. */
  checkKey(key: string): void;
  /** @throws FiletrackerError `corrupt-store` if the catalog names objects here and there is none at all. */
  checkAddress(reader: LmdbReader): Promise<void>;
  /** Intact bytes of a blob under any key, whether or not the catalog names it. @param ownKey where the catalog has it. */
  findIntact(
    wanted: BlobDescription,
    ownKey: string | undefined,
    reader: LmdbReader,
  ): Promise<PlacedBlob | undefined>;
  findOrphans(reader: LmdbReader): Promise<Orphans>;
  /** Moves the bytes under a key to the quarantine. */
  quarantineKey(key: string, quarantine: Quarantine): Promise<void>;
  quarantineOrphan(orphan: string, quarantine: Quarantine): Promise<void>;
  /** Uploads that were never finished. */
  findUploads(): Promise<readonly string[]>;
  removeUploads(found: readonly string[]): Promise<void>;
}

/** The blob under a key, if its bytes are intact. */
export async function intactBlobAt(
  key: string,
  { digest, encoding }: Pick<BlobDescription, 'digest' | 'encoding'>,
  blobs: BlobStore,
): Promise<PlacedBlob | undefined> {
  const verdict = await checkStoredBytes(key, { digest, encoding }, blobs);
  if (verdict.kind !== 'intact') return undefined;
  const { logicalSize, storedSize } = verdict;
  return { digest, encoding, key, logicalSize, storedSize };
}

/** Blobs as files in the folder of the store. */
export class FolderBlobs implements BlobPlace {
  readonly blobs: DiskBlobStore;
  readonly #folders: StoreFolders;

  private constructor(folders: StoreFolders, blobs: DiskBlobStore) {
    this.#folders = folders;
    this.blobs = blobs;
  }

  /** With `readOnly` it creates nothing. */
  static async open(folders: StoreFolders, readOnly: boolean): Promise<FolderBlobs> {
    return new FolderBlobs(folders, await DiskBlobStore.open(folders.root, { readOnly }));
  }

  checkKey(key: string): void {
    if (/^[0-9a-f]{64}/.test(key)) return;
    const state = 'it has them in a bucket; name it as DIR,s3://…';
    throw cannot('invalid-argument', 'recover this store with the blobs of its folder', state);
  }

  async checkAddress(): Promise<void> {
    // The journal is in the same folder.
  }

  /** The key follows from the digest, in either encoding. */
  async findIntact({ digest }: BlobDescription): Promise<PlacedBlob | undefined> {
    for (const encoding of encodings) {
      const key = encoding === 'gzip' ? `${digest}.gz` : digest;
      const blob = await intactBlobAt(key, { digest, encoding }, this.blobs);
      if (blob !== undefined) return blob;
    }
    return undefined;
  }

  /** None of a backup: its catalog names only what the last snapshot needs. */
  async findOrphans(reader: LmdbReader): Promise<Orphans> {
    const found: string[] = [];
    for await (const orphan of orphansIn(reader, this.#folders.blobs)) found.push(orphan);
    if (found.length === 0 || (await listSnapshots(this.#folders.root)).length === 0) {
      return { found, notes: [] };
    }
    const note = `${found.length} files in blobs/ that the catalog does not name were kept: the snapshots in history/ may need them`;
    return { found: [], notes: [note] };
  }

  quarantineKey(key: string, quarantine: Quarantine): Promise<void> {
    return this.quarantineOrphan(join(key.slice(0, 2), key), quarantine);
  }

  async quarantineOrphan(orphan: string, quarantine: Quarantine): Promise<void> {
    await quarantine.take(join(this.#folders.blobs, orphan), join('blobs', orphan));
  }

  async findUploads(): Promise<readonly string[]> {
    const names = await Promise.all(this.#uploadsFolders.map(namesIn));
    return names.flatMap((found = []) => found).filter((name) => !reservedNames.has(name));
  }

  async removeUploads(found: readonly string[]): Promise<void> {
    for (const folder of this.#uploadsFolders) {
      for (const upload of found) await rm(join(folder, upload), { force: true });
    }
  }

  get #uploadsFolders(): readonly string[] {
    return blobFoldersToRead(this.#folders.root).uploadsEver;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.blobs.close();
  }
}

async function* orphansIn(reader: LmdbReader, blobsFolder: string): AsyncGenerator<string> {
  for (const folder of (await namesIn(blobsFolder)) ?? []) {
    if (reservedNames.has(folder)) continue;
    if (!/^[0-9a-f]{2}$/.test(folder)) {
      yield folder;
      continue;
    }
    for (const name of (await namesIn(join(blobsFolder, folder))) ?? []) {
      const digest = /^([0-9a-f]{64})(?:\.gz)?$/.exec(name)?.[1];
      const record = digest === undefined ? undefined : await reader.findBlob(digest as Digest);
      const named = record?.location.kind === 'object' && record.location.key === name;
      if (!named || !name.startsWith(folder)) yield join(folder, name);
    }
  }
}
