import { join } from 'node:path';
import type { Logger } from 'pino';
import type { BlobStore } from '../blobs/blob-store.ts';
import { DiskBlobStore } from '../blobs/disk/disk-blob-store.ts';
import type { Catalog } from '../catalog/catalog.ts';
import { SharedCatalog } from '../catalog/leader/shared-catalog.ts';
import type { LmdbCatalog } from '../catalog/lmdb/lmdb-catalog.ts';
import type { CatalogLimits } from '../catalog/quotas.ts';
import { embeddedBackEnds, usesFolder, type BackEndConfig } from '../config/back-end-config.ts';
import type { CallObserver } from '../core/report.ts';
import { FiletrackerError, isFiletrackerError } from '../core/errors.ts';
import { verifyBytesPerSecond as defaultVerifyRate } from '../core/limits.ts';
import { folderToOpen } from '../maintenance/folder-kind.ts';
import { ComposedFileStore } from '../store/composed-file-store.ts';
import type { FileStore, StoreLimits } from '../store/file-store.ts';
import { GarbageCollector } from '../store/garbage-collector.ts';
import type { Verification } from '../store/verification.ts';
import type { ServerMetrics } from '../telemetry/server-metrics.ts';
import { BackgroundWork } from './background-work.ts';
import { prepareFolder } from './store-folder.ts';

export interface StoreSettings {
  /** Absolute path; created if it is missing. */
  readonly folder: string;
  /** Back ends other than the folder. */
  readonly backEnds?: BackEndConfig | undefined;
  readonly collectionGraceMs: number;
  /** Time between two verifications of the whole store; on request only unless given. */
  readonly verifyIntervalMs?: number | undefined;
  readonly verifyBytesPerSecond?: number | undefined;
  /** Limits that differ from core/limits.ts. */
  readonly limits?: Partial<StoreLimits> | undefined;
  /** Whether a catalog in PostgreSQL must exist; otherwise it is created if it is missing. */
  readonly catalogMustExist?: boolean | undefined;
  /** Whether this is the only process of the store, or the first of several. */
  readonly exclusive: boolean;
  /** What the embedded catalog accepts at most. */
  readonly capacity?: CatalogLimits | undefined;
  readonly metrics?: ServerMetrics | undefined;
}

/** A store and what runs beside it. */
export interface OpenStore {
  readonly files: FileStore;
  readonly verification: Verification;
  /** Ends background work, then closes store, catalog and blobs. Idempotent. */
  close(): Promise<void>;
}

/** How long the first process of a store waits for the processes of a killed server to end. */
const predecessorsEndMs = 5000;
/** Pause between two searches for objects whose removal was begun and not completed. */
const objectSweepIntervalMs = 60_000;
/** Pause between two checks of the size of the journal in PostgreSQL. */
const journalCompactionIntervalMs = 3_600_000;
/** Items of a list that a line of the log has. */
const loggedItemsMax = 10;

/**
 * Opens a store: on one machine (LMDB over a journal, blobs on disk), or on other back ends.
 * @throws FiletrackerError `invalid-argument` for a folder or a back end that cannot be used, `store-locked` if
 * another process serves the folder, `corrupt-store` if the store needs recovery.
 */
