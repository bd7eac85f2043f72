import { Socket } from 'node:net';
import type { Pool, PoolConfig } from 'pg';
import type * as postgres from 'pg';
import type { CallObserver } from '../../core/report.ts';
import { FiletrackerError } from '../../core/errors.ts';

/** How the database is reached. All times in milliseconds. */
export interface ConnectionOptions {
  /** `postgres://user:password@host:port/database`; what is missing comes from the PG* environment. */
  readonly url: string;
  /** Schema that holds the tables. */
  readonly schema?: string | undefined;
  /** Connections for look-ups and changes, at most. */
  readonly poolSize?: number | undefined;
  /** Connections for lists, at most; a list takes one for each of its pages. */
  readonly listPoolSize?: number | undefined;
  /** Longest wait for a connection. */
  readonly connectTimeoutMs?: number | undefined;
  /** Longest wait for an answer. */
  readonly queryTimeoutMs?: number | undefined;
  /** Told of every call: by the name of its statement, else `list` or `transaction`. */
  readonly onCall?: CallObserver | undefined;
}

const connectionDefaults = {
  poolSize: 20,
  listPoolSize: 5,
  connectTimeoutMs: 5_000,
  queryTimeoutMs: 10_000,
} as const;

const int8TypeId = 20;

/**
 * Who holds locks and does not go on, because its machine is gone or asleep, loses them after so long: a recovery, a
 * migration. Else the database would keep them for as long as TCP takes the other end to be there.
 */
const transactionPauseMaxMs = 60_000;

/** Connections for look-ups and changes, and those for lists. */
export interface Pools {
  readonly pool: Pool;
  readonly listPool: Pool;
  /** How long the database may take for an answer, in milliseconds. */
  readonly answerMs: number;
  /** Closes all connections. A database that does not answer delays this by `closeTimeoutMs` at most. */
  readonly close: () => Promise<void>;
}

/** How long the database may take to close its end of a connection, in milliseconds. */
const closeTimeoutMs = 2_000;

/** Makes no connection yet. @throws FiletrackerError `invalid-argument` where the driver is not installed. */
export async function openPools(options: ConnectionOptions): Promise<Pools> {
  const driver = await loadDriver();
  const common = configurationOf(options, driver.types);
  const { statementMs } = timeoutsOf(options);
  // The database gives up first, so that it does not work on for someone who has gone.
  const statementTimeout = { statement_timeout: statementMs };
  const idleTimeout = { idle_in_transaction_session_timeout: transactionPauseMaxMs };
  const sockets = new Set<Socket>();
  const stream = (): Socket => {
    const socket = new Socket();
    sockets.add(socket);
    return socket.once('close', () => sockets.delete(socket));
  };
  const settings = { ...common, ...onConnect({ ...statementTimeout, ...idleTimeout }), stream };
  const pool = new driver.Pool({
    ...settings,
    max: options.poolSize ?? connectionDefaults.poolSize,
  });
  const listPool = new driver.Pool({
    ...settings,
    max: options.listPoolSize ?? connectionDefaults.listPoolSize,
  });
  // A connection that breaks while nobody uses it leaves the pool by itself.
  for (const each of [pool, listPool]) each.on('error', () => undefined);
  const close = async (): Promise<void> => {
    await Promise.all([pool.end(), listPool.end()]);
    // The pools do not wait until their connections are closed, but a process cannot end before they are.
    const timer = setTimeout(() => {
      for (const socket of sockets) socket.destroy();
    }, closeTimeoutMs);
    const closed = Array.from(sockets, (socket) => new Promise((resolve) => socket.once('close', resolve)));
    await Promise.all(closed);
    clearTimeout(timer);
  };
  return { pool, listPool, answerMs: statementMs, close };
}

type Driver = Pick<typeof postgres, 'Pool' | 'types'>;

async function loadDriver(): Promise<Driver> {
  try {
    const driver = await import('pg');
    return driver.default;
  } catch (error) {
    throw new FiletrackerError(
      'invalid-argument',
      'Cannot use PostgreSQL: the package "pg" is not installed',
      {
        cause: error,
      },
    );
  }
}

/** Times in milliseconds that the database keeps itself. */
type SessionTimeouts = Readonly<
  Partial<Record<'statement_timeout' | 'idle_in_transaction_session_timeout', number>>
>;

/**
 * What every new connection sends before it is lent out: its settings, and the question whether it has come to a
 * database that may be written to. A stand-by, or a primary that was put aside, would answer look-ups with what was.
 *
 * Settings do not go with the connection's start, as the driver would send them: PgBouncer refuses what it does not know
 * there.
 */
function onConnect(settings: SessionTimeouts): Pick<PoolConfig, 'verify'> {
  const set = Object.entries(settings).map(
    ([name, timeoutMs]) => `set_config('${name}', '${Math.ceil(timeoutMs)}', false)`,
  );
  const text = `SELECT current_setting('transaction_read_only') AS read_only, ${set.join(', ')}`;
  return {
    verify: (client, done) => {
      client.query<{ read_only: string }>(text, (error: Error | null, result) => {
        if (error !== null) done(error);
        else done(result.rows[0]?.read_only === 'off' ? undefined : new ReadOnlyDatabase());
      });
    },
  };
}

/** As the database itself would say it, of a change. */
class ReadOnlyDatabase extends Error {
  readonly code = '25006';

  constructor() {
    super('The database takes no changes: it is a stand-by, or was put aside');
  }
}

/** The connection waits a little longer than the database does, to get the database's own words. */
function timeoutsOf(options: ConnectionOptions): { readonly statementMs: number; readonly answerMs: number } {
  const statementMs = options.queryTimeoutMs ?? connectionDefaults.queryTimeoutMs;
  return { statementMs, answerMs: statementMs + 1_000 };
}

function configurationOf(options: ConnectionOptions, types: Driver['types']): PoolConfig {
  return {
    connectionString: options.url,
    application_name: 'filetracker',
    connectionTimeoutMillis: options.connectTimeoutMs ?? connectionDefaults.connectTimeoutMs,
    query_timeout: timeoutsOf(options).answerMs,
    idleTimeoutMillis: 60_000,
    keepAlive: true,
    types: {
      // Sizes, counts and versions all fit a number: they are below 2^53.
      getTypeParser: ((typeId: number, format?: 'text') =>
        typeId === int8TypeId ? Number : types.getTypeParser(typeId, format)) as typeof types.getTypeParser,
    },
  };
}
