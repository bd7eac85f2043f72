/**
 * Shared by all changes. A change must see what others committed while it waited for a lock, which holds under READ
 * COMMITTED only; and it must be on disk before it is acknowledged (invariant 1).
 */
export const helpers = `
CREATE FUNCTION $schema.check_session() RETURNS void LANGUAGE plpgsql AS $$
BEGIN
  IF current_setting('transaction_isolation') <> 'read committed' THEN
    RAISE EXCEPTION 'the transaction isolation must be read committed' USING ERRCODE = 'FT001';
  END IF;
  IF current_setting('synchronous_commit') = 'off' THEN
    PERFORM set_config('synchronous_commit', 'on', true);
  END IF;
END $$;

CREATE FUNCTION $schema.add_counts(p_entries bigint, p_blobs bigint, p_logical bigint, p_stored bigint, p_unreferenced bigint)
RETURNS void LANGUAGE sql AS $$
  UPDATE $schema.counter SET
    entries = entries + p_entries, blobs = blobs + p_blobs, logical_bytes = logical_bytes + p_logical,
    stored_bytes = stored_bytes + p_stored, unreferenced_blobs = unreferenced_blobs + p_unreferenced
  WHERE shard = pg_backend_pid() % 64;
$$;

-- Takes one reference off a blob whose row the caller has locked; gives the change of the number of unreferenced blobs.
CREATE FUNCTION $schema.release_reference(p_digest bytea, p_now bigint) RETURNS integer LANGUAGE plpgsql AS $$
DECLARE
  left_count bigint;
BEGIN
  UPDATE $schema.blob SET reference_count = reference_count - 1 WHERE digest = p_digest
    RETURNING reference_count INTO left_count;
  IF left_count > 0 THEN RETURN 0; END IF;
  INSERT INTO $schema.unreferenced (digest, since_ms) VALUES (p_digest, p_now);
  RETURN 1;
END $$;

-- Whether a precondition (0 none, 1 absent, 2 any, 3 one of the digests) holds.
CREATE FUNCTION $schema.holds(p_precondition smallint, p_digests bytea[], p_found boolean, p_digest bytea)
RETURNS boolean LANGUAGE sql IMMUTABLE AS $$
  SELECT CASE p_precondition WHEN 0 THEN true WHEN 1 THEN NOT p_found WHEN 2 THEN p_found
    ELSE p_found AND p_digest = ANY (p_digests) END;
$$;
`;

