import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { inspectJournal, type JournalInspection } from '../../catalog/lmdb/inspection.ts';
import { recordOfRemoval, type IndexedRemoval } from '../../catalog/lmdb/index/comparison.ts';
import type { IndexDatabase } from '../../catalog/lmdb/index/database.ts';
import { JournalLock } from '../../catalog/lmdb/writer/journal-lock.ts';
import { LmdbReader } from '../../catalog/lmdb/index/lmdb-reader.ts';
import { systemClock, type Clock } from '../../core/clock.ts';
import { cannot } from '../../core/errors.ts';
import type { FileName } from '../../core/file-name.ts';
import { makeFolderDurably, privateFolderMode } from '../../fs/folders.ts';
import { flattened } from '../../streams/side-by-side.ts';
import { findStore } from '../folder-kind.ts';
import { FirstItems, type Steps } from '../progress.ts';
import { isFolder, type StoreFolders } from '../store-folders.ts';
import { FolderBlobs, type BlobPlace } from './blob-place.ts';
import { surveyBlobs } from './blob-survey.ts';
import { surveyCatalog, type IndexComparer } from './catalog-survey.ts';
import { actionsFor, notesFor, type RepairAction } from './folder-findings.ts';
import { Quarantine } from './quarantine.ts';
import {
  Findings,
  recover,
  type Decision,
  type RecoverableStore,
  type Recovery,
  type RecoveryOptions,
} from './recover.ts';
import { isNeeded, repairFolder, type Survey } from './repair-folder.ts';

export interface RecoverFolderOptions extends RecoveryOptions {
  /** Compares indexes in a process of its own, because a damaged one may end it. */
  readonly compare: IndexComparer;
  /** Where the blobs are, if not in the folder; the caller closes it. */
  readonly place?: BlobPlace | undefined;
  readonly clock?: Clock | undefined;
}

/** A file whose blob is lost or cannot be read. */
export interface BadFile {
  readonly name: FileName;
  readonly version: number;
  readonly digest: string;
  readonly logicalSize: number;
}

/** Each list holds the first of as many items as its count says. */
export interface FolderDetails {
  readonly store: string;
  readonly full: boolean;
  /** Things that were repaired, or would be; 0 if the store is intact. */
  readonly actionCount: number;
  readonly actions: readonly RepairAction[];
  readonly entries: number;
  /** Reading these returns an error. */
  readonly damagedFileCount: number;
  readonly damagedFiles: readonly BadFile[];
  /** The disk cannot read these; they may be intact, and stay as they are. */
  readonly unreadableFileCount: number;
  readonly unreadableFiles: readonly BadFile[];
  /** Whether records are unreadable that nothing else covers: files may be lost whose names are unknown. */
  readonly changesMayBeMissing: boolean;
  /** Losses without a file that stands for them: versions, removals. */
  readonly notes: readonly string[];
  /** The folder to which damaged parts were moved, if there were any. */
  readonly quarantine: string | undefined;
}

/**
 * Checks and repairs a store with an embedded catalog: rebuilds the catalog from journal and blobs if it differs from
 * them, takes damaged parts out of the journal, and marks damaged blobs, so that reading them returns an error until
 * they are stored again. What is damaged is moved to `quarantine/`.
 * @throws FiletrackerError `not-found` if there is no store, `invalid-argument` for a folder of an older filetracker,
 * `store-locked` while a server has it open.
 */
export async function recoverFolder(
  folder: string,
  options: RecoverFolderOptions,
): Promise<Recovery<FolderDetails>> {
  const folders = await findStore(folder, { journalMayBeLost: true });
  const lock = await lockStore(folders, options.dryRun ?? false);
  const ownScratch = join(folders.root, 'recovery-scratch');
  const interrupted = await isFolder(ownScratch);
  const scratch = options.dryRun ? await mkdtemp(join(tmpdir(), 'filetracker-recover-')) : ownScratch;
  try {
    const place = options.place ?? (await FolderBlobs.open(folders, options.dryRun ?? false));
    await using store = new FolderStore(options, { folders, scratch, place, lock, interrupted });
    return await recover(store, options);
  } finally {
    // The catalog, if it was opened, has released it already.
    await lock?.release();
    await rm(scratch, { recursive: true, force: true });
  }
}

