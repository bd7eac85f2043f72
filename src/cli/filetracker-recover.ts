#!/usr/bin/env node
import { fileURLToPath } from 'node:url';
import type { BlobStore } from '../blobs/blob-store.ts';
import { namesBackEnds, readStoreAddress, type BackEndConfig } from '../config/back-end-config.ts';
import { compareIndexes } from '../catalog/lmdb/index/comparison.ts';
import type { ConnectionOptions } from '../catalog/postgres/pools.ts';
import { contentsFolder } from '../maintenance/folder-kind.ts';
import { refuseOthersFolders } from '../maintenance/folder-owner.ts';
import type { BlobPlace } from '../maintenance/recovery/blob-place.ts';
import { compareInChild } from '../maintenance/recovery/compare-in-child.ts';
import { recoverFolder } from '../maintenance/recovery/recover-folder.ts';
import { findingKinds, type Finding, type Recovery } from '../maintenance/recovery/recover.ts';
import { runCommand } from './commands.ts';
import { recoverSpec, type RecoverFlags } from './maintenance-commands.ts';
import { stepsFor, titledList } from './maintenance-output.ts';
import { exitCodes, printJson, printLine } from './output.ts';
import { runToEnd } from './run-to-end.ts';

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
  if (report.quarantine !== undefined) printLine(`Damaged parts were moved to ${report.quarantine}`);
  const remaining = (['warning', 'repair', 'unreadable-file', 'unreadable-blob'] as const).some(
    (kind) => findings.of(kind).count > 0,
  );
  if (!remaining) printLine(`${hasLosses ? 'Otherwise the' : 'The'} store is intact: nothing to do`);
}

/** A dry run changes nothing in a folder. Loads a back end only if the address names it: it need not be installed. */
async function openBlobs({ blobs }: BackEndConfig, folder: string, dryRun: boolean): Promise<BlobStore> {
  if (blobs !== undefined) {
    const { S3BlobStore } = await import('../blobs/s3/s3-blob-store.ts');
    return S3BlobStore.open(blobs);
  }
  const { DiskBlobStore } = await import('../blobs/disk/disk-blob-store.ts');
  return DiskBlobStore.open(await contentsFolder(folder), { uniqueKeys: true, readOnly: dryRun });
}

async function recoverInDatabase(
  backEnds: BackEndConfig & { readonly catalog: ConnectionOptions },
  folder: string,
  flags: RecoverFlags,
): Promise<Recovery<object>> {
  const { dryRun = false } = flags;
  const { PostgresCatalog } = await import('../catalog/postgres/postgres-catalog.ts');
  const { recoverDatabase } = await import('../maintenance/recovery/recover-database.ts');
  const blobs = await openBlobs(backEnds, folder, dryRun);
  try {
    await using catalog = await PostgresCatalog.open({
      ...backEnds.catalog,
      queryTimeoutMs,
      placer: blobs,
      existing: dryRun ? 'as-it-is' : 'upgrade',
    });
    return await recoverDatabase(catalog, blobs, { ...flags, listener: stepsFor(flags) });
  } finally {
    await blobs.close();
  }
}

async function recoverInFolder(
  folder: string,
  flags: RecoverFlags,
  place?: BlobPlace,
): Promise<Recovery<object>> {
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

async function recoverStore(address: string, flags: RecoverFlags): Promise<Recovery<object>> {
  if (!namesBackEnds(address)) return recoverInFolder(address, flags);
  const { folder = '', backEnds } = readStoreAddress(address, flags);
  const { catalog, blobs } = backEnds;
  if (catalog !== undefined) return recoverInDatabase({ ...backEnds, catalog }, folder, flags);
  if (blobs === undefined) return recoverInFolder(folder, flags);
  const { S3BlobStore } = await import('../blobs/s3/s3-blob-store.ts');
  const { BucketBlobs } = await import('../maintenance/recovery/bucket-blobs.ts');
  await using place = new BucketBlobs(await S3BlobStore.open(blobs), { acceptLoss: flags.acceptLoss });
  return await recoverInFolder(folder, flags, place);
}

async function run(address: string, flags: RecoverFlags): Promise<void> {
  const recovery = await recoverStore(address, flags);
  if (recovery.hasLosses) process.exitCode = exitCodes.failure;
  if (flags.json === true) printJson(recovery.report);
  else if (flags.quiet !== true) print(recovery);
}

async function main(): Promise<void> {
  const [, , first, one, other] = process.argv;
  if (first === '--compare-catalogs' && one !== undefined && other !== undefined) {
    process.stdout.write(JSON.stringify(await compareIndexes(one, other)));
    return;
  }
  await runCommand(recoverSpec, { '': run });
}

await runToEnd(recoverSpec.name, main);
