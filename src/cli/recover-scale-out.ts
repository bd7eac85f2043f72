import type { EngineConfig, EngineTuningFlags } from '../config/engine-config.ts';
import { openBlobs } from '../runtime/open-store.ts';
import type { BlobStore } from '../blobs/blob-store.ts';
import { DiskBlobStore } from '../blobs/disk/disk-blob-store.ts';
import { S3BlobStore } from '../blobs/s3/s3-blob-store.ts';
import type { ConnectionOptions } from '../catalog/postgres/pools.ts';
import { PostgresCatalog } from '../catalog/postgres/postgres-catalog.ts';
import { BucketContents } from '../maintenance/recovery/bucket-contents.ts';
import { contentsFolder } from '../maintenance/folder-kind.ts';
import { recoverScaleOut, type ScaleOutRecoveryReport } from '../maintenance/recovery/recover-scale-out.ts';
import { stepsFor, titledList } from './maintenance-output.ts';
import { exitCodes, printJson, printLine } from './output.ts';

export interface ScaleOutFlags extends EngineTuningFlags {
  readonly full?: boolean;
  readonly silent?: boolean;
  readonly dryRun?: boolean;
  readonly acceptLoss?: boolean;
  readonly json?: boolean;
}

/** Statements that look at all rows take their time. */
const queryTimeoutMs = 24 * 3_600_000;

function tell(report: ScaleOutRecoveryReport): void {
  const { tables, damaged, unreadable, strays, sound, dryRun } = report;
  const counted: readonly (readonly [number, string])[] = [
    [tables.entriesRestored, 'restore # files from the journal'],
    [tables.entriesCorrected, 'correct # files to what the journal says'],
    [tables.entriesRemoved, 'remove # files that the journal says were removed'],
    [tables.removalsRestored, 'restore # notes of removals from the journal'],
    [tables.blobsRestored, 'restore # rows of contents from the journal'],
    [tables.entriesRecorded, 'record # files that the journal does not know'],
    [tables.countsCorrected, 'correct # counts of references'],
    [tables.unreferencedCorrected, 'correct # notes of contents without a name'],
    [tables.keysCorrected, 'correct # notes of objects'],
    [Number(tables.sumsCorrected), 'correct the sums'],
    [sound, 'take the mark off # contents that are sound'],
    [strays, 'remove # objects that no row names'],
  ];
  const done = counted.flatMap(([number, text]) => (number > 0 ? [text.replace('#', `${number}`)] : []));
  const warnings = [
    'records were deleted from the journal otherwise than by the servers; files that only they told of cannot be known',
    ...(tables.referencesLost > 0 ? [`at least ${tables.referencesLost} files are lost with them`] : []),
  ];
  const left =
    `${report.straysLeft} objects that no row names stay, because they are more than those that rows name; if this is the ` +
    'right database for them, and no older one, --accept-loss removes them';
  const lines = [
    ...titledList('Warning', tables.journalShortened ? warnings : []),
    ...titledList('Warning', report.straysLeft > 0 ? [left] : []),
    ...titledList(dryRun ? 'To be done' : 'Done', done),
    ...titledList(
      'Files that are lost: no row knows their content',
      tables.entriesWithoutBlob.map(({ name, version }) => `${name}@${version}`),
    ),
    ...titledList(
      'Contents that are lost; reading them answers an error until they are stored again',
      damaged.map(({ digest, reason, references }) => `${digest}: ${reason}; ${references} files`),
    ),
    ...titledList(
      'Contents that cannot be read',
      unreadable.map(({ digest, reason, references }) => `${digest}: ${reason}; ${references} files`),
    ),
  ];
  if (lines.length === 0) lines.push('The store is as it should be: nothing to do');
  for (const line of lines) printLine(line);
}

/** The contents of a store whose catalog is embedded. */
export async function openBucket(
  { blobs }: Pick<EngineConfig, 'blobs'>,
  flags: ScaleOutFlags,
): Promise<BucketContents> {
  if (blobs === undefined) throw new TypeError('The contents are in the folder');
  return new BucketContents(await S3BlobStore.open(blobs), { acceptLoss: flags.acceptLoss });
}

async function openContents(engines: EngineConfig, folder: string, dryRun: boolean): Promise<BlobStore> {
  if (engines.blobs !== undefined) return openBlobs(engines, folder);
  const root = await contentsFolder(folder);
  return DiskBlobStore.open(root, { uniqueKeys: true, readOnly: dryRun });
}

/** A store whose catalog is in PostgreSQL. */
export interface StoreInDatabase {
  readonly folder: string | undefined;
  readonly engines: EngineConfig & { readonly catalog: ConnectionOptions };
}

/** Checks and mends it. @throws FiletrackerError `invalid-argument`. */
export async function recoverDatabase(store: StoreInDatabase, flags: ScaleOutFlags): Promise<void> {
  const { folder = '', engines } = store;
  const blobs = await openContents(engines, folder, flags.dryRun === true);
  try {
    await using catalog = await PostgresCatalog.open({
      ...engines.catalog,
      queryTimeoutMs,
      placer: blobs,
      existing: flags.dryRun === true ? 'as-it-is' : 'upgrade',
    });
    const report = await recoverScaleOut(catalog, blobs, {
      full: flags.full,
      dryRun: flags.dryRun,
      acceptLoss: flags.acceptLoss,
      listener: stepsFor(flags),
    });
    const { damaged, unreadable, tables } = report;
    const lost =
      damaged.length + unreadable.length + tables.entriesWithoutBlob.length + tables.referencesLost;
    if (lost > 0) process.exitCode = exitCodes.failure;
    if (flags.json === true) printJson(report);
    else if (flags.silent !== true) tell(report);
  } finally {
    await blobs.close();
  }
}
