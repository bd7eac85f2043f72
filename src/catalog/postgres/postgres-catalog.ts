import { randomUUID } from 'node:crypto';
import type { Clock } from '../../core/clock.ts';
import { digestFromBytes, digestToBytes, type Digest } from '../../core/digest.ts';
import { FiletrackerError, isFiletrackerError } from '../../core/errors.ts';
import { ancestorsOf, type FileName } from '../../core/file-name.ts';
import { inlineSizeMaxBytes, removalMemoryMs } from '../../core/limits.ts';
import type {
  BlobPin,
  BlobPlacer,
  BlobRecord,
  Catalog,
  CatalogCapabilities,
  CatalogStats,
  Entry,
  ListOptions,
  LocatedEntry,
  PlacedBlob,
  PutChange,
  PutOutcome,
  RemoveChange,
  RemoveOutcome,
} from '../catalog.ts';
import { Connections } from './connections.ts';
import { compactJournal, type JournalCompaction } from './journal-compaction.ts';
import { boundsOf, listRows } from './listing.ts';
import { migration, type MigrationOptions } from './migrate.ts';
import { ObjectRemoval } from './object-removal.ts';
import type { ConnectionOptions } from './pools.ts';
import { repairTables, type RepairOptions, type TableRepairs } from './repair.ts';
import {
  blobRecordOf,
  encodingToNumber,
  entryOf,
  knownObjectOf,
  locatedEntryOf,
  preconditionValues,
  type BlobRow,
  type EntryRow,
  type LocatedRow,
  type NameRow,
  type PutRow,
  type RemoveRow,
} from './rows.ts';
import { statementsFor, type Statements } from './statements.ts';

export interface PostgresCatalogOptions extends ConnectionOptions, MigrationOptions {
  /** Must give every placement a key of its own: `capabilities.keysFollowContent` is false. */
  readonly placer: BlobPlacer;
  /** For tests: the time in the place of the database's. */
  readonly clock?: Clock | undefined;
  /** Whether a database that does not answer at the start is waited for, each call failing until it does. */
  readonly mayWait?: boolean | undefined;
  /** For tests. */
  readonly pinLifetimeMs?: number | undefined;
  /** How often `sweepObjects` runs by itself; never where undefined. */
  readonly objectSweepIntervalMs?: number | undefined;
  /** How often the journal is compacted by itself, where that pays; never where undefined. */
  readonly journalCompactionIntervalMs?: number | undefined;
  /** Told of failures that no caller waits for. */
  readonly onBackgroundError?: ((error: unknown) => void) | undefined;
}

/** How long a pin holds without being renewed or released. It is renewed in half of that. */
const pinLifetimeMs = 10 * 60_000;

/**
 * The catalog in PostgreSQL, for any number of servers at the same time. It keeps nothing here but connections:
 * all that servers must agree on is decided by row locks of the database, inside functions of the schema.
 *
 * Invariant 5, a blob that an entry names exists. Write R(d) for the row of `blob` for digest d.
 *
 * (a) An entry with digest d is only ever written by `put()`, in a transaction that holds the lock of R(d) and
 *     has raised its count (or has inserted R(d) with count one). It is only taken away or changed by `put()`
 *     and `remove()`, which lock the entry's row and R(d), and lower the count, in the same transaction. So at
 *     every commit the count is the number of entries with d.
 * (b) R(d) is only ever deleted by `collect()`, which takes its lock first and then, in a statement whose
 *     snapshot is younger than the lock (READ COMMITTED), sees a count of zero and no lease. A put or a pin of
 *     d either had the lock before, and then the count or the lease is seen; or it waits, and then finds no row
 *     and needs the content anew. So an entry's R(d) exists, with bytes or the key of an object in it.
 * (c) An object is complete and durable before the transaction that names its key begins (`place()` first).
 *     No key is ever given to two placements. In `object` a key's row passes through "named", "doomed" and
 *     "removed", never backwards. It becomes named only by the insert of `put()`, inside the transaction that
 *     writes the key into R(d); doomed only in the transaction that takes the key out of R(d), or by the insert
 *     of `doom()` where no row was there. Of two inserts of one primary key one waits for the other and loses:
 *     `put()` then fails, `doom()` then leaves the key alone. So a key that R(d) holds is never doomed.
 * (d) Bytes are removed only of doomed keys, after the commit. Whatever delays the removal, a crash, a lost
 *     connection, a server asleep for hours, hits a key that no row will ever hold again. No clock and no
 *     grace period is part of this; the grace period is there for readers under way.
 *
 * What a crash leaves: an object that was placed but not named (a stray, found by comparing the blob store's
 * list with the catalog, and doomed), or doomed keys whose bytes are still there (`sweepObjects`).
 *
 * Invariant 8, names form a tree. A put of a new name holds an advisory lock of the name, and shared ones of
 * all names above it, before it looks for files above and below: of two puts that exclude each other one holds
 * the name exclusively that the other holds shared, so the later sees the earlier's entry. An entry that is
 * there already has passed this, and is kept from being removed by its row lock.
 *
 * Deadlocks: advisory locks are taken from the root down, then the entry, then blobs in the order of their
 * digests, then a counter. What remains is undone by the database and repeated by `Connections.run`.
 */
