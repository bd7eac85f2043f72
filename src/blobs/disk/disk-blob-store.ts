import { randomBytes } from 'node:crypto';
import { close, fstat, open } from 'node:fs';
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

/** Files looked at side by side while the store is listed or swept. */
const filesAtOnce = 64;

/** A file whose content is to become a blob. */
export interface AdoptableFile {
  readonly path: string;
  readonly digest: Digest;
  readonly encoding: Encoding;
}

/**
 * Blobs as files of one folder: `blobs/ab/<digest>` for content as it is, `blobs/ab/<digest>.gz` for gzip,
 * `ab` being the first two digits; `uploads/<id>` for what is on its way in, or
 * `blobs/uploads/<id>` if the blobs are on a file system of their own. A key is the file's name. With unique keys
 * the upload's id stands in it too, `<digest>.<id>.gz`: no file then ever takes the place of another, so that a
 * removal that comes late, from a server that was asleep, cannot hit what another server placed.
 *
 * Invariant: a file under `blobs/` is whole and never changes. It gets there by one way only, the rename of
 * a sealed upload, followed by a sync of its folder; the folder's own name is synced before that. A crash
 * before the rename leaves an upload for the sweep, a crash after it a whole blob, named by the catalog or not.
 * When a placing or a removal has ended, well or not, nothing of it is under way any more: a removal that came
 * late would take the bytes that the next step of the catalog has placed under the same key.
 */
export class DiskBlobStore implements BlobStore {
  readonly capabilities: BlobStoreCapabilities;
  readonly #blobsFolder: string;
  readonly #uploadsFolder: string;
  readonly #uploadsFoldersEver: readonly string[];
  /** Folders of blobs that are known to be there, durably, or are being created. */
  readonly #folders = new Map<string, Promise<void>>();

  private constructor(folders: BlobFolders, uniqueKeys: boolean) {
    this.capabilities = { keysFollowContent: !uniqueKeys, digestOnRead: false, presign: false };
    this.#blobsFolder = folders.blobs;
    this.#uploadsFolder = folders.uploads;
    this.#uploadsFoldersEver = folders.uploadsEver;
  }

