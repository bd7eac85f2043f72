import type { BlobDescription } from '../core/blob.ts';
import { isDigest, type Digest } from '../core/digest.ts';
import { cannot } from '../core/errors.ts';
import { parseFileName, type FileName } from '../core/file-name.ts';
import { checkVersion, type FileVersion } from '../core/file-version.ts';

/** A file in a JSON list; the keys on the wire are the same. */
export interface ListedFile {
  readonly name: FileName;
  readonly version: FileVersion;
  /** Bytes before encoding. */
  readonly size: number;
  /** Bytes as stored. */
  readonly storedSize: number;
  readonly digest: Digest;
}

/** An entry of a list; entries of the catalog have this shape. */
export interface ListableEntry extends Omit<BlobDescription, 'encoding'> {
  readonly name: FileName;
  readonly version: FileVersion;
}

/** Lines of the text form: names relative to the directory, without a leading slash. */
export function formatNameLines(names: readonly FileName[], directory: string): string {
  let lines = '';
  for (const name of names) lines += `${name.slice(directory.length)}\n`;
  return lines;
}

/** Lines of the JSON form (application/x-ndjson): one object per line, with the whole name. */
export function formatEntryLines(entries: readonly ListableEntry[]): string {
  let lines = '';
  for (const { name, version, logicalSize, storedSize, digest } of entries) {
    const quoted = JSON.stringify(name);
    lines += `{"name":${quoted},"version":${version},"size":${logicalSize},"storedSize":${storedSize},"digest":"${digest}"}\n`;
  }
  return lines;
}

function refuseLine(state: string, cause?: unknown): never {
  throw cannot('protocol', 'read the list of the server', state, { cause });
}

function isSize(value: unknown): value is number {
  return Number.isSafeInteger(value) && Number(value) >= 0;
}

/**
 * Reads one line of the JSON form. A name outside the directory is an error: it would lead to another path. @throws
 * FiletrackerError `protocol`.
 */
export function parseEntryLine(line: string, directory = '/'): ListedFile {
  let parsed: unknown;
  try {
    parsed = JSON.parse(line);
  } catch (error) {
    refuseLine('a line is not JSON', error);
  }
  if (typeof parsed !== 'object' || parsed === null) refuseLine('a line is not a JSON object');
  const { name, version, size, storedSize, digest }: Record<string, unknown> = { ...parsed };
  if (typeof name === 'string' && !name.startsWith(directory)) refuseLine('a name is not in the directory');
  if (typeof name !== 'string' || typeof digest !== 'string' || !isDigest(digest)) {
    refuseLine('a line lacks the name or the digest');
  }
  if (typeof version !== 'number' || !isSize(size) || !isSize(storedSize)) {
    refuseLine('a line lacks the version or a size');
  }
  return { name: parseFileName(name), version: checkVersion(version), size, storedSize, digest };
}

/** Reads one line of the text form. @throws FiletrackerError `invalid-name`. */
export function parseNameLine(line: string, directory: string): FileName {
  return parseFileName(directory + line);
}
