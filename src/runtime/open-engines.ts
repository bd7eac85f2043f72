import { join } from 'node:path';
import type { BlobStore } from '../blobs/blob-store.ts';
import { DiskBlobStore } from '../blobs/disk/disk-blob-store.ts';
import type { Catalog } from '../catalog/catalog.ts';
import type { CatalogLimits } from '../catalog/quotas.ts';
import type { LmdbCatalog } from '../catalog/lmdb/lmdb-catalog.ts';
import type { CommitTimes } from '../catalog/lmdb/writer/record-committer.ts';
import { SharedCatalog } from '../catalog/leader/shared-catalog.ts';
import type { CallObserver, ReportProblem } from '../core/report.ts';
import type { EngineConfig } from '../config/engine-config.ts';

/** How often objects are looked for whose removal was begun and not ended. */
const objectSweepIntervalMs = 60_000;
/** How often the size of the journal in PostgreSQL is looked at. */
const journalCompactionIntervalMs = 3_600_000;

/** Opens the blob store that the settings name. Loads what it needs only then. */
export async function openBlobs(
  engines: EngineConfig,
  folder: string,
  onCall?: CallObserver,
): Promise<BlobStore> {
  if (engines.blobs === undefined) {
    // Beside a catalog that many servers share, the folder is one that they share too.
    return DiskBlobStore.open(folder, { uniqueKeys: engines.catalog !== undefined });
  }
  const { S3BlobStore } = await import('../blobs/s3/s3-blob-store.ts');
  // The embedded catalog has one process that commits for all: it places what others have staged.
  return S3BlobStore.open({ ...engines.blobs, placedElsewhere: engines.catalog === undefined, onCall });
}

export interface CatalogSettings {
  readonly engines: EngineConfig;
  readonly folder: string;
  readonly blobs: BlobStore;
  readonly reportProblem: ReportProblem;
  readonly mustLeadWithinMs: number | undefined;
  /** Whether there must be a catalog in the database already; it is made where it is missing. */
  readonly mustExist: boolean;
  /** How much may be taken in; known to the embedded catalog alone. */
  readonly limits: CatalogLimits | undefined;
  /** Told of every group of changes that the embedded catalog has made. */
  readonly onCommit: ((commit: CommitTimes) => void) | undefined;
  /** Told of every call of a catalog that lies elsewhere. */
  readonly onCall: CallObserver | undefined;
  /** Called when this process is the one, or one of those, that collect garbage. */
  readonly onLead: (catalog: Catalog, embedded: LmdbCatalog | undefined) => Promise<void>;
}

/** Opens the catalog that the settings name. */
export async function openCatalog(settings: CatalogSettings): Promise<Catalog> {
  const { engines, folder, blobs, reportProblem } = settings;
  const onBackgroundError = (error: unknown): void =>
    reportProblem('Cannot keep the catalog in order', error);
  if (engines.catalog === undefined) {
    return SharedCatalog.open({
      folders: { journal: join(folder, 'journal'), catalog: join(folder, 'catalog') },
      placer: blobs,
      mustLeadWithinMs: settings.mustLeadWithinMs,
      limits: settings.limits,
      onCommit: settings.onCommit,
      onBackgroundError,
      onLead: (leading) => settings.onLead(leading, leading),
    });
  }
  const { PostgresCatalog } = await import('../catalog/postgres/postgres-catalog.ts');
  const catalog = await PostgresCatalog.open({
    ...engines.catalog,
    placer: blobs,
    onCall: settings.onCall,
    onBackgroundError,
    mayWait: true,
    existing: settings.mustExist ? 'upgrade' : undefined,
    objectSweepIntervalMs,
    journalCompactionIntervalMs,
  });
  // Every process collects: the database sees to it that each blob is collected once, whoever asks.
  await settings.onLead(catalog, undefined);
  return catalog;
}