  /**
   * Opens the store in a folder, which is created where missing. `uniqueKeys` is for folders that several servers
   * share. With `readOnly` nothing is created, and nothing may be stored. @throws FiletrackerError of the disk.
   */
  static async open(
    folder: string,
    options: { readonly uniqueKeys?: boolean; readonly readOnly?: boolean } = {},
  ): Promise<DiskBlobStore> {
    const { uniqueKeys = false, readOnly = false } = options;
    if (readOnly) return new DiskBlobStore(blobFoldersToRead(folder), uniqueKeys);
    // The servers that share a folder may be of several users, who are one group.
    const mode = uniqueKeys ? undefined : privateFolderMode;
    for (const part of ['blobs', 'uploads']) await makeFolderDurably(join(folder, part), mode);
    const store = new DiskBlobStore(await findBlobFolders(folder), uniqueKeys);
    await makeFolderDurably(store.#uploadsFolder, mode);
    // Folders of blobs that a process created just before it was killed may not be durable yet.
    await syncFolder(store.#blobsFolder);
    for (const item of await readdir(store.#blobsFolder)) store.#folders.set(item, Promise.resolve());
    return store;
  }

  async stage(options: { signal?: AbortSignal } = {}): Promise<StagedUpload> {
    const stagedId = randomBytes(12).toString('hex');
    const file = await DurableFile.create(this.#uploadPath(stagedId));
    return new DiskUpload(stagedId, file, options.signal);
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

  #keyOf(placement: Placement): BlobKey {
    if (this.capabilities.keysFollowContent) return keyOf(placement);
    const name = `${placement.digest}.${placement.stagedId}`;
    return placement.encoding === 'gzip' ? `${name}.gz` : name;
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
      // Placed by an earlier call whose answer got lost, or gone.
      if ((await this.size(key)) === undefined) throw uploadGone(stagedId);
    }
  }

  async discard(stagedId: string): Promise<void> {
    await removeFile(this.#uploadPath(stagedId));
  }

  /**
   * Takes files from elsewhere in as blobs, unread: by hard links, or by copies where links cannot be made.
   * Their names are durable on return. Files that have gone meanwhile give undefined, as do those that the disk does not
   * give, where there is `onUnreadable` to be told of them. Safe to repeat.
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
    return {
      key: name,
      digest,
      encoding: encodingOf(name),
      storedSize: stats.size,
      modifiedMs: stats.mtimeMs,
    };
  }

  async sweepStaged(beforeMs: number): Promise<number> {
    let removed = 0;
    for (const folder of this.#uploadsFoldersEver) removed += await this.#sweepFolder(folder, beforeMs);
    return removed;
  }

  async #sweepFolder(folder: string, beforeMs: number): Promise<number> {
    let removed = 0;
    for await (const names of batches(folder)) {
      // What has another name is nothing of ours.
      const ours = names.filter((name) => stagedIdForm.test(name));
      const swept = await Promise.all(ours.map((name) => this.#sweep(join(folder, name), beforeMs)));
      removed += swept.filter(Boolean).length;
    }
    return removed;
  }

  async #sweep(path: string, beforeMs: number): Promise<boolean> {
    const stats = await statIfThere(path);
    if (stats === undefined || !stats.isFile() || stats.mtimeMs >= beforeMs) return false;
    await removeFile(path);
    return true;
  }

  async presign(): Promise<undefined> {
    return undefined;
  }

  /** Writes a byte and takes it back, because a full or read-only disk shows only to a write. */
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

class DiskUpload implements StagedUpload {
  readonly stagedId: string;
  readonly #file: DurableFile;
  readonly #signal: AbortSignal | undefined;

  constructor(stagedId: string, file: DurableFile, signal: AbortSignal | undefined) {
    this.stagedId = stagedId;
    this.#file = file;
    this.#signal = signal;
  }

  async write(bytes: Uint8Array): Promise<void> {
    throwIfAborted(this.#signal, 'write an upload');
    await this.#file.write(bytes);
  }

  seal(): Promise<number> {
    return this.#file.seal();
  }

  async discard(): Promise<void> {
    await this.#file.discard();
  }
}

/** Nothing becomes part of a path that has not passed here. */
function checkedKey(key: BlobKey): BlobKey {
  if (keyForm.test(key)) return key;
  throw new FiletrackerError(
    'invalid-argument',
    `Cannot use ${JSON.stringify(key)} as a blob's key: bad form`,
  );
}

function keyOf(placement: Pick<Placement, 'digest' | 'encoding'>): BlobKey {
  return placement.encoding === 'gzip' ? `${placement.digest}.gz` : placement.digest;
}

function encodingOf(key: BlobKey): Encoding {
  return key.endsWith('.gz') ? 'gzip' : 'identity';
}

function folderOf(key: BlobKey): string {
  return key.slice(0, 2);
}

/** What of a range lies within the bytes. */
function clip(range: ByteRange | undefined, sizeBytes: number): ByteRange {
  if (range === undefined) return { start: 0, length: sizeBytes };
  if (range.start > sizeBytes) throw shortFile();
  return { start: range.start, length: Math.min(range.length, sizeBytes - range.start) };
}

async function statIfThere(
  path: string,
): Promise<(Awaited<ReturnType<typeof stat>> & { size: number; mtimeMs: number }) | undefined> {
  try {
    return await stat(path);
  } catch (error) {
    if (errnoOf(error) === 'ENOENT') return undefined;
    throw fromSystemError(error, 'look at a file');
  }
}

/** The names in a folder, some at a time, so that a folder of millions is not held in memory. None if it is absent. */
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

function uploadGone(stagedId: string): FiletrackerError {
  return new FiletrackerError('not-found', `Cannot place the upload "${stagedId}": it is gone`);
}
