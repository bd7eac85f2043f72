import { cannot, type FiletrackerError } from '../../core/errors.ts';
import { removalMemoryMs } from '../../core/limits.ts';
import type { Connections } from './connections.ts';
import { repairStatements } from './repair-statements.ts';

export interface RepairOptions {
  readonly dryRun: boolean;
  readonly nowMs: number;
  /** Accept the loss of files whose names were lost with records of the journal. */
  readonly acceptLoss?: boolean | undefined;
}

/** The errors found in the tables; repaired unless this was a dry run. */
export interface TableRepairs {
  /** Records were deleted from the journal other than by compaction: their content is unknown. */
  readonly journalShortened: boolean;
  /** Entries in the journal that were missing from the table. */
  readonly entriesRestored: number;
  /** Entries whose version or digest differed from the journal. */
  readonly entriesCorrected: number;
  /** Entries whose last record in the journal is a removal. */
  readonly entriesRemoved: number;
  /** Removals that must still be remembered and were missing. */
  readonly removalsRestored: number;
  /** Blobs without a row whose object the journal names. */
  readonly blobsRestored: number;
  /** Entries whose blob has no row and none could be made: their content is lost. */
  readonly entriesWithoutBlob: readonly { readonly name: string; readonly version: number }[];
  /** Entries that the journal did not have; they were recorded. */
  readonly entriesRecorded: number;
  /** References that blobs count beyond those of known entries, if records are missing. */
  readonly referencesLost: number;
  /** Blobs whose count was not the number of entries that name them. */
  readonly countsCorrected: number;
  /** Rows of `unreferenced` that were missing or too many. */
  readonly unreferencedCorrected: number;
  /** Rows of `object` that named a blob and none used the key, or the reverse. */
  readonly keysCorrected: number;
  /** The sums of `stats()` were wrong. */
  readonly sumsCorrected: boolean;
}

/**
 * Compares the tables with the journal and with each other, and repairs what does not agree: an entry is what the last
 * record of its name says, and stays as it is if there is none; the rest follows from the entries. Changes wait while it
 * runs; look-ups go through. The order of the steps matters: each relies on those before it.
 * @throws FiletrackerError `corrupt-store` if records of the journal are missing and files are lost with them, unless the
 * loss is accepted or this is a dry run.
 */
export async function repairTables(connections: Connections, options: RepairOptions): Promise<TableRepairs> {
  const { dryRun, nowMs, acceptLoss = false } = options;
  const sql = repairStatements(connections.schema);
  return connections.transaction(
    async (session) => {
      /** Runs a statement that changes rows; returns their number. */
      const change = async (text: string, ...values: unknown[]): Promise<number> => {
        const counted = `WITH changed AS (${text} RETURNING 1) SELECT count(*) AS count FROM changed`;
        const [row] = await session.run<{ count: number }>(counted, values);
        return row?.count ?? 0;
      };
      await session.run(sql.lockTables);
      const shorteningsForgotten = await change(sql.forgetShortening);

      await session.run(sql.collectLastRecords);
      await session.run('ANALYZE recorded');
      const entriesRestored = await change(sql.restoreEntries);
      const entriesCorrected = await change(sql.correctEntries);
      const entriesRemoved = await change(sql.removeEntries);
      const removalsRestored = await change(sql.restoreRemovals, nowMs - removalMemoryMs);

      const blobsRestored = await change(sql.restoreBlobs);
      const entriesWithoutBlob = await session.run<{ name: string; version: number }>(sql.entriesWithoutBlob);
      await session.run(sql.addLostBlobs);

      await session.run(sql.recordObjects, [nowMs]);
      const entriesRecorded = await change(sql.recordEntries, nowMs);
      const journalShortened = shorteningsForgotten > 0 || entriesRecorded > 0;
      const [surplus] = journalShortened ? await session.run<{ lost: number }>(sql.countLostReferences) : [];
      const referencesLost = surplus?.lost ?? 0;
      if (referencesLost > 0 && !acceptLoss && !dryRun) throw lossNotAccepted(referencesLost);

      const countsCorrected = await change(sql.correctCounts);
      const removed = await change(sql.removeFromUnreferenced);
      const unreferencedCorrected = removed + (await change(sql.addToUnreferenced, nowMs));
      const doomed = await change(sql.doomUnusedKeys, nowMs);
      const keysCorrected = doomed + (await change(sql.nameUsedKeys));
      const [sums] = await session.run<{ agree: boolean }>(sql.compareSums);
      const sumsCorrected = sums?.agree !== true;
      if (sumsCorrected) {
        await session.run(sql.clearSums);
        await session.run(sql.writeSums);
      }
      return {
        journalShortened,
        entriesRecorded,
        referencesLost,
        entriesRestored,
        entriesCorrected,
        entriesRemoved,
        removalsRestored,
        blobsRestored,
        entriesWithoutBlob,
        countsCorrected,
        unreferencedCorrected,
        keysCorrected,
        sumsCorrected,
      };
    },
    // A dry run makes all changes, and rolls them back.
    { undo: dryRun, unbounded: true },
  );
}

function lossNotAccepted(references: number): FiletrackerError {
  return cannot(
    'corrupt-store',
    'recover the catalog',
    `records were deleted from its journal, and ${references} files that only they named ` +
      'are lost; restore the database from its backup, or pass --accept-loss to continue without them',
  );
}
