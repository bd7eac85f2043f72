import { readdir } from 'node:fs/promises';
import type { BlobRecord, PlacedBlob } from '../../catalog/catalog.ts';
import type { DamagedRange } from '../../catalog/journal/segment.ts';
import {
  isToldSince,
  type IndexComparison,
  type IndexedEntry,
  type IndexedRemoval,
} from '../../catalog/lmdb/index/comparison.ts';
import type { JournalInspection } from '../../catalog/lmdb/inspection.ts';
import { trustOfIndex } from '../../catalog/lmdb/index/state.ts';
import type { LmdbReader } from '../../catalog/lmdb/index/lmdb-reader.ts';
import type { Digest } from '../../core/digest.ts';
import { mediumErrnoOf } from '../../core/errors.ts';
import type { FileName } from '../../core/file-name.ts';
import { checkBlob } from '../../store/integrity.ts';
import type { ContentPlace } from './content-place.ts';
import { flattened, sideBySide } from '../../streams/side-by-side.ts';
import { isFolder, type StoreFolders } from '../backup/store-folders.ts';

const looksAtOnce = 64;
const readsAtOnce = 4;

export interface LostRecord {
  readonly entry: IndexedEntry;
  /** Where its content is: in the catalog, in a file of the blob store that no record tells of, or nowhere. */
  readonly content: 'known' | PlacedBlob | undefined;
}

/** How the index that lies in the store compares with the journal. */
export type CatalogState =
  'sound' | 'absent' | 'not-trusted' | 'unreadable' | 'behind-journal' | 'ahead-of-journal' | 'differs';

export interface CatalogSurvey {
  readonly state: CatalogState;
  readonly comparison: IndexComparison | undefined;
  /** Entries of the index whose records the journal has lost. */
  readonly lostRecords: readonly LostRecord[];
  /** Removals of the index whose records the journal has lost. */
  readonly lostRemovals: readonly IndexedRemoval[];
  /** Names that the journal has and the index, which was ahead of it, had not, without a removal that it remembers. */
  readonly returned: readonly FileName[];
  /** Damaged parts of the journal that no index has taken in for certain: what was recorded there cannot be known. */
  readonly untold: readonly DamagedRange[];
}

/** Reads the index of the store and a new one and compares them; undefined where the former cannot be read. */
export type IndexComparer = (
  folder: string,
  rebuiltFolder: string,
  signal?: AbortSignal,
) => Promise<IndexComparison | undefined>;

export async function surveyCatalog(
  folders: StoreFolders,
  scratchFolder: string,
  inspection: JournalInspection,
  parts: {
    readonly compare: IndexComparer;
    readonly reader: LmdbReader;
    readonly contents: ContentPlace;
    /** Whether a recovery was killed here: the index may be one that it had made of what is left of the journal. */
    readonly interrupted: boolean;
  },
): Promise<CatalogSurvey> {
  const trusted = (await trustOfIndex(folders.catalog)) !== 'none';
  const untold = inspection.damaged;
  const nothing = { comparison: undefined, lostRecords: [], lostRemovals: [], returned: [], untold };
  if (!(await isFolder(folders.catalog))) return { state: 'absent', ...nothing };
  if (!(await readdir(folders.catalog)).includes('data.mdb')) return { state: 'absent', ...nothing };
  const comparison = await parts.compare(folders.catalog, scratchFolder);
  if (comparison === undefined) return { state: 'unreadable', ...nothing };
  const state = stateOf(comparison, inspection);
  const mayForget = state === 'behind-journal' && mayHaveForgotten(inspection, comparison);
  const isLost = (told: IndexedEntry | IndexedRemoval): boolean =>
    isPlaceLost(told, inspection, mayForget) && !isToldSince(inspection.index, told);
  const lostRecords: LostRecord[] = [];
  for (const entry of comparison.surplus.filter(isLost)) {
    const known = await parts.reader.findBlob(entry.digest);
    const sound = known !== undefined && !known.damaged;
    const content = sound ? 'known' : await findIfReadable(entry, parts);
    lostRecords.push({ entry, content });
  }
  const lostRemovals = comparison.removals.filter(isLost);
  const removed = new Set(lostRemovals.map(({ name }) => name));
  const returned =
    state === 'ahead-of-journal' ? comparison.missing.filter((name) => !removed.has(name)) : [];
  const findings = { comparison, lostRecords, lostRemovals, returned };
  if (!trusted || parts.interrupted || comparison.unreadableRows > 0) {
    return { state: trusted ? state : 'not-trusted', ...findings, untold };
  }
  const knows = ({ segment, end }: DamagedRange): boolean =>
    !isBefore(comparison.end, { segment, offset: end });
  return { state, ...findings, untold: untold.filter((range) => !knows(range)) };
}

