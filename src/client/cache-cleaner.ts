import { existsSync, lstatSync } from 'node:fs';
import { readdir } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { FolderLock } from '../fs/folder-lock.ts';
import { blobCharge, recordCharge } from './local-cache-layout.ts';
import type { Candidate } from './local-cache-survey.ts';
import { LocalCache } from './local-cache.ts';
import { removeIfThere } from './target-file.ts';

export interface CleaningLimits {
  /** Bytes that all caches together may take before anything is done. */
  readonly sizeMaxBytes: number;
  /** How much of that is left when something is done. */
  readonly percentLeft: number;
}

export interface CleaningReport {
  readonly caches: number;
  readonly beforeBytes: number;
  readonly afterBytes: number;
  readonly removedFiles: number;
}

interface OwnedCandidate extends Candidate {
  readonly owner: CleanedCache;
}

/** One cache folder, as the cleaner needs it. */
interface CleanedCache extends Disposable {
  survey(): Promise<{ readonly total: number; readonly candidates: readonly Candidate[] }>;
  /** Bytes that mostly go with a candidate besides its own: those of the record that led to it. */
  readonly recordBytes: number;
  /** Removes those that nobody uses just now, and what led to them; gives their number and all bytes. */
  remove(candidates: readonly Candidate[]): Promise<{ readonly files: number; readonly bytes: number }>;
}

/**
 * Removes the least recently used files of several caches together, of our layout and of the Python client's,
 * when they take more than a limit. Files in use and pinned ones stay.
 */
export async function cleanCaches(
  folders: readonly string[],
  limits: CleaningLimits,
): Promise<CleaningReport> {
  const caches = folders.flatMap(cachesIn);
  try {
    let { total, candidates } = await surveyAll(caches);
    const beforeBytes = total;
    let removedFiles = 0;
    if (beforeBytes >= limits.sizeMaxBytes) {
      const target = (limits.sizeMaxBytes * limits.percentLeft) / 100;
      // What earlier evictions left of records goes before any content.
      for (const cache of caches) total -= (await cache.remove([])).bytes;
      while (total > target) {
        const removed = await removeOldest(candidates, total - target);
        if (removed.bytes === 0) break;
        removedFiles += removed.files;
        // One look remembers only so many candidates of a cache.
        ({ total, candidates } = await surveyAll(caches));
      }
    }
    return { caches: folders.length, beforeBytes, afterBytes: total, removedFiles };
  } finally {
    for (const cache of caches) cache[Symbol.dispose]();
  }
}

async function surveyAll(
  caches: readonly CleanedCache[],
): Promise<{ readonly total: number; readonly candidates: readonly OwnedCandidate[] }> {
  const candidates: OwnedCandidate[] = [];
  let total = 0;
  for (const owner of caches) {
    const survey = await owner.survey();
    total += survey.total;
    for (const candidate of survey.candidates) candidates.push({ ...candidate, owner });
  }
  candidates.sort((a, b) => Number(a.shared) - Number(b.shared) || a.usedMs - b.usedMs);
  return { total, candidates };
}

/** Removes from the beginning of the candidates until `bytes` are gone; gives the number of files and bytes that are. */
async function removeOldest(
  candidates: readonly OwnedCandidate[],
  bytes: number,
): Promise<{ readonly files: number; readonly bytes: number }> {
  const gone = { files: 0, bytes: 0 };
  let next = 0;
  while (gone.bytes < bytes && next < candidates.length) {
    // As many as should do; more if some turn out to be in use, or to share a record.
    const batch: OwnedCandidate[] = [];
    for (let left = bytes - gone.bytes; left > 0 && next < candidates.length; next += 1) {
      const candidate = candidates[next];
      if (candidate === undefined) break;
      batch.push(candidate);
      left -= candidate.charge + candidate.owner.recordBytes;
    }
    for (const owner of new Set(batch.map((candidate) => candidate.owner))) {
      const removed = await owner.remove(batch.filter((candidate) => candidate.owner === owner));
      gone.bytes += removed.bytes;
      gone.files += removed.files;
    }
  }
  return gone;
}

/** A folder may hold a cache of ours, one of the Python client, or both. */
function cachesIn(folder: string): CleanedCache[] {
  const caches: CleanedCache[] = [];
  if (existsSync(join(folder, 'blobs')) || existsSync(join(folder, 'names'))) caches.push(ownCache(folder));
  if (existsSync(join(folder, 'files'))) caches.push(pythonCache(folder));
  return caches;
}

function ownCache(folder: string): CleanedCache {
  const cache = new LocalCache({ folder, freeMinBytes: 0 });
  return {
    survey: () => cache.space.recount(),
    recordBytes: recordCharge,
    remove: (candidates) => cache.space.evict(candidates),
    [Symbol.dispose]: () => cache.close(),
  };
}

/** `files/<name>` with the version as time, and `locks/<name>` on which its users hold flock(2). */
function pythonCache(folder: string): CleanedCache {
  const files = join(folder, 'files');
  const survey = async (): Promise<{ total: number; candidates: Candidate[] }> => {
    const candidates: Candidate[] = [];
    let total = 0;
    for (const item of await readdir(files, { recursive: true, withFileTypes: true })) {
      if (!item.isFile()) continue;
      const path = join(item.parentPath, item.name);
      const attributes = lstatSync(path, { throwIfNoEntry: false });
      if (attributes === undefined) continue;
      const { size, nlink, atimeMs, ctimeMs } = attributes;
      const charge = blobCharge(size);
      total += charge;
      // The Python client hands out hard links, which shows in the time of change.
      candidates.push({ path, charge, usedMs: Math.max(atimeMs, ctimeMs), shared: nlink > 1, lockKey: 0 });
    }
    return { total, candidates };
  };
  const remove = async (candidates: readonly Candidate[]): Promise<{ files: number; bytes: number }> => {
    let bytes = 0;
    let removed = 0;
    for (const { path, charge } of candidates) {
      if (!(await removeUnlocked(path, join(folder, 'locks', path.slice(files.length))))) continue;
      bytes += charge;
      removed += 1;
    }
    return { files: removed, bytes };
  };
  return { survey, recordBytes: 0, remove, [Symbol.dispose]: () => undefined };
}

async function removeUnlocked(path: string, lockPath: string): Promise<boolean> {
  // Whoever uses a file has made its lock first.
  if (lstatSync(lockPath, { throwIfNoEntry: false })?.isFile() !== true) {
    removeIfThere(path);
    return true;
  }
  const fileName = lockPath.slice(dirname(lockPath).length + 1);
  await using lock = await FolderLock.tryAcquire(dirname(lockPath), { mode: 'exclusive', fileName });
  if (lock === undefined) return false;
  removeIfThere(path);
  return true;
}
