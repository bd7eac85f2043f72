import { collectDefaultMetrics, Counter, Gauge, Registry, type Aggregator } from 'prom-client';
import type { CommitTimes } from '../catalog/lmdb/writer/record-committer.ts';
import type { QuotaUsage } from '../catalog/quotas.ts';
import {
  damagedBlobsOf,
  lastFinishedMs,
  type Verification,
  type VerificationCounters,
  type VerificationStatus,
} from '../store/verification.ts';
import { addCounter, addGauge, addHistogram, ValueCounts } from './counted-metrics.ts';
import type { Exchange } from '../server/exchange.ts';
import type { RequestObserver } from '../server/observer.ts';
import { RequestMetrics } from './request-metrics.ts';
import type { FileStore, StoreStats } from '../store/file-store.ts';
import type { CollectionReport } from '../store/garbage-collector.ts';
import type { UploadGate } from '../store/upload-gate.ts';
import { BackendMetrics } from './backend-metrics.ts';
import { snapshotOf, type MetricsSnapshot } from './metrics-snapshot.ts';

/** Seconds; a sync of a fast disk, of a slow one, of one in trouble. */
const commitBuckets = [0.0002, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.5, 2.5];
const groupBuckets = [1, 2, 4, 8, 16, 32, 64, 128, 256, 512];

/** What `stats` tells, as gauges. Every process sees the same store, so one of them speaks for all. */
const statsGauges: readonly (readonly [name: string, help: string, of: keyof StoreStats])[] = [
  ['filetracker_entries', 'Names in the store.', 'entries'],
  ['filetracker_blobs', 'Contents in the store, each counted once.', 'blobs'],
  [
    'filetracker_unreferenced_blobs',
    'Contents that no name refers to, to be collected.',
    'unreferencedBlobs',
  ],
  ['filetracker_logical_bytes', 'Bytes before compression, each name counted.', 'logicalBytes'],
  [
    'filetracker_unique_logical_bytes',
    'Bytes before compression, each content counted once.',
    'uniqueLogicalBytes',
  ],
  ['filetracker_stored_bytes', 'Bytes of all contents as they are stored.', 'storedBytes'],
  ['filetracker_journal_bytes', 'Bytes of the journal.', 'journalBytes'],
  ['filetracker_journal_live_bytes', 'Bytes of the journal that are still needed.', 'journalLiveBytes'],
];

/** Limits that are shown beside what they bound; `undefined` if there is none. */
export interface ServerLimits {
  readonly fileSizeMaxBytes: number;
  readonly storedBytesMax: number | undefined;
  readonly filesMax: number | undefined;
  readonly uploadsMax: number;
  readonly connectionsMax: number;
  readonly freeSpaceMinBytes: number | undefined;
}

/** Bounds of the whole server, as gauges beside those of what they bound. */
const limitGauges: readonly (readonly [name: string, help: string, of: keyof ServerLimits])[] = [
  ['filetracker_stored_bytes_max', 'Most bytes of all contents as they are stored.', 'storedBytesMax'],
  ['filetracker_entries_max', 'Most names in the store.', 'filesMax'],
  ['filetracker_uploads_max', 'Most uploads at once.', 'uploadsMax'],
  ['filetracker_connections_max', 'Most connections at once.', 'connectionsMax'],
  ['filetracker_file_bytes_max', 'Most bytes of a file, before compression.', 'fileSizeMaxBytes'],
  ['filetracker_free_bytes_min', 'Uploads leave so many bytes of the disk free.', 'freeSpaceMinBytes'],
];

/** What the metrics ask for when somebody looks. */
export interface ObservedServer {
  readonly store: FileStore;
  readonly uploads: UploadGate;
  readonly limits: ServerLimits;
  readonly verification: Pick<Verification, 'recorded'>;
  readonly connectionCount: () => number;
}

/** The supervisor waits for twice as long. */
const storeAnswerMaxMs = 1000;

