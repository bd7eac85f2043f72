/**
 * What is known of the journal as a whole. Only compaction takes records out of it, and says so with the setting
 * `filetracker.compacting`; whatever else deletes any is noted, because recovery cannot bring back what it told of.
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
