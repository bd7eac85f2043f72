import { readSettings } from '../../config/setting.ts';
import { formatSize } from '../../core/quantities.ts';
import { refuseOthersFolders } from '../../maintenance/folder-owner.ts';
import { backupStore } from '../../maintenance/backup/backup.ts';
import { requireBackup } from '../../maintenance/backup/backup-layout.ts';
import { checkBackup } from '../../maintenance/backup/check.ts';
import type { CopiedBlobs } from '../../maintenance/backup/copy-blobs.ts';
import { pruneBackup } from '../../maintenance/backup/prune.ts';
import { parseTimeMs, restoreStore } from '../../maintenance/backup/restore.ts';
import { stepsFor, titledList } from '../maintenance-output.ts';
import { exitCodes, printJson, printLine } from '../output.ts';
import {
  pruneSection,
  type CheckBackupFlags,
  type ListBackupFlags,
  type PruneFlags,
  type ReportFlags,
  type RestoreFlags,
} from './commands.ts';

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
    if (report.sharesDisk) {
      const note =
        'Note: the backup is on the disk of the store, and shares its files by hard links: it does not help if';
      printLine(`${note} the disk fails. Keep another one on another disk.`);
    }
  }
  tellNotCopied(report.blobs, flags);
}

export async function restore(source: string, store: string, flags: RestoreFlags): Promise<void> {
  const atMs = flags.at === undefined ? undefined : parseTimeMs(flags.at, Date.now());
  await refuseOthersFolders([source, store], { mayMake: true });
  const report = await restoreStore(source, store, { listener: stepsFor(flags), atMs });
  if (flags.json === true) printJson(report);
  else if (flags.quiet !== true) {
    for (const gap of report.gaps) printLine(`Note: ${gap}`);
    printLine(`${report.entries} files are in ${report.store}`);
    printLine(`Serve them with: filetracker-server -d ${report.store}`);
    printLine(
      'Back the new store up to a new folder: it has a new journal, which the old backup does not take.',
    );
  }
  tellNotCopied(report.blobs, flags);
  tellDamage(report.damage, flags);
}

export async function listBackup(target: string, flags: ListBackupFlags): Promise<void> {
  await refuseOthersFolders([target]);
  const snapshots = await requireBackup(target, `list the backup "${target}"`);
  for (const { timeMs, entries, logicalBytes, folder } of snapshots) {
    const time = new Date(timeMs).toISOString();
    if (flags.json === true) printJson({ time, timeMs, entries, logicalBytes, folder });
    else {
      const files = entries === undefined ? '' : `${entries} files`;
      const size = logicalBytes === undefined ? '' : formatSize(logicalBytes);
      printLine(`${time}  ${files.padStart(16)}  ${size.padStart(10)}`.trimEnd());
    }
  }
}

export async function prune(target: string, flags: PruneFlags): Promise<void> {
  await refuseOthersFolders([target]);
  const rules = readSettings(pruneSection, flags);
  const { dryRun } = flags;
  const report = await pruneBackup(target, rules, { listener: stepsFor(flags), dryRun });
  if (flags.json === true) printJson(report);
  else if (flags.quiet !== true) {
    for (const timeMs of report.removedMs)
      printLine(
        `${dryRun === true ? 'Would remove' : 'Removed'} the snapshot of ${new Date(timeMs).toISOString()}`,
      );
    const { removed, removedBytes } = report.blobs;
    const blobs = `${removed} large blobs (${formatSize(removedBytes)})`;
    const kept = `${report.keptMs.length} snapshots are kept`;
    printLine(dryRun === true ? `Would remove ${blobs}; ${kept}` : `Removed ${blobs}; ${kept}`);
  }
}

export async function check(target: string, flags: CheckBackupFlags): Promise<void> {
  await refuseOthersFolders([target]);
  const report = await checkBackup(target, { listener: stepsFor(flags), full: flags.full });
  if (!report.intact) process.exitCode = exitCodes.failure;
  if (flags.json === true) {
    printJson(report);
    return;
  }
  for (const { timeMs, damage, badBlobs, badBlobsCount } of report.snapshots) {
    const time = new Date(timeMs).toISOString();
    const lines = [
      ...titledList(`Damage in the journal of the snapshot of ${time}`, damage),
      ...titledList(
        `Blobs that the snapshot of ${time} needs and that are missing or damaged`,
        badBlobs,
        badBlobsCount,
      ),
    ];
    for (const line of lines) process.stderr.write(`${line}\n`);
  }
  for (const line of titledList('Blobs whose bytes are damaged', report.damagedBlobs))
    process.stderr.write(`${line}\n`);
  if (flags.quiet !== true && report.intact) printLine(`${report.snapshots.length} snapshots are intact`);
}
