import {
  closeSync,
  existsSync,
  fchmodSync,
  fstatSync,
  futimesSync,
  openSync,
  renameSync,
  rmSync,
  writeFileSync,
} from 'node:fs';
import { dirname } from 'node:path';
import type { Digest } from '../../core/digest.ts';
import { errnoOf, FiletrackerError } from '../../core/errors.ts';
import type { FileVersion } from '../../core/file-version.ts';
import { removeIfThere, uniqueTag } from '../transfer/targets.ts';
import { requireNoStore } from './folder-check.ts';
import { isSealed, sealOf } from './layout.ts';
import type { CacheLayout, FileKind } from './layout.ts';

/** A blob in `partial/` that is open for writing. */
export interface PartialBlob {
  readonly name: string;
  readonly descriptor: number;
  /** The permissions that the umask left; a copy has taken over those of its source by now. */
  readonly mode: number;
}

/** Permissions of records and pins; never writable for all users, whatever the umask. */
const defaultFileMode = 0o664;

/**
 * Creates the files of a cache, with their permissions.
 *
 * Invariant: a blob gets its seal when it is complete, and a record that replaces another is complete before it gets its
 * name. The first record of a name, and small blobs, are written in their places: a reader takes an incomplete one for
 * missing.
 */
export class CacheFiles {
  readonly #layout: CacheLayout;
  readonly #nowMs: () => number;
  #prepared = false;
  #newFolders: string[] = [];
  #keepsSeals = false;
  #lastStampMs = 0;

  constructor(layout: CacheLayout, nowMs: () => number) {
    this.#layout = layout;
    this.#nowMs = nowMs;
  }

  /** The folders in which the cache's folder, and missing ones above it, were created. */
  get newFolders(): readonly string[] {
    return this.#newFolders;
  }

  /** Creates the top folders if they are missing; they may be removed at any time. */
  prepare(): void {
    const { folders, folder, partial } = this.#layout;
    const isMade = existsSync(partial);
    if (this.#prepared && isMade) return;
    if (!isMade) requireNoStore(folder, partial);
    this.#newFolders = folders.make().map((made) => dirname(made));
    folders.make('pins');
    if (!isMade) folders.make('partial');
    this.#prepared = true;
  }

  /** Writes a small blob in its place, unless `isThere` finds it there. */
  writeBlob(
    { digest, version }: { readonly digest: Digest; readonly version: FileVersion },
    bytes: Buffer,
    isThere: () => boolean,
  ): void {
    const { blobMode, folders } = this.#layout;
    const descriptor = this.#create('blobs', digest, blobMode, () => !isThere());
    if (descriptor === undefined) return;
    try {
      writeFileSync(descriptor, bytes);
      if (folders.folderMode !== undefined) fchmodSync(descriptor, blobMode);
      this.#seal(descriptor, digest, version);
    } catch (error) {
      removeIfThere(this.#layout.blob(digest));
      throw error;
    } finally {
      closeSync(descriptor);
    }
  }

  /**
   * Moves a complete and verified file among the blobs. If another user of the cache replaces its name meanwhile, the
   * replacement is not sealed and is ignored.
   */
  placeBlob({ name, descriptor, mode }: PartialBlob, digest: Digest, version: FileVersion): void {
    fchmodSync(descriptor, (this.#layout.folders.folderMode ?? mode) & 0o444);
    this.#seal(descriptor, digest, version);
    this.#renameInto(`${this.#layout.partial}/${name}`, 'blobs', digest);
  }

  #seal(descriptor: number, digest: Digest, version: FileVersion): void {
    futimesSync(descriptor, this.stampSeconds(), sealOf(digest, version));
    if (this.#keepsSeals) return;
    const attributes = fstatSync(descriptor);
    this.#keepsSeals = isSealed(attributes, digest, attributes.size);
    if (this.#keepsSeals) return;
    throw new FiletrackerError(
      'io',
      `Cannot use the cache folder "${this.#layout.folder}": its file system does not store microseconds in file times`,
    );
  }

  /** Writes the first record of a name; false if there is a file already. */
  writeFirstRecord(nameHash: string, text: string): boolean {
    const { fileMode } = this.#layout;
    const descriptor = this.#create('names', nameHash, fileMode ?? defaultFileMode, () => false);
    if (descriptor === undefined) return false;
    writeAndClose(descriptor, text, fileMode);
    return true;
  }

  /** Replaces a record or pin atomically. */
  replace(kind: 'names' | 'pins', name: string, text: string): void {
    this.prepare();
    const { fileMode, partial } = this.#layout;
    const temporaryPath = `${partial}/n-${uniqueTag()}`;
    try {
      writeAndClose(openSync(temporaryPath, 'wx', fileMode ?? defaultFileMode), text, fileMode);
      this.#renameInto(temporaryPath, kind, name);
    } catch (error) {
      rmSync(temporaryPath, { force: true });
      throw error;
    }
  }

  /** Creates a file, and its folder if it is missing. An existing file is replaced if `mayReplace` returns true. */
  #create(
    kind: 'blobs' | 'names',
    name: string,
    mode: number,
    mayReplace: () => boolean,
  ): number | undefined {
    for (;;) {
      const path = this.#layout.path(kind, name);
      try {
        return openSync(path, 'wx', mode);
      } catch (error) {
        if (errnoOf(error) === 'ENOENT') this.#layout.makeFolderOf(kind, name);
        else if (errnoOf(error) !== 'EEXIST') throw error;
        else if (mayReplace()) removeIfThere(path);
        else return undefined;
      }
    }
  }

  #renameInto(from: string, kind: FileKind, name: string): void {
    try {
      renameSync(from, this.#layout.path(kind, name));
    } catch (error) {
      if (errnoOf(error) !== 'ENOENT') throw error;
      this.#layout.makeFolderOf(kind, name);
      renameSync(from, this.#layout.path(kind, name));
    }
  }

  /** The time in seconds, a little later at each call, so that uses keep their order. */
  stampSeconds(): number {
    this.#lastStampMs = Math.max(this.#nowMs(), this.#lastStampMs + 0.002);
    return this.#lastStampMs / 1000;
  }
}

function writeAndClose(descriptor: number, text: string, mode: number | undefined): void {
  try {
    writeFileSync(descriptor, text);
    if (mode !== undefined) fchmodSync(descriptor, mode);
  } finally {
    closeSync(descriptor);
  }
}
