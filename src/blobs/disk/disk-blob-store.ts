import { randomBytes } from 'node:crypto';
import { close, fstat, open, type Stats } from 'node:fs';
import { opendir, readdir, rename, stat } from 'node:fs/promises';
import { join } from 'node:path';
import type { Readable } from 'node:stream';
import { promisify } from 'node:util';
import { throwIfAborted, allSettledOrThrow } from '../../core/concurrency.ts';
import type { Digest } from '../../core/digest.ts';
import type { Encoding } from '../../core/blob.ts';
import { errnoOf, FiletrackerError, fromSystemError, mediumErrnoOf } from '../../core/errors.ts';
import { DurableFile, removeFile } from '../../fs/durable-file.ts';
import { FileSection, shortFile } from '../../fs/file-section.ts';
import { makeFolderDurably, privateFolderMode, syncFolder } from '../../fs/folders.ts';
import { linkOrCopy } from '../../fs/copy-and-move.ts';
import { blobFoldersToRead, findBlobFolders, type BlobFolders } from './blob-folders.ts';
import type {
  BlobKey,
  BlobReadOptions,
  BlobStore,
  BlobStoreCapabilities,
  ByteRange,
  FoundBlob,
  Placement,
  StagedUpload,
} from '../blob-store.ts';

const openFile = promisify(open);
const closeFile = promisify(close);
const statFile = promisify(fstat);

const keyForm = /^[0-9a-f]{64}(?:\.[0-9a-f]{24})?(?:\.gz)?$/;
const stagedIdForm = /^[0-9a-f]{24}$/;

/** Files examined at once while the store is listed or swept. */
const filesAtOnce = 64;

export interface AdoptableFile {
  readonly path: string;
  readonly digest: Digest;
  readonly encoding: Encoding;
}

/**
 * Blobs as files of one folder: `blobs/ab/<digest>` for plain content, `blobs/ab/<digest>.gz` for gzip, `ab` being the
 * first two digits; `uploads/<id>` for uploads in progress, or `blobs/uploads/<id>` if the blobs are on a file system of
 * their own. A key is the name of the file. A unique key includes the id of the upload, `<digest>.<id>.gz`: no file ever
 * replaces another, so that a late removal by a server that was suspended cannot hit what another server placed.
 *
 * Invariant: a file under `blobs/` is whole and never changes. It gets there only by the rename of a sealed upload,
 * followed by a sync of its folder; the folder's own name is synced before that. A crash before the rename leaves an
 * upload for the sweep; a crash after it leaves a whole blob, named by the catalog or not. When `place` or `remove` has
 * settled, none of its operations is in progress: a late removal would hit the bytes that the next change of the catalog
 * has placed under the same key.
 */
export class DiskBlobStore implements BlobStore {
  readonly capabilities: BlobStoreCapabilities;
  readonly #blobsFolder: string;
  readonly #uploadsFolder: string;
  readonly #uploadsFoldersEver: readonly string[];
  /** Folders of blobs that exist durably, or are being created. */
  readonly #folders = new Map<string, Promise<void>>();

  private constructor(folders: BlobFolders, uniqueKeys: boolean) {
    this.capabilities = { keysFollowContent: !uniqueKeys, digestOnRead: false, presign: false };
    this.#blobsFolder = folders.blobs;
    this.#uploadsFolder = folders.uploads;
    this.#uploadsFoldersEver = folders.uploadsEver;
  }

