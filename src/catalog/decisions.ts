import type { Digest } from '../core/digest.ts';
import { ancestorsOf, type FileName } from '../core/file-name.ts';
import type { FileVersion, Precondition } from '../core/file-version.ts';
import type {
  BlobRecord,
  NameStanding,
  PlacedBlob,
  PutChange,
  PutOutcome,
  RemoveChange,
  RemoveOutcome,
} from './catalog.ts';

// The outcome of a change, given what is stored: the rules that all catalogs share.

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

/** The outcomes of a put that change nothing because of what is stored under the name itself. */
export type PutRefusal = Extract<PutOutcome, { readonly kind: 'precondition-failed' | 'superseded' }>;

/**
 * Why a put must not happen, or `undefined` if the entry itself allows it. A failed precondition comes before a newer
 * version, because it is the stricter condition. Versions are compared with what is stored only; a remembered removal
 * counts only for a put that repeats an earlier request.
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

/** Why a removal must not happen, or `undefined` if it may. */
export function refusalOfRemove(
  current: StoredVersion | undefined,
  change: { readonly version: FileVersion; readonly precondition?: Precondition | undefined },
): RemoveOutcome | undefined {
  if (change.precondition !== undefined && !preconditionHolds(current, change.precondition)) {
    return { kind: 'precondition-failed' };
  }
  if (current === undefined) return { kind: 'absent' };
  return current.version > change.version ? { kind: 'superseded', version: current.version } : undefined;
}

function entryOf(standing: NameStanding): StoredVersion | undefined {
  return standing.kind === 'entry' ? standing : undefined;
}

function removalOf(standing: NameStanding): Removal | undefined {
  return standing.kind === 'removed' ? standing : undefined;
}

function isSameStanding(one: NameStanding, other: NameStanding): boolean {
  if (one.kind === 'nothing' || other.kind === 'nothing') return one.kind === other.kind;
  const isSameEntry = entryOf(one)?.digest === entryOf(other)?.digest;
  return one.version === other.version && isSameEntry && removalOf(one)?.timeMs === removalOf(other)?.timeMs;
}

/**
 * The outcome of a repeated put that must not be made now; `undefined` if it is decided like any other.
 *
 * If the state of the name is as before the first request, the put was not made. If an older version is stored now, it was
 * not made, or was removed before the older one was put: it is made, as losing an acknowledged file is worse than
 * restoring a removed one. Otherwise it may have been made and overtaken, and making it again would undo changes that
 * others know of. Then it counts as made at the first request and overtaken since, which no observer can disprove.
 */
export function outcomeOfRepeatedPut(
  now: NameStanding,
  change: Pick<PutChange, 'version' | 'digest' | 'precondition' | 'firstSentMs' | 'stoodBefore'>,
): PutOutcome | undefined {
  const { version, digest, stoodBefore } = change;
  if (stoodBefore === undefined || isSameStanding(now, stoodBefore)) return undefined;
  if (now.kind === 'nothing' || now.version < version) return undefined;
  const isMade = now.version === version && entryOf(now)?.digest === digest;
  const isRefused = refusalOfPut(entryOf(stoodBefore), change, removalOf(stoodBefore)) !== undefined;
  return isMade || !isRefused ? { kind: 'stored', version, deduplicated: true } : undefined;
}

/**
 * The outcome of a repeated removal that must not be made now. If the name has changed since the first request, the removal
 * counts as made then: the present entry came later, and may be the removed one, put again.
 */
export function outcomeOfRepeatedRemove(
  now: NameStanding,
  change: Pick<RemoveChange, 'version' | 'precondition' | 'stoodBefore'>,
): RemoveOutcome | undefined {
  const { stoodBefore } = change;
  if (stoodBefore === undefined || isSameStanding(now, stoodBefore)) return undefined;
  const before = entryOf(stoodBefore);
  const refusal = refusalOfRemove(before, change);
  if (refusal !== undefined || before === undefined) return refusal ?? { kind: 'absent' };
  return { kind: 'removed', version: before.version };
}

/** The file above or below `name` that keeps it from being a file (invariant 8). */
export function conflictingName(
  name: FileName,
  isFile: (ancestor: FileName) => boolean,
  firstBelow: (directory: string) => FileName | undefined,
): FileName | undefined {
  return ancestorsOf(name).find((ancestor) => isFile(ancestor)) ?? firstBelow(`${name}/`);
}

/** Whether a blob that `addBlobs` adds replaces the known one of its digest. */
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
