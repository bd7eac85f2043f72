import type { BlobStore } from '../../blobs/blob-store.ts';
import type { BlobRecord } from '../../catalog/catalog.ts';
import type { PostgresCatalog } from '../../catalog/postgres/postgres-catalog.ts';
import type { TableRepairs } from '../../catalog/postgres/repair.ts';
import { systemClock, type Clock } from '../../core/clock.ts';
import { mediumErrnoOf } from '../../core/errors.ts';
import { reportItemsMax, stagedLifetimeMs } from '../../core/limits.ts';
import { checkBlob, type BlobVerdict } from '../../store/integrity.ts';
import { nothingThere } from './bucket-contents.ts';
import { Steps, type ProgressListener, type StepReport } from '../progress.ts';
import { flattened, inBatches, sideBySide } from '../../streams/side-by-side.ts';

export interface ScaleOutRecoveryOptions {
  /** Read every content and check its digest, not only that it is there in its size. */
  readonly full?: boolean | undefined;
  /**
   * Go on where the journal was shortened and files are lost with its records, and where the objects look like those of
   * another store.
   */
  readonly acceptLoss?: boolean | undefined;
  /** Find everything, change nothing. */
  readonly dryRun?: boolean | undefined;
  /** Objects that no row names are left alone for so long: an upload may be about to be named. */
  readonly strayAgeMs?: number | undefined;
  readonly listener?: ProgressListener | undefined;
  readonly clock?: Clock | undefined;
  readonly signal?: AbortSignal | undefined;
}

export interface BadContent {
  readonly digest: string;
  readonly reason: string;
  readonly references: number;
}

export interface ScaleOutRecoveryReport {
  readonly dryRun: boolean;
  readonly tables: TableRepairs;
  /** Contents that are gone or not what they should be; marked, so that a put of them brings them anew. */
  readonly damaged: readonly BadContent[];
  /** Contents that the disk does not give; nothing was done about them, as they may be right. */
  readonly unreadable: readonly BadContent[];
  /** Contents that were marked as damaged and are sound; the mark is taken off. */
  readonly sound: number;
  /** Objects that no row named; removed. */
  readonly strays: number;
  /** The same, left alone, because there are more of them than of those that rows name. */
  readonly straysLeft: number;
  readonly steps: readonly StepReport[];
}

const blobsAtOnce = 32;
const straysAtOnce = 500;

/**
 * Checks a store in PostgreSQL and mends it: the tables against each other, rows without objects, objects without
 * rows. Servers may go on; changes wait while the tables are compared. A second run finds nothing to do.
 */
export async function recoverScaleOut(
  catalog: PostgresCatalog,
  blobs: BlobStore,
  options: ScaleOutRecoveryOptions = {},
): Promise<ScaleOutRecoveryReport> {
  const { dryRun = false, acceptLoss } = options;
  const steps = new Steps(options.listener);
  if (acceptLoss !== true) await checkAddress(catalog, blobs);
  const tables = await steps.run('tables', 'Comparing the tables', async () => {
    const result = await catalog.repair({ dryRun, acceptLoss });
    const { entriesWithoutBlob, sumsCorrected, journalShortened, ...counts } = result;
    return {
      counts: {
        ...counts,
        entriesWithoutBlob: entriesWithoutBlob.length,
        sumsCorrected: Number(sumsCorrected),
        journalShortened: Number(journalShortened),
      },
      result,
    };
  });
  const checked = await steps.run('contents', 'Checking contents', async (advance) => {
    const result = await checkContents(catalog, blobs, options, advance);
    return { counts: { damaged: result.damaged.length, sound: result.sound }, result };
  });
  const objects = await steps.run('objects', 'Looking for objects without rows', async (advance) => {
    const found = await countStrays(catalog, blobs, options, advance);
    // As if these were the objects of a store whose rows are in another database.
    const left = found.strays > found.named && options.acceptLoss !== true;
    const strays = left ? 0 : dryRun ? found.strays : await removeStrays(catalog, blobs, options);
    const result = { strays, straysLeft: left ? found.strays : 0 };
    return { counts: { objects: found.named + found.strays, ...result }, result };
  });
  return { dryRun, tables, ...checked, ...objects, steps: steps.reports };
}

/** Objects that no row names and that are old enough, batch by batch; of the others only how many there are. */
async function* straysOf(
  catalog: PostgresCatalog,
  blobs: BlobStore,
  options: ScaleOutRecoveryOptions,
): AsyncGenerator<{ readonly seen: number; readonly unnamed: readonly string[] }, void, void> {
  const { signal } = options;
  const beforeMs = (options.clock ?? systemClock).nowMs() - (options.strayAgeMs ?? stagedLifetimeMs);
  const found = blobs.list(signal === undefined ? {} : { signal });
  for await (const batch of inBatches(found, straysAtOnce)) {
    const old = batch.filter(({ modifiedMs }) => modifiedMs < beforeMs).map(({ key }) => key);
    yield { seen: batch.length, unnamed: await catalog.objects.findOrphans(old) };
  }
}

