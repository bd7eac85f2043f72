import { readdir } from 'node:fs/promises';
import { isAbsolute, join, resolve } from 'node:path';
import { reservedNames } from '../blobs/disk/blob-folders.ts';
import { listSegments, scanSegment } from '../catalog/journal/segment.ts';
import { errnoOf, FiletrackerError, fromSystemError } from '../core/errors.ts';
import { cacheMarks, ofFileSystem } from '../fs/folder-marks.ts';
import { realPathOf } from '../fs/folders.ts';
import { checkApart } from './backup/apart.ts';
import { refuseNewerFormats } from './newer-formats.ts';
import { readAdoptionState } from './migration/legacy/adoption-state.ts';
import {
  adoptedStoreName,
  isFolder,
  storeFolders,
  unfinishedRestoreName,
  type StoreFolders,
} from './backup/store-folders.ts';
import { tokensFileName, tokensLockName, tokensMarkerName } from '../access/token-files.ts';

/**
 * What a folder is that somebody names as a store. Every program asks here before it opens one, because the old
 * layout and ours both have a `blobs/` and mean different things by it: what is opened as the wrong one is destroyed.
 *
 * A folder of filetracker 2 is known by `links/` beside `blobs/`, which ours never has, whatever else was
 * left there; not by what is missing, because any program of ours that once ran there may have made that.
 */
export type FolderKind =
  /** Nothing is there, nothing is in it, or things that are neither ours nor an old server's. */
  | { readonly kind: 'absent' | 'empty' | 'other' }
  /** A store: the folder itself, or the part of an adopted one that holds it. */
  | { readonly kind: 'store'; readonly folders: StoreFolders }
  /** What a restore has made of a store that was killed, or is under way. */
  | { readonly kind: 'unfinished-restore' }
  /** Contents without a journal and a catalog that tell whose they are. */
  | { readonly kind: 'journal-lost'; readonly folders: StoreFolders }
  /** A folder of filetracker 2 that was not taken over yet, or not wholly. */
  | { readonly kind: 'to-adopt'; readonly source: string; readonly store: string; readonly begun: boolean }
  /** A folder of filetracker 2 that an earlier release of ours has stored files in. */
  | { readonly kind: 'mixed' }
  /** The cache of a client, and nothing of a store. */
  | { readonly kind: 'cache' }
  /** A folder of filetracker 1: plain files under `files/`. */
  | { readonly kind: 'plain-files' };

/** What may lie in a folder that is to become a store. */
const strangersAllowed: ReadonlySet<string> = new Set([
  ...ofFileSystem,
  tokensFileName,
  tokensMarkerName,
  tokensLockName,
]);

/** Folders of a store whose making was cut short before it had a journal; nothing in them is of worth then. */
const begunFolders: ReadonlySet<string> = new Set(['blobs', 'uploads', 'catalog']);

/** Whether a folder is in the layout of the legacy server, version 2. */
export async function isLegacyFolder(folder: string): Promise<boolean> {
  const [links, blobs] = await Promise.all(['links', 'blobs'].map((part) => isFolder(join(folder, part))));
  return links === true && blobs === true;
}

/** @throws FiletrackerError of the disk. */
export async function folderKind(folder: string): Promise<FolderKind> {
  const root = resolve(folder);
  const adopted = join(root, adoptedStoreName);
  if (!(await isLegacyFolder(root))) return (await isFolder(adopted)) ? storeIn(adopted) : ownKind(root);
  const begun = await isFolder(adopted);
  if (begun && (await readAdoptionState(adopted))?.complete === true) return storeIn(adopted);
  if (await holdsRecords(storeFolders(root).journal)) return { kind: 'mixed' };
  return { kind: 'to-adopt', source: root, store: adopted, begun };
}

function storeIn(root: string): FolderKind {
  return { kind: 'store', folders: storeFolders(root) };
}

