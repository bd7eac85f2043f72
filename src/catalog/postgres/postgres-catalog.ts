import { randomUUID } from 'node:crypto';
import type { Clock } from '../../core/clock.ts';
import { SingleFlight } from '../../core/concurrency.ts';
import { digestToBytes, type Digest } from '../../core/digest.ts';
import { isFiletrackerError } from '../../core/errors.ts';
import { ancestorsOf } from '../../core/file-name.ts';
import { removalMemoryMs } from '../../core/limits.ts';
import type {
  BlobPin,
  BlobPlacer,
  BlobRecord,
  Catalog,
  PlacedBlob,
  PutChange,
  PutOutcome,
  RemoveChange,
  RemoveOutcome,
} from '../catalog.ts';
import { Connections } from './connections.ts';
import { compactJournal, type JournalCompaction } from './journal-compaction.ts';
import { migration, type MigrationOptions } from './migrate.ts';
import { ObjectRemoval } from './object-removal.ts';
import type { ConnectionOptions } from './pools.ts';
import { PostgresReader } from './postgres-reader.ts';
import { repairTables, type RepairOptions, type TableRepairs } from './repair.ts';
import {
  encodingToNumber,
  knownObjectOf,
  preconditionValues,
  type BlobRow,
  type PutRow,
  type RemoveRow,
} from './rows.ts';

export interface PostgresCatalogOptions extends ConnectionOptions, MigrationOptions {
  /** Must use a new key for every placement: `capabilities.keysFollowContent` is false. */
  readonly placer: BlobPlacer;
  /** For tests: the time instead of the database's. */
  readonly clock?: Clock | undefined;
  /** Open even if the database does not respond; each call fails until it does. */
  readonly mayWait?: boolean | undefined;
  /** For tests. */
  readonly pinLifetimeMs?: number | undefined;
  /** Interval of `sweepObjects`; by default it does not run by itself. */
  readonly objectSweepIntervalMs?: number | undefined;
  /** Interval at which the journal is compacted if that pays; by default it is not. */
  readonly journalCompactionIntervalMs?: number | undefined;
  /** Receives failures of background work. */
  readonly onBackgroundError?: ((error: unknown) => void) | undefined;
}

/** How long a pin lasts without being renewed or released. It is renewed after half of that. */
const pinLifetimeMs = 10 * 60_000;

/**
 * The catalog in PostgreSQL, for any number of servers at the same time. A server keeps no state but connections:
 * everything that servers must agree on is decided by row locks of the database, inside functions of the schema.
 *
 * Invariant 5, a blob that an entry names exists. Write R(d) for the row of `blob` for digest d.
 *
 * (a) An entry with digest d is only written by `put()`, in a transaction that holds the lock of R(d) and has raised its
 *     count (or has inserted R(d) with count one). It is only removed or changed by `put()` and `remove()`, which lock
 *     the entry's row and R(d), and lower the count, in the same transaction. So at every commit the count is the number
 *     of entries with d.
 * (b) R(d) is only deleted by `collect()`, which takes its lock first and then, in a statement whose snapshot is younger
 *     than the lock (READ COMMITTED), sees a count of zero and no lease. A put or a pin of d either had the lock before,
 *     and then the count or the lease is seen; or it waits, and then finds no row and needs the content again. So an
 *     entry's R(d) exists, with bytes or the key of an object in it.
 * (c) An object is complete and durable before the transaction that names its key begins (`place()` first). No key is
 *     ever used for two placements. In `object` a key's row passes through "named", "doomed" and "removed", never
 *     backwards. It becomes named only by the insert of `put()`, inside the transaction that writes the key into R(d);
 *     doomed only in the transaction that takes the key out of R(d), or by the insert of `doom()` if there was no row.
 *     Of two inserts of one primary key one waits for the other and loses: `put()` then fails, `doom()` then leaves the
 *     key alone. So a key that R(d) holds is never doomed.
 * (d) Bytes are removed only of doomed keys, after the commit. However late the removal, after a crash, a lost
 *     connection, a server asleep for hours, it hits a key that no row will ever hold again. No clock and no grace
 *     period is part of this; the grace period protects readers under way.
 *
 * A crash leaves an object that was placed but not named (an orphan, found by comparing the blob store's list with the
 * catalog, and doomed), or doomed keys whose bytes still exist (`sweepObjects`).
 *
 * Invariant 8, names form a tree. A put of a new name holds an advisory lock of the name, and shared ones of all names
 * above it, before it looks for files above and below: of two puts that exclude each other one holds exclusively the name
 * that the other holds shared, so the later sees the earlier's entry. An existing entry has passed this, and its row lock
 * keeps it from being removed.
 *
 * Deadlocks: advisory locks are taken from the root down, then the entry, then blobs in the order of their digests, then a
 * counter. The database undoes what remains, and `Connections.run` repeats it.
 */
