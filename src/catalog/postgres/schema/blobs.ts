/** Functions that change blobs, whatever refers to them: collection, pins, marks, blobs without a name. */
export const contents = `
CREATE FUNCTION $schema.collect(p_digests bytea[], p_before bigint, p_now bigint)
RETURNS SETOF $schema.blob LANGUAGE plpgsql AS $$
BEGIN
  PERFORM $schema.check_session();
  -- From here on none of them can be named or pinned before this is over; what follows sees all that has been.
  PERFORM 1 FROM $schema.blob b WHERE b.digest = ANY (p_digests) ORDER BY b.digest FOR UPDATE;
  RETURN QUERY
  WITH dead AS (
    DELETE FROM $schema.unreferenced u USING $schema.blob b
    WHERE u.digest = ANY (p_digests) AND u.since_ms < p_before AND b.digest = u.digest AND b.reference_count = 0
      AND NOT EXISTS (
        SELECT 1 FROM $schema.pin p WHERE p.digest = u.digest AND p.expires_at > clock_timestamp()
      )
    RETURNING u.digest
  ), gone AS (
    DELETE FROM $schema.blob b USING dead WHERE b.digest = dead.digest RETURNING b.*
  ), doomed AS (
    UPDATE $schema.object o SET doomed_ms = p_now FROM gone WHERE o.key = gone.object_key
  ), ended AS (
    DELETE FROM $schema.pin p USING gone WHERE p.digest = gone.digest
  ), told AS (
    INSERT INTO $schema.journal (time_ms, kind, digest, object_key)
    SELECT p_now, 'collect', gone.digest, gone.object_key FROM gone
  ), counted AS MATERIALIZED (
    SELECT $schema.add_counts(0, -count(*), 0, -coalesce(sum(gone.stored_size), 0)::bigint, -count(*)) FROM gone
  )
  SELECT gone.* FROM gone, (SELECT count(*) FROM counted) AS once;
END $$;

CREATE FUNCTION $schema.pin(p_digest bytea, p_pin_id uuid, p_lifetime interval)
RETURNS SETOF $schema.blob LANGUAGE plpgsql AS $$
BEGIN
  PERFORM $schema.check_session();
  PERFORM 1 FROM $schema.blob b WHERE b.digest = p_digest AND NOT b.damaged FOR NO KEY UPDATE;
  IF NOT FOUND THEN RETURN; END IF;
  INSERT INTO $schema.pin (digest, pin_id, expires_at) VALUES (p_digest, p_pin_id, clock_timestamp() + p_lifetime);
  RETURN QUERY SELECT * FROM $schema.blob b WHERE b.digest = p_digest;
END $$;

CREATE FUNCTION $schema.mark(p_digest bytea, p_damaged boolean, p_now bigint) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
  PERFORM $schema.check_session();
  UPDATE $schema.blob b SET damaged = p_damaged WHERE b.digest = p_digest AND b.damaged <> p_damaged;
  IF FOUND THEN
    INSERT INTO $schema.journal (time_ms, kind, digest, damaged) VALUES (p_now, 'mark', p_digest, p_damaged);
  END IF;
END $$;

-- Takes a content in whose bytes are in the blob store already. What is known and sound stays, but for its sizes.
CREATE FUNCTION $schema.add_blob(
  p_digest bytea, p_encoding smallint, p_logical bigint, p_stored bigint, p_key text, p_damaged boolean, p_now bigint
) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
  known record;
  replaced_key text;
BEGIN
  PERFORM $schema.check_session();
  INSERT INTO $schema.blob
    (digest, encoding, logical_size, stored_size, object_key, reference_count, damaged)
    VALUES (p_digest, p_encoding, p_logical, p_stored, p_key, 0, p_damaged)
    ON CONFLICT (digest) DO NOTHING;
  IF FOUND THEN
    INSERT INTO $schema.unreferenced (digest, since_ms) VALUES (p_digest, p_now);
    PERFORM $schema.add_counts(0, 1, 0, p_stored, 1);
  ELSE
    SELECT b.encoding, b.logical_size, b.stored_size, b.object_key, b.reference_count, b.damaged
      INTO known FROM $schema.blob b WHERE b.digest = p_digest FOR NO KEY UPDATE;
    IF NOT FOUND THEN
      -- Collected this very moment, by its last holder: as if it had been added before.
      RETURN NULL;
    END IF;
    IF p_damaged OR NOT known.damaged AND (
      known.object_key IS DISTINCT FROM p_key
      OR (known.encoding, known.logical_size, known.stored_size) = (p_encoding, p_logical, p_stored)
    ) THEN
      RETURN NULL;
    END IF;
    UPDATE $schema.blob SET encoding = p_encoding, logical_size = p_logical, stored_size = p_stored,
      bytes = NULL, object_key = p_key, damaged = false WHERE digest = p_digest;
    UPDATE $schema.object SET doomed_ms = p_now WHERE key = known.object_key AND key IS DISTINCT FROM p_key
      RETURNING key INTO replaced_key;
    PERFORM $schema.add_counts(
      0, 0, known.reference_count * (p_logical - known.logical_size), p_stored - known.stored_size, 0);
  END IF;
  INSERT INTO $schema.object (key) VALUES (p_key)
    ON CONFLICT (key) DO UPDATE SET doomed_ms = NULL WHERE object.doomed_ms IS NULL;
  IF NOT FOUND THEN
    RAISE EXCEPTION 'the object has been given up' USING ERRCODE = 'FT002';
  END IF;
  INSERT INTO $schema.journal
    (time_ms, kind, digest, encoding, logical_size, stored_size, object_key, damaged)
    VALUES (p_now, 'add', p_digest, p_encoding, p_logical, p_stored, p_key, p_damaged);
  RETURN replaced_key;
END $$;

-- Takes keys that no blob names out of use for ever; gives those that are to be removed by whoever asked.
CREATE FUNCTION $schema.doom(p_keys text[], p_now bigint) RETURNS SETOF text LANGUAGE plpgsql AS $$
BEGIN
  PERFORM $schema.check_session();
  INSERT INTO $schema.object (key, doomed_ms) SELECT k, p_now FROM unnest(p_keys) AS k ORDER BY k
    ON CONFLICT (key) DO NOTHING;
  RETURN QUERY SELECT o.key FROM $schema.object o WHERE o.key = ANY (p_keys) AND o.doomed_ms IS NOT NULL;
END $$;
`;