async function countStrays(
  catalog: PostgresCatalog,
  blobs: BlobStore,
  options: ScaleOutRecoveryOptions,
  advance: (done: number) => void,
): Promise<{ readonly named: number; readonly strays: number }> {
  let objects = 0;
  let strays = 0;
  for await (const { seen, unnamed } of straysOf(catalog, blobs, options)) {
    strays += unnamed.length;
    advance((objects += seen));
  }
  return { named: objects - strays, strays };
}

/** The second look decides: what a row names by now stays. */
async function removeStrays(
  catalog: PostgresCatalog,
  blobs: BlobStore,
  options: ScaleOutRecoveryOptions,
): Promise<number> {
  let removed = 0;
  for await (const { unnamed } of straysOf(catalog, blobs, options)) {
    removed += (await catalog.objects.removeOrphans(unnamed)).length;
  }
  return removed;
}

/**
 * Sees to it that not every content is marked as damaged because the address of the objects is that of another place.
 * @throws FiletrackerError `corrupt-store` where rows name objects and there is none at all.
 */
async function checkAddress(catalog: PostgresCatalog, blobs: BlobStore): Promise<void> {
  for await (const _ of blobs.list()) return;
  let named = 0;
  for await (const batch of catalog.listBlobs()) {
    named += batch.filter(({ location, damaged }) => location.kind === 'object' && !damaged).length;
  }
  if (named > 0) throw nothingThere(named);
}

type Checked = Pick<ScaleOutRecoveryReport, 'damaged' | 'unreadable' | 'sound'>;

async function checkContents(
  catalog: PostgresCatalog,
  blobs: BlobStore,
  options: ScaleOutRecoveryOptions,
  advance: (done: number, total?: number) => void,
): Promise<Checked> {
  const { dryRun = false, signal } = options;
  const damaged: BadContent[] = [];
  const unreadable: BadContent[] = [];
  let sound = 0;
  let done = 0;
  const total = (await catalog.stats()).blobs;
  const records = flattened(catalog.listBlobs(signal === undefined ? {} : { signal }));
  await sideBySide(records, blobsAtOnce, async (record) => {
    const verdict = await verdictOn(record, blobs, options).catch((error: unknown) => {
      const errno = mediumErrnoOf(error);
      if (errno === undefined) throw error;
      return { kind: 'unreadable', errno } as const;
    });
    advance((done += 1), total);
    if (verdict.kind === 'unreadable') {
      const { digest, references } = record;
      const reason = `it was left as it is: the disk answered with ${verdict.errno}`;
      if (unreadable.length < reportItemsMax) unreadable.push({ digest, reason, references });
      return;
    }
    if (verdict.kind === 'sound') {
      // Only a reading of the whole content speaks against a mark.
      if (!record.damaged || !readsWhole(record, options)) return;
      sound += 1;
      if (!dryRun) await catalog.markDamaged(record.digest, false);
      return;
    }
    // Collected, or replaced by sound bytes, since it was listed.
    const now = await catalog.findBlob(record.digest);
    if (now === undefined || keyOf(now) !== keyOf(record)) return;
    const reason = verdict.kind === 'missing' ? 'it is gone' : verdict.reason;
    const { digest, references } = record;
    if (damaged.length < reportItemsMax) damaged.push({ digest, reason, references });
    if (!dryRun && !now.damaged) await catalog.markDamaged(digest, true);
  });
  return { damaged, unreadable, sound };
}

/** A small content that is marked is looked at anew: there may be no bytes behind its row. */
function readsWhole({ damaged, location }: BlobRecord, options: ScaleOutRecoveryOptions): boolean {
  return options.full === true || (damaged && location.kind === 'inline');
}

async function verdictOn(
  record: BlobRecord,
  blobs: BlobStore,
  options: ScaleOutRecoveryOptions,
): Promise<BlobVerdict> {
  const { location, storedSize, logicalSize } = record;
  if (readsWhole(record, options)) return checkBlob(record, blobs, { signal: options.signal });
  if (location.kind === 'inline') return { kind: 'sound', storedSize, logicalSize };
  const size = await blobs.size(location.key);
  if (size === undefined) return { kind: 'missing' };
  if (size === storedSize) return { kind: 'sound', storedSize, logicalSize };
  return { kind: 'damaged', reason: `it has ${size} of its ${storedSize} bytes` };
}

function keyOf({ location }: BlobRecord): string | undefined {
  return location.kind === 'object' ? location.key : undefined;
}
