import { removalMemoryMs } from '../../core/limits.ts';
import { namePrefix, type Connections, type Session } from './connections.ts';

export interface JournalCompaction {
  readonly recordsBefore: number;
  readonly recordsRemoved: number;
}

/** Records beyond twice the needed ones from which on compaction pays. */
const recordsToSpare = 100_000;
/** Records that one transaction looks at, so that its sort takes a few GiB at most. */
const recordsAtOnce = 20_000_000;
const lockNumber = 7342;

/**
 * Deletes journal records that recovery does not need:
 *
 * - records of a name that a later record of the same name follows. Only the journal counts, never the tables
 *   that it is there to repair;
 * - a removal as the last record of a name, once removals of that age are forgotten: without any record of the name
 *   the journal says the same;
 * - marks and collections of that age: recovery checks the blobs anyhow.
 *
 * A record that names an object in use is kept, as a record of the blob without the name: the records of other names with
 * the same blob do not say where it is.
 *
 * The names are taken in parts. For each, one statement decides by one snapshot: a record that is followed stays followed,
 * whatever is added meanwhile, so changes need not wait. Only one server compacts at a time; if it is killed, the next
 * run does the rest.
 * @returns `undefined` if it does not pay, or if another server compacts.
 */
export async function compactJournal(
  connections: Connections,
  options: { readonly nowMs: number; readonly always?: boolean },
): Promise<JournalCompaction | undefined> {
  const { schema } = connections;
  const { nowMs, always = false } = options;
  const [sizes] = await connections.run<{ records: number; needed: number }>(
    {
      name: `${namePrefix}journal_sizes`,
      text: `SELECT greatest(c.reltuples, 0)::bigint AS records, greatest(s.compacted_records,
          (SELECT sum(entries) FROM ${schema}.counter))::bigint AS needed
        FROM pg_class c, ${schema}.journal_state s WHERE c.oid = to_regclass('${schema}.journal')`,
    },
    [],
  );
  const { records = 0, needed = 0 } = sizes ?? {};
  if (!always && records < 2 * needed + recordsToSpare) return undefined;
  const parts = Math.max(1, Math.ceil(records / recordsAtOnce));
  let recordsBefore = 0;
  let recordsRemoved = 0;
  for (let part = 0; part < parts; part += 1) {
    const counts = await connections.transaction(
      (session) => compactPart(session, schema, [nowMs - removalMemoryMs, parts, part]),
      { unbounded: true },
    );
    if (counts === undefined) return undefined;
    recordsBefore += counts.records;
    recordsRemoved += counts.removed;
  }
  await connections.run(
    {
      name: `${namePrefix}note_compaction`,
      text: `UPDATE ${schema}.journal_state SET compacted_ms = $1, compacted_records = $2`,
    },
    [nowMs, recordsBefore - recordsRemoved],
  );
  return { recordsBefore, recordsRemoved };
}

/** `undefined` if another server compacts. */
async function compactPart(
  session: Session,
  schema: string,
  values: readonly [removalsBeforeMs: number, parts: number, part: number],
): Promise<{ readonly records: number; readonly removed: number } | undefined> {
  const [lock] = await session.run<{ taken: boolean }>(
    `SELECT pg_try_advisory_xact_lock(hashtextextended($1, ${lockNumber})) AS taken`,
    [schema],
  );
  if (lock?.taken !== true) return undefined;
  await session.run("SELECT set_config('filetracker.compacting', 'on', true)");
  const inUse = `key IS NOT NULL AND (
    EXISTS (SELECT 1 FROM ${schema}.blob b WHERE b.digest = j.digest AND b.object_key = j.key)
    OR EXISTS (SELECT 1 FROM ${schema}.object o WHERE o.key = j.key AND o.doomed_ms IS NULL))`;
  const [counts] = await session.run<{ records: number; removed: number }>(
    `WITH recorded AS MATERIALIZED (
      SELECT sequence, kind, name, digest, object_key AS key, time_ms,
        row_number() OVER (PARTITION BY name ORDER BY sequence DESC) = 1 AS is_last
      FROM ${schema}.journal
      WHERE abs(hashtextextended(coalesce(name, ''), 0) % $2) = $3
    ), needless AS MATERIALIZED (
      SELECT sequence, ${inUse} AS in_use FROM recorded j
      WHERE CASE WHEN name IS NULL THEN time_ms < $1 AND NOT (kind = 'add' AND ${inUse})
        ELSE NOT is_last OR (kind = 'remove' AND time_ms < $1) END
    ), kept AS (
      UPDATE ${schema}.journal j SET kind = 'add', name = NULL, version = NULL, damaged = false
      FROM needless n WHERE n.in_use AND j.sequence = n.sequence
    ), gone AS (
      DELETE FROM ${schema}.journal j USING needless n WHERE NOT n.in_use AND j.sequence = n.sequence RETURNING 1
    )
    SELECT (SELECT count(*) FROM recorded) AS records, (SELECT count(*) FROM gone) AS removed`,
    values,
  );
  return counts ?? { records: 0, removed: 0 };
}
