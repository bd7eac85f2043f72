import { reportItemsMax } from '../../core/limits.ts';

/** The statements of `repairTables`, in the order in which it runs them. */
export function repairStatements(schema: string) {
  return { ...entryRepairs(schema), ...blobRepairs(schema), ...recordings(schema), ...countRepairs(schema) };
}

const lockedTables = [
  'entry',
  'removal',
  'blob',
  'unreferenced',
  'object',
  'counter',
  'journal',
  'journal_state',
];

/**
 * Entries and removals: the last record of each name. A change and its record are one transaction, and records of one name
 * have the order of their changes, so a row that differs is damage. Names without a record are left as they are.
 */
function entryRepairs(schema: string) {
  return {
    lockTables: `LOCK TABLE ${lockedTables.map((table) => `${schema}.${table}`).join(', ')} IN SHARE ROW EXCLUSIVE MODE`,
    forgetShortening: `UPDATE ${schema}.journal_state SET shortened_at = NULL WHERE shortened_at IS NOT NULL`,
    collectLastRecords: `CREATE TEMPORARY TABLE recorded ON COMMIT DROP AS
      SELECT DISTINCT ON (name) name, kind, version, digest, time_ms FROM ${schema}.journal
      WHERE name IS NOT NULL ORDER BY name, sequence DESC`,
    restoreEntries: `INSERT INTO ${schema}.entry (name, version, digest) SELECT name, version, digest FROM recorded
      WHERE kind = 'put' AND NOT EXISTS (SELECT 1 FROM ${schema}.entry e WHERE e.name = recorded.name)`,
    correctEntries: `UPDATE ${schema}.entry e SET version = recorded.version, digest = recorded.digest FROM recorded
      WHERE e.name = recorded.name AND recorded.kind = 'put' AND (e.version, e.digest) <> (recorded.version, recorded.digest)`,
    removeEntries: `DELETE FROM ${schema}.entry e USING recorded WHERE e.name = recorded.name AND recorded.kind = 'remove'`,
    restoreRemovals: `INSERT INTO ${schema}.removal (name, version, time_ms) SELECT name, version, time_ms FROM recorded
      WHERE kind = 'remove' AND time_ms > $1 ON CONFLICT (name) DO NOTHING`,
  } as const;
}

/**
 * Every entry's blob gets a row: one with the object that the journal names (whether the object exists, the check of the
 * blobs shows), else one that says that it is lost. Reading that is an error; storing it again repairs all its names.
 */
function blobRepairs(schema: string) {
  const hasNoBlob = `NOT EXISTS (SELECT 1 FROM ${schema}.blob b WHERE b.digest = e.digest)`;
  const lastRecords = (condition: string): string =>
    `SELECT DISTINCT ON (j.digest) j.digest, j.encoding, j.logical_size, j.stored_size, j.object_key
      FROM ${schema}.journal j WHERE j.kind IN ('put', 'add') AND ${condition}
        AND j.digest IN (SELECT e.digest FROM ${schema}.entry e WHERE ${hasNoBlob})
      ORDER BY j.digest, j.sequence DESC`;
  const usable = `j.object_key IS NOT NULL AND NOT EXISTS (
    SELECT 1 FROM ${schema}.object o WHERE o.key = j.object_key AND o.doomed_ms IS NOT NULL)`;
  return {
    restoreBlobs: `INSERT INTO ${schema}.blob (digest, encoding, logical_size, stored_size, object_key, reference_count)
      SELECT digest, encoding, logical_size, stored_size, object_key, 0 FROM (${lastRecords(usable)}) AS recorded`,
    entriesWithoutBlob: `SELECT e.name, e.version FROM ${schema}.entry e WHERE ${hasNoBlob}
      ORDER BY e.name LIMIT ${reportItemsMax}`,
    addLostBlobs: `INSERT INTO ${schema}.blob (digest, encoding, logical_size, stored_size, bytes, reference_count, damaged)
      SELECT digest, encoding, logical_size, stored_size, '', 0, true FROM (${lastRecords('true')}) AS recorded`,
  } as const;
}

