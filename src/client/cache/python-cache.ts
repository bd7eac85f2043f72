import { closeSync, lstatSync, readdirSync } from 'node:fs';
import { errnoOf } from '../../core/errors.ts';
import { loadSystemCalls } from '../../fs/native.ts';
import type { HeldFolder } from '../../fs/held-folder.ts';
import { openFile } from './blob.ts';
import { blobCharge } from './layout.ts';
import type { Candidate } from './survey.ts';
import { removeIfThere } from '../transfer/targets.ts';

/** Names have fewer parts; every level takes a descriptor while its folder is read. */
const depthMax = 100;

/** Errnos of what is skipped: it is gone, no folder, or closed to this user. */
const skippedErrnos: ReadonlySet<string> = new Set([
  'ENOENT',
  'ENOTDIR',
  'ELOOP',
  'EACCES',
  'EPERM',
  'EISDIR',
]);

/**
 * The cache of the Python client: `files/<name>` with the version as time, and `locks/<name>` on which the users of a
 * file hold flock(2). Every folder is opened on the way, never through a link. The path of a candidate is relative to
 * `files/`.
 */
export class PythonCache {
  readonly #folder: HeldFolder;

  /** The folder is the caller's to close. */
  constructor(folder: HeldFolder) {
    this.#folder = folder;
  }

  survey(): { readonly total: number; readonly candidates: readonly Candidate[] } {
    const candidates: Candidate[] = [];
    skipping(() => {
      using files = this.#folder.below('files');
      walk(files, '', 0, (path, { size, nlink, atimeMs, ctimeMs }) => {
        // The Python client hands out hard links, which shows in the time of change.
        const usedMs = Math.max(atimeMs, ctimeMs);
        candidates.push({ path, charge: blobCharge(size), usedMs, shared: nlink > 1, lockKey: 0 });
      });
    });
    return { total: candidates.reduce((sum, { charge }) => sum + charge, 0), candidates };
  }

  /** Removes files that nobody uses. */
  async remove(
    candidates: readonly Candidate[],
  ): Promise<{ readonly files: number; readonly bytes: number }> {
    const locks = await loadSystemCalls();
    let [files, bytes] = [0, 0];
    for (const { path, charge } of candidates) {
      const remove = (): void => this.#inFolderOf('files', path, removeIfThere);
      const isRemoved = skipping(() => {
        const lock = this.#openLock(path);
        try {
          // A user of a file has made its lock first.
          if (lock !== undefined && !locks.tryLock(lock, 'exclusive')) return false;
          remove();
          return true;
        } finally {
          if (lock !== undefined) closeSync(lock);
        }
      });
      if (isRemoved !== true) continue;
      files += 1;
      bytes += charge;
    }
    return { files, bytes };
  }

  #openLock(path: string): number | undefined {
    let lock: number | undefined;
    skipping(() => this.#inFolderOf('locks', path, (file) => (lock = openFile(file))));
    return lock;
  }

  /** Calls back with a path of a file below `files` or `locks` while its folder is open. */
  #inFolderOf(kind: 'files' | 'locks', path: string, work: (file: string) => void): void {
    const names = path.split('/');
    const name = names.pop() ?? '';
    let folder = this.#folder.below(kind);
    try {
      for (const part of names) {
        const next = folder.below(part);
        folder[Symbol.dispose]();
        folder = next;
      }
      work(`${folder.path}/${name}`);
    } finally {
      folder[Symbol.dispose]();
    }
  }
}

interface Attributes {
  readonly size: number;
  readonly nlink: number;
  readonly atimeMs: number;
  readonly ctimeMs: number;
}

function walk(
  folder: HeldFolder,
  relative: string,
  depth: number,
  visit: (path: string, attributes: Attributes) => void,
): void {
  for (const item of readdirSync(folder.path, { withFileTypes: true })) {
    const path = relative === '' ? item.name : `${relative}/${item.name}`;
    if (item.isDirectory() && depth < depthMax) {
      skipping(() => {
        using below = folder.below(item.name);
        walk(below, path, depth + 1, visit);
      });
    } else if (item.isFile()) {
      const attributes = lstatSync(`${folder.path}/${item.name}`, { throwIfNoEntry: false });
      if (attributes?.isFile() === true) visit(path, attributes);
    }
  }
}

/** `undefined` if the file is gone, or the system keeps this user out. */
function skipping<Result>(work: () => Result): Result | undefined {
  try {
    return work();
  } catch (error) {
    if (!skippedErrnos.has(errnoOf(error) ?? '')) throw error;
    return undefined;
  }
}
