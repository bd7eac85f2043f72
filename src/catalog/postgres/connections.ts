import type { Pool, QueryResultRow } from 'pg';
import { SingleFlight } from '../../core/concurrency.ts';
import { cannot, isFiletrackerError } from '../../core/errors.ts';
import type { CallObserver } from '../../core/report.ts';
import { failureOf, fromDatabaseError, missingStates, sqlStateOf, unavailable } from './database-errors.ts';
import { openPools, type ConnectionOptions, type Pools } from './pools.ts';

/** Starts the names of all statements, which share a connection of a pooler with those of other programs. */
export const namePrefix = 'filetracker_';
const schemaDefault = 'filetracker';
const schemaForm = /^[a-z_][a-z0-9_]{0,62}$/;
const unboundedTimeoutMs = 24 * 3_600_000;
/**
 * What the database has undone and will do when it is repeated: conflicts between changes, and a prepared statement whose
 * tables a migration has changed meanwhile (its connection is given up).
 */
const conflictStates: ReadonlySet<string> = new Set(['40001', '40P01', '0A000']);
const conflictRetriesMax = 10;

/** Runs before the first statement; `again` if it has run before. */
export type Preparation = (connections: Connections, again: boolean) => Promise<void>;

/** A statement that each connection prepares once. */
export interface Statement {
  readonly name: string;
  readonly text: string;
  /** Its label in metrics; by default the name without its prefix. */
  readonly operation?: string | undefined;
}

/** One connection for the duration of a transaction. */
export interface Session {
  run<Row extends QueryResultRow>(text: string, values?: readonly unknown[]): Promise<Row[]>;
}

export interface TransactionOptions {
  /** How it begins; by default READ COMMITTED. */
  readonly begin?: string;
  /** Roll back at the end. */
  readonly undo?: boolean;
  /** Let a statement take as long as it needs. */
  readonly unbounded?: boolean;
}

/**
 * Pools of connections to PostgreSQL.
 *
 * Invariant: a connection on which anything failed is not used again, so that no response can be taken for that
 * of another statement; every wait has an end.
 */
export class Connections {
  readonly schema: string;
  readonly #pools: Pools;
  readonly #underWay = new Set<Promise<unknown>>();
  readonly #prepare: Preparation;
  readonly #onCall: CallObserver | undefined;
  #prepared = false;
  #wasPrepared = false;
  readonly #preparing = new SingleFlight<void>();
  #closed: Promise<void> | undefined;

  private constructor(schema: string, pools: Pools, prepare: Preparation, onCall: CallObserver | undefined) {
    this.schema = schema;
    this.#pools = pools;
    this.#prepare = prepare;
    this.#onCall = onCall;
  }

  /**
   * Opens no connection yet. `prepare` runs once, with success, before the first statement, and again if tables are
   * missing later.
   * @throws FiletrackerError `invalid-argument` if the driver is not installed or the schema's name is malformed.
   */
  static async create(options: ConnectionOptions, prepare: Preparation): Promise<Connections> {
    const schema = options.schema ?? schemaDefault;
    if (!schemaForm.test(schema)) {
      throw cannot('invalid-argument', `use the schema ${JSON.stringify(schema)}`, 'its name is malformed');
    }
    return new Connections(schema, await openPools(options), prepare, options.onCall);
  }

