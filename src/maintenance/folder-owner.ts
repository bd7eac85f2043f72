import { closeSync, constants, fchownSync, fstatSync, openSync, readdirSync } from 'node:fs';
import { stat } from 'node:fs/promises';
import { dirname, resolve } from 'node:path';
import { errnoOf } from '../core/errors.ts';

interface Owner {
  readonly uid: number;
  readonly gid: number;
}

interface OwnedFolder {
  readonly folder: string;
  readonly owner: Owner;
}

const root = 0;

/** The folders of a store in which programs make files; of `blobs` only those that it is divided into. */
const foldersToEnter: ReadonlySet<string> = new Set([
  'blobs',
  'catalog',
  'fallback',
  'history',
  'journal',
  'quarantine',
  'store-3',
  'uploads',
]);

/**
 * Does the work so that what root makes in folders of another user is that user's, whose server could not use root's
 * files: with the rights of the user to whom all of the folders belong, so that no link which he has put there leads root
 * astray; or as root, which then hands over what it made, where they belong to several users, or the one can't reach
 * them, as under systemd's `DynamicUser=`, or can't read this program. A folder that is not there yet is the owner's of
 * its parent. Nothing else of the process may be going on meanwhile.
 */
export async function asOwnerOf<Result>(
  folders: readonly string[],
  work: () => Promise<Result>,
): Promise<Result> {
  if (process.geteuid?.() !== root) return work();
  const owned = await Promise.all(folders.map(async (folder) => ({ folder, owner: await ownerOf(folder) })));
  const [first] = owned;
  const isCommon = owned.every(
    ({ owner }) => owner.uid === first?.owner.uid && owner.gid === first.owner.gid,
  );
  const before = { gid: process.getegid?.() ?? root, groups: process.getgroups?.() ?? [] };
  try {
    const acts =
      first !== undefined && first.owner.uid !== root && isCommon && takeRightsOf(first.owner, folders);
    if (acts) return await work();
    becomeRoot(before);
    return await work().finally(() => handOver(owned));
  } finally {
    becomeRoot(before);
  }
}

async function ownerOf(folder: string): Promise<Owner> {
  const path = resolve(folder);
  try {
    return await stat(path);
  } catch (error) {
    // What else is wrong with it is told by the work.
    if (errnoOf(error) !== 'ENOENT' || path === dirname(path)) return { uid: root, gid: root };
    return ownerOf(dirname(path));
  }
}

/** False where the owner can't do the work, or this root is one that may not change who it is. */
function takeRightsOf({ uid, gid }: Owner, folders: readonly string[]): boolean {
  try {
    process.setgroups?.([gid]);
    process.setegid?.(gid);
    process.seteuid?.(uid);
    for (const path of [process.execPath, ...process.argv.slice(1, 2)]) closeSync(openSync(path, 'r'));
    for (const folder of folders) tryToReach(folder);
    return true;
  } catch {
    return false;
  }
}

function tryToReach(folder: string): void {
  try {
    closeSync(openSync(folder, 'r'));
  } catch (error) {
    if (errnoOf(error) !== 'ENOENT') throw error;
    tryToReach(dirname(resolve(folder)));
  }
}

function becomeRoot({ gid, groups }: { readonly gid: number; readonly groups: readonly number[] }): void {
  process.seteuid?.(root);
  process.setegid?.(gid);
  process.setgroups?.([...groups]);
}

/** What can't be handed over is named by the server, with what to do. */
function handOver(folders: readonly OwnedFolder[]): void {
  for (const { folder, owner } of folders) {
    if (owner.uid === root) continue;
    try {
      handOverOpened(openSync(folder, constants.O_RDONLY | constants.O_DIRECTORY), owner, true);
    } catch {
      // Not made, or a system without what is used below.
    }
  }
}

/**
 * Everything is opened first, by way of the folder that is open, and changed as what it then is: its owner may put links
 * in the place of any name meanwhile. A file with several names may have been somebody else's before. Closes what it is given.
 */
function handOverOpened(descriptor: number, owner: Owner, mayEnter: boolean): void {
  try {
    const stats = fstatSync(descriptor);
    const isOne = stats.isDirectory() || (stats.isFile() && stats.nlink === 1);
    if (stats.uid === root && isOne) fchownSync(descriptor, owner.uid, owner.gid);
    if (!stats.isDirectory() || !mayEnter) return;
    const { O_RDONLY, O_NOFOLLOW, O_NONBLOCK } = constants;
    const path = `/proc/self/fd/${descriptor}`;
    for (const item of readdirSync(path, { withFileTypes: true })) {
      if (!item.isFile() && !item.isDirectory()) continue;
      const opened = openSync(`${path}/${item.name}`, O_RDONLY | O_NOFOLLOW | O_NONBLOCK);
      handOverOpened(opened, owner, foldersToEnter.has(item.name));
    }
  } finally {
    closeSync(descriptor);
  }
}
