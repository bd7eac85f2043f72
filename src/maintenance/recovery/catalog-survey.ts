import type { PlacedBlob } from '../../catalog/catalog.ts';
import type { DamagedRange } from '../../catalog/journal/segment.ts';
import {
  hasRecordSince,
  type IndexComparison,
  type IndexedEntry,
  type IndexedRemoval,
} from '../../catalog/lmdb/index/comparison.ts';
import type { JournalInspection } from '../../catalog/lmdb/inspection.ts';
import { indexDataFileName, trustOfIndex } from '../../catalog/lmdb/index/state.ts';
import type { LmdbReader } from '../../catalog/lmdb/index/lmdb-reader.ts';
import { mediumErrnoOf } from '../../core/errors.ts';
import type { FileName } from '../../core/file-name.ts';
import { isBefore, type JournalPlace } from '../backup/backup-layout.ts';
import { namesIn } from '../store-folders.ts';
import type { BlobPlace } from './blob-place.ts';

export interface LostRecord {
  readonly entry: IndexedEntry;
  /** Its blob: known to the catalog, stored without a record, or lost. */
  readonly blob: 'known' | PlacedBlob | undefined;
}

/** How the store's index compares with its journal. */
export type CatalogState =
  'sound' | 'absent' | 'not-trusted' | 'unreadable' | 'behind-journal' | 'ahead-of-journal' | 'differs';

export interface CatalogSurvey {
  readonly state: CatalogState;
  readonly comparison?: IndexComparison;
  /** Entries of the index whose records the journal has lost. */
  readonly lostRecords: readonly LostRecord[];
  /** Removals of the index whose records the journal has lost. */
  readonly lostRemovals: readonly IndexedRemoval[];
  /** Names that an index ahead of the journal lacks, though it remembers no removal of them. */
  readonly returned: readonly FileName[];
  /** Damaged parts of the journal that no trusted index covers: what was recorded there is unknown. */
  readonly unknown: readonly DamagedRange[];
}

/** Compares the index of a store with one that was rebuilt; `undefined` if the former cannot be read. */
export type IndexComparer = (folder: string, rebuiltFolder: string) => Promise<IndexComparison | undefined>;

export async function surveyCatalog(
  folder: string,
  rebuiltFolder: string,
  inspection: JournalInspection,
  parts: {
    readonly compare: IndexComparer;
    readonly reader: LmdbReader;
    readonly place: BlobPlace;
    /** Whether a recovery was killed: the index may be one that it had built from what is left of the journal. */
    readonly interrupted: boolean;
  },
): Promise<CatalogSurvey> {
  const trusted = (await trustOfIndex(folder)) !== 'none';
  const nothing = { lostRecords: [], lostRemovals: [], returned: [], unknown: inspection.damaged };
  if ((await namesIn(folder))?.includes(indexDataFileName) !== true) return { state: 'absent', ...nothing };
  const comparison = await parts.compare(folder, rebuiltFolder);
  if (comparison === undefined) return { state: 'unreadable', ...nothing };
  const state = stateOf(comparison, inspection);
  const mayForget = state === 'behind-journal' && mayHaveForgotten(inspection, comparison);
  const isLost = (indexed: IndexedEntry | IndexedRemoval): boolean =>
    isPlaceLost(indexed, inspection, mayForget) && !hasRecordSince(inspection.index, indexed);
  const lostRecords: LostRecord[] = [];
  for (const entry of comparison.surplus.filter(isLost)) {
    lostRecords.push({ entry, blob: await blobOf(entry, parts.place, parts.reader) });
  }
  const lostRemovals = comparison.removals.filter(isLost);
  const removed = new Set(lostRemovals.map(({ name }) => name));
  const returned =
    state === 'ahead-of-journal' ? comparison.missing.filter((name) => !removed.has(name)) : [];
  const isCertain = trusted && !parts.interrupted && comparison.unreadableRows === 0;
  const isUnknown = ({ segment, end }: DamagedRange): boolean =>
    !isCertain || isBefore(comparison.end, { segment, offset: end });
  return {
    state: trusted ? state : 'not-trusted',
    comparison,
    lostRecords,
    lostRemovals,
    returned,
    unknown: inspection.damaged.filter(isUnknown),
  };
}

/** A blob that the disk cannot read counts as lost, and goes to the quarantine as an orphan: it can be put back later. */
async function blobOf(
  entry: IndexedEntry,
  place: BlobPlace,
  reader: LmdbReader,
): Promise<LostRecord['blob']> {
  const known = await reader.findBlob(entry.digest);
  if (known?.damaged === false) return 'known';
  try {
    return await place.findIntact(entry, undefined, reader);
  } catch (error) {
    if (mediumErrnoOf(error) === undefined) throw error;
    return undefined;
  }
}

/**
 * Whether a file in the index may have been removed since without a trace in the journal: a removal is forgotten only
 * when all segments older than its record are gone.
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

/**
 * Whether the journal no longer has an intact record at a place in the index. `mayForget`: a missing segment may have
 * been compacted away since, without a trace of what it held.
 */
function isPlaceLost(
  place: JournalPlace,
  { ends, end, damaged }: JournalInspection,
  mayForget: boolean,
): boolean {
  if (!isBefore(place, end)) return true;
  const readTo = ends.get(place.segment);
  if (readTo === undefined) return !mayForget;
  if (place.offset >= readTo) return true;
  return damaged.some(
    ({ segment, start, end: last }) =>
      segment === place.segment && start <= place.offset && place.offset < last,
  );
}
