import { lstat, stat } from 'node:fs/promises';
import { dirname, join, relative as relativePath, resolve, sep } from 'node:path';
import { errnoOf, FiletrackerError } from '../../core/errors.ts';
import { isCacheFolder } from '../../fs/folder-marks.ts';
import { realPathOf } from '../../fs/folders.ts';
import { fromLocalError } from '../local-errors.ts';
import type { Exclusions } from './exclusions.ts';

/**
 * The part of a local folder that belongs to a tree: everything but the user's exclusions and caches. A cache is never
 * part of a tree: a sync with delete would empty it, including blobs that have no other copy.
 *
 * The cache in use is recognized by its real path and by its identity (a bind mount has another path), other caches by
 * their files.
 */
export class TreeScope {
  readonly #exclusions: Exclusions;
  readonly #cacheFolder: string | undefined;
  /** The path of the cache in use from the top of the tree; `undefined` if it is elsewhere. */
  readonly #cacheInTree: string | undefined;
  readonly #folder: string;
  /** Whether folders of the tree are caches, by their paths from the top. */
  readonly #caches = new Map<string, boolean>();

  private constructor(
    folder: string,
    { exclusions, cacheFolder }: ScopeOptions,
    cacheInTree: string | undefined,
  ) {
    this.#folder = folder;
    this.#exclusions = exclusions;
    this.#cacheFolder = cacheFolder;
    this.#cacheInTree = cacheInTree;
  }

  /**
   * @param action completes "Cannot …" in errors.
   * @throws FiletrackerError `invalid-argument` if `folder` is a cache or is in one.
   */
  static async open(folder: string, action: string, options: ScopeOptions): Promise<TreeScope> {
    const { cacheFolder } = options;
    try {
      const top = await realPathOf(folder);
      const cache = cacheFolder === undefined ? undefined : await realPathOf(cacheFolder);
      for (let above = top; ; above = dirname(above)) {
        if (above === cache || isCacheFolder(above)) throw isCacheError(action, above, above === top);
        if (above === dirname(above)) break;
      }
      const fromTop = cache === undefined ? ['..'] : relativePath(top, cache).split(sep);
      return new TreeScope(folder, options, fromTop[0] === '..' ? undefined : fromTop.join('/'));
    } catch (error) {
      throw fromLocalError(error, action);
    }
  }

  excludes(relative: string, kind: 'file' | 'folder'): boolean {
    return this.#exclusions.matches(relative, kind);
  }

  /** Whether a file, or a folder above it, is excluded. */
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

  /** The cache that a file of the tree would be in, as a path from the top; `undefined` if it is in none. */
  async cacheAround(relative: string): Promise<string | undefined> {
    for (let slash = relative.indexOf('/'); slash !== -1; slash = relative.indexOf('/', slash + 1)) {
      const folder = relative.slice(0, slash);
      if (await this.isCache(folder)) return folder;
    }
    // The file may have the name of a cache.
    return (await this.isCache(relative)) ? relative : undefined;
  }

  async #isCacheInUse(path: string): Promise<boolean> {
    if (this.#cacheFolder === undefined) return false;
    try {
      const cache = await stat(resolve(this.#cacheFolder), { bigint: true });
      const here = await lstat(path, { bigint: true });
      return cache.ino === here.ino && cache.dev === here.dev;
    } catch (error) {
      if (errnoOf(error) === undefined) throw error;
      return false;
    }
  }
}

interface ScopeOptions {
  readonly exclusions: Exclusions;
  readonly cacheFolder: string | undefined;
}

function isCacheError(action: string, cache: string, isTop: boolean): FiletrackerError {
  const state = isTop ? 'it is the cache of a client' : `it is in "${cache}", which is the cache of a client`;
  return new FiletrackerError('invalid-argument', `Cannot ${action}: ${state}; name another folder`);
}
