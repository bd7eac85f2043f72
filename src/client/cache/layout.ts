// The files of a cache folder. None is durable in the sense of the server's store: everything can be fetched again, and
// files that power loss damages are found by their size and removed.
//
//   blobs/a/<digest>        blob, read-only, sealed (see below); `a` is the first digit of the digest
//   names/a/<hash of name>  the known versions of one name, as JSON (names.ts)
//   partial/                with `pins/` the mark of a cache (fs/folder-marks.ts), so both are created first
//   partial/d-<digest>-<size>   a download that can be resumed
//   partial/t-<random>-<size>   a blob that is being added and can't be resumed
//   partial/n-<random>      a record or pin that is being written
//   pins/<digest>           why this blob must stay, one reason a line
//   space                   bytes accounted for (space.ts)
//   lock                    empty; its byte ranges are the locks
//
// `files/` and `locks/`, which the Python client uses in the same folder, are never touched.
//
// The seal: the modification time of a blob is the version it was added with, and its microseconds are derived from the
// digest. A write to the file, through a hard link or otherwise, changes size or time, and the next look-up notices
// without having stored anything to compare with.
import { hash } from 'node:crypto';
import type { Digest } from '../../core/digest.ts';
import type { FileName } from '../../core/file-name.ts';
import { microsecondsOf, timeInSeconds } from '../../fs/time-stamps.ts';
import type { CacheFolders } from './folders.ts';

/** Files take whole blocks of a disk; the account counts blocks as the disk does. */
const blockSizeBytes = 4096;

/** Bytes of a record in the account. */
export const recordCharge = blockSizeBytes;

/** Bytes of a blob in the account. */
export function blobCharge(sizeBytes: number): number {
  return Math.ceil(sizeBytes / blockSizeBytes) * blockSizeBytes;
}

/** Bytes of a blob that is being added, and of the record that may come with it. */
export function partialCharge(sizeBytes: number): number {
  return blobCharge(sizeBytes) + recordCharge;
}

/** 32 hex digits that stand for a name in paths and locks. */
export function hashOfName(name: FileName): string {
  return hash('sha256', name, 'hex').slice(0, 32);
}

/** Each kind of lock has its own range of byte offsets in the lock file. */
const keyHexDigits = 12;
const keysPerKind = 2 ** 48;

/** Held while a name's record is changed or its blob fetched. */
export function nameLockKey(nameHash: string): number {
  return Number.parseInt(nameHash.slice(0, keyHexDigits), 16);
}
/** Held, shared, while a blob is read as a stream; eviction takes it exclusively. */
export function contentLockKey(digest: Digest): number {
  return keysPerKind + Number.parseInt(digest.slice(0, keyHexDigits), 16);
}
/** Held while a file in `partial/` is written. */
export function partialLockKey(fileName: string): number {
  return 2 * keysPerKind + Number.parseInt(hash('sha256', fileName, 'hex').slice(0, keyHexDigits), 16);
}
/** Held while the account or the pins change. */
export const spaceLockKey = 3 * keysPerKind;

/** Names of a cache's own files. No other file is ever removed. */
export const fileForms = {
  blob: /^[0-9a-f]{64}$/,
  record: /^[0-9a-f]{32}$/,
  pin: /^[0-9a-f]{64}$/,
  partial: /^(?:d-[0-9a-f]{64}-\d{1,15}|t-[0-9a-f]{16}-\d{1,15}|n-[0-9a-f]{16})$/,
} as const;

export type FileKind = 'blobs' | 'names' | 'pins';

function folderOf(kind: FileKind, name: string): string {
  return kind === 'pins' ? kind : `${kind}/${name.slice(0, 1)}`;
}

/** Paths and permissions of the files. A path is valid until its folder is removed (`CacheFolders`). */
export class CacheLayout {
  readonly folders: CacheFolders;

  constructor(folders: CacheFolders) {
    this.folders = folders;
  }

  /** The path of the cache, for people. */
  get folder(): string {
    return this.folders.folder;
  }

  get partial(): string {
    return this.folders.at('partial');
  }

  get pins(): string {
    return this.folders.at('pins');
  }

  get space(): string {
    return `${this.folders.at()}/space`;
  }

  get lock(): string {
    return `${this.folders.at()}/lock`;
  }

  path(kind: FileKind, name: string): string {
    return `${this.folders.at(folderOf(kind, name))}/${name}`;
  }

  blob(digest: Digest): string {
    return this.path('blobs', digest);
  }

  record(nameHash: string): string {
    return this.path('names', nameHash);
  }

  /** Creates the folder of a file. */
  makeFolderOf(kind: FileKind, name: string): void {
    this.folders.make(folderOf(kind, name));
  }

  /** The sixteen folders that blobs and records are divided into. */
  shards(kind: 'blobs' | 'names'): readonly string[] {
    return Array.from('0123456789abcdef', (digit) => this.folders.at(`${kind}/${digit}`));
  }

  /** Permissions of a blob; without a folder mode the umask narrows them. */
  get blobMode(): number {
    return (this.folders.folderMode ?? 0o777) & 0o444;
  }

  /** Permissions of the other files; `undefined` leaves them to the umask. */
  get fileMode(): number | undefined {
    const { folderMode } = this.folders;
    return folderMode === undefined ? undefined : folderMode & 0o666;
  }
}

const microsecondsPerSecond = 1_000_000;
/** Times that every file system can keep; other versions are sealed with this second. */
const sealSecondsMax = 2 ** 31 - 1;
const sealSecondsFallback = 1;

function sealMicroseconds(digest: Digest): number {
  return 1 + (Number.parseInt(digest.slice(0, 6), 16) % (microsecondsPerSecond - 1));
}

/** The modification time, in seconds, that seals a blob added with `version`. */
export function sealOf(digest: Digest, version: number): number {
  const seconds = version >= 1 && version <= sealSecondsMax ? version : sealSecondsFallback;
  return timeInSeconds(seconds, sealMicroseconds(digest));
}

/** Whether a file with these attributes is unchanged since it was sealed. */
export function isSealed(
  attributes: { readonly size: number; readonly mtimeMs: number },
  digest: Digest,
  sizeBytes: number,
): boolean {
  return attributes.size === sizeBytes && microsecondsOf(attributes.mtimeMs) === sealMicroseconds(digest);
}

/** The whole seconds of a seal: the version that a hard link to the blob shows as its time. */
export function sealSeconds(attributes: { readonly mtimeMs: number }): number {
  return Math.floor(attributes.mtimeMs / 1000);
}
