#!/usr/bin/env node
import { Command } from 'commander';
import { release } from '../core/release.ts';
import { cleanCaches } from '../client/cache/cleaner.ts';
import { expandGlob } from '../client/cache/glob.ts';
import { fromLocalError } from '../client/local-errors.ts';
import { formatSize } from '../client/size-text.ts';
import { FiletrackerError, messageOf } from '../core/errors.ts';
import { parseDurationMs, parseSizeBytes } from '../core/quantities.ts';
import { pause } from '../core/timers.ts';
import { inHouseStyle } from './house-style.ts';
import { exitCodes, printJson, tell } from './output.ts';
import { runToEnd } from './run-to-end.ts';
import { asShown } from './shown-text.ts';

const program = 'filetracker-cache-cleaner';

interface Options {
  readonly cacheDirs: readonly string[];
  readonly scanInterval?: string;
  readonly cacheSizeLimit: string;
  readonly percentCleaningLevel?: string;
  readonly once?: boolean;
  readonly json?: boolean;
  readonly debug?: boolean;
  readonly quiet?: boolean;
}

const notes = `
Cleans caches of the filetracker program and of the Python client. When together
they take SIZE, the least recently used files of all of them are removed until
PERCENT of SIZE is left. Files in use and pinned ones stay. A folder that cannot
be cleaned is reported once; with --once the exit code is 1 then. Run by root,
the cleaner acts as the owner of each folder. A folder that is called like a
pattern itself, such as proj[1], is taken literally.

Sizes are bytes, or chain the units B K M G T (also KB, KiB), each 1,024 times
the one before: 1G512M.
Times chain s m h d: 1h30m.

Example:
  ${program} -c '/home/*/.filetracker-store' -s 50G -i 10m`;

function describeProgram(): Command {
  const command = new Command(program)
    .description('Keeps caches within a size.')
    .requiredOption('-c, --cache-dirs <glob...>', 'folders of caches; may hold * ? []')
    .requiredOption('-s, --cache-size-limit <size>', 'size at which files are removed')
    .option('-i, --scan-interval <time>', 'time between two looks (default: 1h)')
    .option('-p, --percent-cleaning-level <n>', 'percent of the size that is left (default: 50)')
    .option('--once', 'look once and exit')
    .option('--json', 'print a report as JSON after each look')
    .option('-d, --debug', 'tell of every look')
    .option('-q, --quiet', 'tell of errors alone')
    .version(release, '-V, --version', 'show the version')
    .addHelpText('after', notes)
    .allowExcessArguments(false);
  return inHouseStyle(command, program);
}

function readPercent(text: string): number {
  const percent = Number(text);
  if (text.trim() !== '' && percent >= 0 && percent <= 100) return percent;
  throw new FiletrackerError(
    'invalid-argument',
    `Cannot use "${text}" as a percentage: it must be from 0 to 100`,
  );
}

/** Reports each problem once, however often the cleaner meets it. */
function tellOnce(told: Set<string>, text: string): void {
  if (!told.has(text)) tell(asShown(`${program}: ${text}`));
  told.add(text);
}

function foldersOf(patterns: readonly string[], told: Set<string>): readonly string[] {
  const folders = patterns.flatMap((pattern) => {
    const found = expandGlob(pattern);
    if (found.length === 0) tellOnce(told, `Cannot clean "${pattern}": there is no such folder`);
    return found;
  });
  return [...new Set(folders)];
}

async function cleanOnce(
  options: Options,
  sizeMaxBytes: number,
  percentLeft: number,
  told: Set<string>,
): Promise<void> {
  const folders = foldersOf(options.cacheDirs, told);
  const report = await cleanCaches(folders, { sizeMaxBytes, percentLeft }, (folder, error) => {
    tellOnce(told, messageOf(fromLocalError(error, `clean "${folder}"`)));
  });
  if (options.json === true) printJson(report);
  if (options.quiet === true || (report.removedFiles === 0 && options.debug !== true)) return;
  const sizes = `${formatSize(report.beforeBytes)} before, ${formatSize(report.afterBytes)} after`;
  tell(`${program}: ${report.caches} caches, ${sizes}, ${report.removedFiles} files removed`);
}

async function main(): Promise<void> {
  const command = describeProgram();
  command.parse();
  const options = command.opts<Options>();
  const sizeMaxBytes = parseSizeBytes(options.cacheSizeLimit);
  const percentLeft = readPercent(options.percentCleaningLevel ?? '50');
  const intervalMs = parseDurationMs(options.scanInterval ?? '1h');
  if (options.cacheDirs.includes('')) {
    throw new FiletrackerError('invalid-argument', 'Cannot clean "": it must be the path of a folder');
  }
  const told = new Set<string>();
  for (;;) {
    await cleanOnce(options, sizeMaxBytes, percentLeft, told);
    if (options.once === true) {
      if (told.size > 0) process.exitCode = exitCodes.failure;
      return;
    }
    await pause(Math.max(1000, intervalMs));
  }
}

await runToEnd(program, main);
