// What lies where in a cache folder. Nothing in it is durable in the sense of the server's store: all of it
// can be fetched again, and what power loss damages is found by its size and thrown out.
//
//   blobs/a/<digest>        content, read-only, sealed (see below); `a` is the digest's first digit
//   names/a/<hash of name>  what is known of one name, as JSON (local-cache-names.ts)
//   partial/                by this and `pins/`, made first, servers know a cache (core/folder-marks.ts)
//   partial/d-<digest>-<size>   a download that can be taken up again
//   partial/t-<random>-<size>   content on its way in that can't
//   partial/n-<random>      a record on its way in
//   pins/<digest>           why this content must stay, a reason a line
//   space                   bytes accounted for (local-cache-space.ts)
//   lock                    empty; its byte ranges are the locks
//
// `files/` and `locks/`, which the Python client uses in the same folder, are never touched.
//
// The seal: a blob's modification time is the version it was added with, and its microseconds are taken from
// the digest. Whoever writes to the file, through a hard link that was handed out or otherwise, changes size
// or time, and the next look-up sees it without having stored anything to compare with.
import { hash } from 'node:crypto';
import type { Digest } from '../../core/digest.ts';
import type { FileName } from '../../core/file-name.ts';
import type { CacheFolders } from './folders.ts';
import { microsecondsOf, timeInSeconds } from '../../fs/time-stamps.ts';

/** Files take whole blocks of a disk; the account counts what the disk counts. */
const blockSizeBytes = 4096;

/** Bytes that a record takes in the account. */
export const recordCharge = blockSizeBytes;

/** Bytes that a content takes in the account. */
export function blobCharge(sizeBytes: number): number {
  return Math.ceil(sizeBytes / blockSizeBytes) * blockSizeBytes;
}

/** Bytes that a content on its way in takes: its own, and those of the record that may come with it. */
export function partialCharge(sizeBytes: number): number {
  return blobCharge(sizeBytes) + recordCharge;
}

/** 32 hex digits that stand for a name in paths and locks. */
export function hashOfName(name: FileName): string {
  return hash('sha256', name, 'hex').slice(0, 32);
}

/** Keys of the locks: each kind has its own range of byte offsets in the lock file. */
const keyHexDigits = 12;
const keysPerKind = 2 ** 48;

/** Held while a name's record or content is being fetched or changed. */
export function nameLockKey(nameHash: string): number {
  return Number.parseInt(nameHash.slice(0, keyHexDigits), 16);
}
/** Held, shared, while a content is read as a stream; eviction takes it exclusively. */
export function contentLockKey(digest: Digest): number {
  return keysPerKind + Number.parseInt(digest.slice(0, keyHexDigits), 16);
}
/** Held while a file in `partial/` is being written. */
export function partialLockKey(fileName: string): number {
  return 2 * keysPerKind + Number.parseInt(hash('sha256', fileName, 'hex').slice(0, keyHexDigits), 16);
}
/** Held while the account or the pins change. */
export const spaceLockKey = 3 * keysPerKind;

/** Forms of the names of our files. Nothing else is ever removed. */
export const fileForms = {
  blob: /^[0-9a-f]{64}$/,
  record: /^[0-9a-f]{32}$/,
  pin: /^[0-9a-f]{64}$/,
  partial: /^(?:d-[0-9a-f]{64}-\d{1,15}|t-[0-9a-f]{16}-\d{1,15}|n-[0-9a-f]{16})$/,
} as const;

const hexDigits = '0123456789abcdef'.split('');

/** Paths of files, as `CacheFolders` gives them: valid until the folder that they are in is removed. */
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

  blob(digest: Digest): string {
    return `${this.folders.at('blobs', digest.slice(0, 1))}/${digest}`;
  }

  record(nameHash: string): string {
    return `${this.folders.at('names', nameHash.slice(0, 1))}/${nameHash}`;
  }

  pin(digest: Digest): string {
    return `${this.pins}/${digest}`;
  }

  /** The sixteen folders that blobs and records are divided into. */
  shards(kind: 'blobs' | 'names'): readonly string[] {
    return hexDigits.map((digit) => this.folders.at(kind, digit));
  }
}

/** Permissions of what a cache creates; undefined leaves them to the umask. */
export interface CachePermissions {
  /** Of folders, as 0o2770; those of files follow from it. */
  readonly folderMode: number | undefined;
}

/** Of a content; without `folderMode` the umask takes from it. */
export function blobMode(permissions: CachePermissions): number {
  return (permissions.folderMode ?? 0o777) & 0o444;
}
/** Of files that are written to; undefined leaves them to the umask. */
export function fileMode({ folderMode }: CachePermissions): number | undefined {
  return folderMode === undefined ? undefined : folderMode & 0o666;
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

/** Whether a file with these attributes is as it was when it was sealed. */
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
