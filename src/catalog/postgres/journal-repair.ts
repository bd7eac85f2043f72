import { reportItemsMax } from '../../core/limits.ts';
import { changed, type Session } from './sessions.ts';

export interface EntryRepairs {
  /** Entries in the journal that were missing from the table; restored. */
  readonly entriesRestored: number;
  /** Entries whose version or content differed from the journal. */
  readonly entriesCorrected: number;
  /** Entries of names whose last record in the journal is a removal; removed again. */
  readonly entriesRemoved: number;
  /** Removals that must still be remembered and were missing. */
  readonly removalsRestored: number;
}

export interface BlobRepairs {
  /** Blobs without a row whose object the journal names. */
  readonly blobsRestored: number;
  /** Entries whose blob has no row and none could be made: their content is lost. */
  readonly entriesWithoutBlob: readonly { readonly name: string; readonly version: number }[];
}

/**
 * Makes entries and removals what the journal says last of each name. A change and its record are one transaction,
 * and records of one name follow each other as the changes did, so a row that differs is damage. Names that
 * the journal does not know are left as they are.
 */
export async function repairEntries(
  session: Session,
  schema: string,
  removalsSinceMs: number,
): Promise<EntryRepairs> {
  await session.run(
    `CREATE TEMPORARY TABLE told ON COMMIT DROP AS
      SELECT DISTINCT ON (name) name, kind, version, digest, time_ms FROM ${schema}.journal
      WHERE name IS NOT NULL ORDER BY name, sequence DESC`,
  );
  await session.run('ANALYZE told');
  const entriesRestored = await changed(
    session,
    `INSERT INTO ${schema}.entry (name, version, digest) SELECT name, version, digest FROM told
      WHERE kind = 'put' AND NOT EXISTS (SELECT 1 FROM ${schema}.entry e WHERE e.name = told.name)`,
  );
  const entriesCorrected = await changed(
    session,
    `UPDATE ${schema}.entry e SET version = told.version, digest = told.digest FROM told
      WHERE e.name = told.name AND told.kind = 'put' AND (e.version, e.digest) <> (told.version, told.digest)`,
  );
  const entriesRemoved = await changed(
    session,
    `DELETE FROM ${schema}.entry e USING told WHERE e.name = told.name AND told.kind = 'remove'`,
  );
  const removalsRestored = await changed(
    session,
    `INSERT INTO ${schema}.removal (name, version, time_ms) SELECT name, version, time_ms FROM told
      WHERE kind = 'remove' AND time_ms > $1 ON CONFLICT (name) DO NOTHING`,
    [removalsSinceMs],
  );
  return { entriesRestored, entriesCorrected, entriesRemoved, removalsRestored };
}

/**
 * Gives every entry's blob a row. One whose object the journal names is there again; whether the object is, shows when
 * contents are looked at. What is lost gets a row that says so, so that reading it answers an error, and
 * storing it again mends every name that has it.
 */
export async function repairBlobs(session: Session, schema: string): Promise<BlobRepairs> {
  const without = `NOT EXISTS (SELECT 1 FROM ${schema}.blob b WHERE b.digest = e.digest)`;
  const told = (condition: string): string =>
    `SELECT DISTINCT ON (j.digest) j.digest, j.encoding, j.logical_size, j.stored_size, j.object_key
      FROM ${schema}.journal j WHERE j.kind IN ('put', 'add') AND ${condition}
        AND j.digest IN (SELECT e.digest FROM ${schema}.entry e WHERE ${without})
      ORDER BY j.digest, j.sequence DESC`;
  const usable = `j.object_key IS NOT NULL AND NOT EXISTS (
    SELECT 1 FROM ${schema}.object o WHERE o.key = j.object_key AND o.doomed_ms IS NOT NULL)`;
  const blobsRestored = await changed(
    session,
    `INSERT INTO ${schema}.blob (digest, encoding, logical_size, stored_size, object_key, reference_count)
      SELECT digest, encoding, logical_size, stored_size, object_key, 0 FROM (${told(usable)}) AS told`,
  );
  const entriesWithoutBlob = await session.run<{ name: string; version: number }>(
    `SELECT e.name, e.version FROM ${schema}.entry e WHERE ${without} ORDER BY e.name LIMIT ${reportItemsMax}`,
  );
  await session.run(
    `INSERT INTO ${schema}.blob (digest, encoding, logical_size, stored_size, bytes, reference_count, damaged)
      SELECT digest, encoding, logical_size, stored_size, '', 0, true FROM (${told('true')}) AS told`,
  );
  return { blobsRestored, entriesWithoutBlob };
}

/** Whether records were deleted otherwise than by compaction since this was last asked; forgets it. */
export async function wasShortened(session: Session, schema: string): Promise<boolean> {
  const forgotten = await changed(
    session,
    `UPDATE ${schema}.journal_state SET shortened_at = NULL WHERE shortened_at IS NOT NULL`,
  );
  return forgotten > 0;
}

/** Writes a record of every entry and every object that the journal does not know, so that it is whole from here on. */
export async function recordEntries(session: Session, schema: string, nowMs: number): Promise<number> {
  const columns = 'time_ms, kind, name, version, digest, encoding, logical_size, stored_size, object_key';
  await session.run(
    `INSERT INTO ${schema}.journal (time_ms, kind, digest, encoding, logical_size, stored_size, object_key, damaged)
      SELECT $1, 'add', b.digest, b.encoding, b.logical_size, b.stored_size, b.object_key, b.damaged
      FROM ${schema}.blob b WHERE b.object_key IS NOT NULL AND NOT EXISTS (
        SELECT 1 FROM ${schema}.journal j WHERE j.object_key = b.object_key)`,
    [nowMs],
  );
  return changed(
    session,
    `INSERT INTO ${schema}.journal (${columns})
      SELECT $1, 'put', e.name, e.version, e.digest, b.encoding, b.logical_size, b.stored_size, NULL
      FROM ${schema}.entry e JOIN ${schema}.blob b USING (digest)
      WHERE NOT EXISTS (SELECT 1 FROM told WHERE told.name = e.name)`,
    [nowMs],
  );
}

/** References that blobs are counted to have beyond those of entries. */
export async function countLost(session: Session, schema: string): Promise<number> {
  const [row] = await session.run<{ lost: number }>(
    `SELECT coalesce(sum(greatest(b.reference_count - coalesce(named.number, 0), 0)), 0)::bigint AS lost
      FROM ${schema}.blob b
      LEFT JOIN (SELECT digest, count(*) AS number FROM ${schema}.entry GROUP BY digest) AS named USING (digest)`,
  );
  return row?.lost ?? 0;
}