/** What is told in time; undefined where it is not, or there is a failure in its place. */
async function toldSoon<Value>(telling: Promise<Value> | undefined): Promise<Value | undefined> {
  if (telling === undefined) return undefined;
  let timer: NodeJS.Timeout | undefined;
  const late = new Promise<undefined>((resolve) => {
    timer = setTimeout(() => resolve(undefined), storeAnswerMaxMs);
  });
  try {
    return await Promise.race([telling.catch(() => undefined), late]);
  } finally {
    clearTimeout(timer);
  }
}

/** Two observers as one. */
export function bothObservers(one: RequestObserver, other: RequestObserver): RequestObserver {
  return {
    answered: (exchange: Exchange) => {
      one.answered(exchange);
      other.answered(exchange);
    },
    refusedConnection: (remoteAddress, status, reason) => {
      one.refusedConnection(remoteAddress, status, reason);
      other.refusedConnection(remoteAddress, status, reason);
    },
  };
}

/** All that one process counts. */
export class ServerMetrics {
  readonly requests: RequestMetrics;
  readonly backends: BackendMetrics;
  /** For the verification of this process. */
  readonly verification: VerificationCounters;
  readonly #registry = new Registry();
  readonly #journalSeconds = new ValueCounts(commitBuckets);
  readonly #indexSeconds = new ValueCounts(commitBuckets);
  readonly #groupChanges = new ValueCounts(groupBuckets);
  readonly #collections: Counter;
  readonly #collectedBlobs: Counter;
  readonly #collectedBytes: Counter;
  readonly #collectionSeconds: Counter;
  #observed: ObservedServer | undefined;
  #verified: VerificationStatus | undefined;
  #stats: { readonly gauge: Gauge; readonly of: keyof StoreStats }[];

