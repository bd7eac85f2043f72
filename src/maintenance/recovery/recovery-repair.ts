import { basename } from 'node:path';
import { LmdbCatalog } from '../../catalog/lmdb/lmdb-catalog.ts';
import type { JournalLock } from '../../catalog/lmdb/writer/journal-lock.ts';
import type { JournalInspection } from '../../catalog/lmdb/inspection.ts';
import { segmentFileName, segmentPath } from '../../catalog/journal/segment-header.ts';
import type { Clock } from '../../core/clock.ts';
import type { ContentPlace, Strays } from './content-place.ts';
import type { Quarantine } from './quarantine.ts';
import type { BlobSurvey, CatalogSurvey } from './recovery-survey.ts';
import { inBatches } from '../../streams/side-by-side.ts';
import type { StoreFolders } from '../backup/store-folders.ts';

const blobsAtOnce = 256;

/** Everything that was found; what has to be done follows from it alone. */
export interface Survey {
  readonly inspection: JournalInspection;
  readonly catalog: CatalogSurvey;
  readonly blobs: BlobSurvey;
  readonly strays: Strays;
  readonly uploads: readonly string[];
}

export interface RepairParts {
  readonly folders: StoreFolders;
  readonly contents: ContentPlace;
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
 * Mends what a survey found. Each step can be repeated, so that a recovery that was killed is simply run again:
 * bad files are moved away before they are marked, and what is gone is marked by the next run.
 */
export async function repairStore(survey: Survey, parts: RepairParts): Promise<void> {
  const { folders, quarantine, contents } = parts;
  const { end, tornBytes } = survey.inspection;
  if (tornBytes > 0) {
    const file = segmentFileName(end.segment);
    const path = segmentPath(folders.journal, end.segment);
    await quarantine.copyTail(path, end.offset, tornBytes, `journal/${file}.tail`);
  }
  if (isEvidence(survey.catalog)) await quarantine.takePart(folders.catalog, 'catalog');
  const catalog = await LmdbCatalog.open({
    folders,
    placer: contents.blobs,
    clock: parts.clock,
    lock: parts.lock,
    rebuild: survey.catalog.state !== 'sound' || survey.inspection.damaged.length > 0,
    salvage: true,
  });
  try {
    await retireSegments(catalog, survey, quarantine);
    await mendBlobs(catalog, survey, parts);
    // An entry may lie below a name that was removed before.
    await catalog.restoreRemovals(survey.catalog.lostRemovals);
    await restoreEntries(catalog, survey);
  } finally {
    await catalog.close();
  }
  for (const stray of survey.strays.found) await contents.setStrayAside(stray, quarantine);
  await contents.removeUploads(survey.uploads);
}

/** Whether the index that is replaced may tell something that the journal does not. */
function isEvidence({ state, lostRecords, lostRemovals }: CatalogSurvey): boolean {
  if (state === 'absent') return false;
  return (
    lostRecords.length + lostRemovals.length > 0 ||
    ['unreadable', 'differs', 'ahead-of-journal'].includes(state)
  );
}

async function retireSegments(catalog: LmdbCatalog, survey: Survey, quarantine: Quarantine): Promise<void> {
  for (const segment of damagedSegments(survey.inspection)) {
    const target = await quarantine.pathFor(`journal/${segmentFileName(segment)}`);
    await catalog.retireSegment(segment, target);
  }
}

async function mendBlobs(catalog: LmdbCatalog, { blobs }: Survey, parts: RepairParts): Promise<void> {
  const { contents, quarantine } = parts;
  for await (const batch of inBatches(blobs.mendable, blobsAtOnce)) {
    for (const { digest, mustMark } of batch) if (mustMark) await catalog.markDamaged(digest, true);
    await catalog.addBlobs(batch);
    for (const { replacedKey } of batch) {
      if (replacedKey !== undefined) await contents.setKeyAside(replacedKey, quarantine);
    }
  }
  for (const { digest, key, known } of blobs.bad) {
    if (key !== undefined) await contents.setKeyAside(key, quarantine);
    if (!known) await catalog.markDamaged(digest, true);
  }
}

async function restoreEntries(catalog: LmdbCatalog, { catalog: found }: Survey): Promise<void> {
  for (const { entry, content } of found.lostRecords) {
    if (content === undefined) {
      await catalog.addLostEntry(entry);
      continue;
    }
    if (content !== 'known') await catalog.addBlobs([content]);
    const { name, version, digest, logicalSize, storedSize, encoding } = entry;
    const change = { name, version, digest, logicalSize, storedSize, encoding };
    await catalog.put({ ...change, content: { kind: 'stored' } });
  }
}

/** Whether a stray is one that a blob to be mended, or an entry to be restored, lies in. */
export function isNeeded(stray: string, survey: Pick<Survey, 'blobs' | 'catalog'>): boolean {
  const name = basename(stray);
  if (survey.blobs.mendable.some(({ key }) => key === name)) return true;
  return survey.catalog.lostRecords.some(
    ({ content }) => typeof content === 'object' && content.key === name,
  );
}
