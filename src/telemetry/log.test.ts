import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { expect, it } from 'vitest';
import { FiletrackerError } from '../core/errors.ts';
import { temporaryFolder } from '../../test/support/temporary-folder.ts';
import { Log } from './log.ts';

it('a line of the log has no text of an error that is longer than 1 KiB', async () => {
  const file = join(await temporaryFolder(), 'log');
  const long = 'x'.repeat(1_000_000);
  const cause = Object.assign(new TypeError(long, { cause: long }), {
    code: 'ELONG',
    path: long,
    body: { bytes: long },
  });
  {
    using log = await Log.open({ level: 'info', file });
    const error = new FiletrackerError('io', `Cannot read "${long}": it failed`, { cause });
    log.logger.error({ err: error }, 'request failed');
    log.logger.error({ err: long }, 'request failed');
  }
  const lines = (await readFile(file, 'utf8')).trim().split('\n');
  const [first, second] = lines.map((line) => JSON.parse(line) as { err: unknown });
  expect(first?.err).toMatchObject({
    type: 'FiletrackerError',
    code: 'io',
    cause: { type: 'TypeError', code: 'ELONG' },
  });
  expect(first?.err).not.toHaveProperty('cause.body');
  expect(typeof second?.err).toBe('string');
  for (const line of lines) {
    for (const [text] of line.matchAll(/"(?:[^"\\]|\\.)*"/g)) expect(text.length).toBeLessThan(1100);
  }
});
