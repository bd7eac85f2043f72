#!/usr/bin/env node
import { Command } from 'commander';
import { fileURLToPath } from 'node:url';
import type { BlobStore } from '../blobs/blob-store.ts';
import {
  namesEngines,
  readStoreAddress,
  type EngineConfig,
  type EngineTuningFlags,
} from '../config/engine-config.ts';
import { release } from '../core/release.ts';
import { compareIndexes } from '../catalog/lmdb/index/comparison.ts';
import type { ConnectionOptions } from '../catalog/postgres/pools.ts';
import { contentsFolder } from '../maintenance/folder-kind.ts';
import { refuseOthersFolders } from '../maintenance/folder-owner.ts';
import type { BlobPlace } from '../maintenance/recovery/blob-place.ts';
import { compareInChild } from '../maintenance/recovery/compare-in-child.ts';
import { recoverFolder } from '../maintenance/recovery/recover-folder.ts';
import { findingKinds, type Finding, type Recovery } from '../maintenance/recovery/recover.ts';
import { addEngineTuningOptions } from './server/engine-options.ts';
import { stepsFor, titledList } from './maintenance-output.ts';
import { inHouseStyle } from './house-style.ts';
import { exitCodes, printJson, printLine } from './output.ts';
import { runToEnd } from './run-to-end.ts';

const program = 'filetracker-recover';

interface Flags extends EngineTuningFlags {
  readonly full?: boolean;
  readonly silent?: boolean;
  readonly dryRun?: boolean;
  readonly acceptLoss?: boolean;
  readonly json?: boolean;
}

/** Statements that scan whole tables take long. */
const queryTimeoutMs = 24 * 3_600_000;

const titles: Readonly<Record<Exclude<Finding['kind'], 'repair'>, string>> = {
  warning: 'Warning',
  note: 'Notes',
  'lost-file': 'Lost files; reading them returns an error until they are stored again',
  'lost-blob': 'Lost blobs; reading their files returns an error until they are stored again',
  'unreadable-file': 'Files that the disk cannot read; they stay as they are',
  'unreadable-blob': 'Blobs that the disk cannot read; they stay as they are',
};

function print({
  report,
  findings,
  hasLosses,
}: Recovery<{ readonly quarantine?: string | undefined }>): void {
  for (const kind of findingKinds) {
    const title = kind === 'repair' ? (report.dryRun ? 'To be done' : 'Done') : titles[kind];
    const { items, count } = findings.of(kind);
    const texts = items.map(({ text }) => text);
    for (const line of titledList(title, texts, count)) printLine(line);
  }
  if (report.quarantine !== undefined) printLine(`Damaged things were moved to ${report.quarantine}`);
  const remaining = (['warning', 'repair', 'unreadable-file', 'unreadable-blob'] as const).some(
    (kind) => findings.of(kind).count > 0,
  );
  if (!remaining) printLine(`${hasLosses ? 'Otherwise the' : 'The'} store is as it should be: nothing to do`);
}

/** A dry run changes nothing in a folder. Loads a back end only if the address names it: it need not be installed. */
async function openBlobs({ blobs }: EngineConfig, folder: string, dryRun: boolean): Promise<BlobStore> {
  if (blobs !== undefined) {
    const { S3BlobStore } = await import('../blobs/s3/s3-blob-store.ts');
    return S3BlobStore.open(blobs);
  }
  const { DiskBlobStore } = await import('../blobs/disk/disk-blob-store.ts');
  return DiskBlobStore.open(await contentsFolder(folder), { uniqueKeys: true, readOnly: dryRun });
}

async function recoverInDatabase(
  engines: EngineConfig & { readonly catalog: ConnectionOptions },
  folder: string,
  flags: Flags,
): Promise<Recovery<object>> {
  const { dryRun = false } = flags;
  const { PostgresCatalog } = await import('../catalog/postgres/postgres-catalog.ts');
  const { recoverDatabase } = await import('../maintenance/recovery/recover-database.ts');
  const blobs = await openBlobs(engines, folder, dryRun);
  try {
    await using catalog = await PostgresCatalog.open({
      ...engines.catalog,
      queryTimeoutMs,
      placer: blobs,
      existing: dryRun ? 'as-it-is' : 'upgrade',
    });
    return await recoverDatabase(catalog, blobs, { ...flags, listener: stepsFor(flags) });
  } finally {
    await blobs.close();
  }
}

async function recoverInFolder(folder: string, flags: Flags, place?: BlobPlace): Promise<Recovery<object>> {
  await refuseOthersFolders([folder]);
  const file = fileURLToPath(import.meta.url);
  return recoverFolder(folder, {
    full: flags.full,
    dryRun: flags.dryRun,
    compare: (one, other) => compareInChild(file, one, other),
    place,
    listener: stepsFor(flags),
  });
}

async function recoverStore(address: string, flags: Flags): Promise<Recovery<object>> {
  if (!namesEngines(address)) return recoverInFolder(address, flags);
  const { folder = '', engines } = readStoreAddress(address, flags);
  const { catalog, blobs } = engines;
  if (catalog !== undefined) return recoverInDatabase({ ...engines, catalog }, folder, flags);
  if (blobs === undefined) return recoverInFolder(folder, flags);
  const { S3BlobStore } = await import('../blobs/s3/s3-blob-store.ts');
  const { BucketBlobs } = await import('../maintenance/recovery/bucket-blobs.ts');
  await using place = new BucketBlobs(await S3BlobStore.open(blobs), { acceptLoss: flags.acceptLoss });
  return await recoverInFolder(folder, flags, place);
}

async function run(address: string, flags: Flags): Promise<void> {
  const recovery = await recoverStore(address, flags);
  if (recovery.hasLosses) process.exitCode = exitCodes.failure;
  if (flags.json === true) printJson(recovery.report);
  else if (flags.silent !== true) print(recovery);
}

async function main(): Promise<void> {
  const [, , first, one, other] = process.argv;
  if (first === '--compare-catalogs' && one !== undefined && other !== undefined) {
    process.stdout.write(JSON.stringify(await compareIndexes(one, other)));
    return;
  }
  const command = new Command(program)
    .description(
      'Checks and repairs a store: rebuilds a lost or damaged catalog from journal and blobs, takes damaged parts out ' +
        'of the journal, and marks files whose blobs are lost. Damaged parts are moved to DIR/quarantine, never ' +
        'deleted. Stop the server of a store in a folder first; a store in PostgreSQL is checked and repaired while ' +
        'it is served.',
    )
    .version(release, '--version', 'show the version')
    .argument('<DIR>', 'folder of the store, or postgres://…,s3://…, or DIR with one of these')
    .option('-f, --full', 'read every blob and check its digest and size')
    .option('-s, --silent', 'print nothing but errors')
    .option('--dry-run', 'find everything, change nothing')
    .option('--accept-loss', 'continue even if blobs have to be given up that may only be stored elsewhere')
    .option('--json', 'print the report as JSON');
  await addEngineTuningOptions(inHouseStyle(command, program)).action(run).parseAsync();
}

await runToEnd(program, main);
