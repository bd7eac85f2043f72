import { refuseOthersFolders } from '../../maintenance/folder-owner.ts';
import { backupStore } from '../../maintenance/backup/backup.ts';
import type { CopiedBlobs } from '../../maintenance/backup/copy-blobs.ts';
import { parseTimeMs, restoreStore } from '../../maintenance/backup/restore.ts';
import { stepsFor, titledList } from '../maintenance-output.ts';
import { exitCodes, printJson, printLine } from '../output.ts';
import type { ReportFlags, RestoreFlags } from './commands.ts';

function tellNotCopied({ missing, unreadable }: CopiedBlobs, flags: ReportFlags): void {
  if (missing.length + unreadable.length === 0) return;
  process.exitCode = exitCodes.failure;
  if (flags.json === true) return;
  const lines = [
    ...titledList('Blobs that are missing from the disk; run filetracker-recover', missing),
    ...titledList('Blobs that cannot be read; all others were copied', unreadable),
  ];
  for (const line of lines) process.stderr.write(`${line}\n`);
}

function tellDamage(damage: readonly string[], flags: ReportFlags): void {
  if (damage.length === 0) return;
  process.exitCode = exitCodes.failure;
  if (flags.json === true) return;
  const title = 'The journal of the backup is damaged; these parts of it are missing';
  for (const line of titledList(title, damage)) process.stderr.write(`${line}\n`);
}

export async function backup(store: string, target: string, flags: ReportFlags): Promise<void> {
  await refuseOthersFolders([store, target], { mayMake: true });
  const report = await backupStore(store, target, { listener: stepsFor(flags) });
  if (flags.json === true) printJson(report);
  else if (flags.quiet !== true) {
    const { entries, blobs, timeMs, putAside } = report;
    const time = new Date(timeMs).toISOString();
    if (putAside !== undefined)
      printLine(`Changes that a server made in the backup were moved to ${putAside}`);
    printLine(`Snapshot of ${time}: ${entries} files; ${blobs.added} of ${blobs.blobs} large blobs are new`);
  }
  tellNotCopied(report.blobs, flags);
}

export async function restore(source: string, store: string, flags: RestoreFlags): Promise<void> {
  const atMs = flags.at === undefined ? undefined : parseTimeMs(flags.at);
  await refuseOthersFolders([source, store], { mayMake: true });
  const report = await restoreStore(source, store, { listener: stepsFor(flags), atMs });
  if (flags.json === true) printJson(report);
  else if (flags.quiet !== true) {
    for (const gap of report.gaps) printLine(`Note: ${gap}`);
    printLine(`${report.entries} files are in ${report.store}`);
    printLine(`Serve them with: filetracker-server -d ${report.store}`);
  }
  tellNotCopied(report.blobs, flags);
  tellDamage(report.damage, flags);
}
