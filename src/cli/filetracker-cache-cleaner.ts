#!/usr/bin/env node
import { asShown } from '../core/shown-text.ts';
import { cleanCaches } from '../client/cache/cleaner.ts';
import { expandGlob } from '../client/cache/glob.ts';
import { fromLocalError } from '../client/local-errors.ts';
import { formatSize } from '../core/quantities.ts';
import { readSettings, type Flags, type Values } from '../config/setting.ts';
import { cannot, messageOf } from '../core/errors.ts';
import { pause } from '../core/timers.ts';
import { runCommand } from './commands.ts';
import { cleanerSection, cleanerSpec } from './maintenance-commands.ts';
import { exitCodes, printJson, tell } from './output.ts';
import { runToEnd } from './run-to-end.ts';

const program = cleanerSpec.name;

type CleanerSettings = Values<typeof cleanerSection>;

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

async function cleanOnce(settings: CleanerSettings, told: Set<string>): Promise<void> {
  const { json = false, quiet = false, verbose = false } = settings;
  const folders = foldersOf(settings.patterns, told);
  const report = await cleanCaches(folders, settings, (folder, error) => {
    tellOnce(told, messageOf(fromLocalError(error, `clean "${folder}"`)));
  });
  if (json) printJson(report);
  if (quiet || (report.removedFiles === 0 && !verbose)) return;
  const sizes = `${formatSize(report.beforeBytes)} before, ${formatSize(report.afterBytes)} after`;
  tell(`${program}: ${report.caches} caches, ${sizes}, ${report.removedFiles} files removed`);
}

async function clean(flags: Flags<typeof cleanerSection>): Promise<void> {
  const settings = readSettings(cleanerSection, flags);
  if (settings.patterns.includes('')) {
    throw cannot('invalid-argument', 'clean ""', 'it must be the path of a folder');
  }
  const told = new Set<string>();
  for (;;) {
    await cleanOnce(settings, told);
    if (settings.once === true) {
      if (told.size > 0) process.exitCode = exitCodes.failure;
      return;
    }
    await pause(Math.max(1000, settings.intervalMs));
  }
}

await runToEnd(program, () => runCommand(cleanerSpec, { '': clean }));
