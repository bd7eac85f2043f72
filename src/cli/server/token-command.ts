import { readServerConfig } from '../../config/server-config.ts';
import { openTokenEditor } from '../../runtime/open-tokens.ts';
import { parseRights } from '../../access/token.ts';
import type { TokenEditor } from '../../access/token-source.ts';
import { systemClock } from '../../core/clock.ts';
import { FiletrackerError } from '../../core/errors.ts';
import { parseDurationMs } from '../../core/quantities.ts';
import { refuseOthersFolders } from '../../maintenance/folder-owner.ts';
import { printJson, printLine, tell } from '../output.ts';
import type { AddTokenFlags, ListTokensFlags, PlaceFlags } from './commands.ts';

async function edit<Result>(
  { dir, catalog, create = false }: PlaceFlags & { readonly create?: boolean | undefined },
  use: (editor: TokenEditor) => Promise<Result>,
): Promise<Result> {
  const config = readServerConfig({ dir, catalog }, process.env);
  await refuseOthersFolders([config.folder]);
  const editor = await openTokenEditor(config, { clock: systemClock, create });
  try {
    return await use(editor);
  } finally {
    await editor.close();
  }
}

/** JavaScript reads 30 February as 2 March. */
function requireDay(day: string): void {
  const ms = Date.parse(day);
  if (Number.isFinite(ms) && new Date(ms).toISOString().startsWith(day)) return;
  throw new FiletrackerError('invalid-argument', `Cannot use --expires "${day}": there is no such day`);
}

/** `undefined` if JavaScript has no such date: the token file may have been edited by hand. */
function timeText(ms: number): string | undefined {
  const time = new Date(ms);
  return Number.isNaN(time.getTime()) ? undefined : time.toISOString();
}

/** Reads a time from now, such as `90d`, or a date such as 2030-01-31. */
function parseExpiry(text: string, nowMs: number): number {
  const dated = /^\d{4}-\d{2}-\d{2}(?:T[\d:.]+Z?)?$/.test(text) ? Date.parse(text) : undefined;
  if (dated !== undefined) requireDay(text.slice(0, 10));
  const expiresAtMs = dated ?? nowMs + parseDurationMs(text);
  const state = expiresAtMs > nowMs ? 'it is too far in the future' : 'it is in the past';
  if (expiresAtMs > nowMs && timeText(expiresAtMs) !== undefined) return expiresAtMs;
  throw new FiletrackerError('invalid-argument', `Cannot use --expires "${text}": ${state}`);
}

/** `token add`. */
export async function addToken(name: string, flags: AddTokenFlags): Promise<void> {
  const { prefix = [], rights = '', expires } = flags;
  const wanted = {
    name,
    prefixes: prefix,
    rights: parseRights(rights),
    expiresAtMs: expires === undefined ? undefined : parseExpiry(expires, systemClock.nowMs()),
  };
  const text = await edit(flags, (editor) => editor.add(wanted));
  tell(`Token "${name}", shown only once. Use it as http://${name}:TOKEN@host, or as a Bearer token.`);
  printLine(text);
}

const closedState =
  'No token is left: the store has had tokens, so it is closed to all. Add a token, or start the server with ' +
  '--anonymous read or --anonymous all';

/** `token ls`. */
export async function listTokens(flags: ListTokensFlags): Promise<void> {
  const { tokens, isOpenToAll } = await edit(flags, async (editor) => ({
    tokens: await editor.list(),
    isOpenToAll: await editor.isOpenToAll(),
  }));
  if (tokens.length === 0) {
    tell(isOpenToAll ? 'The store has never had a token: it is open to all' : closedState);
  }
  for (const { name, prefixes, rights, createdAtMs, expiresAtMs } of tokens) {
    const created = timeText(createdAtMs);
    const expires = expiresAtMs === undefined ? undefined : timeText(expiresAtMs);
    if (flags.json === true) printJson({ name, prefixes, rights, created, ...(expires && { expires }) });
    else
      printLine([name, prefixes.join(' '), rights.join(','), created ?? '?', expires ?? 'never'].join('\t'));
  }
}

/** `token rm`. */
export async function removeToken(name: string, flags: PlaceFlags): Promise<void> {
  const left = await edit(flags, async (editor) => {
    await editor.remove(name);
    return editor.list();
  });
  tell(`Token "${name}" removed; running servers refuse it within a second`);
  if (left.length === 0) tell(closedState);
}
