import type { Connections } from './connections.ts';
import type { Session } from './sessions.ts';

/** What a compaction of the journal has done. */
export interface JournalCompaction {
  readonly recordsBefore: number;
  readonly recordsRemoved: number;
}

/** A journal with fewer superseded records than this is left alone. */
const recordsToSpare = 100_000;
/** Records that are looked at in one transaction, so that its sort stays below a few GiB. */
const recordsAtOnce = 20_000_000;
const lockNumber = 7342;

/**
 * Takes records out of the journal that recovery does not need any more:
 *
 * - records of a name that a later one of the same name follows. What counts is the journal alone, never the
 *   tables that it is there to mend;
 * - the removal of a name as its last record, once removals so old are not remembered any more: no record of the name
 *   is left then, which says the same;
 * - marks and collections so old: contents are looked at anyhow.
 *
 * A record that names an object in use is kept for that, as one of the content without the name: the other
 * names of the content have none that tells where it is.
 *
 * One statement for each part of the names decides by one snapshot: what is followed stays followed, whatever is
 * added meanwhile, so changes need not wait. Of several servers one compacts; killed in the middle, what is done
 * is done, and the rest is left to the next time.
 * @returns undefined where it is not worth it, or another server is at it.
 */
export async function compactJournal(
  connections: Connections,
  options: { readonly nowMs: number; readonly removalsSinceMs: number; readonly always?: boolean },
): Promise<JournalCompaction | undefined> {
  const { schema } = connections;
  const [sizes] = await connections.run<{ records: number; needed: number }>(
    {
      name: 'filetracker_journal_sizes',
      text: `SELECT greatest(c.reltuples, 0)::bigint AS records, greatest(s.compacted_records,
          (SELECT sum(entries) FROM ${schema}.counter))::bigint AS needed
        FROM pg_class c, ${schema}.journal_state s WHERE c.oid = to_regclass('${schema}.journal')`,
    },
    [],
  );
  const { records = 0, needed = 0 } = sizes ?? {};
  if (options.always !== true && records < 2 * needed + recordsToSpare) return undefined;
  const parts = Math.max(1, Math.ceil(records / recordsAtOnce));
  let recordsBefore = 0;
  let recordsRemoved = 0;
  for (let part = 0; part < parts; part += 1) {
    const done = await compactPart(connections, { part, parts, ...options });
    if (done === undefined) return undefined;
    recordsBefore += done.records;
    recordsRemoved += done.removed;
  }
  await connections.run(
    {
      name: 'filetracker_note_compaction',
      text: `UPDATE ${schema}.journal_state SET compacted_ms = $1, compacted_records = $2`,
    },
    [options.nowMs, recordsBefore - recordsRemoved],
  );
  return { recordsBefore, recordsRemoved };
}

interface Part {
  readonly part: number;
  readonly parts: number;
  readonly removalsSinceMs: number;
}

interface PartCounts {
  readonly records: number;
  readonly removed: number;
}

/** One transaction; undefined where another server compacts. */
async function compactPart(connections: Connections, part: Part): Promise<PartCounts | undefined> {
  const { schema } = connections;
  return connections.transaction(
    'BEGIN ISOLATION LEVEL READ COMMITTED',
    async (session) => {
      const [lock] = await session.run<{ taken: boolean }>(
        `SELECT pg_try_advisory_xact_lock(hashtextextended($1, ${lockNumber})) AS taken`,
        [schema],
      );
      if (lock?.taken !== true) return undefined;
      await session.run("SELECT set_config('statement_timeout', '0', true)");
      await session.run("SELECT set_config('filetracker.compacting', 'on', true)");
      return removeRecords(session, schema, part);
    },
    { unbounded: true },
  );
}

async function removeRecords(session: Session, schema: string, part: Part): Promise<PartCounts> {
  const inUse = `key IS NOT NULL AND (
    EXISTS (SELECT 1 FROM ${schema}.blob b WHERE b.digest = j.digest AND b.object_key = j.key)
    OR EXISTS (SELECT 1 FROM ${schema}.object o WHERE o.key = j.key AND o.doomed_ms IS NULL))`;
  const [counts] = await session.run<{ records: number; removed: number }>(
    `WITH told AS MATERIALIZED (
      SELECT sequence, kind, name, digest, object_key AS key, time_ms,
        row_number() OVER (PARTITION BY name ORDER BY sequence DESC) = 1 AS is_last
      FROM ${schema}.journal
      WHERE abs(hashtextextended(coalesce(name, ''), 0) % $2) = $3
    ), needless AS MATERIALIZED (
      SELECT sequence, ${inUse} AS in_use FROM told j
      WHERE CASE WHEN name IS NULL THEN time_ms < $1 AND NOT (kind = 'add' AND ${inUse})
        ELSE NOT is_last OR (kind = 'remove' AND time_ms < $1) END
    ), kept AS (
      UPDATE ${schema}.journal j SET kind = 'add', name = NULL, version = NULL, damaged = false
      FROM needless n WHERE n.in_use AND j.sequence = n.sequence
    ), gone AS (
      DELETE FROM ${schema}.journal j USING needless n WHERE NOT n.in_use AND j.sequence = n.sequence RETURNING 1
    )
    SELECT (SELECT count(*) FROM told) AS records, (SELECT count(*) FROM gone) AS removed`,
    [part.removalsSinceMs, part.parts, part.part],
  );
  return counts ?? { records: 0, removed: 0 };
}
