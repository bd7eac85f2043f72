import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { Command } from 'commander';
import { pino, type Logger } from 'pino';
import type { EngineTuningFlags } from '../../config/engine-config.ts';
import { openStore, type OpenStore } from '../../runtime/open-store.ts';
import { readStoreAddress } from '../../config/engine-config.ts';
import { refuseOthersFolders } from '../../maintenance/folder-owner.ts';
import { contentsFolder, findStore } from '../../maintenance/folder-kind.ts';
import { moveStore, type MoveReport } from '../../maintenance/migration/move.ts';
import { addEngineTuningOptions } from './engine-options.ts';
import { inHouseStyle } from '../house-style.ts';
import { stepsFor, titledList } from '../maintenance-output.ts';
import { exitCodes, printJson, printLine } from '../output.ts';

interface Flags extends EngineTuningFlags {
  readonly from: string;
  readonly to: string;
  readonly jobs?: string;
  readonly silent?: true;
  readonly json?: true;
}

/** Content without a name is kept for a day: more than a move takes to name it again. */
const collectionGraceMs = 24 * 3_600_000;

async function open(
  address: string,
  flags: Flags,
  options: { readonly logger: Logger; readonly scratch: string; readonly mustExist: boolean },
): Promise<OpenStore> {
  const { logger, scratch, mustExist } = options;
  const { folder = scratch, engines } = readStoreAddress(address, flags);
  if (mustExist && engines.catalog === undefined) await findStore(folder);
  else if (mustExist && engines.blobs === undefined) await contentsFolder(folder);
  const catalogMustExist = mustExist;
  return openStore({ folder, engines, collectionGraceMs, exclusive: true, catalogMustExist }, logger);
}

function tell(report: MoveReport): void {
  const { entries, copied, copiedBytes, others, damaged, missing } = report;
  printLine(`${entries} files; ${copied} copied, ${copiedBytes} bytes; ${others} others in the target`);
  const lines = [
    ...titledList(
      'Not copied, because the content is damaged in the source',
      damaged.map(({ name, reason }) => `${name}: ${reason}`),
    ),
    ...titledList('Not in the target; run it again', missing),
  ];
  for (const line of lines) process.stderr.write(`${line}\n`);
}

async function move(flags: Flags): Promise<void> {
  const addresses = [flags.from, flags.to].map((address) => readStoreAddress(address, flags));
  const folders = addresses.flatMap(({ folder }) => (folder === undefined ? [] : [folder]));
  await refuseOthersFolders(folders, { mayMake: true });
  await moveAll(flags);
}

async function moveAll(flags: Flags): Promise<void> {
  const logger = pino({ level: 'error' }, pino.destination({ dest: 2, sync: true }));
  const scratch = await mkdtemp(join(tmpdir(), 'filetracker-move-'));
  const opened: OpenStore[] = [];
  try {
    const source = await open(flags.from, flags, { logger, scratch, mustExist: true });
    opened.push(source);
    const target = await open(flags.to, flags, { logger, scratch, mustExist: false });
    opened.push(target);
    const report = await moveStore(source.files, target.files, {
      jobs: flags.jobs === undefined ? undefined : Math.max(1, Math.trunc(Number(flags.jobs)) || 1),
      listener: stepsFor(flags),
    });
    if (flags.json === true) printJson(report);
    else if (flags.silent !== true) tell(report);
    if (report.missing.length + report.damaged.length > 0) process.exitCode = exitCodes.failure;
  } finally {
    for (const store of opened.toReversed()) await store.close();
    await rm(scratch, { recursive: true, force: true });
  }
}

/** Runs `move`, which has a help page of its own. */
export async function runMoveCommand(program: string, args: readonly string[]): Promise<void> {
  const command = new Command(`${program} move`)
    .description(
      'Brings every file of one store to another, on whatever engines they are. A store in a folder must not be ' +
        'served meanwhile. Can be interrupted and run again; every content is verified on its way.',
    )
    .requiredOption('--from <store>', 'DIR, or postgres://…,s3://…, or DIR with one of these')
    .requiredOption('--to <store>', 'the same; made where it is missing')
    .option('--jobs <number>', 'files copied side by side (default: 16)')
    .option('-s, --silent', 'print nothing but errors')
    .option('--json', 'print the report as JSON');
  await addEngineTuningOptions(inHouseStyle(command, `${program} move`))
    .action(move)
    .parseAsync([...args], { from: 'user' });
}