/** Locks out servers. A dry run creates nothing for the lock; without a folder, no process can hold it. */
async function lockStore(folders: StoreFolders, dryRun: boolean): Promise<JournalLock | undefined> {
  if (dryRun && !(await isFolder(folders.journal))) return undefined;
  await makeFolderDurably(folders.journal, privateFolderMode);
  const lock = await JournalLock.tryAcquire(folders.journal, { readOnly: dryRun });
  if (lock !== undefined) return lock;
  throw cannot('store-locked', `recover "${folders.root}"`, 'a server has the store open; stop it first');
}

interface FolderSurvey extends Survey {
  readonly damaged: FirstItems<BadFile>;
  readonly unreadable: FirstItems<BadFile>;
}

interface FolderStoreParts {
  readonly folders: StoreFolders;
  /** For the index that is built from the journal. */
  readonly scratch: string;
  readonly place: BlobPlace;
  /** `undefined` only in a dry run. */
  readonly lock: JournalLock | undefined;
  /** Whether a recovery of this store was killed. */
  readonly interrupted: boolean;
}

class FolderStore implements RecoverableStore<FolderSurvey, FolderDetails>, AsyncDisposable {
  readonly #options: RecoverFolderOptions;
  readonly #parts: FolderStoreParts;
  #index: IndexDatabase | undefined;

  constructor(options: RecoverFolderOptions, parts: FolderStoreParts) {
    this.#options = options;
    this.#parts = parts;
  }

  async survey(steps: Steps): Promise<FolderSurvey> {
    const { folders, place } = this.#parts;
    const inspection = await this.#inspect(steps);
    this.#index = inspection.index;
    const reader = new LmdbReader(inspection.index, folders);
    try {
      await place.checkAddress(reader);
      const survey = await this.#compare(steps, inspection, reader);
      return { ...survey, ...(await badFiles(survey, reader)) };
    } finally {
      await reader.close();
    }
  }