/** Bytes that the disk does not give are set aside as a stray: when they can be read, they can be put back. */
async function findIfReadable(
  entry: IndexedEntry,
  { contents, reader }: { readonly contents: ContentPlace; readonly reader: LmdbReader },
): Promise<PlacedBlob | undefined> {
  try {
    return await contents.findSoundBytes(entry, reader);
  } catch (error) {
    if (mediumErrnoOf(error) === undefined) throw error;
    return undefined;
  }
}

/**
 * Whether a file that an index tells of may have been removed since, and nothing be left in the journal that says so: a
 * removal is forgotten only when all segments are gone that are older than its record.
 */
function mayHaveForgotten({ segments }: JournalInspection, { end }: IndexComparison): boolean {
  return !segments.some((segment) => segment <= end.segment);
}

function stateOf(comparison: IndexComparison, { end, index }: JournalInspection): CatalogState {
  // Segments without records may follow the last record, and the segment of the last record may be compacted away.
  if (isBefore(comparison.end, index.totals)) return 'behind-journal';
  if (isBefore(end, comparison.end)) return 'ahead-of-journal';
  const { surplus, missing, differingBlobs, countsDiffer, unreadableRows } = comparison;
  const differences = surplus.length + missing.length + differingBlobs + unreadableRows;
  return differences > 0 || countsDiffer ? 'differs' : 'sound';
}

interface Place {
  readonly segment: number;
  readonly offset: number;
}

function isBefore(one: Place, other: Place): boolean {
  return one.segment < other.segment || (one.segment === other.segment && one.offset < other.offset);
}

/**
 * Whether the journal has no sound record any more where the index says that one was. `mayForget`: a segment that is gone
 * may have been compacted away since, with nothing left to tell of what it held.
 */
function isPlaceLost(place: Place, { ends, end, damaged }: JournalInspection, mayForget: boolean): boolean {
  if (place.segment > end.segment) return true;
  if (place.segment === end.segment && place.offset >= end.offset) return true;
  const readTo = ends.get(place.segment);
  if (readTo === undefined) return !mayForget;
  if (place.offset >= readTo) return true;
  return damaged.some(
    ({ segment, start, end: last }) =>
      segment === place.segment && start <= place.offset && place.offset < last,
  );
}

/** A blob that entries may name and whose bytes are not there or not right. */
export interface BadBlob {
  readonly digest: Digest;
  /** The file that is there and not right. */
  readonly key: string | undefined;
  readonly reason: string;
  /** Whether the catalog says so already. */
  readonly known: boolean;
}

/** A blob that the disk does not give. It may be right, so it is left as it is. */
export interface UnreadableBlob {
  readonly digest: Digest;
  /** The disk's answer. */
  readonly errno: string;
}

export interface BlobSurvey {
  readonly checked: number;
  readonly readBytes: number;
  readonly bad: readonly BadBlob[];
  readonly unreadable: readonly UnreadableBlob[];
  /** Blobs that the catalog calls damaged, or describes wrongly, and that are sound. */
  readonly mendable: readonly MendableBlob[];
}

