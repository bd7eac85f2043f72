import { statSync } from 'node:fs';
import { resolve } from 'node:path';
import { optionsFromEnvironment } from '../../client/client-options.ts';
import { LocalCache } from '../../client/cache/local-cache.ts';
import { resolveTarget } from '../../client/transfer/targets.ts';
import { parseVersionedName } from '../../core/file-name.ts';
import { replacement } from '../unreadable-words.ts';

/**
 * `filetracker [-r URL] [-c DIR] get NAME LOCAL`, without any other flag. Workers start the program in this form for each
 * file, and loading all of it takes longer than most transfers, so this form skips the command line parser.
 */
export interface PlainGet {
  readonly name: string;
  readonly target: string;
  readonly cacheDir: string | undefined;
  readonly remoteUrl: string | undefined;
}

/** `undefined` for any other form. */
export function readPlainGet(words: readonly string[]): PlainGet | undefined {
  const flags = new Map<string, string>();
  let at = 0;
  for (; words[at]?.startsWith('-') === true; at += 2) {
    const [flag, value] = [words[at] ?? '', words[at + 1]];
    const known = ['-r', '--remote-url', '-c', '--cache-dir'].includes(flag);
    if (!known || value === undefined || value === '' || value.startsWith('-')) return undefined;
    flags.set(flag.replace(/^--?(.).*/, '$1'), value);
  }
  const [command, name, target, ...more] = words.slice(at);
  if (command !== 'get' || name === undefined || target === undefined || more.length > 0) return undefined;
  if (name.startsWith('-') || target.startsWith('-') || target === '') return undefined;
  if (words.some((word) => word.includes(replacement))) return undefined;
  return { name, target, cacheDir: flags.get('c'), remoteUrl: flags.get('r') };
}

/**
 * Serves a versioned name from the cache.
 * @returns false, without having done anything, if the cache cannot serve it or anything fails: the full program then
 * meets the same failure and reports it.
 */
export async function serveCached({ name: text, target, cacheDir }: PlainGet): Promise<boolean> {
  try {
    const { name, version } = parseVersionedName(text);
    if (version === undefined || statSync(target, { throwIfNoEntry: false })?.isDirectory() === true) {
      return false;
    }
    const place = resolveTarget(target);
    if (place.kind !== 'file') return false;
    const environment = optionsFromEnvironment();
    const folder = cacheDir ?? environment.cacheDir;
    if (folder === undefined) return false;
    const cache = new LocalCache({ folder: resolve(folder), handOut: environment.handOut });
    const cached = cache.find(name, version);
    return cached !== undefined && (await cache.materialize(cached, place.path));
  } catch {
    return false;
  }
}
