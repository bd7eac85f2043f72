import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { BlobStore } from '../../blobs/blob-store.ts';
import { inspectJournal, type JournalInspection } from '../../catalog/lmdb/inspection.ts';
import { recordOfRemoval, type IndexedRemoval } from '../../catalog/lmdb/index/comparison.ts';
import type { IndexDatabase } from '../../catalog/lmdb/index/database.ts';
import { JournalLock } from '../../catalog/lmdb/writer/journal-lock.ts';
import { LmdbReader } from '../../catalog/lmdb/index/lmdb-reader.ts';
import { systemClock, type Clock } from '../../core/clock.ts';
import { FiletrackerError } from '../../core/errors.ts';
import { reportItemsMax } from '../../core/limits.ts';
import { makeFolderDurably, privateFolderMode } from '../../fs/folders.ts';
import { FolderContents, type ContentPlace } from './content-place.ts';
import { Steps, type ProgressListener } from '../progress.ts';
import { Quarantine } from './quarantine.ts';
import { actionsFor, notesFor } from './recovery-actions.ts';
import { isNeeded, repairStore, type Survey } from './recovery-repair.ts';
import type { DamagedFile, RecoveryReport } from './recovery-report.ts';
import { surveyBlobs, surveyCatalog, type IndexComparer } from './recovery-survey.ts';
import { flattened } from '../../streams/side-by-side.ts';
import { findStore } from '../folder-kind.ts';
import { isFolder, type StoreFolders } from '../backup/store-folders.ts';

export interface RecoverOptions {
  /** Read every blob and check its digest, not only that it is there in its size. */
  readonly full?: boolean | undefined;
  /** Find everything, change nothing. */
  readonly dryRun?: boolean | undefined;
  /** How indexes are compared: in a process of its own, because a damaged one may end it. */
  readonly compare: IndexComparer;
  /** Where the contents are, if not in the folder; whoever gives it closes it. */
  readonly contents?: ContentPlace | undefined;
  readonly listener?: ProgressListener | undefined;
  readonly clock?: Clock | undefined;
  readonly signal?: AbortSignal | undefined;
}

/**
 * Checks an embedded store and mends it: the catalog is made anew from journal and blobs where it is not what they
 * say, damaged parts of the journal are taken out, damaged content is marked, so that reading it answers
 * an error until it is stored again. What is damaged goes to `quarantine/`. A second run finds nothing to do.
 * @throws FiletrackerError `not-found` where there is no store, `invalid-argument` for a folder of an older
 * filetracker, `store-locked` while a server has it open.
 */
export async function recoverStore(folder: string, options: RecoverOptions): Promise<RecoveryReport> {
  const folders = await findStore(folder, { journalMayBeLost: true });
  const lock = await lockStore(folders, options.dryRun ?? false);
  const ownScratch = join(folders.root, 'recovery-scratch');
  const interrupted = await isFolder(ownScratch);
  const scratch = options.dryRun ? await mkdtemp(join(tmpdir(), 'filetracker-recover-')) : ownScratch;
  try {
    return await new Recovery(folders, scratch, options).run(lock, interrupted);
  } finally {
    // The catalog, if it was opened, has released it already.
    await lock?.release();
    await rm(scratch, { recursive: true, force: true });
  }
}

/**
 * Sees to it that no server has the store open, nor comes to. A dry run makes nothing for the lock; where there is no folder,
 * nobody can hold it.
 */
async function lockStore(folders: StoreFolders, dryRun: boolean): Promise<JournalLock | undefined> {
  if (dryRun && !(await isFolder(folders.journal))) return undefined;
  await makeFolderDurably(folders.journal, privateFolderMode);
  const lock = await JournalLock.tryAcquire(folders.journal, { readOnly: dryRun });
  if (lock !== undefined) return lock;
  throw new FiletrackerError(
    'store-locked',
    `Cannot recover "${folders.root}": a server has the store open; stop it first`,
  );
}

class Recovery {
  readonly #folders: StoreFolders;
  readonly #scratch: string;
  readonly #options: RecoverOptions;
  readonly #clock: Clock;
  readonly #steps: Steps;

  constructor(folders: StoreFolders, scratch: string, options: RecoverOptions) {
    this.#folders = folders;
    this.#scratch = scratch;
    this.#options = options;
    this.#clock = options.clock ?? systemClock;
    this.#steps = new Steps(options.listener);
  }

