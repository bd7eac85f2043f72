import { constants, lstatSync, readFileSync } from 'node:fs';
import { isDigest } from '../../core/digest.ts';
import type { Digest } from '../../core/digest.ts';
import { errnoOf } from '../../core/errors.ts';
import { parseVersionedName } from '../../core/file-name.ts';
import type { FileName } from '../../core/file-name.ts';
import type { FileVersion } from '../../core/file-version.ts';
import type { RangeLocks } from '../../fs/locks/range-locks.ts';
import { digestOfEtag } from '../../protocol/etags.ts';
import { removeIfThere } from '../transfer/targets.ts';
import { noFileErrnos } from './blob.ts';
import type { CacheFiles } from './files.ts';
import { hashOfName, nameLockKey } from './layout.ts';
import type { CacheLayout } from './layout.ts';
import { forEachSharded } from './survey.ts';

/** Versions of one name that a record keeps; older ones are dropped. */
const versionsMax = 32;

/** One version of a name, as the cache knows it. Its blob may have been evicted since. */
export interface KnownVersion {
  readonly version: FileVersion;
  readonly digest: Digest;
  /** Bytes of the content. */
  readonly size: number;
  /** The server's ETag of the fetched representation. */
  readonly etag?: string | undefined;
  /** When the request started whose response last confirmed this as the newest version, by this machine's clock. */
  readonly checkedMs?: number | undefined;
  /** Set if no server has this version: the cache holds the only copy. */
  readonly local?: boolean | undefined;
}

/** One version of a name whose blob is in the cache. */
export interface CachedFile extends KnownVersion {
  readonly name: FileName;
  readonly path: string;
}

/** The known versions of one name, newest first. */
export interface NameRecord {
  readonly name: FileName;
  readonly versions: readonly KnownVersion[];
}

/**
 * The records of names.
 *
 * Invariant: a record is changed only under its name's lock. An unreadable record counts as missing, and its file is
 * fetched again.
 */
export class CacheNames {
  readonly #layout: CacheLayout;
  readonly #files: CacheFiles;
  readonly #locks: RangeLocks;

  constructor(layout: CacheLayout, files: CacheFiles, locks: RangeLocks) {
    this.#layout = layout;
    this.#files = files;
    this.#locks = locks;
  }

