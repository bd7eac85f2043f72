import { expect, it } from 'vitest';
import type { Connections } from './connections.ts';
import { migration, type MigrationOptions } from './migrate.ts';

/** What is written to a database whose schema is not there, or is that of a first release, and how it ends. */
async function writtenTo(
  database: 'empty' | 'old',
  options: MigrationOptions,
  again: boolean,
): Promise<{ readonly written: boolean; readonly code: string | undefined }> {
  let written = false;
  const session = {
    run: async (text: string): Promise<readonly object[]> => {
      if (!text.startsWith('SELECT')) written = true;
      if (text.includes('AS fresh')) {
        return [{ encoding: 'UTF8', isolation: 'read committed', fresh: database === 'empty' }];
      }
      return text.includes('max(number)') ? [{ number: database === 'empty' ? 0 : 1 }] : [];
    },
  };
  const connections = {
    schema: 'files',
    transaction: (step: (on: typeof session) => Promise<void>) => step(session),
  } as unknown as Connections;
  const code = await migration(options)(connections, again).then(
    () => undefined,
    (error: unknown) => (error as { code: string }).code,
  );
  return { written, code };
}

it.each([
  ['empty', {}, false, { written: true, code: undefined }],
  ['empty', {}, true, { written: false, code: 'not-found' }],
  ['empty', { existing: 'upgrade' }, false, { written: false, code: 'not-found' }],
  ['old', {}, true, { written: true, code: undefined }],
  ['old', { existing: 'as-it-is' }, false, { written: false, code: 'invalid-argument' }],
  ['old', { existing: 'as-it-is' }, true, { written: false, code: 'invalid-argument' }],
] as const)('migration() of an %s database, with %o, again: %s', async (database, options, again, ending) => {
  expect(await writtenTo(database, options, again)).toEqual(ending);
});
