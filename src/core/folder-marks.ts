// What tells the store of a server from the cache of a client: FILETRACKER_DIR names the folder of both, and both have
// a `blobs/`, in which either would take the other's contents for its own leftovers.

/** What a file system keeps at its root for itself: a new disk with nothing else on it is empty. */
export const ofFileSystem: ReadonlySet<string> = new Set(['lost+found']);

/** A cache has both from its first file on; no store has either. */
export const cacheMarks = ['partial', 'pins'] as const;

/** Besides those, a cache has one of these files as soon as something was fetched into it. */
export const cacheFileMarks = ['lock', 'space'] as const;

/** The names of files that a transfer writes beside its target; what a killed one leaves may be deleted. */
export const unfinishedName = /^\.filetracker-[0-9a-f]{16}$/;

/**
 * Any of them makes a folder the store of a server: of ours, wherever its catalog is, of one that took an old folder over, or
 * of filetracker 2. The `files/` of version 1 does not: the Python client's cache has it too, and may share ours.
 */
export const storeMarks = ['journal', 'catalog', 'uploads', 'store.json', 'store-3', 'links'] as const;
