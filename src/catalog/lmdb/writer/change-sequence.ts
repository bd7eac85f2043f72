import { setImmediate as afterInput } from 'node:timers/promises';
import type { Clock } from '../../../core/clock.ts';
import { cannot, isFiletrackerError } from '../../../core/errors.ts';
import { pendingChangesMax } from '../../../core/limits.ts';
import type { BlobPlacer } from '../../catalog.ts';
import type { Capacity } from '../../quotas.ts';
import type { IndexDatabase } from '../index/database.ts';
import { ChangeGroup, type GroupMember, type PendingChange } from './change-group.ts';
import type { RecordCommitter } from './record-committer.ts';

type Step = PendingChange | { readonly kind: 'exclusive'; run(): Promise<void> };

export interface ChangeSequenceParts {
  readonly index: IndexDatabase;
  readonly placer: BlobPlacer;
  readonly committer: RecordCommitter;
  readonly clock: Clock;
  readonly capacity: Capacity | undefined;
  readonly onBackgroundError: (error: unknown) => void;
  /** Called when a group has begun a new segment of the journal. */
  readonly onNewSegment: () => void;
}

/**
 * The one sequence of all changes of a catalog: puts and removals run in groups that share one write to the journal, every
 * other step alone.
 *
 * Invariant: steps run in the order of their arrival, each group and each other step only after the one before has ended:
 * one `#drain` runs while any step waits or runs, and never two.
 */
export class ChangeSequence {
  readonly #parts: ChangeSequenceParts;
  readonly #queue: Step[] = [];
  #draining: Promise<void> | undefined;
  #ended = false;

  constructor(parts: ChangeSequenceParts) {
    this.#parts = parts;
  }

  /** @throws FiletrackerError `busy` if too many steps wait, `unavailable` after `end`. */
  enqueue(step: Step): void {
    this.checkOpen();
    if (this.#queue.length >= pendingChangesMax) {
      throw cannot('busy', 'change the catalog', 'too many changes are waiting for the disk');
    }
    this.#queue.push(step);
    this.#draining ??= this.#drain();
  }

  /**
   * Runs a step alone, with an index that has everything that the journal may hold: what it does not reference may be
   * removed, and what it references may be written again. @throws as `RecordCommitter.settle`.
   */
  run<Result>(step: () => Promise<Result>): Promise<Result> {
    return new Promise((resolve, reject) => {
      const settled = async (): Promise<Result> => {
        await this.#parts.committer.settle();
        return step();
      };
      this.enqueue({ kind: 'exclusive', run: () => settled().then(resolve, reject) });
    });
  }

  /** Accepts no more steps. */
  end(): void {
    this.#ended = true;
  }

  /** Resolves when the steps that wait now have run. */
  async idle(): Promise<void> {
    await this.#draining;
  }

  checkOpen(): void {
    if (this.#ended) throw cannot('unavailable', 'change the catalog', 'it is closed');
  }

  /** Runs steps until the queue is empty. Never rejects: each step handles its own failure. */
  async #drain(): Promise<void> {
    while (this.#queue.length > 0) {
      // Requests that arrive in this turn of the event loop share the group and its sync.
      await afterInput();
      const [first] = this.#queue;
      if (first?.kind === 'exclusive') {
        this.#queue.shift();
        await first.run();
      } else {
        await this.#runGroup().catch((error: unknown) => this.#parts.onBackgroundError(error));
      }
    }
    this.#draining = undefined;
  }

  async #runGroup(): Promise<void> {
    const { index, clock, capacity, committer } = this.#parts;
    const group = new ChangeGroup(index, clock.nowMs(), capacity);
    let taken = 0;
    try {
      committer.checkInPlace();
      await committer.catchUp();
      for (const step of this.#queue) {
        if (step.kind === 'exclusive' || group.full || !group.take(step)) break;
        taken += 1;
      }
    } catch (error) {
      // The step whose decision failed is rejected; those before it stay in the group.
      const step = this.#queue[taken];
      taken += 1;
      if (step !== undefined && step.kind !== 'exclusive') step.reject(error);
    }
    this.#queue.splice(0, taken);
    if (group.members.length > 0) await this.#commitGroup(group.members);
  }

  async #commitGroup(members: readonly GroupMember[]): Promise<void> {
    const { committer, placer } = this.#parts;
    const placedKeys: string[] = [];
    const ready = await placeStaged(placer, members, placedKeys);
    const { segment } = committer;
    const made = await this.#write(ready);
    for (const member of made) member.settle();
    // Objects that the journal may name after all, now or after a crash, must stay; a later put of them finds them.
    if (made.length < ready.length) await this.#removeObjects(committer.endIsCertain ? placedKeys : []);
    const replaced = made.flatMap(({ replacedKey }) => (replacedKey === undefined ? [] : [replacedKey]));
    await this.#removeObjects(replaced.filter((key) => !placedKeys.includes(key)));
    if (committer.segment !== segment) this.#parts.onNewSegment();
  }

  /** Commits a group, or on a full disk its removals alone. Returns what was committed; the others are rejected. */
  async #write(members: readonly GroupMember[]): Promise<readonly GroupMember[]> {
    const { committer } = this.#parts;
    const removals = members.filter(({ record }) => record.type === 'remove');
    let left = members;
    try {
      if (removals.length < members.length) {
        committer.checkSpace();
        await committer.commit(left.map(({ record }) => record));
        return left;
      }
    } catch (error) {
      left = isFiletrackerError(error, 'no-space') ? removals : [];
      for (const member of members) if (!left.includes(member)) member.reject(error);
    }
    try {
      if (left.length > 0) await committer.commitRemovals(left.map(({ record }) => record));
      return left;
    } catch (error) {
      for (const member of left) member.reject(error);
      return [];
    }
  }

  async #removeObjects(keys: readonly string[]): Promise<void> {
    if (keys.length === 0) return;
    // A failure leaves orphans, which recovery finds; the changes themselves are not affected.
    await this.#parts.placer.remove(keys).catch((error: unknown) => this.#parts.onBackgroundError(error));
  }
}

/**
 * Places the staged uploads of a group, and adds their keys to `placedKeys`. Members whose upload cannot be placed are
 * rejected; the others are returned.
 */
async function placeStaged(
  placer: BlobPlacer,
  members: readonly GroupMember[],
  placedKeys: string[],
): Promise<readonly GroupMember[]> {
  const staged = members.filter((member) => member.stagedId !== undefined);
  if (staged.length === 0) return members;
  const failed = new Set<GroupMember>();
  const place = async (some: readonly GroupMember[]): Promise<void> => {
    const keys = await placer.place(some.flatMap(placementOf));
    for (const [at, member] of some.entries()) {
      const key = keys[at];
      if (key === undefined || member.record.type !== 'put') continue;
      placedKeys.push(key);
      member.record = { ...member.record, content: { kind: 'object', key } };
    }
  };
  try {
    await place(staged);
  } catch {
    // One upload fails all: each is tried alone, so that it costs only its own change.
    for (const member of staged) {
      await place([member]).catch((error: unknown) => {
        failed.add(member);
        member.reject(error);
      });
    }
  }
  return failed.size === 0 ? members : members.filter((member) => !failed.has(member));
}

function placementOf({ record, stagedId }: GroupMember): Parameters<BlobPlacer['place']>[0] {
  if (stagedId === undefined || record.type !== 'put') return [];
  return [{ stagedId, digest: record.digest, encoding: record.encoding }];
}
