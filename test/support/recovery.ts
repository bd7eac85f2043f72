import {
  recoverDatabase as recoverDatabaseStore,
  type DatabaseDetails,
} from '../../src/maintenance/recovery/recover-database.ts';
import {
  recoverFolder as recoverFolderStore,
  type FolderDetails,
} from '../../src/maintenance/recovery/recover-folder.ts';
import type { RecoveryReport } from '../../src/maintenance/recovery/recover.ts';

export type FolderReport = RecoveryReport<FolderDetails>;

/** Recovers a store in a folder; returns the report that `--json` prints. */
export async function recoverFolder(...args: Parameters<typeof recoverFolderStore>): Promise<FolderReport> {
  return (await recoverFolderStore(...args)).report;
}

/** The same for a store in PostgreSQL. */
export async function recoverDatabase(
  ...args: Parameters<typeof recoverDatabaseStore>
): Promise<RecoveryReport<DatabaseDetails>> {
  return (await recoverDatabaseStore(...args)).report;
}
