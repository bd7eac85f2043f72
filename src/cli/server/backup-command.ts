import { Command } from 'commander';
import { refuseOthersFolders } from '../../maintenance/folder-owner.ts';
import { backupStore } from '../../maintenance/backup/backup.ts';
import type { CopiedBlobs } from '../../maintenance/backup/copy-blobs.ts';
import { parseTimeMs, restoreStore } from '../../maintenance/backup/restore.ts';
import { inHouseStyle } from '../house-style.ts';
import { stepsFor, titledList } from '../maintenance-output.ts';
import { exitCodes, printJson, printLine } from '../output.ts';

interface Flags {
  readonly at?: string;
  readonly silent?: true;
  readonly json?: true;
}

function tellNotCopied({ missing, unreadable }: CopiedBlobs, flags: Flags): void {
  if (missing.length + unreadable.length === 0) return;
  process.exitCode = exitCodes.failure;
  if (flags.json === true) return;
  const lines = [
    ...titledList(
      'Contents that names refer to and that are gone from the disk; run filetracker-recover',
      missing,
    ),
    ...titledList('Contents that the disk does not give; all else was copied', unreadable),
  ];
  for (const line of lines) process.stderr.write(`${line}\n`);
}

function tellDamage(damage: readonly string[], flags: Flags): void {
  if (damage.length === 0) return;
  process.exitCode = exitCodes.failure;
  if (flags.json === true) return;
  const title = 'The journal of the backup is damaged; changes that were recorded there are missing';
  for (const line of titledList(title, damage)) process.stderr.write(`${line}\n`);
}

async function backup(store: string, target: string, flags: Flags): Promise<void> {
  await refuseOthersFolders([store, target], { mayMake: true });
  const report = await backupStore(store, target, { listener: stepsFor(flags) });
  if (flags.json === true) printJson(report);
  else if (flags.silent !== true) {
    const { entries, blobs, timeMs, putAside } = report;
    const time = new Date(timeMs).toISOString();
    if (putAside !== undefined)
      printLine(`What a server had changed in the backup was put aside: ${putAside}`);
    printLine(`Snapshot of ${time}: ${entries} files; ${blobs.added} of ${blobs.blobs} large blobs are new`);
  }
  tellNotCopied(report.blobs, flags);
}

async function restore(source: string, store: string, flags: Flags): Promise<void> {
  const atMs = flags.at === undefined ? undefined : parseTimeMs(flags.at);
  await refuseOthersFolders([source, store], { mayMake: true });
  const report = await restoreStore(source, store, { listener: stepsFor(flags), atMs });
  if (flags.json === true) printJson(report);
  else if (flags.silent !== true) {
    for (const gap of report.gaps) printLine(`Note: ${gap}`);
    printLine(`${report.entries} files are in ${report.store}`);
    printLine(`Serve them with: filetracker-server -d ${report.store}`);
  }
  tellNotCopied(report.blobs, flags);
  tellDamage(report.damage, flags);
}

/** Runs `backup` or `restore`, of which each has a help page of its own. */
export async function runBackupCommand(
  program: string,
  name: 'backup' | 'restore',
  args: readonly string[],
): Promise<void> {
  const command = new Command(`${program} ${name}`)
    .option('-s, --silent', 'print nothing but errors')
    .option('--json', 'print the report as JSON');
  inHouseStyle(command, `${program} ${name}`);
  if (name === 'backup') {
    command
      .description(
        'Takes a snapshot of a store, while a server may use it. TARGET is a store itself; backed up to again, it takes ' +
          'only what is new, and keeps the earlier snapshots.',
      )
      .argument('<DIR>', 'folder of the store')
      .argument('<TARGET>', 'folder of the backup: empty, or a backup already')
      .action(backup);
  } else {
    command
      .description('Makes a store anew from a backup, as it was at its last snapshot or at any time before.')
      .argument('<BACKUP>', 'folder of the backup')
      .argument('<DIR>', 'folder of the new store; it must be empty')
      .option('--at <time>', 'the state at this time, as 2026-11-23T10:00:00Z or seconds since 1970')
      .action(restore);
  }
  await command.parseAsync([...args], { from: 'user' });
}
