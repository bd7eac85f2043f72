import { execFileSync } from 'node:child_process';
import { stat } from 'node:fs/promises';
import { basename, dirname, join, resolve } from 'node:path';
import { cannot } from '../core/errors.ts';
import { unlessMissing } from '../fs/folders.ts';

interface Owner {
  readonly uid: number;
  readonly gid: number;
}

const root = 0;

/** The folders in which programs change files, below the folder of a store, a backup or a legacy store. */
const parts: readonly string[] = [
  'blobs',
  'catalog',
  'fallback',
  'history',
  'journal',
  'quarantine',
  'store-3',
  'uploads',
];

/**
 * Refuses to work as root in a folder of another user, who may have replaced any file by a link: root would read, cut and
 * overwrite its target. The error names the command that runs the program as that user.
 *
 * @param options.mayMake whether the program creates a missing folder, so that the owner of the folder above it counts.
 * @throws FiletrackerError `invalid-argument`.
 */
export async function refuseOthersFolders(
  folders: readonly string[],
  options: { readonly mayMake?: boolean } = {},
): Promise<void> {
  if (process.geteuid?.() !== root) return;
  for (const folder of folders) {
    const owner = await otherOwnerOf(resolve(folder), options.mayMake ?? false);
    if (owner === undefined) continue;
    const name = nameOf(owner.uid);
    const state = `it, or a part of it, belongs to user ${name ?? owner.uid}, and root would follow that user's links`;
    throw cannot(
      'invalid-argument',
      `work as root in "${folder}"`,
      `${state}; run ${commandAs(owner, name)}`,
    );
  }
}

/** The owner of a folder, or of one of its parts, if that is not root. */
async function otherOwnerOf(folder: string, mayMake: boolean): Promise<Owner | undefined> {
  const existing = mayMake ? await existingFolder(folder) : folder;
  const owner = await ownerOf(existing);
  if (owner === undefined || owner.uid !== root) return owner;
  for (const part of existing === folder ? parts : []) {
    for (const path of [join(folder, part), join(folder, 'store-3', part)]) {
      const partOwner = await ownerOf(path);
      if (partOwner !== undefined && partOwner.uid !== root) return partOwner;
    }
  }
  return undefined;
}

/** The folder, or if it is missing, the nearest one above it. */
async function existingFolder(folder: string): Promise<string> {
  const above = dirname(folder);
  return above === folder || (await ownerOf(folder)) !== undefined ? folder : existingFolder(above);
}

function ownerOf(path: string): Promise<Owner | undefined> {
  return unlessMissing(stat(path), `look at "${path}"`, 'ENOTDIR');
}

/** `undefined` for a user without a name, such as one of systemd's `DynamicUser=` while its unit is down. */
function nameOf(uid: number): string | undefined {
  try {
    const output = execFileSync('getent', ['passwd', String(uid)], { stdio: ['ignore', 'pipe', 'ignore'] });
    return /^[\w.-]+/.exec(output.toString())?.[0];
  } catch {
    return undefined;
  }
}

function commandAs({ uid, gid }: Owner, name: string | undefined): string {
  const [, script = '', ...args] = process.argv;
  const program = basename(script).replace(/\.c?js$/, '');
  const words = [program, ...args.map(shown)].join(' ');
  return name === undefined
    ? `setpriv --reuid ${uid} --regid ${gid} --clear-groups ${words}`
    : `runuser -u ${name} -- ${words}`;
}

/** An argument quoted for a shell; `…` if it may hold a secret. */
function shown(argument: string): string {
  const scheme = argument.indexOf('://');
  if (scheme !== -1 && argument.includes('@', scheme)) return '…';
  return /^[\w@%+=:,./-]+$/.test(argument) ? argument : `'${argument.replaceAll("'", String.raw`'\''`)}'`;
}