export class PostgresCatalog implements Catalog {
  readonly capabilities: CatalogCapabilities = { inlineSizeMaxBytes };
  readonly #connections: Connections;
  readonly #statements: Statements;
  readonly #placer: BlobPlacer;
  readonly #objects: ObjectRemoval;
  readonly #clock: Clock | undefined;
  readonly #onBackgroundError: (error: unknown) => void;
  readonly #timers: NodeJS.Timeout[] = [];
  readonly #pinLifetimeMs: number;

  private constructor(connections: Connections, options: PostgresCatalogOptions) {
    this.#connections = connections;
    this.#statements = statementsFor(connections.schema);
    this.#placer = options.placer;
    this.#clock = options.clock;
    this.#pinLifetimeMs = options.pinLifetimeMs ?? pinLifetimeMs;
    this.#onBackgroundError = options.onBackgroundError ?? (() => undefined);
    this.#objects = new ObjectRemoval({
      connections,
      statements: this.#statements,
      placer: options.placer,
      timeGiven: () => this.#timeGiven(),
      onBackgroundError: this.#onBackgroundError,
    });
    this.#repeat(options.objectSweepIntervalMs, () => this.sweepObjects());
    this.#repeat(options.journalCompactionIntervalMs, () => this.compactJournal());
  }

  /** Does background work every so often, one run at a time. */
  #repeat(intervalMs: number | undefined, work: () => Promise<unknown>): void {
    if (intervalMs === undefined) return;
    let running = false;
    const run = async (): Promise<void> => {
      if (running) return;
      running = true;
      await work().catch(this.#onBackgroundError);
      running = false;
    };
    this.#timers.push(setInterval(() => void run(), intervalMs).unref());
  }

  /** Connects, and brings the schema up to date. @throws FiletrackerError as `migration` says. */
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

  /** Connections to the database that are open now. */
  get connectionCount(): number {
    return this.#connections.size;
  }

  async find(name: FileName): Promise<LocatedEntry | undefined> {
    const [row] = await this.#connections.run<LocatedRow>(this.#statements.find, [name]);
    return row && locatedEntryOf(row);
  }

  async findBlob(digest: Digest): Promise<BlobRecord | undefined> {
    const [row] = await this.#connections.run<BlobRow>(this.#statements.findBlob, [digestToBytes(digest)]);
    return row && this.#recordOf(row);
  }

  async kindOfDirectory(directory: string): Promise<'directory' | 'file' | 'absent'> {
    const values = [directory.slice(0, -1), ...boundsOf(directory)];
    const [row] = await this.#connections.run<{ kind: 'directory' | 'file' | 'absent' }>(
      this.#statements.kindOfDirectory,
      values,
    );
    return row?.kind ?? 'absent';
  }

  async *listNames(directory: string, options: ListOptions = {}): AsyncIterable<readonly FileName[]> {
    const { listNames } = this.#statements;
    for await (const rows of this.#list<NameRow>('list_names', listNames, directory, options)) {
      yield rows.map((row) => row.name);
    }
  }

  async *listEntries(directory: string, options: ListOptions = {}): AsyncIterable<readonly Entry[]> {
    const { listEntries } = this.#statements;
    for await (const rows of this.#list<EntryRow>('list_entries', listEntries, directory, options)) {
      yield rows.map(entryOf);
    }
  }

  #list<Row extends { readonly name: string; readonly version: number }>(
    name: string,
    text: (limit: number) => string,
    directory: string,
    options: ListOptions,
  ): AsyncIterable<readonly Row[]> {
    const { upTo } = options;
    const [after, before] = boundsOf(directory, options);
    const isShown = upTo === undefined ? undefined : (row: Row) => row.version <= upTo;
    const list = { name, text, values: [before], keyOf: (row: Row) => row.name, isShown };
    return listRows<Row>(this.#connections, list, after, options);
  }

  async *listBlobs(
    options: { after?: Digest; signal?: AbortSignal } = {},
  ): AsyncIterable<readonly BlobRecord[]> {
    const after = options.after === undefined ? Buffer.alloc(0) : digestToBytes(options.after);
    const text = this.#statements.listBlobs;
    const list = { name: 'list_blobs', text, values: [], keyOf: (row: BlobRow) => row.digest };
    for await (const rows of listRows<BlobRow>(this.#connections, list, after, options)) {
      yield rows.map((row) => this.#recordOf(row));
    }
  }

  async listUnreferenced(beforeMs: number, limit: number): Promise<readonly Digest[]> {
    const rows = await this.#connections.run<{ digest: Buffer }>(this.#statements.listUnreferenced, [
      Math.floor(beforeMs),
      limit,
    ]);
    return rows.map((row) => digestFromBytes(row.digest));
  }

  async stats(): Promise<CatalogStats> {
    const [row] = await this.#connections.run<Record<string, number>>(this.#statements.stats, []);
    const number = (column: string): number => row?.[column] ?? 0;
    return {
      entries: number('entries'),
      blobs: number('blobs'),
      logicalBytes: number('logical_bytes'),
      uniqueLogicalBytes: undefined,
      storedBytes: number('stored_bytes'),
      unreferencedBlobs: number('unreferenced_blobs'),
      journalBytes: number('journal_bytes'),
      journalLiveBytes: number('journal_bytes'),
    };
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
    // Something came between: the object is not needed, or is named already by this same change made before.
    if (outcome.kind !== 'stored' || outcome.deduplicated) await this.#objects.giveUp(key);
    return outcome;
  }

  async #put(change: PutChange, bytes: Buffer | undefined, key: string | undefined): Promise<PutOutcome> {
    const { precondition, firstSentMs } = change;
    const nowMs = this.#timeGiven();
    const agoMs = firstSentMs === undefined ? null : Math.max(0, (nowMs ?? Date.now()) - firstSentMs);
    const times = [nowMs, agoMs];
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
      ? this.#connections.run<PutRow>(this.#statements.putUnmodified, [
          ...values,
          ...times,
          precondition.version,
        ])
      : this.#connections.run<PutRow>(this.#statements.put, [
          ...values,
          ...preconditionValues(precondition),
          ...times,
        ]));
    if (row === undefined) throw new TypeError('The function put gave no row');
    if (row.replaced_key !== null) await this.#objects.removeDoomed([row.replaced_key]);
    switch (row.outcome) {
      case 'stored':
        return {
          kind: 'stored',
          version: row.stored_version,
          deduplicated: row.deduplicated,
          object: row.deduplicated ? knownObjectOf(row) : undefined,
        };
      case 'superseded':
        return { kind: 'superseded', version: row.stored_version };
      case 'name-conflict':
        return { kind: 'name-conflict', other: row.other };
      case 'precondition-failed':
      case 'content-missing':
        return { kind: row.outcome };
    }
  }

  async remove(change: RemoveChange): Promise<RemoveOutcome> {
    const { name, version, precondition } = change;
    const nowMs = this.#timeGiven();
    const [row] = await (precondition?.kind === 'unmodified-since'
      ? this.#connections.run<RemoveRow>(this.#statements.removeUnmodified, [
          name,
          version,
          nowMs,
          precondition.version,
        ])
      : this.#connections.run<RemoveRow>(this.#statements.remove, [
          name,
          version,
          ...preconditionValues(precondition),
          nowMs,
        ]));
    if (row === undefined) throw new TypeError('The function remove gave no row');
    switch (row.outcome) {
      case 'removed':
      case 'superseded':
        return { kind: row.outcome, version: row.stored_version };
      case 'precondition-failed':
      case 'absent':
        return { kind: row.outcome };
    }
  }

  async collect(digests: readonly Digest[], beforeMs: number): Promise<readonly BlobRecord[]> {
    const rows = await this.#connections.run<BlobRow>(this.#statements.collect, [
      digests.map((digest) => digestToBytes(digest)),
      Math.floor(beforeMs),
      this.#timeGiven(),
    ]);
    await this.#objects.removeDoomed(
      rows.flatMap((row) => (row.object_key === null ? [] : [row.object_key])),
    );
    await this.sweepObjects();
    return rows.map((row) => this.#recordOf(row));
  }

  async pin(digest: Digest): Promise<BlobPin | undefined> {
    const pinId = randomUUID();
    const bytes = digestToBytes(digest);
    const [row] = await this.#connections.run<BlobRow>(this.#statements.pin, [
      bytes,
      pinId,
      this.#pinLifetimeMs,
    ]);
    if (row === undefined) return undefined;
    const renew = (): Promise<unknown> =>
      this.#connections.run(this.#statements.renewPin, [bytes, pinId, this.#pinLifetimeMs]);
    // The put that relies on it may take hours to come in. A server that dies renews nothing.
    const timer = setInterval(() => void renew().catch(this.#onBackgroundError), this.#pinLifetimeMs / 2);
    timer.unref();
    const release = async (): Promise<void> => {
      clearInterval(timer);
      await this.#connections.run(this.#statements.release, [bytes, pinId]);
    };
    return { blob: this.#recordOf(row), release };
  }

  async markDamaged(digest: Digest, damaged: boolean): Promise<void> {
    await this.#connections.run(this.#statements.mark, [digestToBytes(digest), damaged, this.#timeGiven()]);
  }

  async addBlobs(blobs: readonly PlacedBlob[]): Promise<void> {
    for (const blob of blobs) {
      const [row] = await this.#connections.run<{ key: string | null }>(this.#statements.addBlob, [
        digestToBytes(blob.digest),
        encodingToNumber(blob.encoding),
        blob.logicalSize,
        blob.storedSize,
        blob.key,
        blob.damaged ?? false,
        this.#timeGiven(),
      ]);
      if (typeof row?.key === 'string') await this.#objects.removeDoomed([row.key]);
    }
  }

  /**
   * Removes from the blob store what no blob names, out of `found`: never what a put is about to name. Gives the keys
   * that were removed. For recovery.
   */
  async removeStrays(found: readonly { readonly key: string }[]): Promise<readonly string[]> {
    return this.#objects.removeStrays(found.map(({ key }) => key));
  }

  /** Those of the keys that no blob names; `removeStrays` decides anew. */
  async findStrays(keys: readonly string[]): Promise<readonly string[]> {
    return this.#objects.findStrays(keys);
  }

  /** Removes doomed objects that a crash or a failure left behind, and forgets what is long over. */
  async sweepObjects(doomedBeforeMs?: number): Promise<void> {
    const nowMs = await this.timeMs();
    await this.#objects.sweep(nowMs, doomedBeforeMs);
    await this.#connections.run(this.#statements.forgetRemovals, [nowMs - removalMemoryMs]);
    await this.#connections.run(this.#statements.endPins, []);
  }

  /** Takes out of the journal what recovery does not need; see `compactJournal`. */
  async compactJournal(options: { readonly always?: boolean } = {}): Promise<JournalCompaction | undefined> {
    const nowMs = await this.timeMs();
    return compactJournal(this.#connections, { ...options, nowMs, removalsSinceMs: nowMs - removalMemoryMs });
  }

  /** Puts right what in the tables does not agree; see `repairTables`. */
  async repair(options: Omit<RepairOptions, 'nowMs'>): Promise<TableRepairs> {
    return repairTables(this.#connections, { ...options, nowMs: await this.timeMs() });
  }

  async timeMs(): Promise<number> {
    const [row] = await this.#connections.run<{ now_ms: number }>(this.#statements.now, [this.#timeGiven()]);
    if (row === undefined) throw new TypeError('The question for the time gave no row');
    return row.now_ms;
  }

  /** What statements take as the time; null for that of the database. */
  #timeGiven(): number | null {
    return this.#clock?.nowMs() ?? null;
  }

  async probe(): Promise<void> {
    await this.#connections.run(this.#statements.probe, []);
  }

  async close(): Promise<void> {
    for (const timer of this.#timers) clearInterval(timer);
    await this.#connections.close();
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }

  #recordOf(row: BlobRow): BlobRecord {
    return blobRecordOf(row, async () => {
      const [found] = await this.#connections.run<{ bytes: Buffer | null }>(this.#statements.readBlob, [
        row.digest,
      ]);
      const bytes = found?.bytes ?? undefined;
      if (bytes === undefined || bytes.length === row.stored_size) return bytes;
      throw new FiletrackerError('damaged-blob', 'Cannot read a blob: its bytes are not what was stored');
    });
  }
}