  /** Prepares the database unless that is done; a failure is tried again by the next call. */
  prepare(): Promise<void> {
    return this.#preparing.run(async () => {
      await this.#prepare(this, this.#wasPrepared);
      this.#prepared = true;
      this.#wasPrepared = true;
    });
  }

  /** Runs one statement, in a transaction of its own, in one round trip. */
  async run<Row extends QueryResultRow>(statement: Statement, values: readonly unknown[]): Promise<Row[]> {
    return this.#runOn<Row>(this.#pools.pool, statement, values);
  }

  /**
   * As `run`, on one of the connections for lists, so that lists never use up those of look-ups and changes.
   * @throws FiletrackerError `unavailable` if all of them stay in use.
   */
  async runForList<Row extends QueryResultRow>(
    statement: Statement,
    values: readonly unknown[],
  ): Promise<Row[]> {
    return this.#runOn<Row>(this.#pools.listPool, statement, values);
  }

  async #runOn<Row extends QueryResultRow>(
    pool: Pool,
    statement: Statement,
    values: readonly unknown[],
  ): Promise<Row[]> {
    const { name, operation = name.slice(namePrefix.length) } = statement;
    return this.#observed(operation, () => this.#runRepeating<Row>(pool, statement, values));
  }

  async #runRepeating<Row extends QueryResultRow>(
    pool: Pool,
    { name, text }: Statement,
    values: readonly unknown[],
  ): Promise<Row[]> {
    await this.#ready();
    for (let retries = 0; ; retries += 1) {
      try {
        const result = await pool.query<Row>({ name, text, values: [...values] });
        return result.rows;
      } catch (error) {
        const state = sqlStateOf(error) ?? '';
        // The database was restored to a state before a migration, or is not restored yet.
        if (missingStates.has(state)) this.#prepared = false;
        const isConflict = conflictStates.has(state);
        if (!isConflict || retries >= conflictRetriesMax) throw fromDatabaseError(error, 'use the catalog');
      }
    }
  }

  async #ready(): Promise<void> {
    if (this.#prepared) return;
    try {
      await this.prepare();
    } catch (error) {
      if (!this.#wasPrepared || !isFiletrackerError(error, 'not-found')) throw error;
      throw unavailable('use the catalog', 'its tables are gone', error);
    }
  }

  /** Runs statements one after the other on one connection, in one transaction; rolls back if `step` fails. */
  async transaction<Result>(
    step: (session: Session) => Promise<Result>,
    options: TransactionOptions = {},
  ): Promise<Result> {
    return this.#observed('transaction', () => runTransaction(this.#pools.pool, step, options));
  }

  /** The number of open connections. */
  get size(): number {
    return this.#pools.pool.totalCount + this.#pools.listPool.totalCount;
  }

  /** Waits for calls under way, then closes all connections. Idempotent. */
  close(): Promise<void> {
    this.#closed ??= Promise.allSettled(this.#underWay).then(() => this.#pools.close());
    return this.#closed;
  }

  /** Runs a call, keeps it among those under way, and reports its end to `onCall`. */
  async #observed<Result>(operation: string, call: () => Promise<Result>): Promise<Result> {
    if (this.#closed !== undefined) {
      throw cannot('unavailable', 'use the catalog', 'it is closed');
    }
    const startMs = performance.now();
    const work = call();
    this.#underWay.add(work);
    try {
      const result = await work;
      this.#onCall?.(operation, performance.now() - startMs, undefined);
      return result;
    } catch (error) {
      const durationMs = performance.now() - startMs;
      this.#onCall?.(operation, durationMs, failureOf(error, durationMs >= this.#pools.answerMs));
      throw error;
    } finally {
      this.#underWay.delete(work);
    }
  }
}

async function runTransaction<Result>(
  pool: Pool,
  step: (session: Session) => Promise<Result>,
  { begin = 'BEGIN ISOLATION LEVEL READ COMMITTED', undo = false, unbounded = false }: TransactionOptions,
): Promise<Result> {
  const client = await pool.connect().catch((error: unknown) => {
    throw unavailable('reach the catalog', 'PostgreSQL accepts no connection', error);
  });
  // The driver takes this setting with a query too; its types do not know that.
  const timeout = unbounded ? { query_timeout: unboundedTimeoutMs } : {};
  const session: Session = {
    run: async <Row extends QueryResultRow>(text: string, values: readonly unknown[] = []) => {
      try {
        return (await client.query<Row>({ text, values: [...values], ...timeout })).rows;
      } catch (error) {
        throw fromDatabaseError(error, 'use the catalog');
      }
    },
  };
  let broken = true;
  try {
    await session.run(begin);
    if (unbounded) await session.run('SET LOCAL statement_timeout = 0');
    const result = await step(session);
    await session.run(undo ? 'ROLLBACK' : 'COMMIT');
    broken = false;
    return result;
  } finally {
    client.release(broken);
  }
}
