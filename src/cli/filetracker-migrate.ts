#!/usr/bin/env node
import { Command } from 'commander';
import { release } from '../core/release.ts';
import { FiletrackerError } from '../core/errors.ts';
import { refuseOthersFolders } from '../maintenance/folder-owner.ts';
import type { AdoptionReport } from '../maintenance/migration/legacy/adopt.ts';
import type { MigrationReport, MigrationTarget } from '../maintenance/migration/migrate.ts';
import { inHouseStyle } from './house-style.ts';
import { stepsFor, titledList } from './maintenance-output.ts';
import { exitCodes, printJson, printLine } from './output.ts';
import { runToEnd } from './run-to-end.ts';

const program = 'filetracker-migrate';

interface Flags {
  readonly root?: string;
  readonly jobs?: string;
  readonly adopt?: true;
  readonly adopt1x?: true;
  readonly silent?: true;
  readonly json?: true;
}

const description =
  'Brings a tree of files to a server: the name of a file is its path relative to ROOT, its version ' +
  'the time of its modification. What is there already is not sent, so it can be interrupted and run again. ' +
  'With --adopt, takes a folder of the old server over into a new store on the same machine.';

const examples = `
Examples:
  ${program} /srv/files http://localhost:9999
  ${program} --adopt /srv/filetracker-2 /srv/filetracker-3
  ${program} --adopt-1x /srv/filetracker-1 /srv/filetracker-3`;

function describeProgram(): Command {
  const command = new Command(program)
    .description(description)
    .version(release, '--version', 'show the version')
    .argument('<FILES>', 'folder to bring, or with --adopt the folder of the old server')
    .argument('<URL>', 'base URL of the server, or with --adopt the folder of the new store')
    .option('--root <folder>', 'folder that names are relative to (default: FILES)')
    .option('-j, --jobs <number>', 'files under way at once (default: 8)')
    .option('--adopt', 'take a folder of filetracker 2 over: by hard links, nothing in it is changed')
    .option('--adopt-1x', 'take a folder of filetracker 1 over (plain files): by copies')
    .option('-s, --silent', 'print nothing but errors')
    .option('--json', 'print the report as JSON')
    .addHelpText('after', examples);
  return inHouseStyle(command, program);
}

function readJobs(text: string | undefined): number | undefined {
  if (text === undefined) return undefined;
  const jobs = /^\d{1,3}$/.test(text) ? Number(text) : 0;
  if (jobs > 0) return jobs;
  throw new FiletrackerError(
    'invalid-argument',
    `Cannot use --jobs "${text}": it must be a number from 1 to 999`,
  );
}

async function bringToServer(files: string, url: string, flags: Flags): Promise<MigrationReport> {
  const { Client } = await import('../client/client.ts');
  const { optionsFromEnvironment } = await import('../client/client-options.ts');
  const { defaultJobs, migrateTree } = await import('../maintenance/migration/migrate.ts');
  const jobs = readJobs(flags.jobs) ?? defaultJobs;
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
  return await migrateTree(files, target, { listener: stepsFor(flags), jobs, root: flags.root });
}

function tellMigration(report: MigrationReport, flags: Flags): void {
  const lines = (items: MigrationReport['errors']): string[] =>
    items.map(({ path, reason }) => `${path}: ${reason}`);
  if (flags.json === true) printJson(report);
  else if (flags.silent !== true) {
    const { files, stored, deduplicated, present, superseded, vanishedCount, skipped, skippedCount } = report;
    for (const line of titledList('Skipped', lines(skipped), skippedCount)) printLine(line);
    printLine(
      `${files} files: ${stored} stored (${deduplicated} without sending their content), ` +
        `${present} there already, ${superseded} there in a newer version` +
        (vanishedCount > 0 ? `, ${vanishedCount} removed meanwhile` : ''),
    );
  }
  if (report.errorCount === 0) return;
  process.exitCode = exitCodes.failure;
  if (flags.json === true) return;
  for (const line of titledList('Failed', lines(report.errors), report.errorCount))
    process.stderr.write(`${line}\n`);
}

function tellAdoption(report: AdoptionReport, flags: Flags): void {
  const { names, blobs, problems, problemCount, store } = report;
  const lines = titledList(
    'Not taken over as they should be',
    problems.map(({ path, reason }) => `${path}: ${reason}`),
    problemCount,
  );
  if (flags.json === true) printJson(report);
  else if (flags.silent !== true) {
    for (const line of lines) printLine(line);
    printLine(`${names} names with ${blobs} blobs are in ${store}`);
    printLine(`Serve it with: filetracker-server -d ${store}`);
  }
  if (problemCount > 0) process.exitCode = exitCodes.failure;
}

async function main(): Promise<void> {
  const command = describeProgram();
  command.parse();
  const [files = '', target = ''] = command.args;
  const flags = command.opts<Flags>();
  if (flags.adopt === true && flags.adopt1x === true) {
    throw new FiletrackerError(
      'invalid-argument',
      'Cannot use --adopt with --adopt-1x: a folder is of version 2, with links/ and blobs/, or of version 1, with files/',
    );
  }
  if (flags.adopt === true) {
    const { adoptLegacyFolder } = await import('../maintenance/migration/legacy/adopt.ts');
    await refuseOthersFolders([files, target], { mayMake: true });
    tellAdoption(await adoptLegacyFolder(files, target, { listener: stepsFor(flags) }), flags);
  } else if (flags.adopt1x === true) {
    const { adoptPlainFiles } = await import('../maintenance/migration/legacy/adopt-plain-files.ts');
    const options = { listener: stepsFor(flags), jobs: readJobs(flags.jobs) };
    await refuseOthersFolders([files, target], { mayMake: true });
    tellMigration(await adoptPlainFiles(files, target, options), flags);
  } else {
    tellMigration(await bringToServer(files, target, flags), flags);
  }
}

await runToEnd(program, main);
