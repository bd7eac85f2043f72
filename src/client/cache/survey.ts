import { lstatSync } from 'node:fs';
import { readdir } from 'node:fs/promises';
import { isDigest } from '../../core/digest.ts';
import { errnoOf } from '../../core/errors.ts';
import {
  blobCharge,
  contentLockKey,
  fileForms,
  partialCharge,
  partialLockKey,
  recordCharge,
} from './layout.ts';
import type { CacheLayout } from './layout.ts';

/** The oldest files remembered by one survey; bounds its memory. */
const candidatesMax = 20_000;

/** Age after which an interrupted download is removed. */
const resumableAgeMaxMs = 24 * 3600 * 1000;
/** Age after which a record that was never renamed into place belongs to a dead process. */
const recordAgeMaxMs = 10 * 60 * 1000;

/** A file that may be evicted. */
export interface Candidate {
  readonly path: string;
  readonly charge: number;
  readonly usedMs: number;
  /** Whether a hard link outside of the cache shares its bytes, so that eviction frees no disk space. */
  readonly shared: boolean;
  /** Held while the file is in use. */
  readonly lockKey: number;
}

export interface Survey {
  /** Bytes by the rules of the account. */
  total: number;
  blobs: number;
  records: number;
  /** Number and bytes of pinned blobs. */
  pinned: number;
  pinnedBytes: number;
  partials: number;
  /** The least recently used first, shared ones last; not all of a large cache. */
  candidates: Candidate[];
  /** Files in `partial/` that are not worth keeping, unless they are being written. */
  abandoned: Candidate[];
}

/** Calls back with every name of one form in a folder; a missing folder has none. */
export async function forEachFile(
  folder: string,
  form: RegExp,
  visit: (name: string, path: string) => void,
): Promise<void> {
  try {
    for (const name of await readdir(folder)) if (form.test(name)) visit(name, `${folder}/${name}`);
  } catch (error) {
    if (errnoOf(error) !== 'ENOENT') throw error;
  }
}

/** Calls back with every file of the cache in the sixteen folders of `blobs/` or `names/`. */
export async function forEachSharded(
  layout: CacheLayout,
  kind: 'blobs' | 'names',
  visit: (name: string, path: string) => void,
): Promise<void> {
  const form = kind === 'blobs' ? fileForms.blob : fileForms.record;
  for (const folder of layout.shards(kind)) await forEachFile(folder, form, visit);
}

/** The least recently used first; shared ones last, because their eviction frees no disk space. */
export function byUse(a: Candidate, b: Candidate): number {
  return Number(a.shared) - Number(b.shared) || a.usedMs - b.usedMs;
}

/** Counts a whole cache. The caller holds the space lock, so that no file is added meanwhile. */
export async function surveyCache(layout: CacheLayout, nowMs: number): Promise<Survey> {
  const counts = { total: 0, blobs: 0, records: 0, pinned: 0, pinnedBytes: 0, partials: 0 };
  const survey: Survey = { ...counts, candidates: [], abandoned: [] };
  const pins = new Set<string>();
  await forEachFile(layout.pins, fileForms.pin, (name) => pins.add(name));
  // `partial/` before `blobs/`: files move from one to the other meanwhile, and none may be missed.
  const { partial } = fileForms;
  await forEachFile(layout.partial, partial, (name, path) => surveyPartial(survey, name, path, nowMs));
  await forEachSharded(layout, 'blobs', (name, path) => surveyBlob(survey, name, path, pins));
  await forEachSharded(layout, 'names', () => void (survey.records += 1));
  survey.total += survey.records * recordCharge;
  keepOldest(survey);
  return survey;
}

function surveyBlob(survey: Survey, name: string, path: string, pins: ReadonlySet<string>): void {
  const attributes = lstatSync(path, { throwIfNoEntry: false });
  if (attributes?.isDirectory() !== false || !isDigest(name)) return;
  const { size, atimeMs, nlink } = attributes;
  const charge = blobCharge(size);
  survey.total += charge;
  survey.blobs += 1;
  if (pins.has(name)) {
    survey.pinned += 1;
    survey.pinnedBytes += charge;
    return;
  }
  const lockKey = contentLockKey(name);
  addCandidate(survey, { path, charge, usedMs: atimeMs, shared: nlink > 1, lockKey });
}

function surveyPartial(survey: Survey, name: string, path: string, nowMs: number): void {
  const attributes = lstatSync(path, { throwIfNoEntry: false });
  if (attributes?.isDirectory() !== false) return;
  const { mtimeMs, size } = attributes;
  const ageMs = nowMs - mtimeMs;
  const file = { path, usedMs: mtimeMs, shared: false, lockKey: partialLockKey(name) };
  if (name.startsWith('n-')) {
    if (ageMs > recordAgeMaxMs) survey.abandoned.push({ ...file, charge: 0 });
    return;
  }
  survey.partials += 1;
  // The form of these names ends in the final size.
  const declaredSize = Number(name.slice(name.lastIndexOf('-') + 1));
  const charge = partialCharge(Math.max(declaredSize, size));
  survey.total += charge;
  const isResumable = name.startsWith('d-') && ageMs < resumableAgeMaxMs;
  if (isResumable) addCandidate(survey, { ...file, charge });
  else survey.abandoned.push({ ...file, charge });
}

function addCandidate(survey: Survey, candidate: Candidate): void {
  survey.candidates.push(candidate);
  if (survey.candidates.length >= 2 * candidatesMax) keepOldest(survey);
}

function keepOldest({ candidates }: Survey): void {
  candidates.sort(byUse);
  candidates.length = Math.min(candidates.length, candidatesMax);
}
