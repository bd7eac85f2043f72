import { isDigest } from '../../../core/digest.ts';
import { isFiletrackerError } from '../../../core/errors.ts';
import { parseFileName, type FileName } from '../../../core/file-name.ts';
import { checkVersion, type FileVersion } from '../../../core/file-version.ts';
import type { Entry } from '../../catalog.ts';
import type { JournalRecord, RecordPosition } from '../../journal/record.ts';
import { IndexDatabase } from './database.ts';
import { decodeBlobRow, decodeEntryRow, decodeNameKey, decodeRemovalRow, type BlobRow } from './rows.ts';
import type { IndexTables } from './tables.ts';

// All of these are plain data, fit for JSON.

/** An entry of an index, with the position of the record that stored it. */
export interface IndexedEntry extends Entry, RecordPosition {}

/** A removal in an index, with the position of its record. */
export interface IndexedRemoval extends RecordPosition {
  readonly name: FileName;
  readonly version: FileVersion;
  readonly timeMs: number;
}

/** How an index differs from one that was rebuilt from the journal. */
export interface IndexComparison {
  /** The end of the journal according to the index. */
  readonly end: RecordPosition;
  readonly entries: number;
  /** Entries that the rebuilt index lacks, or has with another version or digest; at most `differencesMax`. */
  readonly surplus: readonly IndexedEntry[];
  /** Names that only the rebuilt index has; at most `differencesMax`. */
  readonly missing: readonly FileName[];
  /** Removals of names for which the rebuilt index has nothing as late; at most `differencesMax`. */
  readonly removals: readonly IndexedRemoval[];
  /** Referenced blobs that the two describe differently. */
  readonly differingBlobs: number;
  /** Whether sums and counts differ. */
  readonly countsDiffer: boolean;
  readonly unreadableRows: number;
}

const differencesMax = 1_000_000;

/**
 * Compares two indexes. LMDB maps its file into memory and trusts it: a damaged one may end the process, so run this in a
 * process of its own.
 * @throws the error of LMDB for a file that is no index.
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

/** The record that repeats a removal. */
export function recordOfRemoval({ name, version, timeMs }: IndexedRemoval): JournalRecord {
  return { type: 'remove', timeMs, name, version, origin: undefined };
}

/**
 * Whether the index that was rebuilt from a journal has, for a name, a record at or after a position. Compaction writes at
 * the end, so later positions always hold later changes.
 */
export function hasRecordSince(
  rebuilt: IndexTables,
  { name, segment, offset }: Pick<IndexedRemoval, 'name' | 'segment' | 'offset'>,
): boolean {
  const found = rebuilt.entry(name) ?? rebuilt.removal(name);
  if (found === undefined) return false;
  return found.segment > segment || (found.segment === segment && found.offset >= offset);
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
    else if (!hasRecordSince(rebuilt, removal) && removals.length < differencesMax) removals.push(removal);
  }
  const { segment, offset, ...sums } = index.readTotals();
  const expected = rebuilt.readTotals();
  const countsDiffer = sums.entries !== expected.entries || sums.logicalBytes !== expected.logicalBytes;
  const end = { segment, offset };
  const differingBlobs = countDifferingBlobs(index, rebuilt);
  return { end, entries, surplus, missing, removals, differingBlobs, countsDiffer, unreadableRows };
}

/** Ignores blobs without references: the journal does not record what was collected. */
function countDifferingBlobs(index: IndexDatabase, rebuilt: IndexDatabase): number {
  let differing = 0;
  for (const { key, value } of rebuilt.blobs.getRange({})) {
    const expected = decodeBlobRow(value);
    if (expected.references === 0) continue;
    const found = index.blobs.getBinaryFast(key);
    const row = found && readRow(() => decodeBlobRow(found));
    if (row === undefined || !isSameBlob(row, expected)) differing += 1;
  }
  return differing;
}

/** Ignores what the sums of the segments are made of, because rows of an older release lack it. */
function isSameBlob(one: BlobRow, other: BlobRow): boolean {
  const ignored = { unreferencedSinceMs: 0, counted: false, alone: false, mark: undefined };
  return JSON.stringify({ ...one, ...ignored }) === JSON.stringify({ ...other, ...ignored });
}

function readEntry(index: IndexTables, key: Buffer, value: Buffer): IndexedEntry | undefined {
  const name = parseFileName(decodeNameKey(key));
  const { version, digest, segment, offset } = decodeEntryRow(value);
  const blob = isDigest(digest) ? index.blob(digest) : undefined;
  if (blob === undefined) return undefined;
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

/** `undefined` for a row that was never written. */
function readRow<Row>(read: () => Row | undefined): Row | undefined {
  try {
    return read();
  } catch (error) {
    if (isFiletrackerError(error) || error instanceof RangeError) return undefined;
    throw error;
  }
}
