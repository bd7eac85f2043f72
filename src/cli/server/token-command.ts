import { Command } from 'commander';
import { readServerConfig } from '../../config/server-config.ts';
import { openTokenEditor } from '../../runtime/open-tokens.ts';
import { parseRights } from '../../access/token.ts';
import type { TokenEditor } from '../../access/token-source.ts';
import { systemClock } from '../../core/clock.ts';
import { FiletrackerError } from '../../core/errors.ts';
import { parseDurationMs } from '../../core/quantities.ts';
import { refuseOthersFolders } from '../../maintenance/folder-owner.ts';
import { inHouseStyle } from '../house-style.ts';
import { printJson, printLine, tell } from '../output.ts';

interface PlaceOptions {
  readonly dir?: string;
  readonly catalog?: string;
  /** Only `add` has it. */
  readonly create?: true;
}

interface AddOptions extends PlaceOptions {
  readonly prefix: readonly string[];
  readonly rights: string;
  readonly expires?: string;
}

function gather(value: string, before: readonly string[] = []): readonly string[] {
  return [...before, value];
}

async function edit<Result>(
  options: PlaceOptions,
  use: (editor: TokenEditor) => Promise<Result>,
): Promise<Result> {
  const { dir, catalog, create = false } = options;
  const config = readServerConfig({ dir, catalog }, process.env);
  await refuseOthersFolders([config.folder]);
  const editor = await openTokenEditor(config, { clock: systemClock, create });
  try {
    return await use(editor);
  } finally {
    await editor.close();
  }
}

/** JavaScript takes 30 February for 2 March. */
function requireDay(day: string): void {
  const ms = Date.parse(day);
  if (Number.isFinite(ms) && new Date(ms).toISOString().startsWith(day)) return;
  throw new FiletrackerError('invalid-argument', `Cannot use --expires "${day}": there is no such day`);
}

/** Undefined where no calendar reaches: what is kept may have been written by hand. */
function timeText(ms: number): string | undefined {
  const time = new Date(ms);
  return Number.isNaN(time.getTime()) ? undefined : time.toISOString();
}

/** `90d` from now on, or a date such as 2030-01-31. */
function parseExpiry(text: string, nowMs: number): number {
  const dated = /^\d{4}-\d{2}-\d{2}(?:T[\d:.]+Z?)?$/.test(text) ? Date.parse(text) : undefined;
  if (dated !== undefined) requireDay(text.slice(0, 10));
  const expiresAtMs = dated ?? nowMs + parseDurationMs(text);
  const state = expiresAtMs > nowMs ? 'it is beyond every calendar' : 'it is no time to come';
  if (expiresAtMs > nowMs && timeText(expiresAtMs) !== undefined) return expiresAtMs;
  throw new FiletrackerError('invalid-argument', `Cannot use --expires "${text}": ${state}`);
}

async function add(name: string, options: AddOptions): Promise<void> {
  const wanted = {
    name,
    prefixes: options.prefix,
    rights: parseRights(options.rights),
    expiresAtMs:
      options.expires === undefined ? undefined : parseExpiry(options.expires, systemClock.nowMs()),
  };
  const text = await edit(options, (editor) => editor.add(wanted));
  tell(`Token "${name}"; it is shown this once. Use it as http://${name}:TOKEN@host, or as a Bearer token.`);
  printLine(text);
}

const closedState =
  'No token is left: the store is closed to all, as it has had tokens. Add one, or let the server say who needs none ' +
  'with --anonymous read or --anonymous all';

async function list(options: PlaceOptions & { readonly json?: boolean }): Promise<void> {
  const { tokens, isOpenToAll } = await edit(options, async (editor) => ({
    tokens: await editor.list(),
    isOpenToAll: await editor.isOpenToAll(),
  }));
  if (tokens.length === 0) {
    tell(isOpenToAll ? 'The store has never had a token: it is open to all' : closedState);
  }
  for (const { name, prefixes, rights, createdAtMs, expiresAtMs } of tokens) {
    const created = timeText(createdAtMs);
    const expires = expiresAtMs === undefined ? undefined : timeText(expiresAtMs);
    if (options.json === true) printJson({ name, prefixes, rights, created, ...(expires && { expires }) });
    else
      printLine([name, prefixes.join(' '), rights.join(','), created ?? '?', expires ?? 'never'].join('\t'));
  }
}

async function remove(name: string, options: PlaceOptions): Promise<void> {
  const left = await edit(options, async (editor) => {
    await editor.remove(name);
    return editor.list();
  });
  tell(`Token "${name}" removed; running servers refuse it within a second`);
  if (left.length === 0) tell(closedState);
}

const folderFlag = ['-d, --dir <folder>', 'folder of the store, as for the server'] as const;
const catalogFlag = [
  '--catalog <url>',
  'database of the store, as for the server; all its servers share the tokens',
] as const;

/** The command that changes the tokens of a store, whether a server uses it or not. */
export function describeTokenCommand(program: string): Command {
  const command = new Command(`${program} token`).description(
    'Changes who may use a store. From its first token on it is open to holders of tokens only, for good.',
  );
  command
    .command('add <name>')
    .description('Adds a token and prints it; it is kept as a hash only.')
    .option(...folderFlag)
    .option(...catalogFlag)
    .requiredOption('--prefix <path>', 'names it is for, "/" for all; can be given again', gather)
    .requiredOption('--rights <rights>', 'some of read,write,delete,list,admin')
    .option('--create', 'make the store if there is none; without it a missing store is an error')
    .option('--expires <time>', 'after a time (90d) or at a date (2030-01-31)')
    .action(add);
  command
    .command('ls')
    .description('Lists names, prefixes, rights, time of making and of expiry.')
    .option(...folderFlag)
    .option(...catalogFlag)
    .option('--json', 'one JSON object a line')
    .action(list);
  command
    .command('rm <name>')
    .description('Removes a token.')
    .option(...folderFlag)
    .option(...catalogFlag)
    .action(remove);
  return inHouseStyle(command, `${program} token`);
}
