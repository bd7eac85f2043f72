import { asShown } from '../../core/shown-text.ts';
import { Exclusions } from '../../client/sync/exclusions.ts';
import { formatSize } from '../../core/quantities.ts';
import { listFiles } from '../../client/sync/listed-files.ts';
import { pullTree } from '../../client/sync/pull.ts';
import { pushTree } from '../../client/sync/push.ts';
import type { TreeAction, TreeEvent, TreeOptions, TreeSummary } from '../../client/sync/tally.ts';
import { readSettings } from '../../config/setting.ts';
import { FiletrackerError } from '../../core/errors.ts';
import { exitCodes, printJson, printLine, tell } from '../output.ts';
import { jobsSection, type GetFlags, type PrefetchFlags, type PutFlags, type SyncFlags } from './commands.ts';
import { printResult, programName, servesFromCache, tellDetail } from './context.ts';
import type { CommandContext } from './context.ts';
import { namesFrom, putOptions } from './file-commands.ts';
import { sideBySide } from '../../streams/side-by-side.ts';
import { isFiletrackerError, messageOf } from '../../core/errors.ts';

type TreeFlags = Pick<GetFlags, 'jobs' | 'exclude'>;

function jobsOf(flags: Pick<TreeFlags, 'jobs'>): number {
  return readSettings(jobsSection, flags).jobs;
}

const plainTransfer = {
  onlyChanged: false,
  checksum: false,
  delete: false,
  allowEmpty: false,
  force: false,
  dryRun: false,
  transfer: {},
};
type Change = Partial<Pick<TreeOptions, keyof typeof plainTransfer>>;

/** Actions that are reported one by one, with their reason. */
const reasoned: ReadonlySet<TreeAction> = new Set(['failed', 'skipped', 'vanished', 'kept']);

/** Runs a transfer of many files with one bar; reports failures and skipped files as they happen. */
async function runTree(
  context: CommandContext,
  label: string,
  flags: TreeFlags,
  change: Change,
  transfer: (options: TreeOptions) => Promise<TreeSummary>,
): Promise<void> {
  const progress = context.progress(label);
  const onEvent = (event: TreeEvent): void => {
    const failed = reasoned.has(event.action);
    if (failed) {
      progress.end();
      tell(asShown(`${programName}: ${event.action} "${event.path ?? event.name}": ${event.reason}`));
    }
    if (context.json) printJson(event);
    else if (change.dryRun === true && !failed && event.action !== 'unchanged') {
      printLine(asShown(`${event.action}  ${event.name ?? event.path}`));
    } else if (context.verbose && !failed) tell(asShown(`${event.action}  ${event.name ?? event.path}`));
  };
  let summary: TreeSummary;
  try {
    summary = await transfer({
      list: (options) => listFiles(context.client, options, { fromCache: servesFromCache(context) }),
      ...plainTransfer,
      ...change,
      exclusions: new Exclusions(flags.exclude),
      cacheFolder: context.client.cache?.folder,
      namesFormTree: context.client.remote !== undefined,
      parallel: jobsOf(flags),
      signal: context.signal,
      onEvent,
      onLoss: (text) => {
        if (!context.verbose) return;
        progress.end();
        tellDetail(context, asShown(`${programName}: ${text}`));
      },
      onBytes: progress.add,
      onTotal: progress.expect,
    });
  } finally {
    progress.end();
  }
  tellSummary(context, summary, change.dryRun === true);
  if (summary.failed > 0) process.exitCode = exitCodes.failure;
}

function tellSummary(context: CommandContext, summary: TreeSummary, dryRun: boolean): void {
  if (context.json) {
    printJson({ summary });
    return;
  }
  if (context.quiet) return;
  const { bytes, ...counts } = summary;
  const parts = Object.entries(counts)
    .filter(([, count]) => count > 0)
    .map(([action, count]) => `${count} ${action}`);
  const text = parts.length === 0 ? 'no files' : parts.join(', ');
  tell(`${dryRun ? 'Would be: ' : ''}${text}${bytes > 0 ? ` (${formatSize(bytes)})` : ''}`);
}