  /**
   * Opens the store in a folder, which is created if it is missing. `uniqueKeys` is for folders that several servers share.
   * With `readOnly` nothing is created, and nothing may be stored. @throws FiletrackerError of the disk.
   */
  static async open(
    folder: string,
    options: { readonly uniqueKeys?: boolean; readonly readOnly?: boolean } = {},
  ): Promise<DiskBlobStore> {
    const { uniqueKeys = false, readOnly = false } = options;
    if (readOnly) return new DiskBlobStore(blobFoldersToRead(folder), uniqueKeys);
    // The servers that share a folder may run as several users of one group.
    const mode = uniqueKeys ? undefined : privateFolderMode;
    for (const part of ['blobs', 'uploads']) await makeFolderDurably(join(folder, part), mode);
    const store = new DiskBlobStore(await findBlobFolders(folder), uniqueKeys);
    await makeFolderDurably(store.#uploadsFolder, mode);
    // Folders that a process created just before it was killed may not be durable yet.
    await syncFolder(store.#blobsFolder);
    for (const item of await readdir(store.#blobsFolder)) store.#folders.set(item, Promise.resolve());
    return store;
  }

  async stage({ signal }: { signal?: AbortSignal } = {}): Promise<StagedUpload> {
    const stagedId = randomBytes(12).toString('hex');
    const file = await DurableFile.create(this.#uploadPath(stagedId));
    return {
      stagedId,
      write: async (bytes) => {
        throwIfAborted(signal, 'write an upload');
        await file.write(bytes);
      },
      written: () => file.written(),
      seal: () => file.seal(),
      discard: () => file.discard(),
    };
  }

  async place(placements: readonly Placement[]): Promise<readonly BlobKey[]> {
    const keys = placements.map((placement) => checkedKey(this.#keyOf(placement)));
    const folders = [...new Set(keys.map(folderOf))];
    await allSettledOrThrow(folders.map((folder) => this.#makeFolder(folder)));
    await allSettledOrThrow(
      placements.map((placement) => this.#move(placement.stagedId, this.#keyOf(placement))),
    );
    await allSettledOrThrow(folders.map((folder) => syncFolder(join(this.#blobsFolder, folder))));
    return keys;
  }

  #keyOf({ digest, encoding, stagedId }: Placement): BlobKey {
    return keyOf({ digest, encoding }, this.capabilities.keysFollowContent ? '' : `.${stagedId}`);
  }

  async #makeFolder(folder: string): Promise<void> {
    let making = this.#folders.get(folder);
    if (making === undefined) {
      making = this.#createFolder(folder);
      this.#folders.set(folder, making);
      making.catch(() => this.#folders.delete(folder));
    }
    await making;
  }

  async #createFolder(folder: string): Promise<void> {
    const created = await makeFolderDurably(join(this.#blobsFolder, folder));
    // Another process may have created it a moment ago and not have synced it yet.
    if (!created) await syncFolder(this.#blobsFolder);
  }

  async #move(stagedId: string, key: BlobKey): Promise<void> {
    try {
      await rename(this.#uploadPath(stagedId), this.#blobPath(key));
    } catch (error) {
      if (errnoOf(error) !== 'ENOENT') throw fromSystemError(error, 'place a blob');
      // Placed by an earlier call whose result was lost, or gone.
      if ((await this.size(key)) === undefined) throw uploadGone(stagedId);
    }
  }

  async discard(stagedId: string): Promise<void> {
    await removeFile(this.#uploadPath(stagedId));
  }

  /**
   * Makes blobs of files elsewhere, unread: by hard links, or by copies if links are not possible. Their names are durable on
   * return. The key of a file that has vanished is `undefined`, as is that of one that the disk cannot read, if
   * `onUnreadable` is given to receive its digest. Safe to repeat.
   */
  async adopt(
    files: readonly AdoptableFile[],
    onUnreadable?: (digest: Digest) => void,
  ): Promise<readonly (BlobKey | undefined)[]> {
    const folders = [...new Set(files.map((file) => folderOf(keyOf(file))))];
    await allSettledOrThrow(folders.map((folder) => this.#makeFolder(folder)));
    const keys = await allSettledOrThrow(files.map((file) => this.#adoptOne(file, onUnreadable)));
    await allSettledOrThrow(folders.map((folder) => syncFolder(join(this.#blobsFolder, folder))));
    return keys;
  }

  async #adoptOne(
    file: AdoptableFile,
    onUnreadable: ((digest: Digest) => void) | undefined,
  ): Promise<BlobKey | undefined> {
    const key = keyOf(file);
    const temporaryPath = this.#uploadPath(randomBytes(12).toString('hex'));
    try {
      await linkOrCopy(file.path, this.#blobPath(key), temporaryPath);
      return key;
    } catch (error) {
      if (errnoOf(error) === 'ENOENT') return undefined;
      if (onUnreadable === undefined || mediumErrnoOf(error) === undefined) throw error;
      await removeFile(temporaryPath);
      onUnreadable(file.digest);
      return undefined;
    }
  }

  async open(key: BlobKey, options: BlobReadOptions = {}): Promise<Readable | undefined> {
    const path = this.#blobPath(key);
    throwIfAborted(options.signal, 'open a blob');
    let descriptor: number;
    try {
      descriptor = await openFile(path, 'r');
    } catch (error) {
      if (errnoOf(error) === 'ENOENT') return undefined;
      throw fromSystemError(error, 'open a blob');
    }
    try {
      const sizeBytes = options.storedSize ?? (await statFile(descriptor)).size;
      return new FileSection(descriptor, clip(options.range, sizeBytes), { signal: options.signal });
    } catch (error) {
      await closeFile(descriptor);
      throw fromSystemError(error, 'open a blob');
    }
  }

  async size(key: BlobKey): Promise<number | undefined> {
    return (await statIfThere(this.#blobPath(key)))?.size;
  }

  async remove(keys: readonly BlobKey[]): Promise<void> {
    await allSettledOrThrow(keys.map((key) => removeFile(this.#blobPath(key))));
  }

  async *list(options: { signal?: AbortSignal } = {}): AsyncIterable<FoundBlob> {
    for (const folder of (await readdir(this.#blobsFolder)).sort()) {
      if (!/^[0-9a-f]{2}$/.test(folder)) continue;
      for await (const names of batches(join(this.#blobsFolder, folder))) {
        throwIfAborted(options.signal, 'list the blobs');
        const found = await Promise.all(names.map((name) => this.#found(folder, name)));
        for (const blob of found) if (blob !== undefined) yield blob;
      }
    }
  }

  async #found(folder: string, name: string): Promise<FoundBlob | undefined> {
    if (!keyForm.test(name) || folderOf(name) !== folder) return undefined;
    const stats = await statIfThere(this.#blobPath(name));
    if (stats?.isFile() !== true) return undefined;
    const digest = name.slice(0, 64) as Digest;
    const encoding = name.endsWith('.gz') ? 'gzip' : 'identity';
    return { key: name, digest, encoding, storedSize: stats.size, modifiedMs: stats.mtimeMs };
  }

  async sweepStaged(beforeMs: number): Promise<number> {
    let removed = 0;
    for (const folder of this.#uploadsFoldersEver) {
      for await (const names of batches(folder)) {
        // Other names are not uploads of this store.
        const paths = names.filter((name) => stagedIdForm.test(name)).map((name) => join(folder, name));
        const swept = await Promise.all(paths.map((path) => sweep(path, beforeMs)));
        removed += swept.filter(Boolean).length;
      }
    }
    return removed;
  }

  async presign(): Promise<undefined> {
    return undefined;
  }

  /** Writes an upload and discards it, because a full or read-only disk shows only when something is written. */
  async probe(options: { signal?: AbortSignal } = {}): Promise<void> {
    const upload = await this.stage(options);
    try {
      await upload.write(Buffer.from('probe'));
      await upload.seal();
    } finally {
      await upload.discard();
    }
  }

  async close(): Promise<void> {
    await Promise.allSettled(this.#folders.values());
  }

  #blobPath(key: BlobKey): string {
    return join(this.#blobsFolder, folderOf(checkedKey(key)), key);
  }

  #uploadPath(stagedId: string): string {
    if (!stagedIdForm.test(stagedId)) {
      const text = `Cannot use ${JSON.stringify(stagedId)} as an upload's name: bad form`;
      throw new FiletrackerError('invalid-argument', text);
    }
    return join(this.#uploadsFolder, stagedId);
  }
}

/** Every key passes this check before it becomes part of a path. */
function checkedKey(key: BlobKey): BlobKey {
  if (keyForm.test(key)) return key;
  throw new FiletrackerError(
    'invalid-argument',
    `Cannot use ${JSON.stringify(key)} as a blob's key: bad form`,
  );
}

function keyOf({ digest, encoding }: Pick<Placement, 'digest' | 'encoding'>, unique = ''): BlobKey {
  return `${digest}${unique}${encoding === 'gzip' ? '.gz' : ''}`;
}

function folderOf(key: BlobKey): string {
  return key.slice(0, 2);
}

/** The part of a range that is within the bytes. */
function clip(range: ByteRange | undefined, sizeBytes: number): ByteRange {
  if (range === undefined) return { start: 0, length: sizeBytes };
  if (range.start > sizeBytes) throw shortFile();
  return { start: range.start, length: Math.min(range.length, sizeBytes - range.start) };
}

async function statIfThere(path: string): Promise<Stats | undefined> {
  try {
    return await stat(path);
  } catch (error) {
    if (errnoOf(error) === 'ENOENT') return undefined;
    throw fromSystemError(error, 'look at a file');
  }
}

/** The names in a folder, in batches, so that millions are not held in memory. None if the folder is absent. */
async function* batches(folder: string): AsyncGenerator<readonly string[]> {
  let names: string[] = [];
  const opened = await opendir(folder, { bufferSize: filesAtOnce }).catch((error: unknown) => {
    if (errnoOf(error) !== 'ENOENT') throw error;
  });
  for await (const item of opened ?? []) {
    names.push(item.name);
    if (names.length < filesAtOnce) continue;
    yield names;
    names = [];
  }
  if (names.length > 0) yield names;
}

/** Whether a file was last written before `beforeMs`, and is removed. */
async function sweep(path: string, beforeMs: number): Promise<boolean> {
  const stats = await statIfThere(path);
  if (stats === undefined || !stats.isFile() || stats.mtimeMs >= beforeMs) return false;
  await removeFile(path);
  return true;
}

function uploadGone(stagedId: string): FiletrackerError {
  return new FiletrackerError('not-found', `Cannot place the upload "${stagedId}": it is gone`);
}
