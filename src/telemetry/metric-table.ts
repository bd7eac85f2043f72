import type { Aggregator } from 'prom-client';

interface MetricRow {
  readonly type: 'counter' | 'gauge' | 'histogram';
  readonly help: string;
  readonly labels: readonly string[];
  /** How the values of several processes are combined. */
  readonly aggregator: Aggregator;
  readonly buckets: readonly number[];
}

function counter(help: string, ...labels: string[]): MetricRow {
  return { type: 'counter', help, labels, aggregator: 'sum', buckets: [] };
}

function gauge(help: string, aggregator: Aggregator = 'sum', ...labels: string[]): MetricRow {
  return { type: 'gauge', help, labels, aggregator, buckets: [] };
}

function histogram(help: string, buckets: readonly number[], ...labels: string[]): MetricRow {
  return { type: 'histogram', help, labels, aggregator: 'sum', buckets };
}

/** Seconds; from a small file in memory to a large one over a slow line. */
const requestSeconds = [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1, 5, 30, 300];
/** Seconds; from a look-up in a nearby database to a part of an upload over a slow line. */
const callSeconds = [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1, 5, 30];
/** Seconds; a sync of a fast disk, of a slow one, and of a failing one. */
const commitSeconds = [0.0002, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.5, 2.5];
const groupChanges = [1, 2, 4, 8, 16, 32, 64, 128, 256, 512];

/** Every metric of a server, besides those of the process (prom-client's default metrics). */
export const metricTable = {
  // Requests.
  filetracker_requests_total: counter('Requests served, by status.', 'operation', 'status'),
  filetracker_received_bytes_total: counter('Bytes received, including headers.', 'operation'),
  filetracker_sent_bytes_total: counter('Bytes of response bodies.', 'operation'),
  filetracker_refused_requests_total: counter('Error responses, by error code.', 'operation', 'reason'),
  filetracker_refused_connections_total: counter(
    'Connections refused or closed without a valid request, or by the slow-client guard.',
    'reason',
  ),
  filetracker_request_duration_seconds: histogram(
    'Time from the headers of a request to the end of its response.',
    requestSeconds,
    'operation',
  ),
  filetracker_connections: gauge('Open connections.'),
  filetracker_uploads: gauge('Uploads in progress.'),
  filetracker_puts_total: counter(
    'Successful PUTs: new content, content that was stored already, or an older version.',
    'outcome',
  ),

  // The store. Every process sees the same one, so that one of them speaks for all.
  filetracker_entries: gauge('Names in the store.', 'max'),
  filetracker_blobs: gauge('Distinct blobs in the store.', 'max'),
  filetracker_unreferenced_blobs: gauge('Blobs that no name refers to, to be garbage-collected.', 'max'),
  filetracker_logical_bytes: gauge('Bytes before compression, counted for each name.', 'max'),
  filetracker_unique_logical_bytes: gauge('Bytes before compression, counted once for each blob.', 'max'),
  filetracker_stored_bytes: gauge('Bytes of all blobs as stored.', 'max'),
  filetracker_journal_bytes: gauge('Bytes of the journal.', 'max'),
  filetracker_journal_live_bytes: gauge('Bytes of the journal that are still needed.', 'max'),
  filetracker_free_bytes: gauge('Free bytes on the disk of the store.', 'min'),

  // Limits.
  filetracker_stored_bytes_max: gauge('Maximum bytes of all blobs as stored.', 'max'),
  filetracker_entries_max: gauge('Maximum number of names.', 'max'),
  filetracker_uploads_max: gauge('Maximum concurrent uploads.', 'max'),
  filetracker_connections_max: gauge('Maximum open connections.', 'max'),
  filetracker_file_bytes_max: gauge('Maximum bytes of a file, before compression.', 'max'),
  filetracker_free_bytes_min: gauge('Bytes of the disk that uploads leave free.', 'max'),
  filetracker_quota_files: gauge('Names below the prefix of a quota.', 'max', 'prefix'),
  filetracker_quota_logical_bytes: gauge('Bytes below the prefix, before compression.', 'max', 'prefix'),
  filetracker_quota_files_max: gauge('Maximum names of a quota.', 'max', 'prefix'),
  filetracker_quota_logical_bytes_max: gauge('Maximum bytes of a quota.', 'max', 'prefix'),

  // Commits.
  filetracker_journal_sync_seconds: histogram(
    'Time to write a group of changes to the journal durably.',
    commitSeconds,
  ),
  filetracker_index_commit_seconds: histogram(
    'Time to apply a group of changes to the index.',
    commitSeconds,
  ),
  filetracker_commit_changes: histogram('Changes made durable by one sync.', groupChanges),

  // Garbage collection and verification.
  filetracker_collections_total: counter('Runs of the garbage collector.'),
  filetracker_collected_blobs_total: counter('Blobs removed by the garbage collector.'),
  filetracker_collected_bytes_total: counter('Stored bytes of these blobs.'),
  filetracker_collection_seconds_total: counter('Time spent in garbage collection.'),
  filetracker_verified_blobs_total: counter('Blobs read by verification.'),
  filetracker_verified_bytes_total: counter('Stored bytes of these blobs.'),
  filetracker_verification_damaged_total: counter('Blobs that verification found damaged and marked.'),
  filetracker_verification_damaged_blobs: gauge(
    'Damaged blobs, according to the last verification or the one in progress.',
    'max',
  ),
  filetracker_verification_finished_timestamp_seconds: gauge(
    'When the last complete verification finished, in seconds since 1970.',
    'max',
  ),

  // Back ends and processes.
  filetracker_backend_call_seconds: histogram(
    'Time of a call to PostgreSQL or S3, including retries and the wait for a connection; of a read until it begins.',
    callSeconds,
    'backend',
    'operation',
  ),
  filetracker_backend_errors_total: counter(
    'Failed calls to PostgreSQL or S3, by SQLSTATE or S3 error code.',
    'backend',
    'operation',
    'reason',
  ),
  filetracker_worker_deaths_total: counter('Workers that ended unexpectedly.'),
} satisfies Record<string, MetricRow>;

export type MetricName = keyof typeof metricTable;
