import { constants, lstatSync, readFileSync } from 'node:fs';
import { isDigest } from '../../core/digest.ts';
import type { Digest } from '../../core/digest.ts';
import { errnoOf } from '../../core/errors.ts';
import type { FileName } from '../../core/file-name.ts';
import type { FileVersion } from '../../core/file-version.ts';
import { digestOfEtag } from '../../protocol/etags.ts';
import { noFileErrnos } from './blob.ts';

/** Versions of one name that a record keeps; the oldest are forgotten. */
const versionsMax = 32;

/** One version of a name, as the cache knows it. Its content may have been evicted since. */
export interface KnownVersion {
  readonly version: FileVersion;
  readonly digest: Digest;
  /** Bytes of the content. */
  readonly size: number;
  /** The server's tag of the representation that was fetched. */
  readonly etag?: string | undefined;
  /** When the request began by whose answer this was last known to be the newest, by this machine's clock. */
  readonly checkedMs?: number | undefined;
  /** Set where no server has this version: the cache holds the only copy. */
  readonly local?: boolean | undefined;
}

/** One version of a name whose content is in the cache. */
export interface CachedFile extends KnownVersion {
  readonly name: FileName;
  readonly path: string;
}

/** What the cache knows of one name: its versions, newest first. */
export interface NameRecord {
  readonly name: FileName;
  readonly versions: readonly KnownVersion[];
}

interface Untrusted {
  readonly [member: string]: unknown;
}

function isObject(value: unknown): value is Untrusted {
  return typeof value === 'object' && value !== null;
}

function readVersion(value: unknown): KnownVersion | undefined {
  if (!isObject(value)) return undefined;
  const { version, digest, size, etag, checkedMs, local } = value as Untrusted & {
    version: unknown;
    digest: unknown;
    size: unknown;
    etag: unknown;
    checkedMs: unknown;
    local: unknown;
  };
  if (!Number.isSafeInteger(version) || !Number.isSafeInteger(size)) return undefined;
  // The digest becomes part of a path, so it is checked though we wrote it ourselves.
  if (typeof digest !== 'string' || !isDigest(digest)) return undefined;
  // Another user of the cache may have written it: the server's word for one content is none for another.
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

/** Reads a record; undefined for what is not one. */
function parseRecord(text: string): NameRecord | undefined {
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch {
    // A record that something else has damaged is as good as none: the file is fetched again.
    return undefined;
  }
  if (!isObject(value)) return undefined;
  const { name, versions } = value as Untrusted & { name: unknown; versions: unknown };
  if (typeof name !== 'string' || !Array.isArray(versions)) return undefined;
  const known = versions.map(readVersion).filter((version) => version !== undefined);
  return { name: name as FileName, versions: known };
}

/** The record in a file; undefined where there is none. System errors but absence are thrown. */
export function readRecord(path: string): NameRecord | undefined {
  const text = readSmallFile(path);
  return text === undefined ? undefined : parseRecord(text);
}

/** Records and pins are smaller; what is larger is not ours. */
const smallFileMaxBytes = 16 * 1024 * 1024;

const readFlags = constants.O_RDONLY | constants.O_NOFOLLOW | constants.O_NONBLOCK;

/** The text of a small file of the cache; `undefined` if there is no regular file. Other system errors are thrown. */
export function readSmallFile(path: string): string | undefined {
  // Asked first, because an error costs more than a question, and most names are not there.
  const attributes = lstatSync(path, { throwIfNoEntry: false });
  if (attributes?.isFile() !== true || attributes.size > smallFileMaxBytes) return undefined;
  try {
    // Another user of the cache may have put a link or a pipe there. Node takes numbers too; its types do not say so.
    return readFileSync(path, { encoding: 'utf8', flag: readFlags as unknown as string });
  } catch (error) {
    if (noFileErrnos.has(errnoOf(error) ?? '')) return undefined;
    throw error;
  }
}

/** The record with one version put in or replaced, newest first. */
export function withVersion(record: NameRecord | undefined, name: FileName, added: KnownVersion): NameRecord {
  const others = record?.versions.filter(({ version }) => version !== added.version) ?? [];
  const versions = [...others, added].sort((a, b) => b.version - a.version);
  const kept = versions.filter((version, index) => index < versionsMax || version.local === true);
  return { name, versions: kept };
}
