import type { BlobPlacer } from '../catalog.ts';
import type { Connections } from './connections.ts';
import type { Statements } from './statements.ts';

/** For so long doomed objects are left to the server that doomed them; then any server removes them. */
const doomedPatienceMs = 60_000;
/** How long the key of a removed object is remembered: longer than any statement or retry lasts. */
const tombstoneLifetimeMs = 7 * 24 * 3_600_000;
const objectsAtOnce = 1000;

export interface ObjectRemovalParts {
  readonly connections: Connections;
  readonly statements: Statements;
  readonly placer: BlobPlacer;
  /** The time that statements take; null for that of the database. */
  readonly timeGiven: () => number | null;
  readonly onBackgroundError: (error: unknown) => void;
}

/**
 * Removes objects from the blob store.
 *
 * Invariant: bytes are removed only of keys that are doomed in the table `object`, after the transaction that
 * doomed them; no row will ever name such a key again. See (c) and (d) in postgres-catalog.ts.
 */
export class ObjectRemoval {
  readonly #parts: ObjectRemovalParts;

  constructor(parts: ObjectRemovalParts) {
    this.#parts = parts;
  }

  /** Removes doomed objects. If that fails, the keys stay doomed, for `sweep`; the change itself is made. */
  async removeDoomed(keys: readonly string[]): Promise<boolean> {
    if (keys.length === 0) return true;
    try {
      await this.#remove(keys);
      return true;
    } catch (error) {
      this.#parts.onBackgroundError(error);
      return false;
    }
  }

  /**
   * Dooms and removes those of the objects that no blob uses. Safe at any time: of a put and a removal that meet at one
   * object one wins, and the other leaves it alone.
   * @returns the keys that were removed.
   */
  async removeOrphans(keys: readonly string[]): Promise<readonly string[]> {
    const { connections, statements, timeGiven } = this.#parts;
    const rows = await connections.run<{ key: string }>(statements.doom, [keys, timeGiven()]);
    const doomed = rows.map((row) => row.key);
    await this.#remove(doomed);
    return doomed;
  }

  /** Removes an object that a put has placed and does not need; a failure leaves an orphan. */
  async giveUp(key: string): Promise<void> {
    await this.removeOrphans([key]).catch(this.#parts.onBackgroundError);
  }

  /** Those of the keys that no blob uses now; `removeOrphans` checks them again. */
  async findOrphans(keys: readonly string[]): Promise<readonly string[]> {
    const { connections, statements } = this.#parts;
    const rows = await connections.run<{ key: string }>(statements.orphans, [keys]);
    return rows.map((row) => row.key);
  }

  /** Removes doomed objects that a crash or a failure left behind, and forgets keys that were removed long ago. */
  async sweep(nowMs: number, doomedBeforeMs = nowMs - doomedPatienceMs): Promise<void> {
    const { connections, statements } = this.#parts;
    for (;;) {
      const values = [doomedBeforeMs, objectsAtOnce];
      const rows = await connections.run<{ key: string }>(statements.objectsToRemove, values);
      const removed = await this.removeDoomed(rows.map((row) => row.key));
      if (!removed || rows.length < objectsAtOnce) break;
    }
    await connections.run(statements.forgetObjects, [nowMs - tombstoneLifetimeMs]);
  }

  async #remove(keys: readonly string[]): Promise<void> {
    const { connections, statements, placer, timeGiven } = this.#parts;
    await placer.remove(keys);
    await connections.run(statements.objectsRemoved, [keys, timeGiven()]);
  }
}
