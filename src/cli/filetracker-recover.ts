#!/usr/bin/env node
import { Command } from 'commander';
import { fileURLToPath } from 'node:url';
import type { EngineTuningFlags } from '../config/engine-config.ts';
import { release } from '../core/release.ts';
import { namesEngines, readStoreAddress } from '../config/engine-config.ts';
import { compareIndexes } from '../catalog/lmdb/index/comparison.ts';
import { refuseOthersFolders } from '../maintenance/folder-owner.ts';
import { compareInChild } from '../maintenance/recovery/compare-in-child.ts';
import type { ContentPlace } from '../maintenance/recovery/content-place.ts';
import { recoverStore } from '../maintenance/recovery/recover.ts';
import type { RecoveryReport } from '../maintenance/recovery/recovery-report.ts';
import { addEngineTuningOptions } from './server/engine-options.ts';
import { stepsFor, titledList } from './maintenance-output.ts';
import { inHouseStyle } from './house-style.ts';
import { exitCodes, printLine } from './output.ts';
import { runToEnd } from './run-to-end.ts';

const program = 'filetracker-recover';

interface Flags extends EngineTuningFlags {
  readonly full?: boolean;
  readonly silent?: boolean;
  readonly dryRun?: boolean;
  readonly acceptLoss?: boolean;
  readonly json?: boolean;
}

function reportLines(report: RecoveryReport): string[] {
  const { actions, actionCount, damagedFiles, damagedFileCount, notes } = report;
  const { unreadableFiles, unreadableFileCount } = report;
  const done = actions.map(({ action, target, reason }) => `${action} ${target}: ${reason}`);
  const lines = [
    ...titledList(report.dryRun ? 'To be done' : 'Done', done, actionCount),
    ...titledList('Notes', notes),
    ...titledList(
      'Files whose content is lost; reading them answers an error until they are stored again',
      damagedFiles.map(({ name, version }) => `${name}@${version}`),
      damagedFileCount,
    ),
    ...titledList(
      'Files whose content the disk does not give; nothing was done about them',
      unreadableFiles.map(({ name, version }) => `${name}@${version}`),
      unreadableFileCount,
    ),
  ];
  if (report.quarantine !== undefined) lines.push(`Damaged things were moved to ${report.quarantine}`);
  if (actionCount + unreadableFileCount === 0) lines.push('The store is as it should be: nothing to do');
  return lines;
}

/** Whether files are not whole, or may not be. */
function hasLosses(report: RecoveryReport): boolean {
  const { damagedFileCount, unreadableFileCount, changesMayBeMissing } = report;
  return damagedFileCount + unreadableFileCount > 0 || changesMayBeMissing;
}

async function recoverFolder(folder: string, flags: Flags, contents?: ContentPlace): Promise<void> {
  const file = fileURLToPath(import.meta.url);
  await refuseOthersFolders([folder]);
  const report = await recoverStore(folder, {
    full: flags.full,
    dryRun: flags.dryRun,
    compare: (one, other) => compareInChild(file, one, other),
    contents,
    listener: stepsFor(flags),
  });
  if (hasLosses(report)) process.exitCode = exitCodes.failure;
  if (flags.json === true) printLine(JSON.stringify(report, null, 2));
  else if (flags.silent !== true) printLine(reportLines(report).join('\n'));
}

async function run(address: string, flags: Flags): Promise<void> {
  if (!namesEngines(address)) {
    await recoverFolder(address, flags);
    return;
  }
  // Loaded only here: what reaches the engines need not be installed.
  const { openBucket, recoverDatabase } = await import('./recover-scale-out.ts');
  const { folder, engines } = readStoreAddress(address, flags);
  if (engines.catalog !== undefined) {
    await recoverDatabase({ folder, engines: { ...engines, catalog: engines.catalog } }, flags);
    return;
  }
  const contents = await openBucket(engines, flags);
  try {
    await recoverFolder(folder ?? '', flags, contents);
  } finally {
    await contents.close();
  }
}

async function main(): Promise<void> {
  const [, , first, one, other] = process.argv;
  if (first === '--compare-catalogs' && one !== undefined && other !== undefined) {
    process.stdout.write(JSON.stringify(await compareIndexes(one, other)));
    return;
  }
  const command = new Command(program)
    .description(
      'Checks a store and mends it: rebuilds a lost or damaged catalog from journal and blobs, takes damaged ' +
        'parts out of the journal, and marks files whose content is lost. What is damaged is moved to ' +
        'DIR/quarantine, never deleted. No server may have the store open. A store in PostgreSQL is checked and ' +
        'mended while it is served.',
    )
    .version(release, '--version', 'show the version')
    .argument('<DIR>', 'folder of the store, or postgres://…,s3://…, or DIR with one of these')
    .option('-f, --full', 'read every blob and check its digest and size')
    .option('-s, --silent', 'print nothing but errors')
    .option('--dry-run', 'find everything, change nothing')
    .option('--accept-loss', 'go on where contents have to be given up that may only be elsewhere')
    .option('--json', 'print the report as JSON');
  await addEngineTuningOptions(inHouseStyle(command, program)).action(run).parseAsync();
}

await runToEnd(program, main);
