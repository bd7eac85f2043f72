import { existsSync } from 'node:fs';
import { requireNoStore } from '../../client/cache/folder-check.ts';
import type { LocalCache } from '../../client/cache/local-cache.ts';
import { formatSize, parseSizeBytes } from '../../core/quantities.ts';
import { FiletrackerError } from '../../core/errors.ts';
import { formatVersionedName, parseVersionedName } from '../../core/file-name.ts';
import { makeFolders } from '../../fs/folders.ts';
import { exitCodes, tell } from '../output.ts';
import type { CleanFlags } from './commands.ts';
import { forEachName, printResult, programName, tellDetail } from './context.ts';
import type { CommandContext } from './context.ts';

function requireCache({ client }: CommandContext): LocalCache {
  if (client.cache !== undefined) {
    const { folder, layout } = client.cache;
    requireNoStore(folder, layout.partial);
    if (existsSync(folder)) return client.cache;
    throw new FiletrackerError('not-found', `Cannot open the cache "${folder}": there is no such folder`);
  }
  throw new FiletrackerError('invalid-argument', 'Cannot open the cache: there is none; name one with -c');
}

export async function cacheStatusCommand(context: CommandContext): Promise<void> {
  const status = await requireCache(context).maintenance.status();
  const limit = status.sizeMaxBytes === undefined ? 'no limit' : `limit ${formatSize(status.sizeMaxBytes)}`;
  printResult(
    context,
    status,
    [
      `folder    ${status.folder}`,
      `size      ${formatSize(status.sizeBytes)} (${limit})`,
      `blobs     ${status.contents}, under ${status.names} names`,
      `pinned    ${status.pinned}, ${formatSize(status.pinnedBytes)}`,
      `unfinished downloads  ${status.unfinished}`,
      `disk      ${formatSize(status.freeBytes)} free, of which ${formatSize(status.freeMinBytes)} are reserved`,
    ].join('\n'),
  );
}

export async function cacheCleanCommand(context: CommandContext, { all, size }: CleanFlags): Promise<void> {
  const cache = requireCache(context);
  const given = size === undefined ? cache.space.limits.sizeMaxBytes : parseSizeBytes(size);
  const before = (await cache.space.recount()).total;
  if (all === true) await cache.space.shrink(0);
  else if (given !== undefined) await cache.space.shrink(given);
  const recordsRemoved = await cache.maintenance.sweepRecords();
  const after = (await cache.space.recount()).total;
  const freed = Math.max(0, before - after);
  const text = `${formatSize(freed)} freed, ${formatSize(after)} left`;
  printResult(context, { beforeBytes: before, afterBytes: after, recordsRemoved }, text);
}

export async function cacheVerifyCommand(context: CommandContext): Promise<void> {
  const cache = requireCache(context);
  const progress = context.progress('verify');
  progress.expect((await cache.space.recount()).total);
  try {
    const { signal } = context;
    const found = await cache.maintenance.verify({ signal, onContent: progress.add });
    progress.end();
    for (const digest of found.damaged) tell(`${programName}: the blob ${digest} was damaged`);
    const text = `${found.contents} blobs read (${formatSize(found.contentBytes)}), ${found.damaged.length} damaged; ${found.recordsRemoved} stale records removed`;
    printResult(context, found, text);
    if (found.damaged.length > 0) process.exitCode = exitCodes.failure;
  } finally {
    progress.end();
  }
}

export async function cachePinCommand(context: CommandContext, names: readonly string[]): Promise<void> {
  makeFolders(context.client.cache?.folder ?? '.');
  const cache = requireCache(context);
  await forEachName(names, async (text) => {
    await context.client.prefetch(text, { signal: context.signal });
    const { name, version } = parseVersionedName(text);
    const cached = cache.find(name, version);
    if (cached === undefined)
      throw new FiletrackerError('busy', `Cannot pin "${text}": it was evicted just now`);
    await cache.pins.add(cached.digest, 'pin', name, cached.version);
    const versionedName = formatVersionedName(name, cached.version);
    tellDetail(context, `pinned ${versionedName}`);
    printResult(context, { name, version: cached.version, pinned: true }, '');
  });
}

export async function cacheUnpinCommand(context: CommandContext, names: readonly string[]): Promise<void> {
  const cache = requireCache(context);
  await forEachName(names, async (text) => {
    const { name, version } = parseVersionedName(text);
    const versions = (cache.record(name)?.versions ?? []).filter(
      (known) =>
        (version ?? known.version) === known.version && cache.pins.has(known.digest, name, known.version),
    );
    if (versions.length === 0)
      throw new FiletrackerError('not-found', `Cannot unpin "${text}": it is not pinned`);
    for (const known of versions) {
      await cache.pins.remove(known.digest, name, known.version, ['pin']);
      printResult(context, { name, version: known.version, pinned: false }, '');
    }
  });
}
