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
import type { UsageChange } from '../../quotas.ts';
import type { JournalRecord } from '../../journal/record.ts';
import type { IndexDatabase } from '../index/database.ts';
import type { Room } from './room.ts';
import type { BlobRow } from '../index/rows.ts';

/** A change in the queue. */
export type PendingChange =
  | {
      readonly kind: 'put';
      readonly change: PutChange;
      resolve(outcome: PutOutcome): void;
      reject(error: unknown): void;
    }
  | {
      readonly kind: 'remove';
      readonly change: RemoveChange;
      resolve(outcome: RemoveOutcome): void;
      reject(error: unknown): void;
    };

/** A change that takes effect with the group: its record, and what to answer once that is durable. */
export interface GroupMember {
  record: JournalRecord;
  /** Set where a staged upload must be placed before the record may be written. */
  readonly stagedId?: string;
  /** A key of the blob store that goes once the change has taken effect: of damaged content now replaced. */
  readonly replacedKey?: string;
  settle(): void;
  reject(error: unknown): void;
}

function objectOf({ place, storedSize }: BlobRow): { key: string; storedSize: number } | undefined {
  return place.kind === 'object' ? { key: place.key, storedSize } : undefined;
}

/** Directories that are known to hold files, remembered to spare look-ups; bounded. */
const knownDirectoriesMax = 8192;

/**
 * Decides what queued changes come to, and collects those that take effect into one group for the journal.
 *
 * Invariant: a decision rests on the index alone, which knows all earlier groups, never on changes of the
 * group itself. A change that touches a name, a tree path or a new content that the group touches already is
 * therefore put off to the next group ("deferred"), where the index knows.
 */
export class ChangeGroup {
  readonly members: GroupMember[] = [];
  readonly #index: IndexDatabase;
  readonly #directories: Set<string>;
  readonly #timeMs: number;
  readonly #names = new Set<string>();
  readonly #newDirectories = new Set<string>();
  readonly #newDigests = new Set<Digest>();
  readonly #room: Room | undefined;
  /** Stored bytes that the group adds. */
  #addedBytes = 0;
  #removes = false;
  #sizeBytes = 0;

  /** `directories` is the caller's memory of directories that hold files; kept right from group to group. */
  constructor(index: IndexDatabase, directories: Set<string>, timeMs: number, room?: Room) {
    this.#room = room;
    this.#index = index;
    this.#directories = directories;
    this.#timeMs = timeMs;
  }

  get full(): boolean {
    return this.members.length >= groupChangesMax || this.#sizeBytes >= groupSizeMaxBytes;
  }

