import { isAbsolute, join, resolve } from 'node:path';
import { tokensFileName, tokensLockName, tokensMarkerName } from '../access/token-files.ts';
import { reservedNames } from '../blobs/disk/blob-folders.ts';
import { readSegmentHeader } from '../catalog/journal/segment-header.ts';
import { listSegments, scanSegment } from '../catalog/journal/segment.ts';
import { checkIndexFormat, indexDataFileName } from '../catalog/lmdb/index/state.ts';
import { cannot, errnoOf, isFiletrackerError } from '../core/errors.ts';
import { cacheMarks, ofFileSystem } from '../fs/folder-marks.ts';
import { realPathOf } from '../fs/folders.ts';
import { readAdoptionState } from './migration/legacy/adoption-state.ts';
import {
  adoptedStoreName,
  isFolder,
  namesIn,
  readStateFile,
  storeFolders,
  unfinishedRestoreName,
  type StoreFolders,
} from './store-folders.ts';
import { checkApart } from './target-folder.ts';

/**
 * The kind of a folder that a user names as a store. Every program checks this before it opens one: the old layout and ours
 * both have a `blobs/` with different meanings, and opening one as the other destroys it.
 *
 * A folder of filetracker 2 is known by `links/` beside `blobs/`, which ours never has, whatever else it contains; not by
 * what is missing, because any filetracker program that once ran there may have made that.
 */
export type FolderKind =
  /** It does not exist, it is empty, or it holds things of neither filetracker. */
  | { readonly kind: 'absent' | 'empty' | 'other' }
  /** A store: the folder itself, or the part of an adopted one that holds it. */
  | { readonly kind: 'store'; readonly folders: StoreFolders }
  /** A restore to it is under way, or was killed. */
  | { readonly kind: 'unfinished-restore' }
  /** Blobs without a journal and a catalog. */
  | { readonly kind: 'journal-lost'; readonly folders: StoreFolders }
  /** A folder of filetracker 2 that was not adopted yet, or not completely. */
  | { readonly kind: 'to-adopt'; readonly source: string; readonly store: string; readonly begun: boolean }
  /** A folder of filetracker 2 in which an early release of filetracker 3 has stored files. */
  | { readonly kind: 'mixed' }
  /** The cache of a client, and nothing of a store. */
  | { readonly kind: 'cache' }
  /** A folder of filetracker 1: plain files under `files/`. */
  | { readonly kind: 'plain-files' };

/** What a folder that becomes a store may contain: the rest are folders of a store that was killed before it had a journal. */
const allowedNames: ReadonlySet<string> = new Set([
  ...ofFileSystem,
  tokensFileName,
  tokensMarkerName,
  tokensLockName,
  'blobs',
  'uploads',
  'catalog',
]);

/** Whether a folder is in the layout of the legacy server, version 2. */
export async function isLegacyFolder(folder: string): Promise<boolean> {
  return (await isFolder(join(folder, 'links'))) && (await isFolder(join(folder, 'blobs')));
}

/** @throws FiletrackerError of the disk. */
export async function folderKind(folder: string): Promise<FolderKind> {
  const root = resolve(folder);
  const adopted = join(root, adoptedStoreName);
  const begun = await isFolder(adopted);
  if (!(await isLegacyFolder(root))) return begun ? storeIn(adopted) : ownKind(root);
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
  if (segments.length > 0 || (await namesIn(folders.catalog))?.includes(indexDataFileName) === true) {
    const adoption = await readAdoptionState(root);
    const unfinished = adoption?.complete === false && isAbsolute(adoption.source);
    if (!unfinished || !(await isLegacyFolder(adoption.source))) return storeIn(root);
    return { kind: 'to-adopt', source: adoption.source, store: root, begun: true };
  }
  if (holdsCache(names) && !names.includes('uploads')) return { kind: 'cache' };
  if (await holdsAnything(folders.blobs)) return { kind: 'journal-lost', folders };
  // A store whose first start was interrupted has its folders, and nothing in them.
  if (await isFolder(folders.journal)) return storeIn(root);
  if (await isFolder(join(root, 'files'))) return { kind: 'plain-files' };
  return { kind: names.every((name) => allowedNames.has(name)) ? 'empty' : 'other' };
}

/** Whether a client has its cache in a folder of these names. */
function holdsCache(names: readonly string[]): boolean {
  return cacheMarks.every((mark) => names.includes(mark));
}

/** Whether a folder of blobs contains anything but empty folders. */
async function holdsAnything(blobsFolder: string): Promise<boolean> {
  for (const name of (await namesIn(blobsFolder)) ?? []) {
    if (reservedNames.has(name)) continue;
    const inner = await namesIn(join(blobsFolder, name));
    if (inner === undefined || inner.length > 0) return true;
  }
  return false;
}

/** Whether a journal holds any change. Opening a store is enough to create a journal, which then holds none. */
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

/** Refuses what has to be adopted, finished or sorted out before a program may touch it. */
function refuseUnready(folder: string, found: FolderKind): void {
  const problem = problemOf(folder, found);
  if (problem !== undefined) throw cannot('invalid-argument', `use "${folder}"`, problem);
}