/** Invariants 5 and 8 rest on the locks taken here; postgres-catalog.ts has the argument. */
export const put = `
CREATE FUNCTION $schema.put(
  p_name text, p_ancestors text[], p_version bigint, p_digest bytea, p_encoding smallint,
  p_logical bigint, p_stored bigint, p_bytes bytea, p_key text,
  p_precondition smallint, p_digests bytea[], p_now bigint, p_removals_since bigint,
  OUT outcome text, OUT stored_version bigint, OUT other text, OUT deduplicated boolean,
  OUT replaced_key text
) LANGUAGE plpgsql AS $$
DECLARE
  old record;
  known record;
  old_found boolean;
  same boolean;
  old_logical bigint := 0;
  add_blobs bigint := 0;
  add_logical bigint := 0;
  add_stored bigint := 0;
  add_unreferenced bigint := 0;
  add_references bigint;
  ancestor text;
BEGIN
  PERFORM $schema.check_session();
  SELECT e.version, e.digest INTO old FROM $schema.entry e WHERE e.name = p_name FOR UPDATE;
  old_found := FOUND;
  IF NOT old_found AND p_precondition < 2 THEN
    -- A new name: whoever would make a file of one of its directories, or a directory of it, waits here.
    FOREACH ancestor IN ARRAY p_ancestors LOOP
      PERFORM pg_advisory_xact_lock_shared(hashtextextended(ancestor, 7340));
    END LOOP;
    PERFORM pg_advisory_xact_lock(hashtextextended(p_name, 7340));
    SELECT e.version, e.digest INTO old FROM $schema.entry e WHERE e.name = p_name FOR UPDATE;
    old_found := FOUND;
  END IF;
  IF NOT $schema.holds(p_precondition, p_digests, old_found, old.digest) THEN
    outcome := 'precondition-failed';
    RETURN;
  END IF;
  IF old_found AND old.version > p_version THEN
    outcome := 'superseded';
    stored_version := old.version;
    RETURN;
  END IF;
  IF NOT old_found THEN
    SELECT r.version INTO stored_version FROM $schema.removal r
      WHERE r.name = p_name AND r.version > p_version AND r.time_ms > p_removals_since;
    IF FOUND THEN
      outcome := 'superseded';
      RETURN;
    END IF;
    SELECT e.name INTO other FROM $schema.entry e WHERE e.name = ANY (p_ancestors) ORDER BY e.name LIMIT 1;
    IF other IS NULL THEN
      SELECT e.name INTO other FROM $schema.entry e
        WHERE e.name > p_name || '/' AND e.name < p_name || '0' ORDER BY e.name LIMIT 1;
    END IF;
    IF other IS NOT NULL THEN
      outcome := 'name-conflict';
      RETURN;
    END IF;
  END IF;

  same := old_found AND old.digest = p_digest;
  add_references := CASE WHEN same THEN 0 ELSE 1 END;
  LOOP
    -- In the order of the digests, so that two changes never wait for each other.
    PERFORM 1 FROM $schema.blob b WHERE b.digest IN (p_digest, old.digest) ORDER BY b.digest FOR NO KEY UPDATE;
    SELECT b.encoding, b.logical_size, b.stored_size, b.object_key, b.reference_count, b.damaged
      INTO known FROM $schema.blob b WHERE b.digest = p_digest;
    IF FOUND AND NOT known.damaged THEN
      deduplicated := known.object_key IS DISTINCT FROM p_key OR p_key IS NULL;
      IF same AND old.version = p_version THEN
        outcome := 'stored';
        stored_version := p_version;
        RETURN;
      END IF;
      IF NOT same THEN
        UPDATE $schema.blob SET reference_count = reference_count + 1 WHERE digest = p_digest;
      END IF;
      p_logical := known.logical_size;
      p_stored := known.stored_size;
      p_encoding := known.encoding;
      EXIT;
    END IF;
    IF p_bytes IS NULL AND p_key IS NULL THEN
      outcome := 'content-missing';
      RETURN;
    END IF;
    deduplicated := false;
    IF FOUND THEN
      -- Damaged bytes are replaced by sound ones, for all the entries that name them.
      UPDATE $schema.blob SET encoding = p_encoding, logical_size = p_logical, stored_size = p_stored,
        bytes = p_bytes, object_key = p_key, damaged = false, reference_count = reference_count + add_references
        WHERE digest = p_digest;
      UPDATE $schema.object SET doomed_ms = p_now WHERE key = known.object_key AND key IS DISTINCT FROM p_key
        RETURNING key INTO replaced_key;
      add_stored := p_stored - known.stored_size;
      add_logical := known.reference_count * (p_logical - known.logical_size);
    ELSE
      INSERT INTO $schema.blob (digest, encoding, logical_size, stored_size, bytes, object_key, reference_count)
        VALUES (p_digest, p_encoding, p_logical, p_stored, p_bytes, p_key, 1)
        ON CONFLICT (digest) DO NOTHING;
      -- Another change has brought the same content meanwhile: it is there now.
      CONTINUE WHEN NOT FOUND;
      add_blobs := 1;
      add_stored := p_stored;
    END IF;
    IF p_key IS NOT NULL THEN
      INSERT INTO $schema.object (key) VALUES (p_key)
        ON CONFLICT (key) DO UPDATE SET doomed_ms = NULL WHERE object.doomed_ms IS NULL;
      IF NOT FOUND THEN
        RAISE EXCEPTION 'the upload has been given up' USING ERRCODE = 'FT002';
      END IF;
    END IF;
    EXIT;
  END LOOP;

  IF NOT same AND known.reference_count = 0 THEN
    DELETE FROM $schema.unreferenced WHERE digest = p_digest;
    add_unreferenced := -1;
  END IF;
  IF old_found AND NOT same THEN
    SELECT b.logical_size INTO old_logical FROM $schema.blob b WHERE b.digest = old.digest;
    add_unreferenced := add_unreferenced + $schema.release_reference(old.digest, p_now);
  END IF;
  IF NOT same THEN
    add_logical := add_logical + p_logical - old_logical;
  END IF;
  IF old_found THEN
    UPDATE $schema.entry SET version = p_version, digest = p_digest WHERE name = p_name;
  ELSE
    INSERT INTO $schema.entry (name, version, digest) VALUES (p_name, p_version, p_digest);
    DELETE FROM $schema.removal WHERE name = p_name;
  END IF;
  INSERT INTO $schema.journal
    (time_ms, kind, name, version, digest, encoding, logical_size, stored_size, object_key)
    VALUES (p_now, 'put', p_name, p_version, p_digest, p_encoding, p_logical, p_stored,
      CASE WHEN deduplicated THEN NULL ELSE p_key END);
  PERFORM $schema.add_counts(CASE WHEN old_found THEN 0 ELSE 1 END, add_blobs, add_logical, add_stored, add_unreferenced);
  outcome := 'stored';
  stored_version := p_version;
END $$;
`;

