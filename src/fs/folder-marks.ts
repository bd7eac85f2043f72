// The names by which a store of a server and a cache of a client are distinguished. FILETRACKER_DIR names the folder of
// both, and both contain `blobs/`, in which either would take the other's blobs for its own orphans.
import { existsSync } from 'node:fs';
import { join } from 'node:path';

/** Names that a file system keeps at its root: a new disk that holds only these is empty. */
export const ofFileSystem: ReadonlySet<string> = new Set(['lost+found']);

/** A cache has both from its first file on; a store has neither. */
export const cacheMarks = ['partial', 'pins'] as const;

/** A cache also has one of these files once something was fetched into it. */
const cacheFileMarks = ['lock', 'space'] as const;

/** Temporary files that a transfer writes beside its target; those of a killed process may be deleted. */
export const unfinishedName = /^\.filetracker-[0-9a-f]{16}$/;

/**
 * Any of these makes a folder the store of a server: of this release, with any kind of catalog; of an adopted legacy
 * folder; or of filetracker 2. The `files/` of version 1 does not: the Python client's cache has it too.
 */
export const storeMarks = ['journal', 'catalog', 'uploads', 'store.json', 'store-3', 'links'] as const;

/** Whether a folder is a client's cache that has stored something. */
export function isCacheFolder(folder: string): boolean {
  return (
    cacheMarks.every((mark) => existsSync(join(folder, mark))) &&
    cacheFileMarks.some((mark) => existsSync(join(folder, mark)))
  );
}