function problemOf(folder: string, found: FolderKind): string | undefined {
  switch (found.kind) {
    case 'unfinished-restore':
      return 'a restore to it is unfinished; run the restore again';
    case 'to-adopt': {
      const { source, begun } = found;
      const state =
        source === resolve(folder)
          ? `it is a folder of filetracker 2${begun ? ', whose adoption is unfinished' : ''}`
          : `its adoption of "${source}", a folder of filetracker 2, is unfinished`;
      return `${state}; adopt it first, by starting filetracker-server -d ${folder}, or with filetracker-migrate --adopt ${source} NEW_DIR`;
    }
    case 'mixed':
      return (
        'it is a folder of filetracker 2 in which files of this version were stored as well; separate them as ' +
        'docs/OPERATIONS.md describes ("A folder of both")'
      );
    case 'cache':
      return 'it is the cache of a client; choose another folder for the store; FILETRACKER_DIR sets both';
    case 'plain-files':
      return `it is a folder of filetracker 1; adopt it with filetracker-migrate --adopt-1x ${folder} NEW_DIR, or choose another folder`;
    case 'absent':
    case 'empty':
    case 'other':
    case 'store':
    case 'journal-lost':
      return undefined;
  }
}

/**
 * The store of a folder: the folder itself, or the part of an adopted legacy folder.
 * @param options.journalMayBeLost for recovery, which may find blobs without a journal.
 * @throws FiletrackerError `not-found` if there is no store, `invalid-argument` for a folder of an older filetracker, and
 * for one that a restore has not filled completely.
 */
export async function findStore(
  folder: string,
  { journalMayBeLost = false }: { readonly journalMayBeLost?: boolean } = {},
): Promise<StoreFolders> {
  const found = await folderKind(folder);
  refuseUnready(folder, found);
  if (journalMayBeLost) await refuseShared(folder);
  if (found.kind !== 'store' && found.kind !== 'journal-lost') {
    throw cannot('not-found', `find a store in "${folder}"`, 'it has no journal and no blobs');
  }
  await refuseNewerFormats(found.folders.root);
  if (found.kind === 'journal-lost' && !journalMayBeLost) refuseLost(folder);
  return found.folders;
}

/** Recovery moves aside what the store does not know, which would include the only copies that a client has. */
async function refuseShared(folder: string): Promise<void> {
  if (!holdsCache((await namesIn(folder)) ?? [])) return;
  const parts = 'names/, partial/, pins/, space, lock and blobs/0 to blobs/f';
  const state = `it also holds the cache of a client; move these to another folder first (${parts})`;
  throw cannot('invalid-argument', `recover "${folder}"`, state);
}

function refuseLost(folder: string): never {
  const state =
    'its folder blobs/ is not empty, and there is no journal; restore it from a backup, or let filetracker-recover move ' +
    'the blobs aside, or choose another folder';
  throw cannot('invalid-argument', `use "${folder}"`, state);
}

/**
 * Where a store is to be opened or created: the folder itself, or the part of an adopted one.
 * @param options.catalogElsewhere whether the folder is for blobs alone, with the catalog in a database.
 * @throws FiletrackerError `invalid-argument` for a folder that is not entirely ours.
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
 * The folder with the blobs of a catalog in a database: the folder itself, or the part of an adopted one.
 * @throws FiletrackerError `not-found` if there are none: a mistyped folder must not mark all files as damaged.
 */
export async function contentsFolder(folder: string): Promise<string> {
  const root = await folderToOpen(folder, { catalogElsewhere: true });
  if (await isFolder(storeFolders(root).blobs)) return root;
  throw cannot('not-found', `find the blobs in "${folder}"`, 'it has no folder blobs/');
}

/**
 * Checks that an old folder may be adopted into another: one that is empty or a store already, and apart from it; or the
 * part of the old folder itself that the server makes.
 * @throws FiletrackerError `invalid-argument`.
 */
export async function checkAdoptionTarget(source: string, target: string): Promise<void> {
  const inPlace = join(await realPathOf(source), adoptedStoreName);
  if ((await realPathOf(target)) !== inPlace) {
    const remedy = 'to adopt a folder of filetracker 2 in place, start filetracker-server -d on it';
    await checkApart(source, target, 'adopt', remedy);
  }
  const found = await folderKind(target);
  const isStore = found.kind === 'store' && found.folders.root === resolve(target);
  const resumes = found.kind === 'to-adopt' && found.store === resolve(target);
  if (found.kind === 'absent' || found.kind === 'empty' || isStore || resumes) return;
  const state = 'the target holds something else; choose an empty folder, or a store';
  throw cannot('invalid-argument', `adopt "${source}" to "${target}"`, state);
}

/** The files with a format of their own in the folder of a store or a backup, all in format 1. */
const stateFileNames = [
  'adoption.json',
  'backup.json',
  'store.json',
  'tokens.json',
  'tokens-required.json',
  'verification.json',
] as const;

/**
 * Refuses a folder in which a newer release has written something that this one does not know, before anything is
 * changed: it might be ignored, "repaired" or overwritten.
 * @throws FiletrackerError `corrupt-store` with the file, its format and the known ones.
 */
export async function refuseNewerFormats(folder: string): Promise<void> {
  for (const name of stateFileNames) {
    await readStateFile(join(folder, name)).catch((error: unknown) => {
      // The part that needs the file reports that it cannot read it.
      if (!isFiletrackerError(error) || errnoOf(error.cause) !== 'EACCES') throw error;
    });
  }
  const { journal, catalog } = storeFolders(folder);
  await checkIndexFormat(catalog);
  for (const segment of await listSegments(journal)) {
    await readSegmentHeader(journal, segment).catch((error: unknown) => {
      // A server may compact its journal meanwhile.
      if (errnoOf(error) !== 'ENOENT') throw error;
    });
  }
}
