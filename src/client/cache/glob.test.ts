import { mkdirSync } from 'node:fs';
import { join } from 'node:path';
import { expect, test } from 'vitest';
import { temporaryFolder } from '../../../test/support/temporary-folder.ts';
import { componentMatcher, expandGlob } from './glob.ts';

test('expandGlob() matches as a shell does', async () => {
  const root = await temporaryFolder();
  for (const name of ['ann/.store', 'bob/.store', 'bob/x+y', '.hidden/.store', 'c[1]/.store']) {
    mkdirSync(join(root, name), { recursive: true });
  }
  const found = (pattern: string): string[] =>
    expandGlob(`${root}/${pattern}`).map((path) => path.slice(root.length + 1));
  expect(found('*/.store')).toEqual(['ann/.store', 'bob/.store', 'c[1]/.store']);
  expect(found('[ab]??/.store')).toEqual(['ann/.store', 'bob/.store']);
  expect(found('[!a]ob/*')).toEqual(['bob/x+y']);
  expect(found('bob/x+?')).toEqual(['bob/x+y']);
  expect(found('.*/.store')).toEqual(['.hidden/.store']);
  expect(found('ann/.store')).toEqual(['ann/.store']);
  expect(found('nobody/*')).toEqual([]);
});

test('componentMatcher() matches stars, characters and sets', () => {
  for (const [pattern, name, matching = true] of [
    ['*', 'abc'],
    ['a*c', 'abbbc'],
    ['*b*b*', 'abab'],
    ['[a-c][!x]', 'bz'],
    ['[-a]', '-'],
    ['[a-]', '-'],
    ['[z-a]', 'a', false],
    ['[', '['],
    ['a[b', 'a[b'],
    ['\u017c?', '\u017c\u{1f600}'],
    ['a*c', 'ab', false],
    ['?', 'ab', false],
    ['[!a]', 'a', false],
    ['[a-c]', 'd', false],
    ['*', '.a', false],
  ] satisfies (readonly [pattern: string, name: string, matching?: boolean])[]) {
    expect([pattern, name, componentMatcher(pattern)(name)]).toEqual([pattern, name, matching]);
  }
});

test('expandGlob() prefers an existing path to a pattern', async () => {
  const root = await temporaryFolder();
  for (const name of ['proj[1]/cache', 'proj1/cache', 'a*b', 'aXb', '[z-a]']) {
    mkdirSync(join(root, name), { recursive: true });
  }
  expect(expandGlob(`${root}/proj[1]/cache`)).toEqual([`${root}/proj[1]/cache`]);
  expect(expandGlob(`${root}/proj[1]/*`)).toEqual([`${root}/proj[1]/cache`]);
  expect(expandGlob(`${root}/a*b`)).toEqual([`${root}/a*b`]);
  expect(expandGlob(`${root}/[z-a]`)).toEqual([`${root}/[z-a]`]);
  expect(expandGlob(`${root}/[z-b]`)).toEqual([]);
});