  constructor() {
    const registers = [this.#registry];
    this.requests = new RequestMetrics(this.#registry);
    this.backends = new BackendMetrics(this.#registry);
    this.#stats = statsGauges.map(([name, help, of]) => ({
      gauge: new Gauge({ name, help, aggregator: 'max', registers }),
      of,
    }));
    const counter = (name: string, help: string): Counter => new Counter({ name, help, registers });
    this.#collections = counter('filetracker_collections_total', 'Runs of the garbage collection.');
    this.#collectedBlobs = counter('filetracker_collected_blobs_total', 'Contents that were collected.');
    this.#collectedBytes = counter('filetracker_collected_bytes_total', 'Their bytes as they were stored.');
    this.#collectionSeconds = counter('filetracker_collection_seconds_total', 'Time in collection.');
    this.verification = this.#addVerification();
    this.#addCommits();
    this.#addLive();
    collectDefaultMetrics({ register: this.#registry });
  }

  /** Takes what the gauges ask; before that they show nothing. */
  observe(observed: ObservedServer): void {
    this.#observed = observed;
  }

  committed(commit: CommitTimes): void {
    this.#journalSeconds.add(commit.journalMs / 1000);
    this.#indexSeconds.add(commit.indexMs / 1000);
    this.#groupChanges.add(commit.changes);
  }

  collected(report: CollectionReport, durationMs: number): void {
    this.#collections.inc();
    this.#collectedBlobs.inc(report.collectedBlobs);
    this.#collectedBytes.inc(report.collectedBytes);
    this.#collectionSeconds.inc(durationMs / 1000);
  }

  /** What is counted by now; without what the store should tell and does not, which is when the rest is needed most. */
  async snapshot(): Promise<MetricsSnapshot> {
    const observed = this.#observed;
    const [stats, verified] = await Promise.all([
      toldSoon(observed?.store.stats()),
      toldSoon(observed?.verification.recorded()),
    ]);
    this.#verified = verified;
    for (const { gauge, of } of this.#stats) {
      const value = stats?.[of];
      if (value === undefined) gauge.remove({});
      else gauge.set(value);
    }
    return snapshotOf(this.#registry);
  }

  /** Shows what lies below the prefixes of quotas; known to the leader alone. */
  showQuotas(usages: () => readonly QuotaUsage[]): void {
    const show = (name: string, help: string, of: (usage: QuotaUsage) => number | undefined): void => {
      const gauge = new Gauge({
        name,
        help,
        labelNames: ['prefix'],
        aggregator: 'max',
        registers: [this.#registry],
        collect: (): void => {
          for (const usage of usages()) {
            const value = of(usage);
            if (value !== undefined) gauge.set({ prefix: usage.quota.prefix }, value);
          }
        },
      });
    };
    if (this.#registry.getSingleMetric('filetracker_quota_files') !== undefined) return;
    show('filetracker_quota_files', 'Names below the prefix of a quota.', (usage) => usage.files);
    show(
      'filetracker_quota_logical_bytes',
      'Bytes of these, before compression.',
      (usage) => usage.logicalBytes,
    );
    show('filetracker_quota_files_max', 'Most names of a quota.', (usage) => usage.quota.filesMax);
    show(
      'filetracker_quota_logical_bytes_max',
      'Most bytes of a quota.',
      (usage) => usage.quota.logicalBytesMax,
    );
  }

  /** Counts are those of this process; how the last run went is known to all, from its file. */
  #addVerification(): VerificationCounters {
    const registers = [this.#registry];
    const counter = (name: string, help: string): Counter => new Counter({ name, help, registers });
    const blobs = counter('filetracker_verified_blobs_total', 'Contents that verification has read.');
    const bytes = counter('filetracker_verified_bytes_total', 'Their bytes as they are stored.');
    const damaged = counter(
      'filetracker_verification_damaged_total',
      'Contents that verification has found damaged and marked.',
    );
    const add = (
      name: string,
      help: string,
      value: (status: VerificationStatus) => number | undefined,
    ): void =>
      addGauge(this.#registry, { name, help, aggregator: 'max' }, () =>
        this.#verified === undefined ? undefined : value(this.#verified),
      );
    add(
      'filetracker_verification_damaged_blobs',
      'Damaged contents, by the last verification that ended or the one under way.',
      damagedBlobsOf,
    );
    add(
      'filetracker_verification_finished_timestamp_seconds',
      'When the last verification that came to its end did so, since the epoch.',
      (status) => {
        const finishedMs = lastFinishedMs(status);
        return finishedMs === undefined ? undefined : finishedMs / 1000;
      },
    );
    return {
      read: (sizeBytes) => bytes.inc(sizeBytes),
      checked: () => blobs.inc(),
      foundDamaged: () => damaged.inc(),
    };
  }

  #addCommits(): void {
    const add = (name: string, help: string, bounds: readonly number[], counts: ValueCounts): void =>
      addHistogram(this.#registry, { name, help }, bounds, () => [counts.counts()]);
    add(
      'filetracker_journal_sync_seconds',
      'Time to write a group of changes to the journal, until it is durable.',
      commitBuckets,
      this.#journalSeconds,
    );
    add(
      'filetracker_index_commit_seconds',
      'Time to show a group of changes in the index.',
      commitBuckets,
      this.#indexSeconds,
    );
    add(
      'filetracker_commit_changes',
      'Changes that one sync made durable.',
      groupBuckets,
      this.#groupChanges,
    );
  }

  #addLive(): void {
    const add = (
      name: string,
      help: string,
      value: (observed: ObservedServer) => number | undefined,
      aggregator: Aggregator = 'sum',
    ): void =>
      addGauge(this.#registry, { name, help, aggregator }, () =>
        this.#observed === undefined ? undefined : value(this.#observed),
      );
    addCounter(
      this.#registry,
      'filetracker_puts_total',
      'Puts by what became of them: a new content, one that was stored already, or an older version.',
      ['outcome'],
      (shown) => {
        const counts = Object.entries(this.#observed?.uploads.putCounts ?? {});
        for (const [outcome, count] of counts) shown.inc({ outcome }, count);
      },
    );
    add('filetracker_connections', 'Connections that are open.', ({ connectionCount }) => connectionCount());
    for (const [name, help, of] of limitGauges) add(name, help, ({ limits }) => limits[of], 'max');
    add('filetracker_uploads', 'Uploads under way.', ({ uploads }) => uploads.uploadCount);
    add(
      'filetracker_free_bytes',
      'Bytes that the disk of the store has left.',
      ({ uploads }) => uploads.freeBytes,
      'min',
    );
  }
}