  /** Takes a change, answers it at once, or defers it (false). */
  take(pending: PendingChange): boolean {
    if (this.#names.has(pending.change.name)) return false;
    return pending.kind === 'put' ? this.#takePut(pending) : this.#takeRemove(pending);
  }

  #takePut(pending: Extract<PendingChange, { kind: 'put' }>): boolean {
    const { change } = pending;
    const repeated = change.stoodBefore && outcomeOfRepeatedPut(this.#index.standing(change.name), change);
    if (repeated !== undefined) {
      pending.resolve(repeated);
      return true;
    }
    const current = this.#index.entry(change.name);
    const removal = change.firstSentMs === undefined ? undefined : this.#index.removal(change.name);
    const refusal = refusalOfPut(current, change, removal);
    if (refusal !== undefined) {
      pending.resolve(refusal);
      return true;
    }
    if (current === undefined) {
      const fit = this.#fit(change.name);
      if (fit === 'deferred') return false;
      if (fit !== undefined) {
        pending.resolve({ kind: 'name-conflict', other: fit });
        return true;
      }
    }
    const known = this.#index.blob(change.digest);
    const sound = known !== undefined && !known.damaged;
    if (sound && current?.version === change.version && current.digest === change.digest) {
      const object = objectOf(known);
      pending.resolve({ kind: 'stored', version: change.version, deduplicated: true, object });
      return true;
    }
    if (!sound && this.#newDigests.has(change.digest)) return false;
    if (!sound && change.content.kind === 'stored') {
      pending.resolve({ kind: 'content-missing' });
      return true;
    }
    const usage = this.#room && this.#usageOf(change, current?.digest, sound ? known : undefined);
    const limit = usage && this.#limitOf(usage, sound ? 0 : change.storedSize, change.offeredSize);
    if (limit !== undefined) {
      pending.resolve({ kind: 'limit-reached', limit });
      return true;
    }
    this.#addPut(pending, sound ? known : undefined, known, usage);
    return true;
  }

  /** What a put adds under its name. */
  #usageOf(change: PutChange, before: Digest | undefined, sound: BlobRow | undefined): UsageChange {
    const { name } = change;
    const { logicalSize } = sound ?? change;
    const sizeBefore = before === undefined ? 0 : (this.#index.blob(before)?.logicalSize ?? 0);
    return { name, files: before === undefined ? 1 : 0, logicalBytes: logicalSize - sizeBefore };
  }

  /** Why a put would not fit, in words. One that fits is counted as admitted. */
  #limitOf(usage: UsageChange, addedBytes: number, offeredBytes = 0): string | undefined {
    const { storedBytesMax = Infinity, quotas } = this.#room ?? {};
    const neededBytes = Math.max(addedBytes, offeredBytes);
    if (neededBytes > 0 && this.#index.totals.storedBytes + this.#addedBytes + neededBytes > storedBytesMax) {
      return `the store would take more than the ${storedBytesMax} bytes that it may`;
    }
    const limit = quotas?.admit(usage);
    if (limit === undefined) this.#addedBytes += addedBytes;
    return limit;
  }

  #addPut(
    pending: Extract<PendingChange, { kind: 'put' }>,
    sound: BlobRow | undefined,
    known: BlobRow | undefined,
    usage: UsageChange | undefined,
  ): void {
    const { change } = pending;
    const quotas = usage && this.#room?.quotas;
    const { name, version, digest, content } = change;
    const { encoding, logicalSize, storedSize } = sound ?? change;
    const inline = sound === undefined && content.kind === 'inline';
    const staged = sound === undefined && content.kind === 'staged';
    this.#names.add(name);
    for (const ancestor of ancestorsOf(name)) this.#newDirectories.add(ancestor);
    if (sound === undefined) this.#newDigests.add(digest);
    this.#sizeBytes += inline ? storedSize : 0;
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
        content: inline ? content : { kind: 'none' },
        damaged: false,
      },
      ...(staged && { stagedId: content.stagedId }),
      ...(sound === undefined && known?.place.kind === 'object' && { replacedKey: known.place.key }),
      settle: () => {
        this.#rememberDirectoryOf(name);
        if (usage !== undefined) quotas?.made(usage);
        const object = sound && objectOf(sound);
        pending.resolve({ kind: 'stored', version, deduplicated: sound !== undefined, object });
      },
      reject: (error) => {
        if (usage !== undefined) quotas?.givenUp(usage);
        pending.reject(error);
      },
    });
  }

  #takeRemove(pending: Extract<PendingChange, { kind: 'remove' }>): boolean {
    const { change } = pending;
    const { name } = change;
    const repeated = change.stoodBefore && outcomeOfRepeatedRemove(this.#index.standing(name), change);
    if (repeated !== undefined) {
      pending.resolve(repeated);
      return true;
    }
    const current = this.#index.entry(name);
    const refusal = refusalOfRemove(current, change);
    if (refusal !== undefined || current === undefined) {
      pending.resolve(refusal ?? { kind: 'absent' });
      return true;
    }
    const { version } = current;
    const quotas = this.#room?.quotas;
    const sizeBytes = quotas === undefined ? 0 : (this.#index.blob(current.digest)?.logicalSize ?? 0);
    this.#names.add(name);
    this.#removes = true;
    for (const ancestor of ancestorsOf(name)) this.#directories.delete(ancestor);
    this.members.push({
      record: { type: 'remove', timeMs: this.#timeMs, name, version, origin: undefined },
      settle: () => {
        quotas?.add({ name, files: -1, logicalBytes: -sizeBytes });
        pending.resolve({ kind: 'removed', version });
      },
      reject: (error) => pending.reject(error),
    });
    return true;
  }

  /**
   * Whether a new name fits the tree: undefined where it does, else the file in its way. A parent that is known
   * to hold files is no file, and neither is anything above it, which spares a look-up a component.
   */
  #fit(name: FileName): FileName | 'deferred' | undefined {
    if (this.#newDirectories.has(name)) return 'deferred';
    const ancestors = ancestorsOf(name);
    if (ancestors.some((ancestor) => this.#names.has(ancestor))) return 'deferred';
    const parent = ancestors.at(-1);
    const parentKnown = parent === undefined || this.#directories.has(parent);
    const other = conflictingName(
      name,
      (ancestor) => !parentKnown && this.#index.entry(ancestor) !== undefined,
      (directory) => this.#index.firstBelow(directory),
    );
    // A removal earlier in this group may be about to clear the way.
    if (other !== undefined && this.#removes) return 'deferred';
    return other;
  }

  /** Only of what has taken effect: where nothing is stored there may come to be a file. */
  #rememberDirectoryOf(name: FileName): void {
    const parent = ancestorsOf(name).at(-1);
    if (parent === undefined) return;
    if (this.#directories.size >= knownDirectoriesMax) this.#directories.clear();
    this.#directories.add(parent);
  }
}
