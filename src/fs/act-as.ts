import { cannot } from '../core/errors.ts';

export interface Owner {
  readonly uid: number;
  readonly gid: number;
}

/** Missing from the types of Node. */
interface WithInitgroups {
  initgroups?(user: number, extraGroup: number): void;
}

const root = 0;

/**
 * Runs `work` with the rights of the owner of a folder if this process is root, so that no link of the owner leads
 * root elsewhere. For other users, and in root's own folders, nothing changes. Nothing else of the process may run
 * meanwhile, and modules that `work` needs must be loaded before.
 * @throws FiletrackerError `io` if this root may not act as another user.
 */
export async function actingAs<Result>(
  { uid, gid }: Owner,
  work: () => Promise<Result> | Result,
): Promise<Result> {
  if (process.geteuid?.() !== root || uid === root) return await work();
  const before = { gid: process.getegid?.() ?? root, groups: process.getgroups?.() ?? [] };
  try {
    try {
      takeGroups(uid, gid);
      process.setegid?.(gid);
      process.seteuid?.(uid);
    } catch (error) {
      const state = 'this process may not change its user';
      throw cannot('io', `act as user ${uid}`, state, { cause: error });
    }
    return await work();
  } finally {
    process.seteuid?.(root);
    process.setegid?.(before.gid);
    process.setgroups?.([...before.groups]);
  }
}

function takeGroups(uid: number, gid: number): void {
  try {
    (process as WithInitgroups).initgroups?.(uid, gid);
  } catch {
    // The user has no entry in the password file.
    process.setgroups?.([gid]);
  }
}