export class PostgresCatalog extends PostgresReader implements Catalog {
  /** Removes objects that no blob uses. */
  readonly objects: ObjectRemoval;
  readonly #placer: BlobPlacer;
  readonly #onBackgroundError: (error: unknown) => void;
  readonly #timers: NodeJS.Timeout[] = [];
  readonly #pinLifetimeMs: number;

  private constructor(connections: Connections, options: PostgresCatalogOptions) {
    super(connections, options.clock);
    this.#placer = options.placer;
    this.#pinLifetimeMs = options.pinLifetimeMs ?? pinLifetimeMs;
    this.#onBackgroundError = options.onBackgroundError ?? (() => undefined);
    this.objects = new ObjectRemoval({
      connections,
      statements: this.statements,
      placer: options.placer,
      timeGiven: () => this.timeGiven(),
      onBackgroundError: this.#onBackgroundError,
    });
    this.#repeat(options.objectSweepIntervalMs, () => this.sweepObjects());
    this.#repeat(options.journalCompactionIntervalMs, () => this.compactJournal());
  }

  /** Runs background work at an interval, one run at a time. */
  #repeat(intervalMs: number | undefined, work: () => Promise<unknown>): void {
    if (intervalMs === undefined) return;
    const flight = new SingleFlight<unknown>();
    const run = (): unknown => flight.running ?? flight.run(work).catch(this.#onBackgroundError);
    this.#timers.push(setInterval(run, intervalMs).unref());
  }

  /** Connects, and brings the schema up to date. @throws FiletrackerError as `migrate`. */
  static async open(options: PostgresCatalogOptions): Promise<PostgresCatalog> {
    const connections = await Connections.create(options, migration(options));
    try {
      await connections.prepare();
    } catch (error) {
      if (options.mayWait !== true || !isFiletrackerError(error, 'unavailable')) {
        await connections.close();
        throw error;
      }
      options.onBackgroundError?.(error);
    }
    return new PostgresCatalog(connections, options);
  }

  /** The number of open connections. */
  get connectionCount(): number {
    return this.connections.size;
  }

  async put(change: PutChange): Promise<PutOutcome> {
    const { content } = change;
    if (content.kind === 'inline') return this.#put(change, content.bytes, undefined);
    const withoutContent = await this.#put(change, undefined, undefined);
    if (withoutContent.kind !== 'content-missing' || content.kind === 'stored') return withoutContent;
    const { digest, encoding } = change;
    const [key] = await this.#placer.place([{ stagedId: content.stagedId, digest, encoding }]);
    if (key === undefined) return withoutContent;
    const outcome = await this.#put(change, undefined, key);
    // Another change came first: the object is not needed, or this same change has named it already.
    if (outcome.kind !== 'stored' || outcome.deduplicated) await this.objects.giveUp(key);
    return outcome;
  }

