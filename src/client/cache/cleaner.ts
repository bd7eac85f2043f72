import { fstatSync, lstatSync } from 'node:fs';
import { resolve } from 'node:path';
import { actingAs } from '../../fs/act-as.ts';
import type { Owner } from '../../fs/act-as.ts';
import { cacheMarks } from '../../fs/folder-marks.ts';
import { HeldFolder, openAsRoot } from '../../fs/held-folder.ts';
import { loadSystemCalls } from '../../fs/native.ts';
import { CacheFolders } from './folders.ts';
import { recordCharge } from './layout.ts';
import { LocalCache } from './local-cache.ts';
import { PythonCache } from './python-cache.ts';
import { byUse } from './survey.ts';
import type { Candidate } from './survey.ts';

export interface CleaningLimits {
  /** Bytes that all caches together may take before anything is removed. */
  readonly sizeMaxBytes: number;
  /** Percentage of it that is left then. */
  readonly percentLeft: number;
}

export interface CleaningReport {
  readonly caches: number;
  readonly beforeBytes: number;
  readonly afterBytes: number;
  readonly removedFiles: number;
}

/** Called with a folder that cannot be cleaned any further; the others are. */
export type ProblemListener = (folder: string, error: unknown) => void;

/** A cache of either layout. */
interface CleanableCache extends Disposable {
  survey(): Promise<Surveyed>;
  /** Removes unused candidates, and the records that are stale then; returns the number of files and all bytes. */
  remove(candidates: readonly Candidate[]): Promise<Removed>;
  /** Bytes that usually go with a candidate: those of its record. */
  readonly recordBytes: number;
}

interface Surveyed {
  readonly total: number;
  readonly candidates: readonly Candidate[];
}

interface Removed {
  readonly files: number;
  readonly bytes: number;
}

interface OwnedCandidate extends Candidate {
  readonly cache: CleanedCache;
}

/**
 * Removes the least recently used files of several caches, of our layout and of the Python client's, when together they
 * take more than a limit. Files in use and pinned ones stay. Root acts as the owner of each folder.
 */
export async function cleanCaches(
  folders: readonly string[],
  limits: CleaningLimits,
  onProblem: ProblemListener = throwProblem,
): Promise<CleaningReport> {
  // Loaded before root acts as a user who may not be able to read it.
  await loadSystemCalls();
  const caches: CleanedCache[] = [];
  try {
    let opened = 0;
    for (const folder of folders) {
      try {
        caches.push(...(await openCaches(folder, onProblem)));
        opened += 1;
      } catch (error) {
        onProblem(folder, error);
      }
    }
    let { total, candidates } = await surveyAll(caches);
    const beforeBytes = total;
    let removedFiles = 0;
    if (beforeBytes >= limits.sizeMaxBytes) {
      const target = (limits.sizeMaxBytes * limits.percentLeft) / 100;
      // Stale records before any blob.
      for (const cache of caches) total -= (await cache.remove([])).bytes;
      while (total > target) {
        const removed = await removeOldest(candidates, total - target);
        if (removed.bytes === 0) break;
        removedFiles += removed.files;
        // One survey remembers a bounded number of candidates.
        ({ total, candidates } = await surveyAll(caches));
      }
    }
    return { caches: opened, beforeBytes, afterBytes: total, removedFiles };
  } finally {
    for (const cache of caches) cache.close();
  }
}

function throwProblem(_folder: string, error: unknown): never {
  throw error;
}

/** A cache that is accessed with the rights of its owner; after a failure, which is reported once, it counts as empty. */
class CleanedCache {
  readonly #cache: CleanableCache;
  readonly #owner: Owner;
  readonly #onFailure: (error: unknown) => void;
  #isBroken = false;

  constructor(cache: CleanableCache, owner: Owner, onFailure: (error: unknown) => void) {
    this.#cache = cache;
    this.#owner = owner;
    this.#onFailure = onFailure;
  }

  get recordBytes(): number {
    return this.#cache.recordBytes;
  }

  async survey(): Promise<Surveyed> {
    return await this.#attempt(() => this.#cache.survey(), { total: 0, candidates: [] });
  }

  async remove(candidates: readonly Candidate[]): Promise<Removed> {
    return await this.#attempt(() => this.#cache.remove(candidates), { files: 0, bytes: 0 });
  }

  async #attempt<Result>(work: () => Promise<Result>, otherwise: Result): Promise<Result> {
    if (this.#isBroken) return otherwise;
    try {
      return await actingAs(this.#owner, work);
    } catch (error) {
      this.#isBroken = true;
      this.#onFailure(error);
      return otherwise;
    }
  }

  close(): void {
    this.#cache[Symbol.dispose]();
  }
}

/** A folder may hold our cache, one of the Python client, or both. */
async function openCaches(folder: string, onProblem: ProblemListener): Promise<CleanedCache[]> {
  const path = resolve(folder);
  using held = process.geteuid?.() === 0 ? openAsRoot(path) : HeldFolder.open(path);
  const owner = fstatSync(held.descriptor);
  const has = (name: string): boolean =>
    lstatSync(`${held.path}/${name}`, { throwIfNoEntry: false })?.isDirectory() === true;
  const caches = await actingAs(owner, () => {
    // A server's store has `blobs/` too, but none of these marks.
    const own: CleanableCache[] = cacheMarks.every(has) ? [ownCache(held.below('.'))] : [];
    return has('files') ? [...own, new PythonCache(held.below('.'))] : own;
  });
  return caches.map((cache) => new CleanedCache(cache, owner, (error) => onProblem(folder, error)));
}

/** Takes over the folder. */
function ownCache(folder: HeldFolder): CleanableCache {
  const cache = new LocalCache({ folder: folder.path, freeMinBytes: 0 }, new CacheFolders(folder));
  return {
    survey: () => cache.space.recount(),
    recordBytes: recordCharge,
    remove: (candidates) => cache.space.evict(candidates),
    [Symbol.dispose]: () => cache.close(),
  };
}

async function surveyAll(
  caches: readonly CleanedCache[],
): Promise<{ readonly total: number; readonly candidates: readonly OwnedCandidate[] }> {
  const candidates: OwnedCandidate[] = [];
  let total = 0;
  for (const cache of caches) {
    const survey = await cache.survey();
    total += survey.total;
    for (const candidate of survey.candidates) candidates.push({ ...candidate, cache });
  }
  return { total, candidates: candidates.sort(byUse) };
}

/** Removes the first candidates until `bytes` are gone; returns the removed files and bytes. */
async function removeOldest(candidates: readonly OwnedCandidate[], bytes: number): Promise<Removed> {
  const gone = { files: 0, bytes: 0 };
  let next = 0;
  while (gone.bytes < bytes && next < candidates.length) {
    // As many as should suffice; further ones if some are in use or share a record.
    const batch: OwnedCandidate[] = [];
    for (let left = bytes - gone.bytes; left > 0 && next < candidates.length; next += 1) {
      const candidate = candidates[next];
      if (candidate === undefined) break;
      batch.push(candidate);
      left -= candidate.charge + candidate.cache.recordBytes;
    }
    for (const owner of new Set(batch.map(({ cache }) => cache))) {
      const removed = await owner.remove(batch.filter(({ cache }) => cache === owner));
      gone.bytes += removed.bytes;
      gone.files += removed.files;
    }
  }
  return gone;
}
