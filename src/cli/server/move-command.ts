import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { pino, type Logger } from 'pino';
import { openStore, type OpenStore } from '../../runtime/open-store.ts';
import { readStoreAddress } from '../../config/back-end-config.ts';
import { readSettings } from '../../config/setting.ts';
import { refuseOthersFolders } from '../../maintenance/folder-owner.ts';
import { contentsFolder, findStore } from '../../maintenance/folder-kind.ts';
import { moveStore, type MoveReport } from '../../maintenance/migration/move.ts';
import { stepsFor, titledList } from '../maintenance-output.ts';
import { exitCodes, printJson, printLine } from '../output.ts';
import { moveSection, type MoveFlags } from './commands.ts';

/** Unreferenced blobs are kept for a day: longer than a move takes to reference them again. */
const collectionGraceMs = 24 * 3_600_000;

async function open(
  address: string,
  flags: MoveFlags,
  options: { readonly logger: Logger; readonly scratch: string; readonly mustExist: boolean },
): Promise<OpenStore> {
  const { logger, scratch, mustExist } = options;
  const { folder = scratch, backEnds } = readStoreAddress(address, flags);
  if (mustExist && backEnds.catalog === undefined) await findStore(folder);
  else if (mustExist && backEnds.blobs === undefined) await contentsFolder(folder);
  const catalogMustExist = mustExist;
  return openStore({ folder, backEnds, collectionGraceMs, exclusive: true, catalogMustExist }, logger);
}

function tell(report: MoveReport): void {
  const { entries, copied, copiedBytes, others, damaged, missing } = report;
  printLine(`${entries} files; ${copied} copied, ${copiedBytes} bytes; ${others} others in the target`);
  const lines = [
    ...titledList(
      'Not copied: the blob is damaged in the source',
      damaged.map(({ name, reason }) => `${name}: ${reason}`),
    ),
    ...titledList('Missing in the target; run the move again', missing),
  ];
  for (const line of lines) process.stderr.write(`${line}\n`);
}

/** `move`. */
export async function move(flags: MoveFlags): Promise<void> {
  const { from, to, jobs } = readSettings(moveSection, flags);
  const addresses = [from, to].map((address) => readStoreAddress(address, flags));
  const folders = addresses.flatMap(({ folder }) => (folder === undefined ? [] : [folder]));
  await refuseOthersFolders(folders, { mayMake: true });
  const logger = pino({ level: 'error' }, pino.destination({ dest: 2, sync: true }));
  const scratch = await mkdtemp(join(tmpdir(), 'filetracker-move-'));
  const opened: OpenStore[] = [];
  try {
    const source = await open(from, flags, { logger, scratch, mustExist: true });
    opened.push(source);
    const target = await open(to, flags, { logger, scratch, mustExist: false });
    opened.push(target);
    const report = await moveStore(source.files, target.files, {
      jobs,
      listener: stepsFor(flags),
    });
    if (flags.json === true) printJson(report);
    else if (flags.quiet !== true) tell(report);
    if (report.missing.length + report.damaged.length > 0) process.exitCode = exitCodes.failure;
  } finally {
    for (const store of opened.toReversed()) await store.close();
    await rm(scratch, { recursive: true, force: true });
  }
}
