#!/usr/bin/env node
import { readSettings } from '../config/setting.ts';
import { FiletrackerError } from '../core/errors.ts';
import { refuseOthersFolders } from '../maintenance/folder-owner.ts';
import type { AdoptionReport } from '../maintenance/migration/legacy/adopt.ts';
import type { Excludes } from '../maintenance/migration/file-tree.ts';
import type { MigrationReport, MigrationTarget } from '../maintenance/migration/migrate.ts';
import { runCommand } from './commands.ts';
import { migrateSection, migrateSpec, type MigrateFlags } from './maintenance-commands.ts';
import { stepsFor, titledList } from './maintenance-output.ts';
import { exitCodes, printJson, printLine } from './output.ts';
import { runToEnd } from './run-to-end.ts';

async function copyToServer(files: string, url: string, flags: MigrateFlags): Promise<MigrationReport> {
  const { Client } = await import('../client/client.ts');
  const { optionsFromEnvironment } = await import('../client/client-options.ts');
  const { defaultJobs, migrateTree } = await import('../maintenance/migration/migrate.ts');
  const { jobs = defaultJobs, root } = readSettings(migrateSection, flags);
  const { patientRetries } = await import('../client/http/retries.ts');
  const { tls, retries } = optionsFromEnvironment();
  await using client = new Client({
    remoteUrl: url,
    connections: jobs,
    tls,
    retries: { ...patientRetries, ...retries },
  });
  const target: MigrationTarget = {
    stat: (name) => client.stat({ name }),
    put: ({ name, version, path }, signal) =>
      client.putFile({ name, version }, path, { toLocalStore: false, signal }),
  };
  const excludes = await exclusionsOf(flags);
  return await migrateTree(files, target, { listener: stepsFor(flags), jobs, root, excludes });
}

async function exclusionsOf({ exclude }: MigrateFlags): Promise<Excludes | undefined> {
  if (exclude === undefined) return undefined;
  const { Exclusions } = await import('../client/sync/exclusions.ts');
  const exclusions = new Exclusions(exclude);
  return (relative, kind) => exclusions.matches(relative, kind);
}

function tellMigration(report: MigrationReport, flags: MigrateFlags): void {
  const lines = (items: MigrationReport['errors']): string[] =>
    items.map(({ path, reason }) => `${path}: ${reason}`);
  if (flags.json === true) printJson(report);
  else if (flags.quiet !== true) {
    const { files, stored, deduplicated, present, superseded, vanishedCount, skipped, skippedCount } = report;
    for (const line of titledList('Skipped', lines(skipped), skippedCount)) printLine(line);
    printLine(
      `${files} files: ${stored} stored (${deduplicated} of them without an upload), ` +
        `${present} present already, ${superseded} present in a newer version` +
        (vanishedCount > 0 ? `, ${vanishedCount} removed during the migration` : ''),
    );
  }
  if (report.errorCount === 0) return;
  process.exitCode = exitCodes.failure;
  if (flags.json === true) return;
  for (const line of titledList('Failed', lines(report.errors), report.errorCount))
    process.stderr.write(`${line}\n`);
}

function tellAdoption(report: AdoptionReport, flags: MigrateFlags): void {
  const { names, blobs, problems, problemCount, store } = report;
  const lines = titledList(
    'Not adopted',
    problems.map(({ path, reason }) => `${path}: ${reason}`),
    problemCount,
  );
  if (flags.json === true) printJson(report);
  else if (flags.quiet !== true) {
    for (const line of lines) printLine(line);
    printLine(`${names} names with ${blobs} blobs are in ${store}`);
    printLine(`Serve it with: filetracker-server -d ${store}`);
  }
  if (problemCount > 0) process.exitCode = exitCodes.failure;
}

async function migrate(files: string, target: string, flags: MigrateFlags): Promise<void> {
  if (flags.adopt === true && flags.adopt1x === true) {
    throw new FiletrackerError(
      'invalid-argument',
      'Cannot use --adopt with --adopt-1x: a folder is of version 2, with links/ and blobs/, or of version 1, with files/',
    );
  }
  if (flags.adopt === true) {
    if (flags.exclude !== undefined) {
      const text = 'Cannot use --exclude with --adopt: a folder of filetracker 2 is adopted whole';
      throw new FiletrackerError('invalid-argument', text);
    }
    const { adoptLegacyFolder } = await import('../maintenance/migration/legacy/adopt.ts');
    await refuseOthersFolders([files, target], { mayMake: true });
    tellAdoption(await adoptLegacyFolder(files, target, { listener: stepsFor(flags) }), flags);
  } else if (flags.adopt1x === true) {
    const { adoptPlainFiles } = await import('../maintenance/migration/legacy/adopt-plain-files.ts');
    const { jobs } = readSettings(migrateSection, flags);
    const options = { listener: stepsFor(flags), jobs, excludes: await exclusionsOf(flags) };
    await refuseOthersFolders([files, target], { mayMake: true });
    tellMigration(await adoptPlainFiles(files, target, options), flags);
  } else {
    tellMigration(await copyToServer(files, target, flags), flags);
  }
}

await runToEnd(migrateSpec.name, () => runCommand(migrateSpec, { '': migrate }));
