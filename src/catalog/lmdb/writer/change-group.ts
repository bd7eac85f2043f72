import type { Digest } from '../../../core/digest.ts';
import { ancestorsOf, type FileName } from '../../../core/file-name.ts';
import { groupChangesMax, groupSizeMaxBytes } from '../../../core/limits.ts';
import type { PutChange, PutOutcome, RemoveChange, RemoveOutcome } from '../../catalog.ts';
import {
  conflictingName,
  outcomeOfRepeatedPut,
  outcomeOfRepeatedRemove,
  refusalOfPut,
  refusalOfRemove,
} from '../../decisions.ts';
import type { JournalRecord } from '../../journal/record.ts';
import type { Capacity, UsageChange } from '../../quotas.ts';
import type { IndexDatabase } from '../index/database.ts';
import type { BlobRow } from '../index/rows.ts';

interface Pending<Change, Outcome> {
  readonly change: Change;
  resolve(outcome: Outcome): void;
  reject(error: unknown): void;
}

type PendingPut = Pending<PutChange, PutOutcome> & { readonly kind: 'put' };
type PendingRemove = Pending<RemoveChange, RemoveOutcome> & { readonly kind: 'remove' };

/** A change in the queue. */
export type PendingChange = PendingPut | PendingRemove;

/** A change that takes effect with the group. */
export interface GroupMember {
  record: JournalRecord;
  /** The staged upload that must be placed before the record is written. */
  readonly stagedId?: string;
  /** The key in the blob store of damaged bytes that the change replaces, to be removed once it has taken effect. */
  readonly replacedKey?: string;
  /** Resolves the change; called once it is durable. */
  settle(): void;
  reject(error: unknown): void;
}

/**
 * Decides the outcomes of queued changes, and collects those that take effect into one group for the journal.
 *
 * Invariant: a decision rests on the index alone, which has all earlier groups, never on changes of the group itself. A
 * change that touches a name, a tree path or a new blob that the group touches already is deferred to the next group.
 */
export class ChangeGroup {
  readonly members: GroupMember[] = [];
  readonly #index: IndexDatabase;
  readonly #timeMs: number;
  readonly #capacity: Capacity | undefined;
  readonly #names = new Set<string>();
  readonly #newDirectories = new Set<string>();
  readonly #newDigests = new Set<Digest>();
  #removes = false;
  #sizeBytes = 0;

  constructor(index: IndexDatabase, timeMs: number, capacity: Capacity | undefined) {
    this.#index = index;
    this.#timeMs = timeMs;
    this.#capacity = capacity;
  }

  get full(): boolean {
    return this.members.length >= groupChangesMax || this.#sizeBytes >= groupSizeMaxBytes;
  }

