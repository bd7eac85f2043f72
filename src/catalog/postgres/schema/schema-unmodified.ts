/**
 * Changes of what is not newer than a version (If-Unmodified-Since), made of those that know tags alone. An entry that is
 * there stays as it was looked at, locked, until the change has been made. One that is not there may come meanwhile: the
 * change asks that it has not, and looks again where it has.
 */
export const unmodified = `
CREATE FUNCTION $schema.put_unmodified(
  p_name text, p_ancestors text[], p_version bigint, p_digest bytea, p_encoding smallint,
  p_logical bigint, p_stored bigint, p_bytes bytea, p_key text,
  p_now bigint, p_removals_since bigint, p_since bigint,
  OUT outcome text, OUT stored_version bigint, OUT other text, OUT deduplicated boolean,
  OUT replaced_key text
) LANGUAGE plpgsql AS $$
DECLARE
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
    SELECT * INTO outcome, stored_version, other, deduplicated, replaced_key FROM $schema.put(
      p_name, p_ancestors, p_version, p_digest, p_encoding, p_logical, p_stored, p_bytes, p_key,
      (CASE WHEN absent THEN 1 ELSE 0 END)::smallint, NULL, p_now, p_removals_since);
    EXIT WHEN NOT absent OR outcome <> 'precondition-failed';
  END LOOP;
END $$;

CREATE FUNCTION $schema.remove_unmodified(
  p_name text, p_version bigint, p_now bigint, p_since bigint,
  OUT outcome text, OUT stored_version bigint
) LANGUAGE plpgsql AS $$
DECLARE
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
    SELECT * INTO outcome, stored_version FROM $schema.remove(
      p_name, p_version, (CASE WHEN absent THEN 1 ELSE 0 END)::smallint, NULL, p_now);
    EXIT WHEN NOT absent OR outcome <> 'precondition-failed';
  END LOOP;
END $$;
`;
