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
import { basename, dirname, join } from 'node:path';
import type { Digest } from '../../core/digest.ts';
import { errnoOf, FiletrackerError } from '../../core/errors.ts';
import { storeMarks } from '../../fs/folder-marks.ts';
import type { FileVersion } from '../../core/file-version.ts';
import { blobMode, fileMode, isSealed, sealOf } from './layout.ts';
import type { CacheLayout, CachePermissions } from './layout.ts';
import type { KnownVersion, NameRecord } from './names.ts';
import { removeIfThere, uniqueTag } from '../transfer/targets.ts';

/**
 * Sees to it that a folder in which no cache was made yet is not the store of a server.
 * @throws FiletrackerError `invalid-argument`.
 */
export function requireNoStore({ folder, partial }: CacheLayout): void {
  if (existsSync(partial) || !storeMarks.some((mark) => existsSync(join(folder, mark)))) return;
  const state = 'it is the store of a server; name another by --cache-dir or FILETRACKER_DIR';
  throw new FiletrackerError('invalid-argument', `Cannot use the folder "${folder}" as a cache: ${state}`);
}

/** A content in `partial/` that is open for writing. */
export interface PartialBlob {
  readonly name: string;
  readonly descriptor: number;
  /** The permissions that the umask left it; a copy takes over those of its source. */
  readonly mode: number;
}

/** Of files that are written to; never writable for everyone, whatever the umask. */
const defaultFileMode = 0o664;

/** The folder that a file is divided into by its first digit. */
function shardOf(kind: 'blobs' | 'names' | 'pins', path: string): string {
  return kind === 'pins' ? '' : basename(path).slice(0, 1);
}

/**
 * How the files of a cache come into being, with the permissions that they shall have.
 *
 * Invariant: a content gets its seal when it is complete, and a record that replaces another is complete
 * before it gets its name. The first record of a name, and small contents, are written in their places,
 * because whoever finds one that is not complete takes it for none.
 */
export class CacheFiles {
  readonly #layout: CacheLayout;
  readonly #permissions: CachePermissions;
  readonly #nowMs: () => number;
  #prepared = false;
  #newFolders: string[] = [];
  #keepsSeals = false;
  #lastStampMs = 0;

  constructor(layout: CacheLayout, permissions: CachePermissions, nowMs: () => number) {
    this.#layout = layout;
    this.#permissions = permissions;
    this.#nowMs = nowMs;
  }

  /** The folders in which the cache's folder, and those above it that were missing, were created. */
  get newFolders(): readonly string[] {
    return this.#newFolders;
  }

  /** Creates the folders that all others lie in, unless they are there; somebody may have removed them. */
  prepare(): void {
    const { folders, partial } = this.#layout;
    const isMade = existsSync(partial);
    if (this.#prepared && isMade) return;
    if (!isMade) requireNoStore(this.#layout);
    this.#newFolders = folders.make().map((made) => dirname(made));
    folders.make('pins');
    if (!isMade) folders.make('partial');
    this.#prepared = true;
  }

  /** Writes a small content where it belongs, unless `isThere` finds it there. */
  writeBlob({ digest, version }: KnownVersion, bytes: Buffer, isThere: () => boolean): void {
    const mode = blobMode(this.#permissions);
    const path = (): string => this.#layout.blob(digest);
    const descriptor = this.#create(path, 'blobs', mode, () => !isThere());
    if (descriptor === undefined) return;
    try {
      writeFileSync(descriptor, bytes);
      if (this.#permissions.folderMode !== undefined) fchmodSync(descriptor, mode);
      this.#seal(descriptor, digest, version);
    } catch (error) {
      removeIfThere(path());
      throw error;
    } finally {
      closeSync(descriptor);
    }
  }

  /**
   * Gives a complete and verified file its place among the contents. Whatever another user of the cache puts in the place
   * of its name meanwhile is not sealed, and so counts for nothing.
   */
  placeBlob({ name, descriptor, mode }: PartialBlob, digest: Digest, version: FileVersion): void {
    fchmodSync(descriptor, (this.#permissions.folderMode ?? mode) & 0o444);
    this.#seal(descriptor, digest, version);
    this.#renameInto(`${this.#layout.partial}/${name}`, 'blobs', () => this.#layout.blob(digest));
  }

  #seal(descriptor: number, digest: Digest, version: FileVersion): void {
    futimesSync(descriptor, this.stampSeconds(), sealOf(digest, version));
    if (this.#keepsSeals) return;
    const attributes = fstatSync(descriptor);
    this.#keepsSeals = isSealed(attributes, digest, attributes.size);
    if (this.#keepsSeals) return;
    throw new FiletrackerError(
      'io',
      `Cannot use the cache folder "${this.#layout.folder}": its file system keeps no microseconds`,
    );
  }

  /** Writes the first record of a name; false where there is a file already. */
  writeFirstRecord(path: () => string, record: NameRecord): boolean {
    const mode = fileMode(this.#permissions);
    const descriptor = this.#create(path, 'names', mode ?? defaultFileMode, () => false);
    if (descriptor === undefined) return false;
    try {
      writeFileSync(descriptor, JSON.stringify(record));
      if (mode !== undefined) fchmodSync(descriptor, mode);
    } finally {
      closeSync(descriptor);
    }
    return true;
  }

  /** Writes a small file in `names/` or `pins/` in place of another: a reader sees the old one or the new one. */
  replaceFile(kind: 'names' | 'pins', path: () => string, text: string): void {
    this.prepare();
    const mode = fileMode(this.#permissions);
    const temporaryPath = `${this.#layout.partial}/n-${uniqueTag()}`;
    try {
      const descriptor = openSync(temporaryPath, 'wx', mode ?? defaultFileMode);
      try {
        writeFileSync(descriptor, text);
        if (mode !== undefined) fchmodSync(descriptor, mode);
      } finally {
        closeSync(descriptor);
      }
      this.#renameInto(temporaryPath, kind, path);
    } catch (error) {
      rmSync(temporaryPath, { force: true });
      throw error;
    }
  }

  /** Creates a file and, where it is missing, its folder; where there is a file already, if `mayReplace` says so. */
  #create(
    path: () => string,
    kind: 'blobs' | 'names',
    mode: number,
    mayReplace: () => boolean,
  ): number | undefined {
    for (;;) {
      const now = path();
      try {
        return openSync(now, 'wx', mode);
      } catch (error) {
        if (errnoOf(error) === 'ENOENT') this.#layout.folders.make(kind, shardOf(kind, now));
        else if (errnoOf(error) !== 'EEXIST') throw error;
        else if (mayReplace()) removeIfThere(now);
        else return undefined;
      }
    }
  }

  #renameInto(from: string, kind: 'blobs' | 'names' | 'pins', to: () => string): void {
    const target = to();
    try {
      renameSync(from, target);
    } catch (error) {
      if (errnoOf(error) !== 'ENOENT') throw error;
      this.#layout.folders.make(kind, shardOf(kind, target));
      renameSync(from, to());
    }
  }

  /** The time in seconds, a little later at each call, so that uses keep their order. */
  stampSeconds(): number {
    this.#lastStampMs = Math.max(this.#nowMs(), this.#lastStampMs + 0.002);
    return this.#lastStampMs / 1000;
  }
}