  /** Adds a change to the group or resolves it at once; false if it is deferred. */
  take(pending: PendingChange): boolean {
    if (this.#names.has(pending.change.name)) return false;
    if (pending.kind === 'put') {
      const outcome = this.#takePut(pending);
      if (outcome === 'deferred') return false;
      if (outcome !== undefined) pending.resolve(outcome);
    } else {
      const outcome = this.#takeRemove(pending);
      if (outcome !== undefined) pending.resolve(outcome);
    }
    return true;
  }

  /** The outcome of a put that changes nothing; `undefined` if the put is a member now. */
  #takePut(pending: PendingPut): PutOutcome | 'deferred' | undefined {
    const { change } = pending;
    const repeated = change.stoodBefore && outcomeOfRepeatedPut(this.#index.standing(change.name), change);
    if (repeated !== undefined) return repeated;
    const current = this.#index.entry(change.name);
    const removal = change.firstSentMs === undefined ? undefined : this.#index.removal(change.name);
    const refusal = refusalOfPut(current, change, removal);
    if (refusal !== undefined) return refusal;
    if (current === undefined) {
      const other = this.#conflictWith(change.name);
      if (other === 'deferred') return 'deferred';
      if (other !== undefined) return { kind: 'name-conflict', other };
    }
    const known = this.#index.blob(change.digest);
    const intact = known?.damaged === false ? known : undefined;
    if (intact !== undefined && current?.version === change.version && current.digest === change.digest) {
      return { kind: 'stored', version: change.version, deduplicated: true, object: objectOf(intact) };
    }
    if (intact === undefined) {
      if (this.#newDigests.has(change.digest)) return 'deferred';
      if (change.content.kind === 'stored') return { kind: 'content-missing' };
    }
    const usage = this.#capacity && this.#usageOf(change, current?.digest, intact);
    if (usage !== undefined) {
      const stored = { bytes: this.#index.totals.storedBytes, offered: change.offeredSize ?? 0 };
      const limit = this.#capacity?.admit(usage, stored);
      if (limit !== undefined) return { kind: 'limit-reached', limit };
    }
    this.#addPut(pending, intact, known, usage);
    return undefined;
  }

  #usageOf(change: PutChange, before: Digest | undefined, intact: BlobRow | undefined): UsageChange {
    const { logicalSize } = intact ?? change;
    const sizeBefore = before === undefined ? 0 : (this.#index.blob(before)?.logicalSize ?? 0);
    return {
      name: change.name,
      files: before === undefined ? 1 : 0,
      logicalBytes: logicalSize - sizeBefore,
      storedBytes: intact === undefined ? change.storedSize : 0,
    };
  }

  #addPut(
    pending: PendingPut,
    intact: BlobRow | undefined,
    known: BlobRow | undefined,
    usage: UsageChange | undefined,
  ): void {
    const { name, version, digest, content } = pending.change;
    const { encoding, logicalSize, storedSize } = intact ?? pending.change;
    const isInline = intact === undefined && content.kind === 'inline';
    const isStaged = intact === undefined && content.kind === 'staged';
    this.#names.add(name);
    for (const ancestor of ancestorsOf(name)) this.#newDirectories.add(ancestor);
    if (intact === undefined) this.#newDigests.add(digest);
    this.#sizeBytes += isInline ? storedSize : 0;
    this.members.push({
      record: {
        type: 'put',
        timeMs: this.#timeMs,
        name,
        version,
        digest,
        encoding,
        logicalSize,
        storedSize,
        content: isInline ? content : { kind: 'none' },
        damaged: false,
      },
      ...(isStaged && { stagedId: content.stagedId }),
      ...(intact === undefined && known?.place.kind === 'object' && { replacedKey: known.place.key }),
      settle: () => {
        if (usage !== undefined) this.#capacity?.made(usage);
        const object = intact && objectOf(intact);
        pending.resolve({ kind: 'stored', version, deduplicated: intact !== undefined, object });
      },
      reject: (error) => {
        if (usage !== undefined) this.#capacity?.givenUp(usage);
        pending.reject(error);
      },
    });
  }

  /** The outcome of a removal that changes nothing; `undefined` if the removal is a member now. */
  #takeRemove(pending: PendingRemove): RemoveOutcome | undefined {
    const { change } = pending;
    const { name } = change;
    const repeated = change.stoodBefore && outcomeOfRepeatedRemove(this.#index.standing(name), change);
    if (repeated !== undefined) return repeated;
    const current = this.#index.entry(name);
    const refusal = refusalOfRemove(current, change);
    if (refusal !== undefined || current === undefined) return refusal ?? { kind: 'absent' };
    const { version } = current;
    const capacity = this.#capacity;
    const sizeBytes = capacity === undefined ? 0 : (this.#index.blob(current.digest)?.logicalSize ?? 0);
    this.#names.add(name);
    this.#removes = true;
    this.members.push({
      record: { type: 'remove', timeMs: this.#timeMs, name, version, origin: undefined },
      settle: () => {
        capacity?.add({ name, files: -1, logicalBytes: -sizeBytes, storedBytes: 0 });
        pending.resolve({ kind: 'removed', version });
      },
      reject: (error) => pending.reject(error),
    });
    return undefined;
  }

  /**
   * The file that keeps a new name from fitting the tree. A parent that is known to hold files is no file, and neither is
   * anything above it, which saves a look-up for each component.
   */
  #conflictWith(name: FileName): FileName | 'deferred' | undefined {
    if (this.#newDirectories.has(name)) return 'deferred';
    const ancestors = ancestorsOf(name);
    if (ancestors.some((ancestor) => this.#names.has(ancestor))) return 'deferred';
    const parent = ancestors.at(-1);
    const parentKnown = parent === undefined || this.#index.isKnownDirectory(parent);
    const other = conflictingName(
      name,
      (ancestor) => !parentKnown && this.#index.entry(ancestor) !== undefined,
      (directory) => this.#index.firstBelow(directory),
    );
    // An earlier removal in this group may be about to clear the way.
    return other !== undefined && this.#removes ? 'deferred' : other;
  }
}

function objectOf({ place, storedSize }: BlobRow): { key: string; storedSize: number } | undefined {
  return place.kind === 'object' ? { key: place.key, storedSize } : undefined;
}
