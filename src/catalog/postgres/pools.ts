import { Socket } from 'node:net';
import type { Pool, PoolConfig } from 'pg';
import type * as postgres from 'pg';
import type { CallObserver } from '../../core/report.ts';
import { cannot } from '../../core/errors.ts';

/** How the database is reached. All times in milliseconds. */
export interface ConnectionOptions {
  /** `postgres://user:password@host:port/database`; missing parts come from the PG* environment. */
  readonly url: string;
  /** Schema that holds the tables. */
  readonly schema?: string | undefined;
  /** Maximum number of connections for look-ups and changes. */
  readonly poolSize?: number | undefined;
  /** Maximum number of connections for lists; a list uses one for each of its pages. */
  readonly listPoolSize?: number | undefined;
  /** Longest wait for a connection. */
  readonly connectTimeoutMs?: number | undefined;
  /** Longest wait for a response. */
  readonly queryTimeoutMs?: number | undefined;
  /** Observes every call, by the name of its statement, or as `list` or `transaction`. */
  readonly onCall?: CallObserver | undefined;
}

const defaults = { poolSize: 20, listPoolSize: 5, connectTimeoutMs: 5_000, queryTimeoutMs: 10_000 } as const;

const int8TypeId = 20;

/**
 * A session that holds locks and makes no progress, because its machine is gone or asleep, loses them after this time:
 * a recovery, a migration. Without it the database would keep them until TCP gives up.
 */
const transactionPauseMaxMs = 60_000;

/** How long the database may take to close its end of a connection, in milliseconds. */
const closeTimeoutMs = 2_000;

export interface Pools {
  /** Connections for look-ups and changes. */
  readonly pool: Pool;
  /** Connections for lists. */
  readonly listPool: Pool;
  /** How long the database may take to respond, in milliseconds. */
  readonly answerMs: number;
  /** Closes all connections. A silent database delays this by `closeTimeoutMs` at most. */
  readonly close: () => Promise<void>;
}

/** Opens no connection yet. @throws FiletrackerError `invalid-argument` if the driver is not installed. */
export async function openPools(options: ConnectionOptions): Promise<Pools> {
  const driver = await loadDriver();
  const answerMs = options.queryTimeoutMs ?? defaults.queryTimeoutMs;
  const sockets = new Set<Socket>();
  const settings: PoolConfig = {
    connectionString: options.url,
    application_name: 'filetracker',
    connectionTimeoutMillis: options.connectTimeoutMs ?? defaults.connectTimeoutMs,
    // The database gives up first: it does not work on for a caller that is gone, and its own error arrives.
    query_timeout: answerMs + 1_000,
    idleTimeoutMillis: 60_000,
    keepAlive: true,
    types: {
      // Sizes, counts and versions all fit a number: they are below 2^53.
      getTypeParser: ((typeId: number, format?: 'text') =>
        typeId === int8TypeId
          ? Number
          : driver.types.getTypeParser(typeId, format)) as typeof driver.types.getTypeParser,
    },
    verify: verifierOf(answerMs),
    stream: () => {
      const socket = new Socket();
      sockets.add(socket);
      return socket.once('close', () => sockets.delete(socket));
    },
  };
  const pool = new driver.Pool({ ...settings, max: options.poolSize ?? defaults.poolSize });
  const listPool = new driver.Pool({ ...settings, max: options.listPoolSize ?? defaults.listPoolSize });
  // An idle connection that breaks leaves the pool by itself.
  for (const each of [pool, listPool]) each.on('error', () => undefined);
  const close = async (): Promise<void> => {
    await Promise.all([pool.end(), listPool.end()]);
    // The pools do not wait until their connections are closed, but a process cannot end before they are.
    const timer = setTimeout(() => {
      for (const socket of sockets) socket.destroy();
    }, closeTimeoutMs);
    await Promise.all(Array.from(sockets, (socket) => new Promise((done) => socket.once('close', done))));
    clearTimeout(timer);
  };
  return { pool, listPool, answerMs, close };
}

async function loadDriver(): Promise<Pick<typeof postgres, 'Pool' | 'types'>> {
  try {
    return (await import('pg')).default;
  } catch (cause) {
    throw cannot('invalid-argument', 'use PostgreSQL', 'the package "pg" is not installed; install it', {
      cause,
    });
  }
}

/**
 * Runs on every new connection before its first use: sets its time-outs, and checks that the database accepts writes. A
 * stand-by, or a primary that was put aside, would answer look-ups from the past.
 *
 * The settings are not sent at the connection's start, as the driver would do: PgBouncer refuses unknown ones there.
 */
function verifierOf(answerMs: number): PoolConfig['verify'] {
  const text = `SELECT current_setting('transaction_read_only') AS read_only,
    set_config('statement_timeout', '${Math.ceil(answerMs)}', false),
    set_config('idle_in_transaction_session_timeout', '${transactionPauseMaxMs}', false)`;
  return (client, done) => {
    client.query<{ read_only: string }>(text, (error: Error | null, result) => {
      if (error !== null) done(error);
      else done(result.rows[0]?.read_only === 'off' ? undefined : new ReadOnlyDatabase());
    });
  };
}

/** The error with which the database itself would refuse a change. */
class ReadOnlyDatabase extends Error {
  readonly code = '25006';

  constructor() {
    super('The database is read-only: it is a standby, or was set to read-only');
  }
}
