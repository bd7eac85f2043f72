import { createReadStream, fstatSync, statSync } from 'node:fs';
import { basename, join } from 'node:path';
import { pipeline } from 'node:stream/promises';
import type { FileInfo, PutOptions, StoredFile } from '../../client/file-client.ts';
import { linesOf } from '../../client/lines.ts';
import { listFiles } from '../../client/sync/listed-files.ts';
import { fromLocalError } from '../../client/local-errors.ts';
import { formatSize } from '../../core/quantities.ts';
import { FiletrackerError } from '../../core/errors.ts';
import { endsLikeVersion, parseVersionedName, shownName } from '../../core/file-name.ts';
import type { GivenName } from '../../core/file-name.ts';
import type { Chunks } from '../../streams/chunks.ts';
import { exitCodes, printJson, printLine, printNull } from '../output.ts';
import type { GetFlags, ListFlags, PutFlags } from './commands.ts';
import { forEachName, printResult, servesFromCache, tellDetail } from './context.ts';
import type { CommandContext } from './context.ts';

function isFolder(path: string): boolean {
  try {
    return statSync(path, { throwIfNoEntry: false })?.isDirectory() === true;
  } catch {
    return false; // Writing to the path reports what is wrong with it.
  }
}

export async function getCommand(
  context: CommandContext,
  name: string,
  local: string,
  { cache, forceRefresh }: GetFlags,
): Promise<void> {
  if (local === '-') return await catCommand(context, name, { forceRefresh: forceRefresh ?? false });
  const { name: bare } = parseVersionedName(name);
  const target = isFolder(local) ? join(local, basename(bare)) : local;
  const progress = context.progress(name);
  try {
    const { signal } = context;
    const options = { addToCache: cache !== false, forceRefresh, signal, onProgress: progress.update };
    const file = await context.client.getFile(name, target, options);
    progress.end();
    tellDetail(context, `${file.versionedName} ${file.cached ? 'from the cache' : 'fetched'} to ${target}`);
    printResult(context, { ...file, path: target }, '');
  } finally {
    progress.end();
  }
}

export async function catCommand(
  context: CommandContext,
  name: string,
  { forceRefresh }: { readonly forceRefresh?: boolean } = {},
): Promise<void> {
  const { stream } = await context.client.getStream(name, { forceRefresh, signal: context.signal });
  try {
    await pipeline(stream, process.stdout, { end: false });
  } catch (error) {
    // A reader such as `head` has read enough.
    if (!(error instanceof Error && 'code' in error && error.code === 'EPIPE')) throw error;
  }
}

export function putOptions(context: CommandContext, flags: PutFlags): PutOptions {
  return {
    toLocalStore: flags.localCache !== false,
    toRemoteStore: flags.remoteCache !== false,
    compressHint: flags.compress !== false,
    signal: context.signal,
  };
}

export async function putCommand(
  context: CommandContext,
  local: string,
  name: string,
  flags: PutFlags,
): Promise<void> {
  // Node reads a folder there as an empty input, which would be stored.
  if (local === '-' && fstatSync(process.stdin.fd).isDirectory()) {
    throw new FiletrackerError('io', 'Cannot put "-": the standard input is a folder');
  }
  // A version is taken from the name that the user gives, not from the name of the local file.
  const into = name.endsWith('/') && local !== '-';
  const target: GivenName = into ? { name: `${name}${basename(local)}` } : name;
  const progress = context.progress(local);
  let stored: StoredFile;
  try {
    const options = { ...putOptions(context, flags), onProgress: progress.update };
    stored =
      local === '-'
        ? await context.client.putStream(target, process.stdin, options)
        : await context.client.putFile(target, local, options);
  } finally {
    progress.end();
  }
  if (!stored.stored) tellDetail(context, `A newer version is stored and stays: ${stored.versionedName}`);
  printResult(context, stored, stored.versionedName);
}

export async function removeCommand(context: CommandContext, names: readonly string[]): Promise<void> {
  await forEachName(names, async (name) => {
    const { keptVersion, name: removed } = await context.client.deleteFile(name, { signal: context.signal });
    const kept =
      keptVersion === undefined ? '' : `A newer version is stored and stays: ${removed}@${keptVersion}`;
    if (kept !== '') tellDetail(context, kept);
    printResult(context, { name: removed, ...(keptVersion !== undefined && { keptVersion }) }, '');
  });
}

