import { lstat, stat } from 'node:fs/promises';
import { dirname, join, relative as relativePath, resolve, sep } from 'node:path';
import { errnoOf, FiletrackerError } from '../../core/errors.ts';
import { isCacheFolder } from '../../fs/folder-marks.ts';
import { realPathOf } from '../../fs/folders.ts';
import type { Exclusions } from './exclusions.ts';
import { fromLocalError } from '../local-errors.ts';

/** What tells one folder from all others, whatever path leads to it. */
interface FolderIdentity {
  readonly dev: bigint;
  readonly ino: bigint;
}

/**
 * What of a folder on this machine belongs to a tree: all but what the user excludes, and the caches in it. A cache is
 * no part of anyone's tree: a sync that deletes would empty it, with contents that have no other copy.
 *
 * The cache in use is known by its real path and by its identity (a bind mount has another path); other caches are
 * known by what they hold.
 */
export class TreeScope {
  readonly #exclusions: Exclusions;
  readonly #cacheFolder: string | undefined;
  /** The path of the cache in use from the top of the tree; undefined if it is elsewhere. */
  readonly #cacheInTree: string | undefined;
  readonly #folder: string;
  /** What was found out about folders of the tree, by their paths from its top. */
  readonly #caches = new Map<string, boolean>();

  private constructor(
    folder: string,
    exclusions: Exclusions,
    cache: { readonly folder: string | undefined; readonly inTree: string | undefined },
  ) {
    this.#folder = folder;
    this.#exclusions = exclusions;
    this.#cacheFolder = cache.folder;
    this.#cacheInTree = cache.inTree;
  }

  /**
   * @param action completes "Cannot …" in errors.
   * @throws FiletrackerError `invalid-argument` if `folder` is a cache or is in one.
   */
  static async open(
    folder: string,
    action: string,
    options: { readonly exclusions: Exclusions; readonly cacheFolder: string | undefined },
  ): Promise<TreeScope> {
    const { exclusions, cacheFolder } = options;
    try {
      const top = await realPathOf(folder);
      const cache = cacheFolder === undefined ? undefined : await realPathOf(cacheFolder);
      for (let above = top; ; above = dirname(above)) {
        if (above === cache || isCacheFolder(above)) refuseCache(action, above, above === top);
        if (above === dirname(above)) break;
      }
      const fromTop = cache === undefined ? '..' : relativePath(top, cache);
      const inTree = fromTop.split(sep)[0] === '..' ? undefined : fromTop.split(sep).join('/');
      return new TreeScope(folder, exclusions, { folder: cacheFolder, inTree });
    } catch (error) {
      throw fromLocalError(error, action);
    }
  }

  excludes(relative: string, kind: 'file' | 'folder'): boolean {
    return this.#exclusions.matches(relative, kind);
  }

  /** As `excludes`, and also if a folder above the file is excluded. */
  excludesFile(relative: string): boolean {
    return this.#exclusions.excludesFile(relative);
  }

  /** Whether a folder of the tree is a cache. */
  async isCache(relative: string): Promise<boolean> {
    if (relative === this.#cacheInTree) return true;
    const known = this.#caches.get(relative);
    if (known !== undefined) return known;
    const path = join(this.#folder, relative);
    const isOne = isCacheFolder(path) || (await this.#isCacheInUse(path));
    this.#caches.set(relative, isOne);
    return isOne;
  }

  /** The cache that a file of the tree would be in, as a path from the top; undefined if it is in none. */
  async cacheAround(relative: string): Promise<string | undefined> {
    for (let slash = relative.indexOf('/'); slash !== -1; slash = relative.indexOf('/', slash + 1)) {
      const folder = relative.slice(0, slash);
      if (await this.isCache(folder)) return folder;
    }
    // A file of the name that a cache has here.
    return (await this.isCache(relative)) ? relative : undefined;
  }

  async #isCacheInUse(path: string): Promise<boolean> {
    if (this.#cacheFolder === undefined) return false;
    const [cache, here] = await Promise.all([
      identityOf(() => stat(resolve(this.#cacheFolder ?? ''), { bigint: true })),
      identityOf(() => lstat(path, { bigint: true })),
    ]);
    return cache !== undefined && cache.ino === here?.ino && cache.dev === here.dev;
  }
}

function refuseCache(action: string, cache: string, isTop: boolean): never {
  const state = isTop ? 'it is the cache of a client' : `it is in "${cache}", which is the cache of a client`;
  throw new FiletrackerError('invalid-argument', `Cannot ${action}: ${state}; name another folder`);
}

async function identityOf(look: () => Promise<FolderIdentity>): Promise<FolderIdentity | undefined> {
  try {
    return await look();
  } catch (error) {
    if (errnoOf(error) === undefined) throw error;
    return undefined;
  }
}
