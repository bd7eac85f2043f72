import { chmodSync, fchmodSync, fstatSync, lstatSync, mkdirSync, realpathSync, statSync } from 'node:fs';
import type { Stats } from 'node:fs';
import { dirname, resolve } from 'node:path';
import { errnoOf, FiletrackerError } from '../../core/errors.ts';
import { makeFolders } from '../../fs/folders.ts';
import { HeldFolder } from '../../fs/held-folder.ts';

/** No process has that descriptor: nothing exists below this path, and no user can create anything there. */
const nowhere = '/proc/self/fd/2147483647';

/** Never writable for all users, whatever the umask. */
const defaultFolderMode = 0o775;

const root = 0;
const groupOrOtherWrite = 0o022;
const sticky = 0o1000;

/**
 * Paths of the folders of a cache.
 *
 * Invariant: if another user replaces a folder by a link, the link is not followed. If only this user and root can
 * change the way to a folder, its plain path is used. Otherwise every folder is opened, one by one (O_NOFOLLOW), and used
 * by its descriptor, so that it is the same folder between a check and a use.
 */
export class CacheFolders {
  readonly folder: string;
  /** Permissions of the folders, as 0o2770, those of files follow from it; `undefined` leaves them to the umask. */
  readonly folderMode: number | undefined;
  readonly #known = new Map<string, string>();
  readonly #held = new Map<string, HeldFolder>();
  #isPrivate: boolean | undefined;

  /** Does no I/O. `folder` is a path, or an open folder of any owner, which this object closes. */
  constructor(folder: string | HeldFolder, folderMode?: number) {
    this.folder = typeof folder === 'string' ? folder : folder.path;
    this.folderMode = folderMode;
    if (typeof folder === 'string') return;
    this.#isPrivate = false;
    this.#held.set('', folder);
  }

  /** Whether only this user and root can put a link or file into the cache. */
  get isPrivate(): boolean {
    return this.#isPrivate ?? false;
  }

  /**
   * The path of a folder: `''` is the cache itself, `names` a folder in it, `names/a` a shard of that. A missing folder has
   * a path too.
   * @throws FiletrackerError `io` for a link of another user, or a cache that belongs to another user.
   */
  at(key = ''): string {
    const known = this.#known.get(key);
    if (known !== undefined) return known;
    this.#isPrivate ??= this.#judge();
    const path = key === '' ? this.folder : `${this.folder}/${key}`;
    // Nothing is created there before `make` checks the folder.
    if (this.#isPrivate === undefined) return path;
    // A look at the folder above may find that it is not private.
    if (this.#isPrivate && key.includes('/')) this.at(parentOf(key));
    if (!this.#isPrivate) return this.#hold(key)?.path ?? nowhere;
    const attributes = lstatSync(path, { throwIfNoEntry: false });
    if (attributes === undefined) return path;
    if (isOwn(attributes) && (attributes.isSymbolicLink() || !isOpenToOthers(attributes))) {
      this.#known.set(key, path);
      return path;
    }
    this.#isPrivate = false;
    this.#known.clear();
    return this.at(key);
  }

  /** Creates a folder and missing ones above it; returns the created ones, the topmost first. */
  make(key = ''): readonly string[] {
    if (key === '') return this.#makeCache();
    const made = [...this.make(parentOf(key))];
    const path = `${this.at(parentOf(key))}/${nameOf(key)}`;
    try {
      mkdirSync(path, this.folderMode ?? defaultFolderMode);
      made.push(path);
    } catch (error) {
      if (errnoOf(error) === 'EEXIST') return made;
      throw error;
    }
    // The umask narrowed the permissions.
    if (this.folderMode === undefined) return made;
    if (this.isPrivate) chmodSync(path, this.folderMode);
    else {
      const held = this.#hold(key);
      if (held !== undefined && isOwn(fstatSync(held.descriptor))) {
        fchmodSync(held.descriptor, this.folderMode);
      }
    }
    return made;
  }

  #makeCache(): readonly string[] {
    if (this.#held.get('')?.isThere() === true) return [];
    const made = makeFolders(this.folder, defaultFolderMode);
    if (this.folderMode !== undefined) for (const folder of made) chmodSync(folder, this.folderMode);
    return made;
  }

  /** Whether the folder is private; `undefined` if it is missing. */
  #judge(): boolean | undefined {
    const attributes = statSync(this.folder, { throwIfNoEntry: false });
    if (attributes === undefined) return undefined;
    this.#requireConsent(attributes);
    return isOwn(attributes) && !isOpenToOthers(attributes) && isPathSafe(this.folder);
  }

  /** The owner of a cache reads what others fetch, and can forge what they find: this takes their consent. */
  #requireConsent({ uid }: Stats): void {
    if (uid === root || uid === process.geteuid?.() || this.folderMode !== undefined) return;
    throw new FiletrackerError(
      'io',
      `Cannot use the cache folder "${this.folder}": it belongs to another user (uid ${uid}); name another folder, or ` +
        'set cacheMode (FILETRACKER_CACHE_MODE=2770) if you share it with that user',
    );
  }

  #hold(key: string): HeldFolder | undefined {
    const held = this.#held.get(key);
    if (held?.isThere() === true) return held;
    held?.[Symbol.dispose]();
    this.#held.delete(key);
    try {
      const opened = key === '' ? this.#holdCache() : this.#hold(parentOf(key))?.below(nameOf(key));
      if (opened !== undefined) this.#held.set(key, opened);
      return opened;
    } catch (error) {
      if (errnoOf(error) === 'ENOENT') return undefined;
      if (errnoOf(error) !== 'ELOOP' && errnoOf(error) !== 'ENOTDIR') throw error;
      throw new FiletrackerError(
        'io',
        `Cannot use the cache folder "${this.folder}": "${key}" in it is not a folder; remove it`,
        { cause: error },
      );
    }
  }

  #holdCache(): HeldFolder {
    const opened = HeldFolder.open(this.folder);
    try {
      this.#requireConsent(fstatSync(opened.descriptor));
    } catch (error) {
      opened[Symbol.dispose]();
      throw error;
    }
    return opened;
  }

  /** Closes all descriptors. Idempotent. */
  close(): void {
    for (const held of this.#held.values()) held[Symbol.dispose]();
    this.#held.clear();
    this.#known.clear();
    this.#isPrivate = undefined;
  }
}

/** `names` of `names/a`; `''` of `names`. */
function parentOf(key: string): string {
  return key.slice(0, Math.max(0, key.lastIndexOf('/')));
}

function nameOf(key: string): string {
  return key.slice(key.lastIndexOf('/') + 1);
}

/** Whether a file belongs to this user or to root. */
export function isOwn({ uid }: { readonly uid: number }): boolean {
  return uid === root || uid === process.geteuid?.();
}

function isOpenToOthers({ mode }: Stats): boolean {
  return (mode & groupOrOtherWrite) !== 0;
}

/** Whether only this user and root can rename the folders above. */
function isPathSafe(folder: string): boolean {
  if (!isOwn(lstatSync(folder))) return false;
  return [resolve(folder), realpathSync(folder)].every((whole) => {
    for (let path = dirname(whole); ; path = dirname(path)) {
      const attributes = statSync(path);
      const isOpen = isOpenToOthers(attributes) && (attributes.mode & sticky) === 0;
      if (isOpen || !isOwn(attributes)) return false;
      if (path === dirname(path)) return true;
    }
  });
}