  #inspect(steps: Steps): Promise<JournalInspection> {
    const { folders, scratch, place } = this.#parts;
    return steps.run(
      'journal',
      'Reading the journal',
      (onProgress) => inspectJournal(folders.journal, scratch, { placer: place.blobs, onProgress }),
      ({ segments, records, sizeBytes, damaged, headless, tornBytes }) => ({
        segments: segments.length,
        records,
        bytes: sizeBytes,
        damagedRanges: damaged.length + headless.length,
        damagedBytes: damaged.reduce((sum, { start, end }) => sum + end - start, 0),
        tornBytes,
      }),
    );
  }

  async #compare(steps: Steps, inspection: JournalInspection, reader: LmdbReader): Promise<Survey> {
    const { folders, scratch, place, interrupted } = this.#parts;
    const { compare, full = false, signal } = this.#options;
    const { entries, blobs: blobCount } = inspection.index.totals;
    const catalog = await steps.run(
      'catalog',
      'Comparing the catalog with the journal',
      () => surveyCatalog(folders.catalog, scratch, inspection, { compare, reader, place, interrupted }),
      ({ state, comparison, lostRecords, lostRemovals }) => ({
        state,
        entries,
        surplusEntries: comparison?.surplus.length ?? 0,
        missingEntries: comparison?.missing.length ?? 0,
        differingBlobs: comparison?.differingBlobs ?? 0,
        countsDiffer: Number(comparison?.countsDiffer === true),
        lostRecords: lostRecords.length,
        lostRemovals: lostRemovals.length,
      }),
    );
    applyRemovals(inspection.index, catalog.lostRemovals);
    const blobs = await steps.run(
      'blobs',
      'Checking the blobs',
      (advance) =>
        surveyBlobs(reader, place, { full, signal, advance: (checked) => advance(checked, blobCount) }),
      ({ checked, readBytes, bad, unreadable, repairable }) => {
        const knownBad = bad.filter(({ known }) => known).length;
        const found = { bad: bad.length - knownBad, knownBad, unreadable: unreadable.length };
        return { checked, readBytes, ...found, mendable: repairable.length };
      },
    );
    const orphans = await steps.run(
      'strays',
      'Looking for orphans',
      async () => {
        const { found, notes } = await place.findOrphans(reader);
        return { found: found.filter((orphan) => !isNeeded(orphan, { blobs, catalog })), notes };
      },
      ({ found }) => ({ strays: found.length }),
    );
    const uploads = await steps.run(
      'uploads',
      'Looking for unfinished uploads',
      () => place.findUploads(),
      (found) => ({ uploads: found.length }),
    );
    return { inspection, catalog, blobs, orphans, uploads };
  }

  decide(survey: FolderSurvey): Decision<FolderDetails> {
    const { damaged, unreadable, catalog, inspection } = survey;
    const findings = new Findings();
    const actions = new FirstItems<RepairAction>();
    for (const action of actionsFor(survey)) actions.add(action);
    const notes = notesFor(survey);
    const lines = actions.items.map(({ action, target, reason }) => `${action} ${target}: ${reason}`);
    findings.add('repair', lines, actions.count);
    findings.add('note', notes);
    findings.add('lost-file', damaged.items.map(versionedName), damaged.count);
    findings.add('unreadable-file', unreadable.items.map(versionedName), unreadable.count);
    const details = {
      store: this.#parts.folders.root,
      full: this.#options.full ?? false,
      actionCount: actions.count,
      actions: actions.items,
      entries: inspection.index.totals.entries,
      damagedFileCount: damaged.count,
      damagedFiles: damaged.items,
      unreadableFileCount: unreadable.count,
      unreadableFiles: unreadable.items,
      changesMayBeMissing: catalog.unknown.length > 0,
      notes,
      quarantine: undefined,
    };
    const hasLosses = damaged.count + unreadable.count > 0 || details.changesMayBeMissing;
    return { details, findings, hasLosses };
  }

  async repair(survey: FolderSurvey, details: FolderDetails, steps: Steps): Promise<FolderDetails> {
    const { folders, place, lock } = this.#parts;
    if (lock === undefined) return details;
    const { clock = systemClock } = this.#options;
    const quarantine = new Quarantine(folders.quarantine, clock);
    await steps.run(
      'repair',
      'Repairing what was found',
      () => repairFolder(survey, { folders, place, quarantine, clock, lock }),
      () => ({ done: details.actionCount }),
    );
    const lines = [...details.actions.map((action) => JSON.stringify(action)), ...details.notes];
    if (quarantine.folder !== undefined) await quarantine.write('report.txt', `${lines.join('\n')}\n`);
    return { ...details, quarantine: quarantine.folder };
  }

  async [Symbol.asyncDispose](): Promise<void> {
    const { place } = this.#parts;
    await this.#index?.close();
    if (place !== this.#options.place) await place[Symbol.asyncDispose]();
  }
}

/** Applies lost removals to the index of the inspection, so that the steps that follow see the store as it will be. */
function applyRemovals(index: IndexDatabase, removals: readonly IndexedRemoval[]): void {
  const placed = removals.map((removal) => {
    const { segment, offset } = removal;
    return { record: recordOfRemoval(removal), segment, offset, length: 0 };
  });
  index.apply(placed, index.totals);
}

/** The files whose blobs are bad or unreadable: one pass over all entries, if there are any. */
async function badFiles(
  { blobs, catalog }: Survey,
  reader: LmdbReader,
): Promise<Pick<FolderSurvey, 'damaged' | 'unreadable'>> {
  const badDigests = new Set(blobs.bad.map(({ digest }) => digest));
  const unreadableDigests = new Set(blobs.unreadable.map(({ digest }) => digest));
  const damaged = new FirstItems<BadFile>();
  const unreadable = new FirstItems<BadFile>();
  if (badDigests.size + unreadableDigests.size > 0) {
    for await (const entry of flattened(reader.listEntries('/'))) {
      if (badDigests.has(entry.digest)) damaged.add(badFile(entry));
      if (unreadableDigests.has(entry.digest)) unreadable.add(badFile(entry));
    }
  }
  for (const { entry, blob } of catalog.lostRecords) if (blob === undefined) damaged.add(badFile(entry));
  return { damaged, unreadable };
}

function badFile({ name, version, digest, logicalSize }: BadFile): BadFile {
  return { name, version, digest, logicalSize };
}

function versionedName({ name, version }: BadFile): string {
  return `${name}@${version}`;
}