async function requireFile(context: CommandContext, name: GivenName): Promise<FileInfo> {
  const file = await context.client.stat(name, { signal: context.signal });
  if (file !== undefined) return file;
  throw new FiletrackerError('not-found', `Cannot find "${shownName(name)}": there is no such file`);
}

export async function versionCommand(context: CommandContext, name: string): Promise<void> {
  const file = await requireFile(context, { name: parseVersionedName(name).name });
  printResult(context, { name: file.name, version: file.version }, String(file.version));
}

export async function statCommand(context: CommandContext, names: readonly string[]): Promise<void> {
  await forEachName(names, async (name) => {
    const file = await requireFile(context, name);
    printResult(
      context,
      file,
      [
        `name     ${file.name}`,
        `version  ${file.version} (${new Date(file.version * 1000).toISOString()})`,
        `size     ${file.size ?? 'unknown'}`,
        `digest   ${file.digest ?? 'unknown'}`,
      ].join('\n'),
    );
  });
}

export async function existsCommand(context: CommandContext, name: string): Promise<void> {
  const exists = await context.client.exists(name, { signal: context.signal });
  if (context.json) printResult(context, { name, exists }, '');
  if (!exists) process.exitCode = exitCodes.notFound;
}

function longLine({ size, version, name }: FileInfo): string {
  const date = new Date(version * 1000).toISOString().slice(0, 19).replace('T', ' ');
  return `${String(size ?? '?').padStart(14)}  ${date}  ${name}@${version}`;
}

/** Reads a version given as seconds since 1970 or as a date that JavaScript reads. */
function readCutoff(text: string | undefined): number | undefined {
  if (text === undefined) return undefined;
  const seconds = /^-?\d+$/.test(text) ? Number(text) : Math.floor(Date.parse(text) / 1000);
  if (Number.isSafeInteger(seconds)) return seconds;
  throw new FiletrackerError(
    'invalid-argument',
    `Cannot read "${text}" as a version: write seconds since 1970, or a date as "2026-11-22T15:05:01Z"`,
  );
}

export async function listCommand(
  context: CommandContext,
  directory: string | undefined,
  { long, local, upTo, null: isNull = false }: ListFlags,
): Promise<void> {
  const { client, signal, json } = context;
  if (isNull && (json || long === true)) {
    throw new FiletrackerError('invalid-argument', 'Cannot list with --null: --json and --long print lines');
  }
  const print = isNull ? printNull : printLine;
  const options = { subpath: directory ?? '/', cutoff: readCutoff(upTo), signal };
  const fromCache = servesFromCache(context);
  let count = 0;
  let bytes = 0;
  if (!fromCache && local !== true && !json && long !== true) {
    for await (const name of client.listRemoteFiles(options)) {
      const readable = endsLikeVersion(name) ? await versionedNameOf(context, name) : name;
      if (readable !== undefined) print(readable);
    }
    return;
  }
  const files = local === true ? client.listLocalFiles(options) : listFiles(client, options, { fromCache });
  for await (const file of files) {
    if (file.version > (options.cutoff ?? Infinity)) continue;
    count += 1;
    bytes += file.size ?? 0;
    const { name, version, size, digest } = file;
    const short = local === true || endsLikeVersion(name) ? file.versionedName : name;
    if (json) printJson({ name, version, size, digest });
    else print(long === true ? longLine(file) : short);
  }
  if (long === true) tellDetail(context, `${count} files, ${formatSize(bytes)}`);
}

/** The form in which other commands accept a name whose end looks like a version; `undefined` if the file is gone. */
async function versionedNameOf(
  { client, signal }: CommandContext,
  name: string,
): Promise<string | undefined> {
  return (await client.stat({ name }, { signal }))?.versionedName;
}

/**
 * The names in a file or on the standard input, one per line, or ended by NUL. Skips empty lines, and comments, which
 * begin with "#".
 */
export async function* namesFrom(
  source: string,
  { isNull }: { readonly isNull: boolean },
): AsyncGenerator<string> {
  const input: Chunks = source === '-' ? process.stdin : createReadStream(source);
  try {
    for await (const line of linesOf(input, isNull ? 0 : undefined)) {
      if (line !== '' && (isNull || !line.startsWith('#'))) yield line;
    }
  } catch (error) {
    throw fromLocalError(error, `read the names in "${source}"`);
  }
}