async function ownKind(root: string): Promise<FolderKind> {
  const folders = storeFolders(root);
  const names = await namesIn(root);
  if (names === undefined) return { kind: 'absent' };
  if (names.includes(unfinishedRestoreName)) return { kind: 'unfinished-restore' };
  const segments = await listSegments(folders.journal);
  if (segments.length > 0 || (await namesIn(folders.catalog))?.includes('data.mdb') === true) {
    const adoption = await readAdoptionState(root);
    const unfinished = adoption?.complete === false && isAbsolute(adoption.source);
    if (unfinished && (await isLegacyFolder(adoption.source)))
      return { kind: 'to-adopt', source: adoption.source, store: root, begun: true };
    return storeIn(root);
  }
  if (holdsCache(names) && !names.includes('uploads')) return { kind: 'cache' };
  if (await holdsAnything(folders.blobs)) return { kind: 'journal-lost', folders };
  // A store whose first start was cut short has its folders, and nothing in them.
  if (await isFolder(folders.journal)) return storeIn(root);
  if (await isFolder(join(root, 'files'))) return { kind: 'plain-files' };
  const isEmpty = names.every((name) => strangersAllowed.has(name) || begunFolders.has(name));
  return { kind: isEmpty ? 'empty' : 'other' };
}

/** The names in a folder; undefined where there is none. */
async function namesIn(folder: string): Promise<string[] | undefined> {
  try {
    return await readdir(folder);
  } catch (error) {
    if (errnoOf(error) === 'ENOENT' || errnoOf(error) === 'ENOTDIR') return undefined;
    throw fromSystemError(error, `read "${folder}"`);
  }
}

/** Whether a client has its cache in a folder of these names. */
function holdsCache(names: readonly string[]): boolean {
  return cacheMarks.every((mark) => names.includes(mark));
}

/** Whether anything but empty folders lies in a folder of blobs. */
async function holdsAnything(blobsFolder: string): Promise<boolean> {
  for (const name of (await namesIn(blobsFolder)) ?? []) {
    if (reservedNames.has(name)) continue;
    const inner = await namesIn(join(blobsFolder, name));
    if (inner === undefined || inner.length > 0) return true;
  }
  return false;
}

/** Whether a journal tells of any change. Opening a store is enough to give it a journal, which then tells of none. */
async function holdsRecords(journal: string): Promise<boolean> {
  let damaged = false;
  for (const segment of await listSegments(journal)) {
    const records = scanSegment(journal, segment, { onDamage: () => (damaged = true) });
    const found = (await records.next()).done !== true;
    await records.return(0);
    if (found || damaged) return true;
  }
  return false;
}

function refuse(code: 'invalid-argument' | 'not-found', text: string): never {
  throw new FiletrackerError(code, text);
}

/** Refuses what has to be taken over, ended, or sorted out, before any program of ours may touch it. */
function refuseUnready(folder: string, found: FolderKind): void {
  if (found.kind === 'unfinished-restore') {
    const state = 'a restore to it has begun and not ended';
    refuse('invalid-argument', `Cannot use "${folder}": ${state}; run the restore again`);
  }
  if (found.kind === 'to-adopt') {
    const state = found.begun
      ? `${found.source === resolve(folder) ? 'it is a folder of filetracker 2' : `it takes "${found.source}" over`}, ` +
        'and taking it over has begun and not ended'
      : 'it is a folder of filetracker 2';
    const elsewhere = `filetracker-migrate --adopt ${found.source} NEW_DIR`;
    refuse(
      'invalid-argument',
      `Cannot use "${folder}": ${state}; take it over first, by starting filetracker-server -d ${folder}, or with ${elsewhere}`,
    );
  }
  if (found.kind === 'mixed') {
    const state = 'it is a folder of filetracker 2 in which files of this version were stored as well';
    refuse(
      'invalid-argument',
      `Cannot use "${folder}": ${state}; docs/OPERATIONS.md tells how to part them ("A folder of both")`,
    );
  }
  if (found.kind === 'cache') {
    const state =
      'it is the cache of a client; choose another folder, as FILETRACKER_DIR names the one for both';
    refuse('invalid-argument', `Cannot use "${folder}" as a store: ${state}`);
  }
  if (found.kind === 'plain-files') {
    const state = 'it is a folder of filetracker 1';
    refuse(
      'invalid-argument',
      `Cannot use "${folder}": ${state}; take it over with filetracker-migrate --adopt-1x ${folder} NEW_DIR, or choose another folder`,
    );
  }
}

