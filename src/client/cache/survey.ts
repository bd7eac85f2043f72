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

/** The oldest files remembered during one look through the cache; bounds its memory. */
const candidatesMax = 20_000;

/** Age after which a download that nobody takes up again is given up. */
const resumableAgeMaxMs = 24 * 3600 * 1000;
/** Age after which a record that was never renamed into place must have been left by a dead process. */
const recordAgeMaxMs = 10 * 60 * 1000;

/** A file that may be evicted. */
export interface Candidate {
  readonly path: string;
  readonly charge: number;
  readonly usedMs: number;
  /** Whether a hard link outside of the cache shares its bytes, so that the disk gains nothing. */
  readonly shared: boolean;
  /** Whoever uses the file holds this lock. */
  readonly lockKey: number;
}

/** What a look through the whole cache finds. */
export interface Survey {
  /** Bytes by the rules of the account. */
  total: number;
  blobs: number;
  records: number;
  /** Bytes and number of contents that are pinned. */
  pinned: number;
  pinnedBytes: number;
  partials: number;
  /** The least recently used first, those that are shared last; not all of a large cache. */
  candidates: Candidate[];
  /** What is not worth keeping in `partial/`, unless somebody is just writing it. */
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

/** Calls back with every file of ours in the sixteen folders of `blobs/` or `names/`. */
export async function forEachSharded(
  layout: CacheLayout,
  kind: 'blobs' | 'names',
  visit: (name: string, path: string) => void,
): Promise<void> {
  const form = kind === 'blobs' ? fileForms.blob : fileForms.record;
  for (const folder of layout.shards(kind)) await forEachFile(folder, form, visit);
}

/** The size at the end of the name of a file in `partial/`. */
function declaredSize(name: string): number | undefined {
  const size = name.slice(name.lastIndexOf('-') + 1);
  return /^\d{1,15}$/.test(size) ? Number(size) : undefined;
}

/** Looks through a cache. The caller holds the space lock, so that nothing is added meanwhile. */
export async function surveyCache(layout: CacheLayout, nowMs: number): Promise<Survey> {
  const survey: Survey = {
    total: 0,
    blobs: 0,
    records: 0,
    pinned: 0,
    pinnedBytes: 0,
    partials: 0,
    candidates: [],
    abandoned: [],
  };
  const pins = new Set<string>();
  await forEachFile(layout.pins, fileForms.pin, (name) => pins.add(name));
  // `partial/` before `blobs/`: files move from the one to the other meanwhile and none may be missed.
  const { partial } = fileForms;
  await forEachFile(layout.partial, partial, (name, path) => surveyPartial(survey, name, path, nowMs));
  await forEachSharded(layout, 'blobs', (name, path) => surveyBlob(survey, name, path, pins));
  await forEachSharded(layout, 'names', () => {
    survey.records += 1;
  });
  survey.total += survey.records * recordCharge;
  keepOldest(survey);
  return survey;
}

function surveyBlob(survey: Survey, name: string, path: string, pins: ReadonlySet<string>): void {
  const attributes = lstatSync(path, { throwIfNoEntry: false });
  if (attributes?.isDirectory() !== false || !isDigest(name)) return;
  const charge = blobCharge(attributes.size);
  survey.total += charge;
  survey.blobs += 1;
  if (pins.has(name)) {
    survey.pinned += 1;
    survey.pinnedBytes += charge;
    return;
  }
  const lockKey = contentLockKey(name);
  addCandidate(survey, {
    path,
    charge,
    usedMs: attributes.atimeMs,
    shared: attributes.nlink > 1,
    lockKey,
  });
}

function surveyPartial(survey: Survey, name: string, path: string, nowMs: number): void {
  const attributes = lstatSync(path, { throwIfNoEntry: false });
  if (attributes?.isDirectory() !== false) return;
  const lockKey = partialLockKey(name);
  const ageMs = nowMs - attributes.mtimeMs;
  const file = { path, usedMs: attributes.mtimeMs, shared: false, lockKey };
  if (name.startsWith('n-')) {
    if (ageMs > recordAgeMaxMs) survey.abandoned.push({ ...file, charge: 0 });
    return;
  }
  survey.partials += 1;
  const charge = partialCharge(Math.max(declaredSize(name) ?? 0, attributes.size));
  survey.total += charge;
  const resumable = name.startsWith('d-') && ageMs < resumableAgeMaxMs;
  if (resumable) addCandidate(survey, { ...file, charge });
  else survey.abandoned.push({ ...file, charge });
}

function addCandidate(survey: Survey, candidate: Candidate): void {
  survey.candidates.push(candidate);
  if (survey.candidates.length >= 2 * candidatesMax) keepOldest(survey);
}

function keepOldest(survey: Survey): void {
  survey.candidates.sort((a, b) => Number(a.shared) - Number(b.shared) || a.usedMs - b.usedMs);
  survey.candidates.length = Math.min(survey.candidates.length, candidatesMax);
}