/** A stream cannot hold a tree. */
function requireFolder(folder: string, command: string): void {
  if (folder !== '-') return;
  const hint = 'with -R it must be a folder; one called "-" is "./-"';
  throw new FiletrackerError('invalid-argument', `Cannot ${command} "-": ${hint}`);
}

/** Reports it once instead of for each file. */
function requireOnline({ client, offline }: CommandContext, action: string): void {
  if (!offline || client.remote === undefined) return;
  throw new FiletrackerError('invalid-argument', `Cannot ${action}: the client is offline`);
}

export async function getTreeCommand(
  context: CommandContext,
  directory: string,
  folder: string,
  flags: GetFlags,
): Promise<void> {
  requireFolder(folder, 'get');
  const transfer = { addToCache: flags.cache !== false, forceRefresh: flags.forceRefresh ?? false };
  await runTree(context, directory, flags, { transfer }, (options) =>
    pullTree(context.client, directory, folder, options),
  );
}

export async function putTreeCommand(
  context: CommandContext,
  folder: string,
  directory: string,
  flags: PutFlags,
): Promise<void> {
  requireFolder(folder, 'put');
  if (flags.remoteCache !== false) requireOnline(context, `put "${folder}"`);
  const { toLocalStore = true, toRemoteStore = true, compressHint = true } = putOptions(context, flags);
  const transfer = { toLocalStore, toRemoteStore, compressHint };
  await runTree(context, folder, flags, { transfer }, (options) =>
    pushTree(context.client, folder, directory, options),
  );
}

export async function syncCommand(
  context: CommandContext,
  direction: string,
  source: string,
  target: string,
  flags: SyncFlags,
): Promise<void> {
  const change = {
    onlyChanged: true,
    checksum: flags.checksum ?? false,
    delete: flags.delete ?? false,
    allowEmpty: flags.allowEmpty ?? false,
    dryRun: flags.dryRun ?? false,
    force: flags.force ?? false,
  };
  const { client } = context;
  if (direction === 'up') {
    requireOnline(context, `sync up "${source}"`);
    // The uploaded files are on this machine, so the cache gains nothing from a copy.
    const transfer = { toLocalStore: client.remote === undefined };
    await runTree(context, source, flags, { ...change, transfer }, (options) =>
      pushTree(client, source, target, options),
    );
  } else if (direction === 'down') {
    // The cache does not know which other files the server has.
    if (change.delete) requireOnline(context, `sync down "${source}" with --delete`);
    await runTree(context, source, flags, change, (options) => pullTree(client, source, target, options));
  } else {
    throw new FiletrackerError(
      'invalid-argument',
      `Cannot sync "${direction}": the directions are up and down`,
    );
  }
}

export async function prefetchCommand(
  context: CommandContext,
  names: readonly string[],
  { from, jobs, null: isNull = false }: PrefetchFlags,
): Promise<void> {
  const { client, signal } = context;
  if (names.length === 0 && from === undefined) {
    throw new FiletrackerError(
      'invalid-argument',
      'Cannot prefetch: no names; pass some, or a file of them with --from',
    );
  }
  let worst: number = exitCodes.ok;
  const all = async function* (): AsyncGenerator<string> {
    yield* names;
    if (from !== undefined) yield* namesFrom(from, { isNull });
  };
  await sideBySide(all(), jobsOf({ jobs }), async (name) => {
    try {
      const file = await client.prefetch(name, { signal });
      printResult(context, file, context.verbose ? file.versionedName : '');
    } catch (error) {
      // A missing file does not stop the others; an unreachable server does.
      if (!isFiletrackerError(error, 'not-found') && !isFiletrackerError(error, 'invalid-name')) throw error;
      const wrong = isFiletrackerError(error, 'invalid-name') || worst === exitCodes.usage;
      worst = wrong ? exitCodes.usage : exitCodes.notFound;
      tell(asShown(`${programName}: ${messageOf(error)}`));
    }
  });
  if (worst !== exitCodes.ok) process.exitCode = worst;
}