  /** The record of a name, whether its blobs are cached or not. */
  read(name: FileName): NameRecord | undefined {
    const record = readRecord(this.#layout.record(hashOfName(name)));
    return record?.name === name ? record : undefined;
  }

  /** Whether the account includes a record under this name's hash. */
  isCharged(name: FileName): boolean {
    return readRecord(this.#layout.record(hashOfName(name))) !== undefined;
  }

  /** Adds or replaces one version. The caller holds the name's lock. */
  put(name: FileName, known: KnownVersion): void {
    const nameHash = hashOfName(name);
    // First, because most names are new when their blobs are, and to look would cost a sixth of the writing.
    if (this.#files.writeFirstRecord(nameHash, JSON.stringify({ name, versions: [known] }))) return;
    const before = readRecord(this.#layout.record(nameHash));
    const versions = withVersion(before?.name === name ? before.versions : [], known);
    this.#files.replace('names', nameHash, JSON.stringify({ name, versions }));
  }

  /** Removes versions up to and including `upTo`, or all, and returns them. The caller holds the name's lock. */
  remove(name: FileName, upTo: FileVersion | undefined): readonly KnownVersion[] {
    const record = this.read(name);
    if (record === undefined) return [];
    const kept = record.versions.filter(({ version }) => upTo !== undefined && version > upTo);
    const nameHash = hashOfName(name);
    if (kept.length === 0) removeIfThere(this.#layout.record(nameHash));
    else this.#files.replace('names', nameHash, JSON.stringify({ name, versions: kept }));
    return record.versions.filter((version) => !kept.includes(version));
  }

  /** Calls back with every record; `undefined` for an unreadable one. */
  async forEach(
    visit: (record: NameRecord | undefined, path: string, nameHash: string) => void,
  ): Promise<void> {
    await forEachSharded(this.#layout, 'names', (nameHash, path) => visit(readRecord(path), path, nameHash));
  }

  /** Removes records without any cached blob, unless their name is locked; returns their number. */
  async sweep(): Promise<number> {
    const stale: { path: string; nameHash: string }[] = [];
    await this.forEach((record, path, nameHash) => {
      if (!this.#hasBlob(record)) stale.push({ path, nameHash });
    });
    let removed = 0;
    for (const { path, nameHash } of stale) {
      using lock = await this.#locks.tryAcquire(nameLockKey(nameHash), 'exclusive');
      if (lock === undefined || this.#hasBlob(readRecord(path))) continue;
      removeIfThere(path);
      removed += 1;
    }
    return removed;
  }

  #hasBlob(record: NameRecord | undefined): boolean {
    const isThere = ({ digest, local }: KnownVersion): boolean =>
      local === true || lstatSync(this.#layout.blob(digest), { throwIfNoEntry: false }) !== undefined;
    return record?.versions.some(isThere) ?? false;
  }

  /** Whether a versioned name has this blob. True for a locked name: its pin is written before its record. */
  async mayHave(versionedName: string, digest: Digest): Promise<boolean> {
    const { name, version } = parseVersionedName(versionedName);
    const nameHash = hashOfName(name);
    using lock = await this.#locks.tryAcquire(nameLockKey(nameHash), 'exclusive');
    if (lock === undefined) return true;
    const record = readRecord(this.#layout.record(nameHash));
    return record?.versions.some((known) => known.digest === digest && known.version === version) ?? false;
  }
}

function isObject(value: unknown): value is object {
  return typeof value === 'object' && value !== null;
}

function readVersion(value: unknown): KnownVersion | undefined {
  if (!isObject(value)) return undefined;
  const members: Partial<Record<keyof KnownVersion, unknown>> = value;
  const { version, digest, size, etag, checkedMs, local } = members;
  if (!Number.isSafeInteger(version) || !Number.isSafeInteger(size)) return undefined;
  // The digest becomes part of a path, so it is checked even in a file of our own.
  if (typeof digest !== 'string' || !isDigest(digest)) return undefined;
  // Another user of the cache may have written it: an ETag of one blob must not confirm another.
  const named = typeof etag === 'string' ? digestOfEtag(etag) : undefined;
  const isForThis = typeof etag === 'string' && (named === undefined || named === digest);
  return {
    version: version as number,
    digest,
    size: size as number,
    ...(isForThis ? { etag } : {}),
    ...(typeof checkedMs === 'number' ? { checkedMs } : {}),
    ...(local === true ? { local } : {}),
  };
}

/** Reads a record; `undefined` if it is missing or damaged. Other system errors are thrown. */
export function readRecord(path: string): NameRecord | undefined {
  const text = readSmallFile(path);
  if (text === undefined) return undefined;
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch {
    return undefined;
  }
  if (!isObject(value)) return undefined;
  const { name, versions }: Partial<Record<keyof NameRecord, unknown>> = value;
  if (typeof name !== 'string' || !Array.isArray(versions)) return undefined;
  const known = versions.map(readVersion).filter((version) => version !== undefined);
  return { name: name as FileName, versions: known };
}

/** Records and pins are smaller; a larger file is not ours. */
const smallFileMaxBytes = 16 * 1024 * 1024;

const readFlags = constants.O_RDONLY | constants.O_NOFOLLOW | constants.O_NONBLOCK;

/** The text of a small file of the cache; `undefined` if there is no regular file. Other system errors are thrown. */
export function readSmallFile(path: string): string | undefined {
  // First, because an error costs more than this call, and most names are missing.
  const attributes = lstatSync(path, { throwIfNoEntry: false });
  if (attributes?.isFile() !== true || attributes.size > smallFileMaxBytes) return undefined;
  try {
    // Another user of the cache may have put a link or a pipe there. Node accepts numeric flags; its types do not.
    return readFileSync(path, { encoding: 'utf8', flag: readFlags as unknown as string });
  } catch (error) {
    if (noFileErrnos.has(errnoOf(error) ?? '')) return undefined;
    throw error;
  }
}

/** The versions with one added or replaced, newest first. */
function withVersion(versions: readonly KnownVersion[], added: KnownVersion): readonly KnownVersion[] {
  return [...versions.filter(({ version }) => version !== added.version), added]
    .sort((a, b) => b.version - a.version)
    .filter((version, index) => index < versionsMax || version.local === true);
}