export async function openStore(settings: StoreSettings, logger: Logger): Promise<OpenStore> {
  const { collectionGraceMs, exclusive, limits, metrics, backEnds = embeddedBackEnds } = settings;
  // Tokens are there even if catalog and blobs are elsewhere.
  await prepareFolder(settings.folder);
  const catalogElsewhere = backEnds.catalog !== undefined;
  const folder = usesFolder(backEnds)
    ? await folderToOpen(settings.folder, { catalogElsewhere })
    : settings.folder;
  const reportProblem = (problem: string, error: unknown): void => logger.error({ err: error }, problem);
  const closers: (() => Promise<void>)[] = [];
  const close = async (): Promise<void> => {
    for (let closer = closers.pop(); closer !== undefined; closer = closers.pop()) await closer();
  };
  try {
    const blobs = await openBlobs(backEnds, folder, metrics?.backends.observer('s3'));
    closers.push(() => blobs.close());
    const { verifyIntervalMs, verifyBytesPerSecond = defaultVerifyRate } = settings;
    const counters = metrics?.verification;
    const background = new BackgroundWork({
      folder,
      blobs,
      logger,
      counters,
      verifyIntervalMs,
      verifyBytesPerSecond,
    });
    let collector: GarbageCollector | undefined;
    const stopCollector = async (): Promise<void> => collector?.stop();
    closers.push(stopCollector);
    const lead = async (catalog: Catalog, embedded: LmdbCatalog | undefined): Promise<void> => {
      if (embedded !== undefined) {
        logReplay(embedded, logger);
        metrics?.showQuotas(() => embedded.quotaUsages);
      }
      collector = new GarbageCollector({
        catalog,
        blobs,
        reportProblem,
        graceMs: collectionGraceMs,
        // Other servers may be writing to a catalog in PostgreSQL.
        exclusive: exclusive && !catalogElsewhere,
        onRun: metrics?.collected.bind(metrics),
      });
      await collector.start();
      await background.lead(catalog, embedded);
    };
    const catalog = await openCatalog(settings, { folder, blobs }, logger, lead);
    closers.push(() => catalog.close());
    // Before the catalog as well, which a run would find closed; above for a catalog that could not be opened.
    closers.push(stopCollector);
    const onRelease = (): void => collector?.hint();
    const files = new ComposedFileStore({ catalog, blobs, reportProblem, limits, onRelease });
    closers.push(() => files.close());
    closers.push(() => background.stop());
    return { files, verification: background.verificationOf(catalog), close };
  } catch (error) {
    await close();
    if (!isFiletrackerError(error, 'store-locked')) throw error;
    throw new FiletrackerError(
      'store-locked',
      `Cannot use the folder "${folder}": another process serves it; stop that one, or choose another with -d`,
      { cause: error },
    );
  }
}

/** Opens the blob store, and loads its library only if it is needed. */
async function openBlobs(backEnds: BackEndConfig, folder: string, onCall?: CallObserver): Promise<BlobStore> {
  if (backEnds.blobs === undefined) {
    // Servers that share a catalog share the folder too.
    return DiskBlobStore.open(folder, { uniqueKeys: backEnds.catalog !== undefined });
  }
  const { S3BlobStore } = await import('../blobs/s3/s3-blob-store.ts');
  // The embedded catalog has one process that commits for all: it places what others have staged.
  return S3BlobStore.open({ ...backEnds.blobs, placedElsewhere: backEnds.catalog === undefined, onCall });
}

/** @param lead called when this process is one of those that collect garbage. */
async function openCatalog(
  { backEnds = embeddedBackEnds, exclusive, capacity, catalogMustExist = false, metrics }: StoreSettings,
  { folder, blobs }: { readonly folder: string; readonly blobs: BlobStore },
  logger: Logger,
  lead: (catalog: Catalog, embedded: LmdbCatalog | undefined) => Promise<void>,
): Promise<Catalog> {
  const onBackgroundError = (error: unknown): void =>
    logger.error({ err: error }, 'Cannot keep the catalog in order');
  if (backEnds.catalog === undefined) {
    return SharedCatalog.open({
      folders: { journal: join(folder, 'journal'), catalog: join(folder, 'catalog') },
      placer: blobs,
      mustLeadWithinMs: exclusive ? predecessorsEndMs : undefined,
      limits: capacity,
      onCommit: metrics?.committed.bind(metrics),
      onBackgroundError,
      onLead: (leading) => lead(leading, leading),
    });
  }
  const { PostgresCatalog } = await import('../catalog/postgres/postgres-catalog.ts');
  const catalog = await PostgresCatalog.open({
    ...backEnds.catalog,
    placer: blobs,
    onCall: metrics?.backends.observer('postgres'),
    onBackgroundError,
    mayWait: true,
    existing: catalogMustExist ? 'upgrade' : undefined,
    objectSweepIntervalMs,
    journalCompactionIntervalMs,
  });
  // Every process collects: the database ensures that each blob is collected once.
  await lead(catalog, undefined);
  return catalog;
}

function logReplay({ replay }: LmdbCatalog, logger: Logger): void {
  const { rebuilt, records, lost, damaged } = replay;
  if (rebuilt || records > 0) logger.info({ rebuilt, records }, 'catalog brought up to its journal');
  if (lost.length + damaged.length === 0) return;
  // The report of filetracker-recover lists all of them.
  const first = { lost: lost.slice(0, loggedItemsMax), damaged: damaged.slice(0, loggedItemsMax) };
  const counts = { lostBlobs: lost.length, damagedRanges: damaged.length };
  logger.error({ ...counts, ...first }, 'the store is damaged: run filetracker-recover');
}
