import { collectDefaultMetrics, Registry } from 'prom-client';
import type { CommitTimes } from '../catalog/lmdb/writer/record-committer.ts';
import type { QuotaUsage } from '../catalog/quotas.ts';
import {
  damagedBlobsOf,
  lastFinishedMs,
  type Verification,
  type VerificationCounters,
  type VerificationStatus,
} from '../store/verification.ts';
import type { FileStore, StoreStats } from '../store/file-store.ts';
import type { CollectionReport } from '../store/garbage-collector.ts';
import type { UploadGate } from '../store/upload-gate.ts';
import { BackendMetrics } from './backend-metrics.ts';
import { addHistogram, addMetric, ValueCounts } from './counted-metrics.ts';
import type { MetricName } from './metric-table.ts';
import { snapshotOf, type MetricsSnapshot } from './metrics-hub.ts';
import { RequestMetrics } from './request-metrics.ts';

type Shown<Source> = readonly (readonly [name: MetricName, of: (source: Source) => number | undefined])[];

const statsGauges: Shown<StoreStats> = [
  ['filetracker_entries', ({ entries }) => entries],
  ['filetracker_blobs', ({ blobs }) => blobs],
  ['filetracker_unreferenced_blobs', ({ unreferencedBlobs }) => unreferencedBlobs],
  ['filetracker_logical_bytes', ({ logicalBytes }) => logicalBytes],
  ['filetracker_unique_logical_bytes', ({ uniqueLogicalBytes }) => uniqueLogicalBytes],
  ['filetracker_stored_bytes', ({ storedBytes }) => storedBytes],
  ['filetracker_journal_bytes', ({ journalBytes }) => journalBytes],
  ['filetracker_journal_live_bytes', ({ journalLiveBytes }) => journalLiveBytes],
];

const serverGauges: Shown<ObservedServer> = [
  ['filetracker_connections', ({ connectionCount }) => connectionCount()],
  ['filetracker_uploads', ({ uploads }) => uploads.uploadCount],
  ['filetracker_free_bytes', ({ uploads }) => uploads.freeBytes],
  ['filetracker_stored_bytes_max', ({ limits }) => limits.storedBytesMax],
  ['filetracker_entries_max', ({ limits }) => limits.filesMax],
  ['filetracker_uploads_max', ({ limits }) => limits.uploadsMax],
  ['filetracker_connections_max', ({ limits }) => limits.connectionsMax],
  ['filetracker_file_bytes_max', ({ limits }) => limits.fileSizeMaxBytes],
  ['filetracker_free_bytes_min', ({ limits }) => limits.freeSpaceMinBytes],
];

const verificationGauges: Shown<VerificationStatus> = [
  ['filetracker_verification_damaged_blobs', damagedBlobsOf],
  [
    'filetracker_verification_finished_timestamp_seconds',
    (status) => {
      const finishedMs = lastFinishedMs(status);
      return finishedMs === undefined ? undefined : finishedMs / 1000;
    },
  ],
];

const quotaGauges: Shown<QuotaUsage> = [
  ['filetracker_quota_files', ({ files }) => files],
  ['filetracker_quota_logical_bytes', ({ logicalBytes }) => logicalBytes],
  ['filetracker_quota_files_max', ({ quota }) => quota.filesMax],
  ['filetracker_quota_logical_bytes_max', ({ quota }) => quota.logicalBytesMax],
];

/** Limits that are shown beside the values that they bound; `undefined` if there is none. */
export interface ServerLimits {
  readonly fileSizeMaxBytes: number;
  readonly storedBytesMax: number | undefined;
  readonly filesMax: number | undefined;
  readonly uploadsMax: number;
  readonly connectionsMax: number;
  readonly freeSpaceMinBytes: number | undefined;
}

/** The sources that are read when metrics are collected. */
export interface ObservedServer {
  readonly store: FileStore;
  readonly uploads: UploadGate;
  readonly limits: ServerLimits;
  readonly verification: Pick<Verification, 'recorded'>;
  readonly connectionCount: () => number;
}

/** The supervisor waits for twice as long. */
const storeAnswerMaxMs = 1000;

/** The value, or `undefined` if it fails or is late. */
async function inTime<Value>(value: Promise<Value> | undefined): Promise<Value | undefined> {
  if (value === undefined) return undefined;
  let timer: NodeJS.Timeout | undefined;
  const late = new Promise<undefined>((resolve) => {
    timer = setTimeout(() => resolve(undefined), storeAnswerMaxMs);
  });
  try {
    return await Promise.race([value.catch(() => undefined), late]);
  } finally {
    clearTimeout(timer);
  }
}

