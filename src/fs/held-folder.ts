import { closeSync, constants, fstatSync, lstatSync, openSync, readlinkSync } from 'node:fs';
import { errnoOf } from '../core/errors.ts';

const folderFlags = constants.O_RDONLY | constants.O_DIRECTORY;

/**
 * A folder held by an open descriptor.
 *
 * Invariant: `path` leads to this folder, even if its name now leads elsewhere. Node has no openat(2); a path below
 * /proc/self/fd resolves like one.
 */
export class HeldFolder implements Disposable {
  readonly descriptor: number;
  readonly path: string;
  #isOpen = true;

  private constructor(descriptor: number) {
    this.descriptor = descriptor;
    this.path = `/proc/self/fd/${descriptor}`;
  }

  /** Opens a folder by its path, through symbolic links. @throws system errors, also if /proc is not mounted. */
  static open(path: string): HeldFolder {
    return HeldFolder.#opened(openSync(path, folderFlags));
  }

  static #opened(descriptor: number): HeldFolder {
    const folder = new HeldFolder(descriptor);
    try {
      lstatSync(folder.path);
    } catch (error) {
      folder[Symbol.dispose]();
      throw error;
    }
    return folder;
  }

  /** Opens a folder in this one. @throws system errors: ENOTDIR or ELOOP for a symbolic link. */
  below(name: string): HeldFolder {
    return new HeldFolder(openSync(`${this.path}/${name}`, folderFlags | constants.O_NOFOLLOW));
  }

  /** Whether the folder still has a name. */
  isThere(): boolean {
    return this.#isOpen && fstatSync(this.descriptor).nlink > 0;
  }

  /** Closes the descriptor. Idempotent. */
  [Symbol.dispose](): void {
    if (this.#isOpen) closeSync(this.descriptor);
    this.#isOpen = false;
  }
}

/** The number of symbolic links that the kernel follows in one path. */
const linksMax = 40;

/**
 * Opens a folder as root for its owner: a symbolic link on the way is followed only if it belongs to root or to the
 * owner of the folder, so that no user can direct root to a third user's folder.
 * @throws system errors; EACCES for a link of another user.
 */
export function openAsRoot(absolutePath: string): HeldFolder {
  const linkOwners = new Set<number>();
  let folder = HeldFolder.open('/');
  const names = namesOf(absolutePath);
  for (let links = 0; names.length > 0;) {
    const name = names.shift() ?? '';
    const parent = folder;
    try {
      folder = parent.below(name);
      parent[Symbol.dispose]();
    } catch (error) {
      const target = linkTarget(parent, name, linkOwners);
      if (target === undefined || ++links > linksMax) {
        parent[Symbol.dispose]();
        throw error;
      }
      names.unshift(...namesOf(target));
      if (!target.startsWith('/')) continue;
      parent[Symbol.dispose]();
      folder = HeldFolder.open('/');
    }
  }
  const owner = fstatSync(folder.descriptor).uid;
  if ([...linkOwners].every((uid) => uid === 0 || uid === owner)) return folder;
  folder[Symbol.dispose]();
  throw Object.assign(new Error('EACCES: a symbolic link of another user is in the path'), {
    code: 'EACCES',
  });
}

function namesOf(path: string): string[] {
  return path.split('/').filter((name) => name !== '' && name !== '.');
}

/** The target of a symbolic link; `undefined` if it is not a link. */
function linkTarget(parent: HeldFolder, name: string, owners: Set<number>): string | undefined {
  const path = `${parent.path}/${name}`;
  try {
    const attributes = lstatSync(path);
    if (!attributes.isSymbolicLink()) return undefined;
    owners.add(attributes.uid);
    return readlinkSync(path);
  } catch (error) {
    if (errnoOf(error) === undefined) throw error;
    return undefined;
  }
}
