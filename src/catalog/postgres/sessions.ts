import type { Pool, PoolClient, QueryResultRow } from 'pg';
import { fromDatabaseError, unavailable } from './database-errors.ts';

const unboundedTimeoutMs = 24 * 3_600_000;

export interface TransactionOptions {
  /** Whether what was changed is taken back at the end. */
  readonly undo?: boolean | undefined;
  /** Whether a statement may take a day; the database must be told as well. */
  readonly unbounded?: boolean | undefined;
}

/** One connection for the time of a transaction. */
export interface Session {
  run<Row extends QueryResultRow>(text: string, values?: readonly unknown[]): Promise<Row[]>;
}

/** Runs a statement that changes rows, without a RETURNING; gives how many it changed. */
export async function changed(
  session: Session,
  text: string,
  values: readonly unknown[] = [],
): Promise<number> {
  const [row] = await session.run<{ count: number }>(
    `WITH changed AS (${text} RETURNING 1) SELECT count(*) AS count FROM changed`,
    values,
  );
  return row?.count ?? 0;
}

async function connect(pool: Pool): Promise<PoolClient> {
  try {
    return await pool.connect();
  } catch (error) {
    throw unavailable('reach the catalog', 'PostgreSQL gives no connection', error);
  }
}

/** `timeoutMs` is the longest wait for an answer where it is not that of all connections. */
function sessionOn(client: PoolClient, timeoutMs?: number): Session {
  return {
    run: async <Row extends QueryResultRow>(text: string, values: readonly unknown[] = []) => {
      try {
        const query = { text, values: [...values] };
        // The driver takes this setting with a query too; its types do not know that.
        const timed = timeoutMs === undefined ? query : { ...query, query_timeout: timeoutMs };
        return (await client.query<Row>(timed)).rows;
      } catch (error) {
        throw fromDatabaseError(error, 'use the catalog');
      }
    },
  };
}

export async function withSession<Result>(
  pool: Pool,
  begin: string,
  step: (session: Session) => Promise<Result>,
  options: TransactionOptions,
): Promise<Result> {
  const client = await connect(pool);
  let broken = true;
  try {
    const session = sessionOn(client, options.unbounded === true ? unboundedTimeoutMs : undefined);
    await session.run(begin);
    const result = await step(session);
    await session.run(options.undo === true ? 'ROLLBACK' : 'COMMIT');
    broken = false;
    return result;
  } finally {
    client.release(broken);
  }
}
