import { fstatSync, lstatSync } from 'node:fs';
import { resolve } from 'node:path';
import { cacheMarks } from '../../fs/folder-marks.ts';
import { actingAs } from '../../fs/act-as.ts';
import type { Owner } from '../../fs/act-as.ts';
import { loadSystemCalls } from '../../fs/native.ts';
import { HeldFolder, openAsRoot } from '../../fs/held-folder.ts';
import { CacheFolders } from './folders.ts';
import { recordCharge } from './layout.ts';
import type { Candidate } from './survey.ts';
import { LocalCache } from './local-cache.ts';
import { PythonCache } from './python-cache.ts';

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

/** One cache, as the cleaner needs it. */
interface CleanedCache extends Disposable {
  survey(): Promise<{ readonly total: number; readonly candidates: readonly Candidate[] }>;
  /** Bytes that mostly go with a candidate besides its own: those of the record that led to it. */
  readonly recordBytes: number;
  /** Removes those that nobody uses just now, and what led to them; gives their number and all bytes. */
  remove(candidates: readonly Candidate[]): Promise<Removed>;
}

interface Removed {
  readonly files: number;
  readonly bytes: number;
}

/** Called with a folder that cannot be cleaned, or not any more; the others are. */
export type ProblemListener = (folder: string, error: unknown) => void;

/**
 * Removes the least recently used files of several caches together, of our layout and of the Python client's,
 * when they take more than a limit. Files in use and pinned ones stay. Root acts as the owner of each folder.
 */
export async function cleanCaches(
  folders: readonly string[],
  limits: CleaningLimits,
  onProblem: ProblemListener = throwProblem,
): Promise<CleaningReport> {
  // Loaded before root acts as a user who may not be able to read it.
  await loadSystemCalls();
  using caches = new OpenCaches(onProblem);
  for (const folder of folders) await caches.open(folder);
  let { total, candidates } = await caches.survey();
  const beforeBytes = total;
  let removedFiles = 0;
  if (beforeBytes >= limits.sizeMaxBytes) {
    const target = (limits.sizeMaxBytes * limits.percentLeft) / 100;
    // What earlier evictions left of records goes before any content.
    total -= await caches.sweep();
    while (total > target) {
      const removed = await removeOldest(candidates, total - target);
      if (removed.bytes === 0) break;
      removedFiles += removed.files;
      // One look remembers only so many candidates of a cache.
      ({ total, candidates } = await caches.survey());
    }
  }
  return { caches: caches.count, beforeBytes, afterBytes: total, removedFiles };
}

function throwProblem(_folder: string, error: unknown): never {
  throw error;
}

const nothing = { total: 0, candidates: [] };

/** The caches that are cleaned; one that fails is reported once and counts for nothing from then on. */
class OpenCaches implements Disposable {
  readonly #onProblem: ProblemListener;
  readonly #caches = new Set<CleanedCache>();
  count = 0;

  constructor(onProblem: ProblemListener) {
    this.#onProblem = onProblem;
  }

  async open(folder: string): Promise<void> {
    try {
      const held = openFolder(folder);
      const owner = fstatSync(held.descriptor);
      const caches = await actingAs(owner, () => cachesIn(held));
      this.count += 1;
      for (const cache of caches) this.#caches.add(this.#guarded(cache, folder, owner));
    } catch (error) {
      this.#onProblem(folder, error);
    }
  }

  /** The cache with the rights of its owner, and with its failures reported. */
  #guarded(cache: CleanedCache, folder: string, owner: Owner): CleanedCache {
    let isBroken = false;
    const attempt = async <Result>(work: () => Promise<Result>, otherwise: Result): Promise<Result> => {
      if (isBroken) return otherwise;
      try {
        return await actingAs(owner, work);
      } catch (error) {
        isBroken = true;
        this.#onProblem(folder, error);
        return otherwise;
      }
    };
    return {
      survey: () => attempt(() => cache.survey(), nothing),
      recordBytes: cache.recordBytes,
      remove: (candidates) => attempt(() => cache.remove(candidates), { files: 0, bytes: 0 }),
      [Symbol.dispose]: () => cache[Symbol.dispose](),
    };
  }

  async survey(): Promise<{ readonly total: number; readonly candidates: readonly OwnedCandidate[] }> {
    return await surveyAll([...this.#caches]);
  }

  /** Removes records that lead nowhere; gives their bytes. */
  async sweep(): Promise<number> {
    let bytes = 0;
    for (const cache of this.#caches) bytes += (await cache.remove([])).bytes;
    return bytes;
  }

  [Symbol.dispose](): void {
    for (const cache of this.#caches) cache[Symbol.dispose]();
    this.#caches.clear();
  }
}

function openFolder(folder: string): HeldFolder {
  const path = resolve(folder);
  return process.geteuid?.() === 0 ? openAsRoot(path) : HeldFolder.open(path);
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
async function removeOldest(candidates: readonly OwnedCandidate[], bytes: number): Promise<Removed> {
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

/** A folder may hold a cache of ours, one of the Python client, or both. Closes the folder unless a cache needs it. */
function cachesIn(folder: HeldFolder): CleanedCache[] {
  using _folder = folder;
  const has = (name: string): boolean =>
    lstatSync(`${folder.path}/${name}`, { throwIfNoEntry: false })?.isDirectory() === true;
  // A server's store has `blobs/` too, but none of these.
  const isOurs = cacheMarks.every(has);
  const caches = isOurs ? [ownCache(folder.below('.'))] : [];
  return has('files') ? [...caches, pythonCache(folder.below('.'))] : caches;
}

function ownCache(folder: HeldFolder): CleanedCache {
  const cache = new LocalCache({ folder: folder.path, freeMinBytes: 0 }, new CacheFolders(folder));
  return {
    survey: () => cache.space.recount(),
    recordBytes: recordCharge,
    remove: (candidates) => cache.space.evict(candidates),
    [Symbol.dispose]: () => cache.close(),
  };
}

function pythonCache(folder: HeldFolder): CleanedCache {
  const cache = new PythonCache(folder);
  return {
    survey: async () => cache.survey(),
    recordBytes: 0,
    remove: (candidates) => cache.remove(candidates),
    [Symbol.dispose]: () => folder[Symbol.dispose](),
  };
}
