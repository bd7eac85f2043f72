import { isDigest } from '../../../core/digest.ts';
import { isFiletrackerError } from '../../../core/errors.ts';
import { parseFileName, type FileName } from '../../../core/file-name.ts';
import { checkVersion, type FileVersion } from '../../../core/file-version.ts';
import type { Entry } from '../../catalog.ts';
import type { JournalRecord } from '../../journal/record.ts';
import { IndexDatabase } from './database.ts';
import type { IndexTables } from './tables.ts';
import {
  decodeBlobRow,
  decodeEntryRow,
  decodeNameKey,
  decodeRemovalRow,
  type BlobRow,
  type EntryRow,
} from './rows.ts';

/** An entry as an index has it, with the way to its content. All of it is plain data, fit for JSON. */
export interface IndexedEntry extends Entry {
  /** Where the record lies that stored it. */
  readonly segment: number;
  readonly offset: number;
}

/** A removal as an index remembers it, with the place of its record. */
export interface IndexedRemoval {
  readonly name: FileName;
  readonly version: FileVersion;
  readonly timeMs: number;
  readonly segment: number;
  readonly offset: number;
}

/** How an index differs from one that was made anew from the journal. */
export interface IndexComparison {
  /** The journal's end as the index knows it. */
  readonly end: { readonly segment: number; readonly offset: number };
  readonly entries: number;
  /** Entries that it has and the new one has not, or has in another version or content; at most `differencesMax`. */
  readonly surplus: readonly IndexedEntry[];
  /** Names that only the new one has; at most `differencesMax`. */
  readonly missing: readonly FileName[];
  /** Removals that it remembers, of names of which the new one knows nothing as late; at most `differencesMax`. */
  readonly removals: readonly IndexedRemoval[];
  /** Blobs that entries name and that are described otherwise. */
  readonly differingBlobs: number;
  /** Whether sums and counts differ. */
  readonly countsDiffer: boolean;
  /** Rows that cannot be read. */
  readonly unreadableRows: number;
}

const differencesMax = 1_000_000;

/**
 * Compares two indexes. LMDB maps its file into memory and trusts it: one that is damaged may end the process,
 * so run this in a process of its own.
 * @throws whatever LMDB throws of a file that is no index.
 */
export async function compareIndexes(folder: string, rebuiltFolder: string): Promise<IndexComparison> {
  const index = IndexDatabase.open(folder, { readOnly: true });
  try {
    const rebuilt = IndexDatabase.open(rebuiltFolder, { readOnly: true });
    try {
      return compare(index, rebuilt);
    } finally {
      await rebuilt.close();
    }
  } finally {
    await index.close();
  }
}

/** The record that makes a removal once more. */
export function recordOfRemoval({ name, version, timeMs }: IndexedRemoval): JournalRecord {
  return { type: 'remove', timeMs, name, version, origin: undefined };
}

/**
 * Whether a journal, by the index that was made of it, tells of a name what was recorded at a place or after it. What
 * compaction writes again it writes at the end, so that later places always tell later things.
 */
export function isToldSince(
  rebuilt: IndexTables,
  { name, segment, offset }: Pick<IndexedRemoval, 'name' | 'segment' | 'offset'>,
): boolean {
  const told = rebuilt.entry(name) ?? rebuilt.removal(name);
  if (told === undefined) return false;
  return told.segment > segment || (told.segment === segment && told.offset >= offset);
}

function compare(index: IndexDatabase, rebuilt: IndexDatabase): IndexComparison {
  const surplus: IndexedEntry[] = [];
  let entries = 0;
  let unreadableRows = 0;
  for (const { key, value } of index.entries.getRange({})) {
    entries += 1;
    const entry = readRow(() => readEntry(index, key, value));
    if (entry === undefined) {
      unreadableRows += 1;
      continue;
    }
    const other = rebuilt.entry(entry.name);
    const same = other?.version === entry.version && other.digest === entry.digest;
    if (!same && surplus.length < differencesMax) surplus.push(entry);
  }
  const missing: FileName[] = [];
  for (const key of rebuilt.entries.getKeys({})) {
    if (index.entries.getBinaryFast(key) !== undefined || missing.length >= differencesMax) continue;
    missing.push(decodeNameKey(key));
  }
  const removals: IndexedRemoval[] = [];
  for (const { key, value } of index.removals.getRange({})) {
    const removal = readRow(() => readRemoval(key, value));
    if (removal === undefined) unreadableRows += 1;
    else if (!isToldSince(rebuilt, removal) && removals.length < differencesMax) removals.push(removal);
  }
  const { segment, offset, ...sums } = index.readTotals();
  const expected = rebuilt.readTotals();
  const countsDiffer = sums.entries !== expected.entries || sums.logicalBytes !== expected.logicalBytes;
  const end = { segment, offset };
  const differingBlobs = countDifferingBlobs(index, rebuilt);
  return { end, entries, surplus, missing, removals, differingBlobs, countsDiffer, unreadableRows };
}

/** Blobs without references are left out: what was collected cannot be told from the journal. */
function countDifferingBlobs(index: IndexDatabase, rebuilt: IndexDatabase): number {
  let differing = 0;
  for (const { key, value } of rebuilt.blobs.getRange({})) {
    const expected = decodeBlobRow(value);
    if (expected.references === 0) continue;
    const found = index.blobs.getBinaryFast(key);
    const row = found && readRow(() => decodeBlobRow(found));
    if (row === undefined || !sameBlob(row, expected)) differing += 1;
  }
  return differing;
}

function sameBlob(one: BlobRow, other: BlobRow): boolean {
  const { unreferencedSinceMs: _since, ...left } = one;
  const { unreferencedSinceMs: _otherSince, ...right } = other;
  return JSON.stringify(left) === JSON.stringify(right);
}

function readEntry(index: IndexTables, key: Buffer, value: Buffer): IndexedEntry | undefined {
  const name = parseFileName(decodeNameKey(key));
  const row: EntryRow = decodeEntryRow(value);
  if (!isDigest(row.digest)) return undefined;
  const blob = index.blob(row.digest);
  if (blob === undefined) return undefined;
  const { version, digest, segment, offset } = row;
  const { encoding, logicalSize, storedSize } = blob;
  checkVersion(version);
  return { name, version, digest, encoding, logicalSize, storedSize, segment, offset };
}

function readRemoval(key: Buffer, value: Buffer): IndexedRemoval {
  const name = parseFileName(decodeNameKey(key));
  const { version, timeMs, segment, offset } = decodeRemovalRow(value);
  checkVersion(version);
  return { name, version, timeMs, segment, offset };
}

/** What a row says; undefined where it is none that we have written. */
function readRow<Row>(read: () => Row | undefined): Row | undefined {
  try {
    return read();
  } catch (error) {
    if (isFiletrackerError(error) || error instanceof RangeError) return undefined;
    throw error;
  }
}