  /** `interrupted`: a recovery was killed here. */
  async run(lock: JournalLock | undefined, interrupted: boolean): Promise<RecoveryReport> {
    const { dryRun = false, full = false } = this.#options;
    const folders = this.#folders;
    const contents = this.#options.contents ?? (await FolderContents.open(folders, dryRun));
    const inspection = await this.#inspect(contents.blobs);
    const quarantine = new Quarantine(folders.quarantine, this.#clock);
    try {
      const reader = new LmdbReader(inspection.index, folders);
      await contents.checkAddress(reader);
      const survey = await this.#survey(inspection, { reader, contents, interrupted });
      const { damaged, unreadable } = await this.#badFiles(survey, reader);
      await reader.close();
      const { actions, actionCount } = actionsFor(survey);
      const notes = notesFor(survey);
      if (lock !== undefined && !dryRun && actionCount > 0) {
        const parts = { folders, contents, quarantine, clock: this.#clock, lock };
        await this.#steps.run('repair', 'Mending what was found', async () => {
          await repairStore(survey, parts);
          return { counts: { done: actionCount }, result: undefined };
        });
        const lines = [...actions.map((action) => JSON.stringify(action)), ...notes];
        if (quarantine.folder !== undefined) await quarantine.write('report.txt', `${lines.join('\n')}\n`);
      }
      return {
        store: folders.root,
        dryRun,
        full,
        steps: this.#steps.reports,
        actionCount,
        actions,
        entries: inspection.index.totals.entries,
        damagedFileCount: damaged.count,
        damagedFiles: damaged.files,
        unreadableFileCount: unreadable.count,
        unreadableFiles: unreadable.files,
        changesMayBeMissing: survey.catalog.untold.length > 0,
        notes,
        quarantine: quarantine.folder,
      };
    } finally {
      await inspection.index.close();
      if (contents !== this.#options.contents) await contents.close();
    }
  }

  #inspect(blobs: BlobStore): Promise<JournalInspection> {
    return this.#steps.run('journal', 'Reading the journal', async (advance) => {
      const options = { placer: blobs, onProgress: advance };
      const result = await inspectJournal(this.#folders.journal, this.#scratch, options);
      const { segments, records, sizeBytes, damaged, headless, tornBytes } = result;
      const counts = {
        segments: segments.length,
        records,
        bytes: sizeBytes,
        damagedRanges: damaged.length + headless.length,
        damagedBytes: damaged.reduce((sum, { start, end }) => sum + end - start, 0),
        tornBytes,
      };
      return { counts, result };
    });
  }

  async #survey(
    inspection: JournalInspection,
    { reader, contents, interrupted }: { reader: LmdbReader; contents: ContentPlace; interrupted: boolean },
  ): Promise<Survey> {
    const folders = this.#folders;
    const { compare, full = false, signal } = this.#options;
    const catalog = await this.#steps.run('catalog', 'Comparing the catalog with the journal', async () => {
      const parts = { compare, reader, contents, interrupted };
      const result = await surveyCatalog(folders, this.#scratch, inspection, parts);
      applyRemovals(inspection.index, result.lostRemovals);
      const { surplus = [], missing = [], differingBlobs = 0 } = result.comparison ?? {};
      const counts = {
        state: result.state,
        entries: inspection.index.totals.entries,
        surplusEntries: surplus.length,
        missingEntries: missing.length,
        differingBlobs,
        countsDiffer: result.comparison?.countsDiffer === true ? 1 : 0,
        lostRecords: result.lostRecords.length,
        lostRemovals: result.lostRemovals.length,
      };
      return { counts, result };
    });
    const blobs = await this.#steps.run('blobs', 'Checking the blobs', async (advance) => {
      const total = inspection.index.totals.blobs;
      const onChecked = (checked: number): void => advance(checked, total);
      const result = await surveyBlobs(reader, contents, { full, signal, onChecked });
      const bad = result.bad.filter(({ known }) => !known).length;
      const knownBad = result.bad.length - bad;
      const { checked, readBytes, unreadable, mendable } = result;
      const found = { bad, knownBad, unreadable: unreadable.length, mendable: mendable.length };
      return { counts: { checked, readBytes, ...found }, result };
    });
    const strays = await this.#steps.run('strays', 'Looking for stray blobs', async () => {
      const all = await contents.findStrays(reader);
      const found = all.found.filter((stray) => !isNeeded(stray, { blobs, catalog }));
      return { counts: { strays: found.length }, result: { ...all, found } };
    });
    const uploads = await this.#steps.run('uploads', 'Looking for uploads left over', async () => {
      const result = await contents.findUploads();
      return { counts: { uploads: result.length }, result };
    });
    return { inspection, catalog, blobs, strays, uploads };
  }

  /** The files whose content is bad, or not given by the disk: one pass over all entries, if there are any. */
  async #badFiles(survey: Survey, reader: LmdbReader): Promise<{ damaged: FileList; unreadable: FileList }> {
    const { blobs, catalog } = survey;
    const bad = new Set(blobs.bad.map(({ digest }) => digest));
    const notGiven = new Set(blobs.unreadable.map(({ digest }) => digest));
    const damaged = new FileList();
    const unreadable = new FileList();
    if (bad.size + notGiven.size > 0) {
      for await (const entry of flattened(reader.listEntries('/'))) {
        if (bad.has(entry.digest)) damaged.add(entry);
        if (notGiven.has(entry.digest)) unreadable.add(entry);
      }
    }
    for (const { entry, content } of catalog.lostRecords) if (content === undefined) damaged.add(entry);
    return { damaged, unreadable };
  }
}

/** Counts files and keeps the first of them. */
class FileList {
  readonly files: DamagedFile[] = [];
  count = 0;

  add({ name, version, digest, logicalSize }: DamagedFile): void {
    this.count += 1;
    if (this.files.length < reportItemsMax) this.files.push({ name, version, digest, logicalSize });
  }
}

/** Takes lost removals into the index of the inspection, so that what is looked at next is the store as it will be. */
function applyRemovals(index: IndexDatabase, removals: readonly IndexedRemoval[]): void {
  const placed = removals.map((removal) => {
    const { segment, offset } = removal;
    return { record: recordOfRemoval(removal), segment, offset, length: 0 };
  });
  index.apply(placed, index.totals);
}
