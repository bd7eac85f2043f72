import { basename } from 'node:path';
import { LmdbCatalog } from '../../catalog/lmdb/lmdb-catalog.ts';
import type { JournalLock } from '../../catalog/lmdb/writer/journal-lock.ts';
import type { JournalInspection } from '../../catalog/lmdb/inspection.ts';
import { segmentFileName, segmentPath } from '../../catalog/journal/segment-header.ts';
import type { Clock } from '../../core/clock.ts';
import { inBatches } from '../../streams/side-by-side.ts';
import type { StoreFolders } from '../store-folders.ts';
import type { BlobPlace, Orphans } from './blob-place.ts';
import type { BlobSurvey } from './blob-survey.ts';
import type { CatalogSurvey } from './catalog-survey.ts';
import type { Quarantine } from './quarantine.ts';

const blobsAtOnce = 256;

/** Everything that was found; what has to be repaired follows from it alone. */
export interface Survey {
  readonly inspection: JournalInspection;
  readonly catalog: CatalogSurvey;
  readonly blobs: BlobSurvey;
  readonly orphans: Orphans;
  readonly uploads: readonly string[];
}

export interface RepairParts {
  readonly folders: StoreFolders;
  readonly place: BlobPlace;
  readonly quarantine: Quarantine;
  readonly clock: Clock;
  /** The lock of the journal; it becomes the catalog's. */
  readonly lock: JournalLock;
}

/** Segments that hold damage, in their records or their header. */
export function damagedSegments({ damaged, headless }: JournalInspection): number[] {
  return [...new Set([...damaged.map(({ segment }) => segment), ...headless])].sort((a, b) => a - b);
}

/**
 * Repairs what a survey found. Each step can be repeated, so a recovery that was killed is simply run again: damaged
 * files are moved away before they are marked, and the next run marks what is gone.
 */
export async function repairFolder(survey: Survey, parts: RepairParts): Promise<void> {
  const { folders, quarantine, place } = parts;
  const { end, tornBytes } = survey.inspection;
  if (tornBytes > 0) {
    const path = segmentPath(folders.journal, end.segment);
    await quarantine.copyTail(path, end.offset, tornBytes, `journal/${segmentFileName(end.segment)}.tail`);
  }
  if (isEvidence(survey.catalog)) await quarantine.takePart(folders.catalog, 'catalog');
  const catalog = await LmdbCatalog.open({
    folders,
    placer: place.blobs,
    clock: parts.clock,
    lock: parts.lock,
    rebuild: survey.catalog.state !== 'sound' || survey.inspection.damaged.length > 0,
    salvage: true,
  });
  try {
    for (const segment of damagedSegments(survey.inspection)) {
      const target = await quarantine.pathFor(`journal/${segmentFileName(segment)}`);
      await catalog.retireSegment(segment, target);
    }
    await repairBlobs(catalog, survey.blobs, parts);
    // An entry may be below a name that was removed before.
    await catalog.restoreRemovals(survey.catalog.lostRemovals);
    await restoreEntries(catalog, survey.catalog);
  } finally {
    await catalog.close();
  }
  for (const orphan of survey.orphans.found) await place.quarantineOrphan(orphan, quarantine);
  await place.removeUploads(survey.uploads);
}

/** Whether the index that is replaced may know something that the journal does not. */
function isEvidence({ state, lostRecords, lostRemovals }: CatalogSurvey): boolean {
  if (state === 'absent') return false;
  return (
    lostRecords.length + lostRemovals.length > 0 ||
    ['unreadable', 'differs', 'ahead-of-journal'].includes(state)
  );
}

async function repairBlobs(catalog: LmdbCatalog, blobs: BlobSurvey, parts: RepairParts): Promise<void> {
  const { place, quarantine } = parts;
  for await (const batch of inBatches(blobs.repairable, blobsAtOnce)) {
    for (const { digest, mustMark } of batch) if (mustMark) await catalog.markDamaged(digest, true);
    await catalog.addBlobs(batch);
    for (const { replacedKey } of batch) {
      if (replacedKey !== undefined) await place.quarantineKey(replacedKey, quarantine);
    }
  }
  for (const { digest, key, known } of blobs.bad) {
    if (key !== undefined) await place.quarantineKey(key, quarantine);
    if (!known) await catalog.markDamaged(digest, true);
  }
}

async function restoreEntries(catalog: LmdbCatalog, { lostRecords }: CatalogSurvey): Promise<void> {
  for (const { entry, blob } of lostRecords) {
    if (blob === undefined) {
      await catalog.addLostEntry(entry);
      continue;
    }
    if (blob !== 'known') await catalog.addBlobs([blob]);
    const { name, version, digest, logicalSize, storedSize, encoding } = entry;
    const content = { kind: 'stored' } as const;
    await catalog.put({ name, version, digest, logicalSize, storedSize, encoding, content });
  }
}

/** Whether a blob to be repaired, or an entry to be restored, needs the bytes of an orphan. */
export function isNeeded(orphan: string, survey: Pick<Survey, 'blobs' | 'catalog'>): boolean {
  const name = basename(orphan);
  if (survey.blobs.repairable.some(({ key }) => key === name)) return true;
  return survey.catalog.lostRecords.some(({ blob }) => typeof blob === 'object' && blob.key === name);
}
