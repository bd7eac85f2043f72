/**
 * The tables.
 *
 * - `entry`: names and what they point to. `name` sorts byte by byte (collation "C", encoding UTF-8).
 * - `blob`: contents with the number of entries that name them; small ones with their bytes.
 * - `removal`: names that were removed not long ago, and the version that went: no older one may come back.
 * - `unreferenced`: since when no entry has named a blob; a row exactly where `reference_count` is zero. A table of
 *   its own, so that counting references touches no index of `blob`.
 * - `object`: the life of every key of the blob store: named by a blob (`doomed_ms` null), to be removed, removed.
 *   A key is named once at the most and never again after it was doomed; see postgres-catalog.ts for why.
 * - `pin`: leases that keep a blob from collection, each with an end, by this database's clock.
 * - `counter`: the sums that `stats()` gives, spread over rows so that changes don't queue for one of them.
 * - `journal`: every change in the order it took effect for its name; nothing is ever changed in it.
 */
export const tables = `
CREATE TABLE $schema.blob (
  digest bytea PRIMARY KEY CHECK (length(digest) = 32),
  encoding smallint NOT NULL,
  logical_size bigint NOT NULL,
  stored_size bigint NOT NULL,
  bytes bytea,
  object_key text COLLATE "C",
  reference_count bigint NOT NULL CHECK (reference_count >= 0),
  damaged boolean NOT NULL DEFAULT false,
  CHECK ((bytes IS NULL) <> (object_key IS NULL))
) WITH (fillfactor = 90);
ALTER TABLE $schema.blob ALTER COLUMN bytes SET STORAGE EXTERNAL;

CREATE TABLE $schema.entry (
  name text COLLATE "C" PRIMARY KEY,
  version bigint NOT NULL,
  digest bytea NOT NULL
) WITH (fillfactor = 90);

CREATE TABLE $schema.removal (
  name text COLLATE "C" PRIMARY KEY,
  version bigint NOT NULL,
  time_ms bigint NOT NULL
);
CREATE INDEX removal_by_time ON $schema.removal (time_ms);

CREATE TABLE $schema.unreferenced (
  digest bytea PRIMARY KEY,
  since_ms bigint NOT NULL
);
CREATE INDEX unreferenced_by_time ON $schema.unreferenced (since_ms, digest);

CREATE TABLE $schema.object (
  key text COLLATE "C" PRIMARY KEY,
  doomed_ms bigint,
  removed_ms bigint
);
CREATE INDEX object_to_remove ON $schema.object (doomed_ms) WHERE doomed_ms IS NOT NULL AND removed_ms IS NULL;
CREATE INDEX object_removed ON $schema.object (removed_ms) WHERE removed_ms IS NOT NULL;

CREATE TABLE $schema.pin (
  digest bytea NOT NULL,
  pin_id uuid NOT NULL,
  expires_at timestamptz NOT NULL,
  PRIMARY KEY (digest, pin_id)
);
CREATE INDEX pin_by_end ON $schema.pin (expires_at);

CREATE TABLE $schema.counter (
  shard smallint PRIMARY KEY,
  entries bigint NOT NULL DEFAULT 0,
  blobs bigint NOT NULL DEFAULT 0,
  logical_bytes bigint NOT NULL DEFAULT 0,
  stored_bytes bigint NOT NULL DEFAULT 0,
  unreferenced_blobs bigint NOT NULL DEFAULT 0
) WITH (fillfactor = 10);
INSERT INTO $schema.counter (shard) SELECT generate_series(0, 63);

CREATE TABLE $schema.journal (
  sequence bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  time_ms bigint NOT NULL,
  kind text NOT NULL,
  name text COLLATE "C",
  version bigint,
  digest bytea,
  encoding smallint,
  logical_size bigint,
  stored_size bigint,
  object_key text COLLATE "C",
  damaged boolean
);
`;
