import { cannot, type FiletrackerError } from '../../core/errors.ts';
import type { Connections, Preparation } from './connections.ts';
import { migrations } from './schema/migrations.ts';

export interface MigrationOptions {
  /**
   * Requires a catalog that exists: `upgrade` brings its tables up to date, `as-it-is` requires that they are. By default
   * the tables are created if there are none.
   */
  readonly existing?: 'upgrade' | 'as-it-is' | undefined;
}

/**
 * The preparation of connections before their first statement. Tables that existed and are gone are being restored, or
 * are lost: they are not created again, because an empty store would report that no file exists.
 */
export function migration(options: MigrationOptions = {}): Preparation {
  const { existing = 'upgrade' } = options;
  return (connections, again) => migrate(connections, again ? { existing } : options);
}

/**
 * Brings the schema to this release's version, under a lock: of servers that start together one migrates and the
 * others wait. All in one transaction: a crash leaves the schema as it was.
 * @throws FiletrackerError `unavailable`; `invalid-argument` if the database cannot hold a catalog; `not-found` if it
 * must hold one and does not; `read-only` if a newer release has changed the schema.
 */
async function migrate(connections: Connections, options: MigrationOptions): Promise<void> {
  const { schema } = connections;
  await connections.transaction(async (session) => {
    await session.run('SELECT pg_advisory_xact_lock(hashtextextended($1, 7341))', [schema]);
    const [settings] = await session.run<{ encoding: string; isolation: string; fresh: boolean }>(
      `SELECT current_setting('server_encoding') AS encoding,
        current_setting('default_transaction_isolation') AS isolation,
        to_regclass($1) IS NULL AS fresh`,
      [`${schema}.migration`],
    );
    if (settings?.encoding !== 'UTF8') throw unusable('its encoding is not UTF8');
    if (settings.isolation !== 'read committed') {
      throw unusable('its default isolation is not read committed');
    }
    if (settings.fresh) {
      if (options.existing !== undefined) {
        throw cannot(
          'not-found',
          `find a catalog in the schema "${schema}" of this database`,
          'there is none',
        );
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
      throw cannot(
        'read-only',
        'open the catalog',
        'a newer release has changed its schema; use that release',
      );
    }
    if (done < migrations.length && options.existing === 'as-it-is') {
      throw unusable('its tables are those of an older release; start a server of this release first');
    }
    for (const [index, migration] of migrations.entries()) {
      if (index < done) continue;
      await session.run(migration.replaceAll('$schema', () => schema));
      await session.run(`INSERT INTO ${schema}.migration (number) VALUES ($1)`, [index + 1]);
    }
  });
}

function unusable(state: string): FiletrackerError {
  return cannot('invalid-argument', 'use this database for a catalog', state);
}
