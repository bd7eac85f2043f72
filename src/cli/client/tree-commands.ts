import { Exclusions } from '../../client/sync/exclusions.ts';
import { formatSize } from '../../client/size-text.ts';
import { listFiles } from '../../client/sync/listed-files.ts';
import { pullTree } from '../../client/sync/pull.ts';
import { pushTree } from '../../client/sync/push.ts';
import type { TreeAction, TreeEvent, TreeOptions, TreeSummary } from '../../client/sync/tally.ts';
import { FiletrackerError } from '../../core/errors.ts';
import { exitCodes, printJson, printLine, tell } from '../output.ts';
import { asShown } from '../shown-text.ts';
import { printResult, programName, servesFromCache, tellDetail } from './context.ts';
import type { CommandContext } from './context.ts';
import type { GetFlags, PutFlags } from './file-commands.ts';
import { putOptions } from './file-commands.ts';
import { sideBySide } from '../../streams/side-by-side.ts';
import { namesFrom } from './file-commands.ts';
import { isFiletrackerError, messageOf } from '../../core/errors.ts';

export interface TreeFlags {
  readonly jobs?: string;
  readonly exclude?: readonly string[];
}

export interface SyncFlags extends TreeFlags {
  readonly allowEmpty?: boolean;
  readonly checksum?: boolean;
  readonly delete?: boolean;
  readonly dryRun?: boolean;
  readonly force?: boolean;
}

const defaultJobs = 8;
const jobsMax = 256;

function readJobs(text: string | undefined): number {
  const jobs = text === undefined ? defaultJobs : Number(text);
  if (Number.isInteger(jobs) && jobs >= 1 && jobs <= jobsMax) return jobs;
  throw new FiletrackerError(
    'invalid-argument',
    `Cannot use "${text}" as jobs: it must be from 1 to ${jobsMax}`,
  );
}

type Change = Partial<
  Pick<TreeOptions, 'onlyChanged' | 'checksum' | 'delete' | 'allowEmpty' | 'force' | 'dryRun' | 'transfer'>
>;

/** What a user has to know about one by one, with its reason. */
const reasoned: ReadonlySet<TreeAction> = new Set(['failed', 'skipped', 'vanished', 'kept']);

/** Runs a transfer of many files with one bar; failures and what was skipped are told as they happen. */
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
      onlyChanged: change.onlyChanged ?? false,
      checksum: change.checksum ?? false,
      delete: change.delete ?? false,
      allowEmpty: change.allowEmpty ?? false,
      exclusions: new Exclusions(flags.exclude),
      cacheFolder: context.client.cache?.folder,
      force: change.force ?? false,
      dryRun: change.dryRun ?? false,
      namesFormTree: context.client.remote !== undefined,
      parallel: readJobs(flags.jobs),
      transfer: change.transfer ?? {},
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

/** One stream holds no files. */
function requireFolder(folder: string, command: string): void {
  if (folder !== '-') return;
  const hint = 'with -R it must be a folder; one called "-" is "./-"';
  throw new FiletrackerError('invalid-argument', `Cannot ${command} "-": ${hint}`);
}

/** Told once, and not for each file. */
function requireOnline({ client, offline }: CommandContext, action: string): void {
  if (!offline || client.remote === undefined) return;
  throw new FiletrackerError('invalid-argument', `Cannot ${action}: the client is offline`);
}

export async function getTreeCommand(
  context: CommandContext,
  directory: string,
  folder: string,
  flags: GetFlags & TreeFlags,
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
  flags: PutFlags & TreeFlags,
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
    // What is uploaded from here lies here: the cache gains nothing by a copy.
    const transfer = { toLocalStore: client.remote === undefined };
    await runTree(context, source, flags, { ...change, transfer }, (options) =>
      pushTree(client, source, target, options),
    );
  } else if (direction === 'down') {
    // The cache does not know what else there is.
    if (change.delete) requireOnline(context, `sync down "${source}" with --delete`);
    await runTree(context, source, flags, change, (options) => pullTree(client, source, target, options));
  } else {
    throw new FiletrackerError(
      'invalid-argument',
      `Cannot sync "${direction}": the directions are up and down`,
    );
  }
}

export interface PrefetchFlags extends TreeFlags {
  readonly from?: string;
  readonly null?: boolean;
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
      'Cannot prefetch: give names, or a file of them with --from',
    );
  }
  let worst: number = exitCodes.ok;
  const all = async function* (): AsyncGenerator<string> {
    yield* names;
    if (from !== undefined) yield* namesFrom(from, { isNull });
  };
  await sideBySide(all(), readJobs(jobs), async (name) => {
    try {
      const file = await client.prefetch(name, { signal });
      printResult(context, file, context.verbose ? file.versionedName : '');
    } catch (error) {
      // One name that is gone keeps no other from being fetched; a server that is down does.
      if (!isFiletrackerError(error, 'not-found') && !isFiletrackerError(error, 'invalid-name')) throw error;
      const wrong = isFiletrackerError(error, 'invalid-name') || worst === exitCodes.usage;
      worst = wrong ? exitCodes.usage : exitCodes.notFound;
      tell(asShown(`${programName}: ${messageOf(error)}`));
    }
  });
  if (worst !== exitCodes.ok) process.exitCode = worst;
}
