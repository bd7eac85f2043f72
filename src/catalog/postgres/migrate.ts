import { FiletrackerError } from '../../core/errors.ts';
import type { Connections, Preparation } from './connections.ts';
import { migrations } from './schema/schema.ts';

export interface MigrationOptions {
  /**
   * Where there must be a catalog already: its tables are brought up to date, or must be so. Without it they are made
   * where there are none.
   */
  readonly existing?: 'upgrade' | 'as-it-is' | undefined;
}

/**
 * What connections are to do before their first statement. Tables that were there and are not are being restored, or are
 * lost: they are not made anew, because an empty store would say that no file is.
 */
export function migration(options: MigrationOptions = {}): Preparation {
  const { existing = 'upgrade' } = options;
  return (connections, again) => migrate(connections, again ? { existing } : options);
}

/**
 * Brings the schema to this release's version, under a lock: of servers that start together one does it and the
 * others wait. Each start is one transaction: a crash leaves the schema as it was.
 * @throws FiletrackerError `unavailable`, `invalid-argument` where the database cannot hold a catalog, `not-found` where
 * it must hold one and does not, `read-only` where a newer release has changed the schema.
 */
async function migrate(connections: Connections, options: MigrationOptions): Promise<void> {
  const { schema } = connections;
  await connections.transaction('BEGIN ISOLATION LEVEL READ COMMITTED', async (session) => {
    await session.run('SELECT pg_advisory_xact_lock(hashtextextended($1, 7341))', [schema]);
    const [settings] = await session.run<{ encoding: string; isolation: string; fresh: boolean }>(
      `SELECT current_setting('server_encoding') AS encoding,
        current_setting('default_transaction_isolation') AS isolation,
        to_regclass($1) IS NULL AS fresh`,
      [`${schema}.migration`],
    );
    if (settings?.encoding !== 'UTF8') refuse('its encoding must be UTF8');
    if (settings.isolation !== 'read committed') refuse('its default isolation must be read committed');
    if (settings.fresh) {
      if (options.existing !== undefined) {
        const text = `Cannot find a catalog in the schema "${schema}" of this database`;
        throw new FiletrackerError('not-found', text);
      }
      await session.run(`CREATE SCHEMA IF NOT EXISTS ${schema}`);
      await session.run(
        `CREATE TABLE ${schema}.migration (number integer PRIMARY KEY, applied_at timestamptz NOT NULL DEFAULT now())`,
      );
    }
    const [row] = await session.run<{ number: number }>(
      `SELECT coalesce(max(number), 0) AS number FROM ${schema}.migration`,
    );
    const done = row?.number ?? 0;
    if (done > migrations.length) {
      throw new FiletrackerError(
        'read-only',
        'Cannot open the catalog: a newer release has changed its schema',
      );
    }
    if (done < migrations.length && options.existing === 'as-it-is') {
      refuse('an older release has made its tables, and nothing is to be changed; start a server first');
    }
    for (const [index, migration] of migrations.entries()) {
      if (index < done) continue;
      await session.run(migration.replaceAll('$schema', () => schema));
      await session.run(`INSERT INTO ${schema}.migration (number) VALUES ($1)`, [index + 1]);
    }
  });
}

function refuse(state: string): never {
  throw new FiletrackerError('invalid-argument', `Cannot use this database for a catalog: ${state}`);
}
