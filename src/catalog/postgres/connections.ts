import type { Pool, QueryResultRow } from 'pg';
import type { CallObserver } from '../../core/report.ts';
import { FiletrackerError, isFiletrackerError } from '../../core/errors.ts';
import { failureOf, fromDatabaseError, missingStates, sqlStateOf, unavailable } from './database-errors.ts';
import { openPools, type ConnectionOptions, type Pools } from './pools.ts';
import { withSession, type Session, type TransactionOptions } from './sessions.ts';

/** Before the names of all statements, which a connection keeps beside those of others. */
export const namePrefix = 'filetracker_';
const schemaDefault = 'filetracker';
const schemaForm = /^[a-z_][a-z0-9_]{0,62}$/;
/**
 * What the database has undone, and will do when it is repeated: conflicts between changes, and a prepared statement
 * whose tables were changed by a migration meanwhile; the connection that had prepared it is given up.
 */
const conflictStates: ReadonlySet<string> = new Set(['40001', '40P01', '0A000']);
const conflictRetriesMax = 10;

/** What is to be done before the first statement; `again` where it was done before. */
export type Preparation = (connections: Connections, again: boolean) => Promise<void>;

/** A statement that is prepared once a connection. */
export interface Statement {
  readonly name: string;
  readonly text: string;
  /** What it is for, where its name does not tell. */
  readonly operation?: string | undefined;
}

/**
 * Connections to PostgreSQL, kept and lent out.
 *
 * Invariant: a connection on which anything failed is not used again, so that no answer can be taken for that
 * of another statement; every wait has an end.
 */
export class Connections {
  readonly schema: string;
  readonly #pool: Pool;
  readonly #listPool: Pool;
  readonly #closePools: () => Promise<void>;
  readonly #answerMs: number;
  readonly #underWay = new Set<Promise<unknown>>();
  readonly #prepare: Preparation;
  readonly #onCall: CallObserver;
  #prepared = false;
  #wasPrepared = false;
  #preparing: Promise<void> | undefined;
  #closed: Promise<void> | undefined;

  private constructor(
    schema: string,
    { pool, listPool, answerMs, close }: Pools,
    prepare: Preparation,
    onCall: CallObserver = () => undefined,
  ) {
    this.#onCall = onCall;
    this.schema = schema;
    this.#prepare = prepare;
    this.#pool = pool;
    this.#listPool = listPool;
    this.#closePools = close;
    this.#answerMs = answerMs;
  }

  /**
   * Makes no connection yet. `prepare` is run once, with success, before the first statement, and again where tables
   * turn out to be missing.
   * @throws FiletrackerError `invalid-argument` where the driver is not installed.
   */
  static async create(options: ConnectionOptions, prepare: Preparation): Promise<Connections> {
    const schema = options.schema ?? schemaDefault;
    if (!schemaForm.test(schema)) {
      throw new FiletrackerError(
        'invalid-argument',
        `Cannot use the schema ${JSON.stringify(schema)}: bad form`,
      );
    }
    return new Connections(schema, await openPools(options), prepare, options.onCall);
  }

  /** Prepares the database if that has not been done; what failed is tried again by the next call. */
  prepare(): Promise<void> {
    this.#preparing ??= this.#prepareOnce().finally(() => {
      this.#preparing = undefined;
    });
    return this.#preparing;
  }

  async #prepareOnce(): Promise<void> {
    await this.#prepare(this, this.#wasPrepared);
    this.#prepared = true;
    this.#wasPrepared = true;
  }

  /** Runs one statement, in a transaction of its own, in one round trip. */
  async run<Row extends QueryResultRow>(statement: Statement, values: readonly unknown[]): Promise<Row[]> {
    return this.#runOn<Row>(this.#pool, statement, values);
  }

  /**
   * The same on one of the connections for lists, so that however many lists run, look-ups and changes have theirs.
   * @throws FiletrackerError `unavailable` where all of them stay in use.
   */
  async runForList<Row extends QueryResultRow>(
    statement: Statement,
    values: readonly unknown[],
  ): Promise<Row[]> {
    return this.#runOn<Row>(this.#listPool, statement, values);
  }

  async #runOn<Row extends QueryResultRow>(
    pool: Pool,
    statement: Statement,
    values: readonly unknown[],
  ): Promise<Row[]> {
    this.#checkOpen();
    const { name, operation = name.slice(namePrefix.length) } = statement;
    return this.#track(this.#observed(operation, () => this.#runRepeating<Row>(pool, statement, values)));
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
        // The database was brought back as it was before a migration, or is not there yet.
        if (missingStates.has(state)) this.#prepared = false;
        const conflict = conflictStates.has(state);
        if (!conflict || retries >= conflictRetriesMax) throw fromDatabaseError(error, 'use the catalog');
      }
    }
  }

  async #ready(): Promise<void> {
    if (this.#prepared) return;
    try {
      await this.prepare();
    } catch (error) {
      if (!this.#wasPrepared || !isFiletrackerError(error, 'not-found')) throw error;
      throw unavailable('use the catalog', 'its tables are not there any more', error);
    }
  }

  /** Runs statements one after the other on one connection, in one transaction; undone where `step` fails. */
  async transaction<Result>(
    begin: string,
    step: (session: Session) => Promise<Result>,
    options: TransactionOptions = {},
  ): Promise<Result> {
    this.#checkOpen();
    const work = this.#observed('transaction', () => withSession(this.#pool, begin, step, options));
    return this.#track(work);
  }

  /** For tests and metrics: connections open now. */
  get size(): number {
    return this.#pool.totalCount + this.#listPool.totalCount;
  }

  /** Waits for what is under way. Idempotent. */
  close(): Promise<void> {
    this.#closed ??= this.#finish();
    return this.#closed;
  }

  async #finish(): Promise<void> {
    await Promise.allSettled(this.#underWay);
    await this.#closePools();
  }

  /** Tells of a call when it has ended. */
  async #observed<Result>(operation: string, call: () => Promise<Result>): Promise<Result> {
    const startMs = performance.now();
    try {
      const result = await call();
      this.#onCall(operation, performance.now() - startMs, undefined);
      return result;
    } catch (error) {
      const durationMs = performance.now() - startMs;
      this.#onCall(operation, durationMs, failureOf(error, durationMs >= this.#answerMs));
      throw error;
    }
  }

  #checkOpen(): void {
    if (this.#closed !== undefined) {
      throw new FiletrackerError('unavailable', 'Cannot use the catalog: it is closed');
    }
  }

  async #track<Result>(work: Promise<Result>): Promise<Result> {
    this.#underWay.add(work);
    try {
      return await work;
    } finally {
      this.#underWay.delete(work);
    }
  }
}
