import type { Logger } from 'pino';
import type { LmdbCatalog } from '../catalog/lmdb/lmdb-catalog.ts';
import { FiletrackerError, isFiletrackerError } from '../core/errors.ts';
import { ComposedFileStore } from '../store/composed-file-store.ts';
import type { FileStore } from '../store/file-store.ts';
import type { CatalogLimits } from '../catalog/quotas.ts';
import type { ServerMetrics } from '../telemetry/server-metrics.ts';
import type { StoreLimits } from '../store/store-limits.ts';
import { folderToOpen } from '../maintenance/folder-kind.ts';
import { GarbageCollector } from '../store/garbage-collector.ts';
import type { Verification } from '../store/verification.ts';
import { BackgroundWork } from './background-work.ts';
import { embeddedEngines, usesFolder, type EngineConfig } from '../config/engine-config.ts';
import { openBlobs, openCatalog } from './open-engines.ts';
import { prepareFolder } from './prepare-folder.ts';

export interface StoreSettings {
  /** Absolute path; created where missing, if anything is kept there. */
  readonly folder: string;
  /** Other engines than the folder. */
  readonly engines?: EngineConfig | undefined;
  readonly collectionGraceMs: number;
  /** How often everything is read and checked, and how fast; on request only unless given. */
  readonly verifyIntervalMs?: number | undefined;
  readonly verifyBytesPerSecond?: number | undefined;
  /** Bounds that differ from core/limits.ts. */
  readonly limits?: Partial<StoreLimits> | undefined;
  /** Whether there must be a store in the database already, if that has the catalog. */
  readonly catalogMustExist?: boolean | undefined;
  /** Whether this is the only process of the store, or the first of several. */
  readonly exclusive: boolean;
  /** How much the store may take in. */
  readonly capacity?: CatalogLimits | undefined;
  /** Counts what the leader does. */
  readonly metrics?: ServerMetrics | undefined;
}

/** A store and what runs beside it. */
export interface OpenStore {
  readonly files: FileStore;
  readonly verification: Verification;
  /** Ends background work, then closes store, catalog and blobs. Idempotent. */
  close(): Promise<void>;
}

/** How long the first process of a store waits for those of a server that was killed to be gone. */
const predecessorsEndMs = 5000;

/** Items of a list that a line of the log has. */
const toldMax = 10;

function tellReplay(catalog: LmdbCatalog, logger: Logger): void {
  const { rebuilt, records, lost, damaged } = catalog.replay;
  if (rebuilt || records > 0) logger.info({ rebuilt, records }, 'catalog brought up to its journal');
  if (lost.length + damaged.length > 0) {
    // All of them are in the report of filetracker-recover.
    const first = { lost: lost.slice(0, toldMax), damaged: damaged.slice(0, toldMax) };
    const counts = { lostBlobs: lost.length, damagedRanges: damaged.length };
    logger.error({ ...counts, ...first }, 'the store is damaged: run filetracker-recover');
  }
}

/**
 * Opens a store: the embedded one of one machine (LMDB over a journal, blobs on disk), or one on other engines.
 * @throws FiletrackerError `invalid-argument` for a folder or an engine that can't be used, `store-locked` where
 * another process serves the folder, `corrupt-store` where it needs recovery.
 */
export async function openStore(settings: StoreSettings, logger: Logger): Promise<OpenStore> {
  const { collectionGraceMs, exclusive, limits, capacity, metrics, engines = embeddedEngines } = settings;
  // Tokens are there even where catalog and blobs are elsewhere.
  await prepareFolder(settings.folder);
  const catalogElsewhere = engines.catalog !== undefined;
  const folder = usesFolder(engines)
    ? await folderToOpen(settings.folder, { catalogElsewhere })
    : settings.folder;
  const reportProblem = (problem: string, error: unknown): void => logger.error({ err: error }, problem);
  const closers: (() => Promise<void>)[] = [];
  const close = async (): Promise<void> => {
    for (let closer = closers.pop(); closer !== undefined; closer = closers.pop()) await closer();
  };
  try {
    const blobs = await openBlobs(engines, folder, metrics?.backends.observer('s3'));
    closers.push(() => blobs.close());
    let collector: GarbageCollector | undefined;
    const background = new BackgroundWork({
      settings,
      folder,
      blobs,
      logger,
      counters: metrics?.verification,
    });
    closers.push(async () => collector?.stop());
    const catalog = await openCatalog({
      engines,
      folder,
      blobs,
      reportProblem,
      mustLeadWithinMs: exclusive ? predecessorsEndMs : undefined,
      mustExist: settings.catalogMustExist ?? false,
      limits: capacity,
      onCommit: metrics?.committed.bind(metrics),
      onCall: metrics?.backends.observer('postgres'),
      onLead: async (leading, embedded) => {
        if (embedded !== undefined) {
          tellReplay(embedded, logger);
          metrics?.showQuotas(() => embedded.quotaUsages);
        }
        collector = new GarbageCollector({
          catalog: leading,
          blobs,
          reportProblem,
          graceMs: collectionGraceMs,
          // Other servers may be writing to what this one has not to itself.
          exclusive: exclusive && engines.catalog === undefined,
          onRun: metrics?.collected.bind(metrics),
        });
        await collector.start();
        await background.lead(leading, embedded);
      },
    });
    closers.push(() => catalog.close());
    // Before the catalog as well, which a run of it would find closed; above for a catalog that could not be opened.
    closers.push(async () => collector?.stop());
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