/**
 * The store that a folder stands for: itself, or the one that an adopted legacy folder holds.
 * @param options.journalMayBeLost for recovery, which may find contents and nothing that tells of them.
 * @throws FiletrackerError `not-found` where there is no store, `invalid-argument` for a folder of an older
 * filetracker, and for one that a restore has not filled to its end.
 */
export async function findStore(
  folder: string,
  options: { readonly journalMayBeLost?: boolean } = {},
): Promise<StoreFolders> {
  const found = await folderKind(folder);
  refuseUnready(folder, found);
  if (options.journalMayBeLost === true) await refuseShared(folder);
  if (found.kind === 'store' || found.kind === 'journal-lost') await refuseNewerFormats(found.folders.root);
  if (found.kind === 'store') return found.folders;
  if (found.kind !== 'journal-lost')
    refuse('not-found', `Cannot find a store in "${folder}": it has no journal and no blobs`);
  if (options.journalMayBeLost !== true) refuseLost(folder);
  return found.folders;
}

/** A recovery puts aside what no store has brought, and among that would be the only copies that a client has. */
async function refuseShared(folder: string): Promise<void> {
  if (!holdsCache((await namesIn(folder)) ?? [])) return;
  const parts = 'names/, partial/, pins/, space, lock and blobs/0 to blobs/f';
  const state = `a client has its cache in it too; move that to a folder of its own first (${parts})`;
  refuse('invalid-argument', `Cannot recover "${folder}": ${state}`);
}

function refuseLost(folder: string): never {
  const remedy =
    'restore it from a backup, or let filetracker-recover put the contents aside, or choose another folder';
  return refuse(
    'invalid-argument',
    `Cannot use "${folder}": it has a folder blobs/ with something in it, and no journal that tells of it; ${remedy}`,
  );
}

/**
 * Where a store is to be opened, or made: in the folder itself, or in the part of an adopted one.
 * @param options.catalogElsewhere whether the folder is for contents alone, which a database tells of.
 * @throws FiletrackerError `invalid-argument` for what is not wholly ours.
 */
export async function folderToOpen(
  folder: string,
  options: { readonly catalogElsewhere?: boolean } = {},
): Promise<string> {
  const found = await folderKind(folder);
  refuseUnready(folder, found);
  if (found.kind === 'journal-lost' && options.catalogElsewhere !== true) refuseLost(folder);
  const root = found.kind === 'store' ? found.folders.root : resolve(folder);
  await refuseNewerFormats(root);
  return root;
}

/**
 * Where the contents are that a database names: the folder itself, or the part of an adopted one.
 * @throws FiletrackerError `not-found` if there are none: a folder that was mistyped must not make all files damaged.
 */
export async function contentsFolder(folder: string): Promise<string> {
  const root = await folderToOpen(folder, { catalogElsewhere: true });
  if (await isFolder(storeFolders(root).blobs)) return root;
  return refuse('not-found', `Cannot find the contents in "${folder}": it has no folder blobs/`);
}

/**
 * Sees to it that an old folder may be taken over into another: that is empty, or a store already, and apart from it;
 * or it is the part of the old folder itself that the server makes.
 * @throws FiletrackerError `invalid-argument`.
 */
export async function checkAdoptionTarget(source: string, target: string): Promise<void> {
  const inPlace = join(await realPathOf(source), adoptedStoreName);
  if ((await realPathOf(target)) !== inPlace) {
    await checkApart(
      source,
      target,
      'take over',
      'to take a folder of filetracker 2 over in place, start filetracker-server -d on it',
    );
  }
  const found = await folderKind(target);
  const isStore = found.kind === 'store' && found.folders.root === resolve(target);
  const goesOn = found.kind === 'to-adopt' && found.store === resolve(target);
  if (found.kind === 'absent' || found.kind === 'empty' || isStore || goesOn) return;
  refuse(
    'invalid-argument',
    `Cannot take over "${source}" to "${target}": it holds something else; choose an empty folder, or one of a store`,
  );
}
