// docs/THREAT-MODEL.md names a test for each line; this checks that each of them exists.
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { describe, expect, it } from 'vitest';

const root = fileURLToPath(new URL('..', import.meta.url));
const lines = (await readFile(join(root, 'docs', 'THREAT-MODEL.md'), 'utf8')).split('\n');
const rows = lines.filter((line) => line.startsWith('| ') && !line.startsWith('| cannot |'));

describe('docs/THREAT-MODEL.md', () => {
  it('has lines to hold', () => {
    expect(rows.length).toBeGreaterThan(30);
  });

  it.each(rows.map((row) => [row.split('|')[1]?.trim() ?? '', row]))(
    'names tests that exist: cannot %s',
    async (_, row) => {
      const cell = row.split(' | ').at(-1)?.replace(/ \|$/, '') ?? '';
      const named = cell.split(' · ');
      for (const one of named) {
        const [, file = '', title] = /^`([\w./-]+\.test\.ts)`(?: "(.+)")?$/.exec(one) ?? [];
        expect(file, one).not.toBe('');
        const text = await readFile(join(root, file), 'utf8');
        if (title !== undefined) expect(text.includes(`'${title}'`), one).toBe(true);
      }
    },
  );
});
