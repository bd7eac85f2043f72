import { statSync } from 'node:fs';
import { resolve } from 'node:path';
import { optionsFromEnvironment } from '../../client/client-options.ts';
import { LocalCache } from '../../client/cache/local-cache.ts';
import { resolveTarget } from '../../client/transfer/targets.ts';
import { parseVersionedName } from '../../core/file-name.ts';
import type { PlainGet } from './plain-get.ts';

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