export const remove = `
CREATE FUNCTION $schema.remove(
  p_name text, p_version bigint, p_precondition smallint, p_digests bytea[], p_now bigint,
  OUT outcome text, OUT stored_version bigint
) LANGUAGE plpgsql AS $$
DECLARE
  old record;
  old_found boolean;
  old_logical bigint;
BEGIN
  PERFORM $schema.check_session();
  SELECT e.version, e.digest INTO old FROM $schema.entry e WHERE e.name = p_name FOR UPDATE;
  old_found := FOUND;
  stored_version := old.version;
  IF NOT $schema.holds(p_precondition, p_digests, old_found, old.digest) THEN
    outcome := 'precondition-failed';
  ELSIF NOT old_found THEN
    outcome := 'absent';
  ELSIF old.version > p_version THEN
    outcome := 'superseded';
  ELSE
    SELECT b.logical_size INTO old_logical FROM $schema.blob b WHERE b.digest = old.digest FOR NO KEY UPDATE;
    DELETE FROM $schema.entry e WHERE e.name = p_name;
    INSERT INTO $schema.removal (name, version, time_ms) VALUES (p_name, old.version, p_now)
      ON CONFLICT (name) DO UPDATE SET version = old.version, time_ms = p_now;
    INSERT INTO $schema.journal (time_ms, kind, name, version) VALUES (p_now, 'remove', p_name, old.version);
    PERFORM $schema.add_counts(-1, 0, -old_logical, 0, $schema.release_reference(old.digest, p_now));
    outcome := 'removed';
  END IF;
END $$;
`;

/**
 * Makes removals count only for puts that repeat an earlier request. `p_removals_since` below zero marks such a put: it
 * is minus the time of the first request, in milliseconds since 1970. A removal of the same or a newer version since
 * then stays in effect. Servers of earlier releases pass a time above zero, and keep their rule.
 */
export const removals = put.replace('CREATE FUNCTION', 'CREATE OR REPLACE FUNCTION').replace(
  'r.version > p_version AND r.time_ms > p_removals_since;',
  `CASE WHEN p_removals_since < 0
        THEN r.version >= p_version AND r.time_ms >= -p_removals_since
        ELSE r.version > p_version AND r.time_ms > p_removals_since END;`,
);

/** The body of a change with If-Unmodified-Since, around the statement that makes the change. */
function unmodifiedBody(change: string): string {
  return `DECLARE
  found_version bigint;
  absent boolean;
BEGIN
  LOOP
    SELECT e.version INTO found_version FROM $schema.entry e WHERE e.name = p_name FOR UPDATE;
    absent := NOT FOUND;
    IF found_version > p_since THEN
      outcome := 'precondition-failed';
      RETURN;
    END IF;
    ${change}
    EXIT WHEN NOT absent OR outcome <> 'precondition-failed';
  END LOOP;
END $$;`;
}

/**
 * Changes with If-Unmodified-Since, built on those that know tags alone. An entry that exists stays locked until the
 * change is made. If there is none, one may appear meanwhile: the change then requires that none has, and looks again
 * if one has.
 */
export const unmodified = `
CREATE FUNCTION $schema.put_unmodified(
  p_name text, p_ancestors text[], p_version bigint, p_digest bytea, p_encoding smallint,
  p_logical bigint, p_stored bigint, p_bytes bytea, p_key text,
  p_now bigint, p_removals_since bigint, p_since bigint,
  OUT outcome text, OUT stored_version bigint, OUT other text, OUT deduplicated boolean,
  OUT replaced_key text
) LANGUAGE plpgsql AS $$
${unmodifiedBody(`SELECT * INTO outcome, stored_version, other, deduplicated, replaced_key FROM $schema.put(
      p_name, p_ancestors, p_version, p_digest, p_encoding, p_logical, p_stored, p_bytes, p_key,
      (CASE WHEN absent THEN 1 ELSE 0 END)::smallint, NULL, p_now, p_removals_since);`)}

CREATE FUNCTION $schema.remove_unmodified(
  p_name text, p_version bigint, p_now bigint, p_since bigint,
  OUT outcome text, OUT stored_version bigint
) LANGUAGE plpgsql AS $$
${unmodifiedBody(`SELECT * INTO outcome, stored_version FROM $schema.remove(
      p_name, p_version, (CASE WHEN absent THEN 1 ELSE 0 END)::smallint, NULL, p_now);`)}
`;