/** Sound bytes of a blob, that lie where the catalog says, or elsewhere. */
export interface MendableBlob extends PlacedBlob {
  /** Whether the catalog takes them for sound under another key, and so has to be told that they are not. */
  readonly mustMark: boolean;
  /** Another key, whose bytes are not right. */
  readonly replacedKey: string | undefined;
}

/** Looks whether each blob is there in its size; `full` reads it and checks its digest. */
export async function surveyBlobs(
  reader: LmdbReader,
  contents: ContentPlace,
  options: { full: boolean; signal?: AbortSignal | undefined; onChecked: (checked: number) => void },
): Promise<BlobSurvey> {
  const bad: BadBlob[] = [];
  const unreadable: UnreadableBlob[] = [];
  const mendable: MendableBlob[] = [];
  let checked = 0;
  let readBytes = 0;
  const onBytes = (bytes: number): void => {
    readBytes += bytes;
  };
  const check = async (record: BlobRecord): Promise<void> => {
    const { full, signal } = options;
    const found = await lookAt(record, { reader, contents }, { full, onBytes, signal }).catch(
      (error: unknown) => unreadableOf(record, error),
    );
    if (found !== undefined && 'errno' in found) unreadable.push(found);
    else if (found !== undefined && 'reason' in found) bad.push(found);
    else if (found !== undefined) mendable.push(found);
    checked += 1;
    options.onChecked(checked);
  };
  await sideBySide(flattened(reader.listBlobs()), options.full ? readsAtOnce : looksAtOnce, check);
  return { checked, readBytes, bad, unreadable, mendable };
}

function unreadableOf({ digest }: BlobRecord, error: unknown): UnreadableBlob {
  const errno = mediumErrnoOf(error);
  if (errno === undefined) throw error;
  return { digest, errno };
}

interface Places {
  readonly reader: LmdbReader;
  readonly contents: ContentPlace;
}

async function lookAt(
  record: BlobRecord,
  places: Places,
  options: { full: boolean; onBytes: (bytes: number) => void; signal: AbortSignal | undefined },
): Promise<BadBlob | MendableBlob | undefined> {
  const { location, damaged, storedSize, logicalSize } = record;
  const { contents } = places;
  if (location.kind === 'object') contents.checkKey(location.key);
  if (damaged) return mendedOrBad(record, places, 'it is marked as damaged');
  if (location.kind === 'object') {
    const size = await contents.blobs.size(location.key);
    if (size === undefined || size !== storedSize) {
      const reason =
        size === undefined ? 'its file is gone' : `its file has ${size} bytes, not ${storedSize}`;
      return mendedOrBad(record, places, reason);
    }
  }
  if (!options.full) return undefined;
  const verdict = await checkBlob(record, contents.blobs, options);
  if (verdict.kind !== 'sound') {
    const reason = verdict.kind === 'damaged' ? verdict.reason : 'its bytes are gone';
    return mendedOrBad(record, places, reason);
  }
  if (verdict.logicalSize === logicalSize || location.kind !== 'object') return undefined;
  const { digest, encoding } = record;
  const sizes = { logicalSize: verdict.logicalSize, storedSize };
  return { digest, encoding, ...sizes, key: location.key, mustMark: false, replacedKey: undefined };
}

async function mendedOrBad(
  record: BlobRecord,
  { reader, contents }: Places,
  reason: string,
): Promise<BadBlob | MendableBlob> {
  const { digest, location, damaged: known } = record;
  const key = location.kind === 'object' ? location.key : undefined;
  const sound = await contents.findSoundBytes({ ...record, key }, reader);
  const isThere = key !== undefined && (await contents.blobs.size(key)) !== undefined;
  if (sound === undefined) return { digest, key: isThere ? key : undefined, reason, known };
  const elsewhere = sound.key !== key;
  return { ...sound, mustMark: elsewhere && !known, replacedKey: elsewhere && isThere ? key : undefined };
}
