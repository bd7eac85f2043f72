import { closeSync, lstatSync, readdirSync } from 'node:fs';
import type { Stats } from 'node:fs';
import { errnoOf } from '../../core/errors.ts';
import { loadSystemCalls } from '../../fs/native.ts';
import type { HeldFolder } from '../../fs/held-folder.ts';
import { openFile } from './blob.ts';
import { blobCharge } from './layout.ts';
import type { Candidate } from './survey.ts';
import { removeIfThere } from '../transfer/targets.ts';

/** Names have fewer components; every level takes a descriptor while its folder is read. */
const depthMax = 100;

/** Errnos of a file or folder that is skipped: it is gone, of another type, or not accessible to this user. */
const skippedErrnos: ReadonlySet<string> = new Set([
  'ENOENT',
  'ENOTDIR',
  'ELOOP',
  'EACCES',
  'EPERM',
  'EISDIR',
]);

/**
 * The cache of the Python client: `files/<name>`, whose modification time is the version, and `locks/<name>`, which the
 * users of a file lock with flock(2). Folders are opened one by one, never through a link. The path of a candidate is
 * relative to `files/`.
 */
export class PythonCache implements Disposable {
  /** Its files have no records. */
  readonly recordBytes = 0;
  readonly #folder: HeldFolder;

  /** Takes over the folder. */
  constructor(folder: HeldFolder) {
    this.#folder = folder;
  }

  async survey(): Promise<{ readonly total: number; readonly candidates: readonly Candidate[] }> {
    const candidates: Candidate[] = [];
    skipping(() => {
      using files = this.#folder.below('files');
      walk(files, '', 0, (path, { size, nlink, atimeMs, ctimeMs }) => {
        // The Python client uses files by hard-linking them, which sets their ctime.
        const usedMs = Math.max(atimeMs, ctimeMs);
        candidates.push({ path, charge: blobCharge(size), usedMs, shared: nlink > 1, lockKey: 0 });
      });
    });
    const total = candidates.reduce((sum, { charge }) => sum + charge, 0);
    return await Promise.resolve({ total, candidates });
  }

  /** Removes files that are not in use. */
  async remove(
    candidates: readonly Candidate[],
  ): Promise<{ readonly files: number; readonly bytes: number }> {
    const locks = await loadSystemCalls();
    let [files, bytes] = [0, 0];
    for (const { path, charge } of candidates) {
      const isRemoved = skipping(() => {
        const lock = this.#openLock(path);
        try {
          // A program creates the lock before it uses the file.
          if (lock !== undefined && !locks.tryLock(lock, 'exclusive')) return false;
          this.#inFolderOf('files', path, removeIfThere);
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

  [Symbol.dispose](): void {
    this.#folder[Symbol.dispose]();
  }

  #openLock(path: string): number | undefined {
    let lock: number | undefined;
    skipping(() => this.#inFolderOf('locks', path, (file) => (lock = openFile(file))));
    return lock;
  }

  /** Calls back with the path of a file below `files` or `locks` while its folder is open. */
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

function walk(
  folder: HeldFolder,
  relative: string,
  depth: number,
  visit: (path: string, attributes: Stats) => void,
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

/** `undefined` if the file is gone or not accessible. */
function skipping<Result>(work: () => Result): Result | undefined {
  try {
    return work();
  } catch (error) {
    if (!skippedErrnos.has(errnoOf(error) ?? '')) throw error;
    return undefined;
  }
}