/** The metrics of one process. */
export class ServerMetrics {
  readonly requests: RequestMetrics;
  readonly backends: BackendMetrics;
  /** For the verification of this process. */
  readonly verification: VerificationCounters;
  readonly #registry = new Registry();
  readonly #journalSeconds = new ValueCounts('filetracker_journal_sync_seconds');
  readonly #indexSeconds = new ValueCounts('filetracker_index_commit_seconds');
  readonly #groupChanges = new ValueCounts('filetracker_commit_changes');
  readonly #totals = {
    filetracker_collections_total: 0,
    filetracker_collected_blobs_total: 0,
    filetracker_collected_bytes_total: 0,
    filetracker_collection_seconds_total: 0,
    filetracker_verified_blobs_total: 0,
    filetracker_verified_bytes_total: 0,
    filetracker_verification_damaged_total: 0,
  };
  #observed: ObservedServer | undefined;
  #verified: VerificationStatus | undefined;
  #stats: StoreStats | undefined;

  constructor() {
    const registry = this.#registry;
    const totals = this.#totals;
    this.requests = new RequestMetrics(registry);
    this.backends = new BackendMetrics(registry);
    this.#show(statsGauges, () => this.#stats);
    this.#show(serverGauges, () => this.#observed);
    this.#show(verificationGauges, () => this.#verified);
    for (const name of Object.keys(totals) as (keyof typeof totals)[]) {
      addMetric(registry, name, () => [{ value: totals[name] }]);
    }
    addMetric(registry, 'filetracker_puts_total', () =>
      Object.entries(this.#observed?.uploads.putCounts ?? {}).map(([outcome, value]) => ({
        labels: { outcome },
        value,
      })),
    );
    addHistogram(registry, 'filetracker_journal_sync_seconds', () => [this.#journalSeconds.counts()]);
    addHistogram(registry, 'filetracker_index_commit_seconds', () => [this.#indexSeconds.counts()]);
    addHistogram(registry, 'filetracker_commit_changes', () => [this.#groupChanges.counts()]);
    this.verification = {
      read: (sizeBytes) => {
        totals.filetracker_verified_bytes_total += sizeBytes;
      },
      checked: () => {
        totals.filetracker_verified_blobs_total += 1;
      },
      foundDamaged: () => {
        totals.filetracker_verification_damaged_total += 1;
      },
    };
    collectDefaultMetrics({ register: registry });
  }

  #show<Source>(gauges: Shown<Source>, source: () => Source | undefined): void {
    for (const [name, of] of gauges) {
      addMetric(this.#registry, name, () => {
        const current = source();
        return current === undefined ? [] : [{ value: of(current) }];
      });
    }
  }

  /** Sets the sources of the gauges, which show nothing before. */
  observe(observed: ObservedServer): void {
    this.#observed = observed;
  }

  committed(commit: CommitTimes): void {
    this.#journalSeconds.add(commit.journalMs / 1000);
    this.#indexSeconds.add(commit.indexMs / 1000);
    this.#groupChanges.add(commit.changes);
  }

  collected(report: CollectionReport, durationMs: number): void {
    this.#totals.filetracker_collections_total += 1;
    this.#totals.filetracker_collected_blobs_total += report.collectedBlobs;
    this.#totals.filetracker_collected_bytes_total += report.collectedBytes;
    this.#totals.filetracker_collection_seconds_total += durationMs / 1000;
  }

  /** The current values. Values that the store does not report in time are left out: then the others matter most. */
  async snapshot(): Promise<MetricsSnapshot> {
    const observed = this.#observed;
    [this.#stats, this.#verified] = await Promise.all([
      inTime(observed?.store.stats()),
      inTime(observed?.verification.recorded()),
    ]);
    return snapshotOf(this.#registry);
  }

  /** Shows the usage of quotas, which only the leader knows. */
  showQuotas(usages: () => readonly QuotaUsage[]): void {
    if (this.#registry.getSingleMetric('filetracker_quota_files') !== undefined) return;
    for (const [name, of] of quotaGauges) {
      addMetric(this.#registry, name, () =>
        usages().map((usage) => ({ labels: { prefix: usage.quota.prefix }, value: of(usage) })),
      );
    }
  }
}
