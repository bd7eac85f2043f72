import { ancestorsOf, type FileName } from '../core/file-name.ts';
import type { FileVersion } from '../core/file-version.ts';
import type { Digest } from '../core/digest.ts';
import type { Precondition } from '../core/file-version.ts';
import type {
  BlobRecord,
  NameStanding,
  PlacedBlob,
  PutChange,
  PutOutcome,
  RemoveChange,
  RemoveOutcome,
} from './catalog.ts';

// What a change leads to, given what is stored: the rules that every catalog shares.

/** The part of a stored entry that decisions depend on. */
export interface StoredVersion {
  readonly version: FileVersion;
  readonly digest: Digest;
}

/** A removal that is remembered. */
export interface Removal {
  readonly version: FileVersion;
  readonly timeMs: number;
}

function preconditionHolds(current: StoredVersion | undefined, precondition: Precondition): boolean {
  if (precondition.kind === 'absent') return current === undefined;
  if (precondition.kind === 'unmodified-since') {
    return current === undefined || current.version <= precondition.version;
  }
  if (current === undefined) return false;
  return precondition.digests === undefined || precondition.digests.includes(current.digest);
}

/** The outcomes of a put that leave everything as it was, for what is stored under the name itself. */
export type PutRefusal = Extract<PutOutcome, { readonly kind: 'precondition-failed' | 'superseded' }>;

/**
 * Why a put must not happen, or undefined where nothing in the entry itself stands in its way. A failed
 * precondition is told before a newer version is, because it is the stricter wish. Versions are compared with
 * what is stored alone; a removal, if one is remembered, only counts for a put that repeats an earlier request.
 */
export function refusalOfPut(
  current: StoredVersion | undefined,
  change: Pick<PutChange, 'version' | 'firstSentMs'> & { readonly precondition?: Precondition | undefined },
  removal?: Removal,
): PutRefusal | undefined {
  if (change.precondition !== undefined && !preconditionHolds(current, change.precondition)) {
    return { kind: 'precondition-failed' };
  }
  if (current !== undefined) {
    return current.version > change.version ? { kind: 'superseded', version: current.version } : undefined;
  }
  const { firstSentMs = Infinity } = change;
  const isRemoved =
    removal !== undefined && removal.timeMs >= firstSentMs && removal.version >= change.version;
  return isRemoved ? { kind: 'superseded', version: removal.version } : undefined;
}

/** Why a removal must not happen, or undefined where it may. */
export function refusalOfRemove(
  current: StoredVersion | undefined,
  change: { readonly version: FileVersion; readonly precondition?: Precondition | undefined },
): RemoveOutcome | undefined {
  if (change.precondition !== undefined && !preconditionHolds(current, change.precondition)) {
    return { kind: 'precondition-failed' };
  }
  if (current === undefined) return { kind: 'absent' };
  if (current.version > change.version) return { kind: 'superseded', version: current.version };
  return undefined;
}

function entryOf(standing: NameStanding): StoredVersion | undefined {
  return standing.kind === 'entry' ? standing : undefined;
}

function removalOf(standing: NameStanding): Removal | undefined {
  return standing.kind === 'removed' ? standing : undefined;
}

function sameStanding(one: NameStanding, other: NameStanding): boolean {
  if (one.kind === 'nothing' || other.kind === 'nothing') return one.kind === other.kind;
  const sameEntry = entryOf(one)?.digest === entryOf(other)?.digest;
  return one.version === other.version && sameEntry && removalOf(one)?.timeMs === removalOf(other)?.timeMs;
}

/**
 * The outcome of a put that is asked for again and must not be made now; undefined where it is decided like any other.
 *
 * With what stood under the name when it was asked for first unchanged, it has not been made. With something older
 * than itself there now, it has not, or was removed before the older one was put: it is made, as losing an acknowledged
 * file is worse than bringing a removed one back. Else it may have been made and overtaken, and made once more it would
 * undo what others were told is there, or is gone. It counts as made right at the first asking then, and overtaken
 * since, which nobody can tell from what has happened.
 */
export function outcomeOfRepeatedPut(
  now: NameStanding,
  change: Pick<PutChange, 'version' | 'digest' | 'precondition' | 'firstSentMs' | 'stoodBefore'>,
): PutOutcome | undefined {
  const { version, digest, stoodBefore } = change;
  if (stoodBefore === undefined || sameStanding(now, stoodBefore)) return undefined;
  if (now.kind === 'nothing' || now.version < version) return undefined;
  const made = now.version === version && entryOf(now)?.digest === digest;
  const refused = refusalOfPut(entryOf(stoodBefore), change, removalOf(stoodBefore)) !== undefined;
  return made || !refused ? { kind: 'stored', version, deduplicated: true } : undefined;
}

/**
 * The same of a removal. Where anything has changed since it was first asked for, it counts as made then, by what stood
 * there: what stands there now came after it, and it may be what it has removed already that is put again.
 */
export function outcomeOfRepeatedRemove(
  now: NameStanding,
  change: Pick<RemoveChange, 'version' | 'precondition' | 'stoodBefore'>,
): RemoveOutcome | undefined {
  const { stoodBefore } = change;
  if (stoodBefore === undefined || sameStanding(now, stoodBefore)) return undefined;
  const before = entryOf(stoodBefore);
  const refusal = refusalOfRemove(before, change);
  if (refusal !== undefined || before === undefined) return refusal ?? { kind: 'absent' };
  return { kind: 'removed', version: before.version };
}

/**
 * The file that keeps `name` from being one (invariant 8): a file above it, or one below. Look-ups are given,
 * so that each catalog brings its own.
 */
export function conflictingName(
  name: FileName,
  isFile: (ancestor: FileName) => boolean,
  firstBelow: (directory: string) => FileName | undefined,
): FileName | undefined {
  return ancestorsOf(name).find((ancestor) => isFile(ancestor)) ?? firstBelow(`${name}/`);
}

/** Whether a blob that is brought in shall take the place of the one that is known under its digest. */
export function corrects(
  blob: PlacedBlob,
  known: Pick<BlobRecord, 'damaged' | 'logicalSize' | 'storedSize' | 'encoding'> & {
    readonly location: { readonly kind: string; readonly key?: string };
  },
): boolean {
  const damaged = blob.damaged ?? false;
  if (known.damaged !== damaged) return known.damaged;
  if (known.location.kind !== 'object' || known.location.key !== blob.key) return known.damaged;
  return known.logicalSize !== blob.logicalSize || known.storedSize !== blob.storedSize;
}
