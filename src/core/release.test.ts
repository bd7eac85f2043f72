import { readFile } from 'node:fs/promises';
import { expect, it } from 'vitest';
import { release } from './release.ts';

it('release is that of package.json', async () => {
  const text = await readFile(new URL('../../package.json', import.meta.url), 'utf8');
  expect(JSON.parse(text)).toMatchObject({ version: release });
});
