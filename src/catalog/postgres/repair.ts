import { removalMemoryMs } from '../../core/limits.ts';
import type { Connections } from './connections.ts';
import { FiletrackerError } from '../../core/errors.ts';
import type { BlobRepairs, EntryRepairs } from './journal-repair.ts';
import { countLost, recordEntries, repairBlobs, repairEntries, wasShortened } from './journal-repair.ts';
import { changed, type Session } from './sessions.ts';

export interface RepairOptions {
  readonly dryRun: boolean;
  readonly nowMs: number;
  /** Whether contents may be given up whose names were lost with records of the journal. */
  readonly acceptLoss?: boolean | undefined;
}

/** What was found wrong in the tables; put right unless only looked for. */
export interface TableRepairs extends EntryRepairs, BlobRepairs {
  /** Whether records of the journal were deleted otherwise than by compaction: what they told of is not known. */
  readonly journalShortened: boolean;
  /** Entries that the journal did not know; it does now. */
  readonly entriesRecorded: number;
  /** References that contents are counted to have and no entry that is known makes up for, where records are missing. */
  readonly referencesLost: number;
  /** Blobs whose count was not the number of entries that name them. */
  readonly countsCorrected: number;
  /** Rows of `unreferenced` that were missing or too many. */
  readonly unreferencedCorrected: number;
  /** Keys whose row said that a blob names them, and none did, or the other way round. */
  readonly keysCorrected: number;
  /** Whether the sums of `stats()` were wrong. */
  readonly sumsCorrected: boolean;
}

/** A look at all rows takes its time; nobody waits for an answer on a socket meanwhile. */
const unbounded = 'SET LOCAL statement_timeout = 0';

/**
 * Holds the tables against the journal and against each other, and puts right what does not agree: entries are what
 * the journal says last of their names, and where it says nothing stay as they are; the rest follows from the
 * entries. Changes wait while it runs; look-ups go on.
 * @throws FiletrackerError `corrupt-store` where records were taken out of the journal and files are lost with them,
 * unless the loss is accepted or this is a dry run.
 */
export async function repairTables(connections: Connections, options: RepairOptions): Promise<TableRepairs> {
  const { schema } = connections;
  const { dryRun, nowMs, acceptLoss = false } = options;
  return connections.transaction(
    'BEGIN ISOLATION LEVEL READ COMMITTED',
    async (session) => {
      await session.run(unbounded);
      const tables = [
        'entry',
        'removal',
        'blob',
        'unreferenced',
        'object',
        'counter',
        'journal',
        'journal_state',
      ];
      const names = tables.map((table) => `${schema}.${table}`).join(', ');
      await session.run(`LOCK TABLE ${names} IN SHARE ROW EXCLUSIVE MODE`);
      const shortened = await wasShortened(session, schema);
      // In this order: what comes later rests on what was put right before.
      const entries = await repairEntries(session, schema, nowMs - removalMemoryMs);
      const blobs = await repairBlobs(session, schema);
      const entriesRecorded = await recordEntries(session, schema, nowMs);
      const journalShortened = shortened || entriesRecorded > 0;
      const referencesLost = journalShortened ? await countLost(session, schema) : 0;
      if (referencesLost > 0 && !acceptLoss && !dryRun) throw lossNotAccepted(referencesLost);
      const countsCorrected = await correctCounts(session, schema);
      const unreferencedCorrected = await correctUnreferenced(session, schema, nowMs);
      const keysCorrected = await correctKeys(session, schema, nowMs);
      const sumsCorrected = await correctSums(session, schema);
      return {
        journalShortened,
        entriesRecorded,
        referencesLost,
        ...entries,
        ...blobs,
        countsCorrected,
        unreferencedCorrected,
        keysCorrected,
        sumsCorrected,
      };
    },
    // A dry run has changed everything, and takes it all back.
    { undo: dryRun },
  );
}

function lossNotAccepted(references: number): FiletrackerError {
  return new FiletrackerError(
    'corrupt-store',
    `Cannot recover the catalog: records were deleted from its journal, and ${references} files that only they ` +
      'named are lost; restore the database from its backup, or give --accept-loss to go on without them',
  );
}

function correctCounts(session: Session, schema: string): Promise<number> {
  return changed(
    session,
    `UPDATE ${schema}.blob b SET reference_count = counted.number
      FROM (
        SELECT b.digest, count(e.name) AS number FROM ${schema}.blob b
        LEFT JOIN ${schema}.entry e USING (digest) GROUP BY b.digest
      ) AS counted
      WHERE counted.digest = b.digest AND counted.number <> b.reference_count`,
  );
}

async function correctUnreferenced(session: Session, schema: string, nowMs: number): Promise<number> {
  const removed = await changed(
    session,
    `DELETE FROM ${schema}.unreferenced u WHERE NOT EXISTS (
      SELECT 1 FROM ${schema}.blob b WHERE b.digest = u.digest AND b.reference_count = 0)`,
  );
  const added = await changed(
    session,
    `INSERT INTO ${schema}.unreferenced (digest, since_ms) SELECT digest, $1 FROM ${schema}.blob
      WHERE reference_count = 0 ON CONFLICT DO NOTHING`,
    [nowMs],
  );
  return removed + added;
}

async function correctKeys(session: Session, schema: string, nowMs: number): Promise<number> {
  const doomed = await changed(
    session,
    `UPDATE ${schema}.object o SET doomed_ms = $1 WHERE o.doomed_ms IS NULL
      AND NOT EXISTS (SELECT 1 FROM ${schema}.blob b WHERE b.object_key = o.key)`,
    [nowMs],
  );
  const named = await changed(
    session,
    `INSERT INTO ${schema}.object (key) SELECT object_key FROM ${schema}.blob WHERE object_key IS NOT NULL
      ON CONFLICT (key) DO UPDATE SET doomed_ms = NULL, removed_ms = NULL WHERE object.doomed_ms IS NOT NULL`,
  );
  return doomed + named;
}

async function correctSums(session: Session, schema: string): Promise<boolean> {
  const sums = `SELECT
      (SELECT count(*) FROM ${schema}.entry) AS entries,
      count(*) AS blobs,
      coalesce(sum(reference_count * logical_size), 0)::bigint AS logical_bytes,
      coalesce(sum(stored_size), 0)::bigint AS stored_bytes,
      count(*) FILTER (WHERE reference_count = 0) AS unreferenced_blobs
    FROM ${schema}.blob`;
  const kept = `SELECT sum(entries)::bigint, sum(blobs)::bigint, sum(logical_bytes)::bigint,
    sum(stored_bytes)::bigint, sum(unreferenced_blobs)::bigint FROM ${schema}.counter`;
  const [row] = await session.run<{ agree: boolean }>(`SELECT NOT EXISTS (${sums} EXCEPT ${kept}) AS agree`);
  if (row?.agree === true) return false;
  await session.run(
    `UPDATE ${schema}.counter SET
      entries = 0, blobs = 0, logical_bytes = 0, stored_bytes = 0, unreferenced_blobs = 0`,
  );
  await session.run(
    `UPDATE ${schema}.counter c SET entries = s.entries, blobs = s.blobs, logical_bytes = s.logical_bytes,
      stored_bytes = s.stored_bytes, unreferenced_blobs = s.unreferenced_blobs FROM (${sums}) AS s WHERE c.shard = 0`,
  );
  return true;
}
