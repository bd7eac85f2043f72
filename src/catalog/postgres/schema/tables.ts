/**
 * The tables of the catalog.
 *
 * - `entry`: names and the blobs that they refer to. `name` sorts by bytes (collation "C", encoding UTF-8).
 * - `blob`: blobs with the number of entries that refer to them; small blobs with their bytes.
 * - `removal`: names that were removed in the last month, with the version that was removed.
 * - `unreferenced`: when a blob lost its last entry; a row exactly for each `reference_count` of zero. A table of its
 *   own, so that counting references touches no index of `blob`.
 * - `object`: the life of every key of the blob store: in use (`doomed_ms` null), doomed, removed. A key is used by at
 *   most one blob, and never again after it was doomed; see postgres-catalog.ts for the reason.
 * - `pin`: leases that keep a blob from collection, each with an end, by the clock of the database.
 * - `counter`: the sums that `stats()` returns, spread over rows so that changes don't queue for one of them.
 * - `journal`: every change, in the order in which it took effect for its name.
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

/**
 * The state of the journal as a whole. Only compaction deletes records, and sets `filetracker.compacting` while it does;
 * any other deletion is noted, because recovery cannot restore what those records said.
 */
export const journalState = `
CREATE TABLE $schema.journal_state (
  only_row boolean PRIMARY KEY DEFAULT true CHECK (only_row),
  -- When records were last deleted otherwise than by compaction; null where that has never been.
  shortened_at timestamptz,
  compacted_ms bigint,
  -- Records that the last compaction left.
  compacted_records bigint NOT NULL DEFAULT 0
);
INSERT INTO $schema.journal_state DEFAULT VALUES;

CREATE FUNCTION $schema.note_shortening() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  IF coalesce(current_setting('filetracker.compacting', true), '') <> 'on' THEN
    UPDATE $schema.journal_state SET shortened_at = clock_timestamp();
  END IF;
  RETURN NULL;
END $$;

CREATE TRIGGER note_deletion AFTER DELETE ON $schema.journal
  FOR EACH STATEMENT EXECUTE FUNCTION $schema.note_shortening();
CREATE TRIGGER note_truncation AFTER TRUNCATE ON $schema.journal
  FOR EACH STATEMENT EXECUTE FUNCTION $schema.note_shortening();
`;

/**
 * The access tokens, for all servers.
 *
 * - `token`: as in tokens.json: names, rights and the SHA-256 of the secrets, never a secret.
 * - `token_state`: its one row exists from the first token on and is never deleted, so that a store whose tokens are
 *   lost differs from one that never had any. `change_number` grows with every change of `token`: a server that has
 *   read the number has read the tokens.
 */
export const tokens = `
CREATE TABLE $schema.token (
  name text COLLATE "C" PRIMARY KEY,
  id text NOT NULL,
  secret_hash text NOT NULL,
  prefixes text[] NOT NULL,
  rights text[] NOT NULL,
  created_ms bigint NOT NULL,
  expires_ms bigint
);

CREATE TABLE $schema.token_state (
  only_row boolean PRIMARY KEY DEFAULT true CHECK (only_row),
  change_number bigint NOT NULL DEFAULT 1,
  -- How many tokens the program that changes them left: where there is none of them any more they are lost.
  tokens bigint NOT NULL DEFAULT 0
);

CREATE FUNCTION $schema.note_token_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  INSERT INTO $schema.token_state AS s DEFAULT VALUES
    ON CONFLICT (only_row) DO UPDATE SET change_number = s.change_number + 1;
  RETURN NULL;
END $$;

CREATE TRIGGER note_change AFTER INSERT OR UPDATE OR DELETE OR TRUNCATE ON $schema.token
  FOR EACH STATEMENT EXECUTE FUNCTION $schema.note_token_change();
`;