/** Every entry and every object gets a record, so that the journal is complete from here on. */
function recordings(schema: string) {
  return {
    recordObjects: `INSERT INTO ${schema}.journal (time_ms, kind, digest, encoding, logical_size, stored_size, object_key, damaged)
      SELECT $1, 'add', b.digest, b.encoding, b.logical_size, b.stored_size, b.object_key, b.damaged
      FROM ${schema}.blob b WHERE b.object_key IS NOT NULL AND NOT EXISTS (
        SELECT 1 FROM ${schema}.journal j WHERE j.object_key = b.object_key)`,
    recordEntries: `INSERT INTO ${schema}.journal
        (time_ms, kind, name, version, digest, encoding, logical_size, stored_size, object_key)
      SELECT $1, 'put', e.name, e.version, e.digest, b.encoding, b.logical_size, b.stored_size, NULL
      FROM ${schema}.entry e JOIN ${schema}.blob b USING (digest)
      WHERE NOT EXISTS (SELECT 1 FROM recorded WHERE recorded.name = e.name)`,
    countLostReferences: `SELECT coalesce(sum(greatest(b.reference_count - coalesce(named.number, 0), 0)), 0)::bigint AS lost
      FROM ${schema}.blob b
      LEFT JOIN (SELECT digest, count(*) AS number FROM ${schema}.entry GROUP BY digest) AS named USING (digest)`,
  } as const;
}

/** Counts, keys and sums follow from the entries and blobs. */
function countRepairs(schema: string) {
  const sums = `SELECT
      (SELECT count(*) FROM ${schema}.entry) AS entries,
      count(*) AS blobs,
      coalesce(sum(reference_count * logical_size), 0)::bigint AS logical_bytes,
      coalesce(sum(stored_size), 0)::bigint AS stored_bytes,
      count(*) FILTER (WHERE reference_count = 0) AS unreferenced_blobs
    FROM ${schema}.blob`;
  const keptSums = `SELECT sum(entries)::bigint, sum(blobs)::bigint, sum(logical_bytes)::bigint,
    sum(stored_bytes)::bigint, sum(unreferenced_blobs)::bigint FROM ${schema}.counter`;
  return {
    correctCounts: `UPDATE ${schema}.blob b SET reference_count = counted.number
      FROM (
        SELECT b.digest, count(e.name) AS number FROM ${schema}.blob b
        LEFT JOIN ${schema}.entry e USING (digest) GROUP BY b.digest
      ) AS counted
      WHERE counted.digest = b.digest AND counted.number <> b.reference_count`,
    removeFromUnreferenced: `DELETE FROM ${schema}.unreferenced u WHERE NOT EXISTS (
      SELECT 1 FROM ${schema}.blob b WHERE b.digest = u.digest AND b.reference_count = 0)`,
    addToUnreferenced: `INSERT INTO ${schema}.unreferenced (digest, since_ms) SELECT digest, $1 FROM ${schema}.blob
      WHERE reference_count = 0 ON CONFLICT DO NOTHING`,
    doomUnusedKeys: `UPDATE ${schema}.object o SET doomed_ms = $1 WHERE o.doomed_ms IS NULL
      AND NOT EXISTS (SELECT 1 FROM ${schema}.blob b WHERE b.object_key = o.key)`,
    nameUsedKeys: `INSERT INTO ${schema}.object (key) SELECT object_key FROM ${schema}.blob WHERE object_key IS NOT NULL
      ON CONFLICT (key) DO UPDATE SET doomed_ms = NULL, removed_ms = NULL WHERE object.doomed_ms IS NOT NULL`,
    compareSums: `SELECT NOT EXISTS (${sums} EXCEPT ${keptSums}) AS agree`,
    clearSums: `UPDATE ${schema}.counter SET
      entries = 0, blobs = 0, logical_bytes = 0, stored_bytes = 0, unreferenced_blobs = 0`,
    writeSums: `UPDATE ${schema}.counter c SET entries = s.entries, blobs = s.blobs, logical_bytes = s.logical_bytes,
      stored_bytes = s.stored_bytes, unreferenced_blobs = s.unreferenced_blobs FROM (${sums}) AS s WHERE c.shard = 0`,
  } as const;
}