  async #put(change: PutChange, bytes: Buffer | undefined, key: string | undefined): Promise<PutOutcome> {
    const { precondition, firstSentMs } = change;
    const nowMs = this.timeGiven();
    const agoMs = firstSentMs === undefined ? null : Math.max(0, (nowMs ?? Date.now()) - firstSentMs);
    const { put, putUnmodified } = this.statements;
    const values = [
      change.name,
      ancestorsOf(change.name),
      change.version,
      digestToBytes(change.digest),
      encodingToNumber(change.encoding),
      change.logicalSize,
      change.storedSize,
      bytes ?? null,
      key ?? null,
    ];
    const [row] = await (precondition?.kind === 'unmodified-since'
      ? this.connections.run<PutRow>(putUnmodified, [...values, nowMs, agoMs, precondition.version])
      : this.connections.run<PutRow>(put, [...values, ...preconditionValues(precondition), nowMs, agoMs]));
    if (row === undefined) throw new TypeError('The function put returned no row');
    if (row.replaced_key !== null) await this.objects.removeDoomed([row.replaced_key]);
    const { outcome, stored_version: version, deduplicated } = row;
    switch (outcome) {
      case 'stored': {
        const object = deduplicated ? knownObjectOf(row) : undefined;
        return { kind: 'stored', version, deduplicated, object };
      }
      case 'superseded':
        return { kind: 'superseded', version };
      case 'name-conflict':
        return { kind: 'name-conflict', other: row.other };
      case 'precondition-failed':
      case 'content-missing':
        return { kind: outcome };
    }
  }

  async remove(change: RemoveChange): Promise<RemoveOutcome> {
    const { name, version, precondition } = change;
    const { remove, removeUnmodified } = this.statements;
    const nowMs = this.timeGiven();
    const [row] = await (precondition?.kind === 'unmodified-since'
      ? this.connections.run<RemoveRow>(removeUnmodified, [name, version, nowMs, precondition.version])
      : this.connections.run<RemoveRow>(remove, [name, version, ...preconditionValues(precondition), nowMs]));
    if (row === undefined) throw new TypeError('The function remove returned no row');
    const { outcome, stored_version } = row;
    if (outcome === 'removed' || outcome === 'superseded') return { kind: outcome, version: stored_version };
    return { kind: outcome };
  }

  async collect(digests: readonly Digest[], beforeMs: number): Promise<readonly BlobRecord[]> {
    const values = [digests.map((digest) => digestToBytes(digest)), Math.floor(beforeMs), this.timeGiven()];
    const rows = await this.connections.run<BlobRow>(this.statements.collect, values);
    const keys = rows.flatMap((row) => (row.object_key === null ? [] : [row.object_key]));
    await this.objects.removeDoomed(keys);
    await this.sweepObjects();
    return rows.map((row) => this.recordOf(row));
  }

  async pin(digest: Digest): Promise<BlobPin | undefined> {
    const { pin, renewPin, release: releasePin } = this.statements;
    const key = [digestToBytes(digest), randomUUID()] as const;
    const [row] = await this.connections.run<BlobRow>(pin, [...key, this.#pinLifetimeMs]);
    if (row === undefined) return undefined;
    // The put that relies on the pin may take hours. A server that dies renews nothing.
    const renew = (): Promise<unknown> => this.connections.run(renewPin, [...key, this.#pinLifetimeMs]);
    const timer = setInterval(() => void renew().catch(this.#onBackgroundError), this.#pinLifetimeMs / 2);
    timer.unref();
    const release = async (): Promise<void> => {
      clearInterval(timer);
      await this.connections.run(releasePin, key);
    };
    return { blob: this.recordOf(row), release };
  }

  async markDamaged(digest: Digest, damaged: boolean): Promise<void> {
    await this.connections.run(this.statements.mark, [digestToBytes(digest), damaged, this.timeGiven()]);
  }

  async addBlobs(blobs: readonly PlacedBlob[]): Promise<void> {
    for (const { digest, encoding, logicalSize, storedSize, key, damaged = false } of blobs) {
      const description = [digestToBytes(digest), encodingToNumber(encoding), logicalSize, storedSize];
      const values = [...description, key, damaged, this.timeGiven()];
      const [row] = await this.connections.run<{ key: string | null }>(this.statements.addBlob, values);
      if (typeof row?.key === 'string') await this.objects.removeDoomed([row.key]);
    }
  }

  /** Removes doomed objects that a crash or a failure left behind, and forgets old removals and pins. */
  async sweepObjects(doomedBeforeMs?: number): Promise<void> {
    const nowMs = await this.timeMs();
    await this.objects.sweep(nowMs, doomedBeforeMs);
    await this.connections.run(this.statements.forgetRemovals, [nowMs - removalMemoryMs]);
    await this.connections.run(this.statements.endPins, []);
  }

  /** Deletes journal records that recovery does not need; see `compactJournal`. */
  async compactJournal(options: { readonly always?: boolean } = {}): Promise<JournalCompaction | undefined> {
    return compactJournal(this.connections, { ...options, nowMs: await this.timeMs() });
  }

  /** Repairs tables that do not agree with each other; see `repairTables`. */
  async repair(options: Omit<RepairOptions, 'nowMs'>): Promise<TableRepairs> {
    return repairTables(this.connections, { ...options, nowMs: await this.timeMs() });
  }

  async probe(): Promise<void> {
    await this.connections.run(this.statements.probe, []);
  }

  async close(): Promise<void> {
    for (const timer of this.#timers) clearInterval(timer);
    await this.connections.close();
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }
}
