import { expect, test } from 'vitest';
import { Exclusions } from './exclusions.ts';

const excluded = (pattern: string, path: string): boolean => new Exclusions([pattern]).excludesFile(path);

test.each([
  ['*.o', 'a.o', 'd/e/a.o'],
  ['build', 'build', 'd/build', 'd/build/x'],
  ['/build', 'build', 'build/x/y'],
  ['docs/*.pdf', 'docs/a.pdf'],
  ['build/', 'build/x', 'd/build/x/y'],
  ['**/a/b', 'a/b', 'x/a/b', 'x/y/a/b/c'],
  ['a/**', 'a/b', 'a/b/c'],
  ['a/**/b', 'a/b', 'a/x/b', 'a/x/y/b'],
  ['a?c', 'abc', 'a\u{1F600}c'],
  ['[a-c]x', 'bx'],
  ['[!a-c]x', 'dx'],
  ['[]]x', ']x'],
  ['\\*', '*'],
  ['\\!a', '!a'],
  ['.*', '.git/config', 'd/.env'],
  ['*a*b*', 'xaxxbx', 'ab'],
  ['new\nline', 'new\nline'],
])('--exclude %j excludes matching files', (pattern, ...paths) => {
  for (const path of paths) expect([path, excluded(pattern, path)]).toEqual([path, true]);
});

test.each([
  ['*.o', 'a.os', 'o'],
  ['/build', 'd/build'],
  ['docs/*.pdf', 'docs/d/a.pdf', 'x/docs/a.pdf'],
  ['build/', 'build', 'd/build'],
  ['a/**', 'a', 'b/a/c'],
  ['a?c', 'ac', 'a/c'],
  ['[a-c]x', 'dx'],
  ['[!a-c]x', 'bx'],
  ['*a*b*', 'ba'],
  ['\\*', 'x'],
])('--exclude %j excludes no other files', (pattern, ...paths) => {
  for (const path of paths) expect([path, excluded(pattern, path)]).toEqual([path, false]);
});

test('a pattern that can match nothing is an error', () => {
  for (const pattern of ['', '/', '!a', '../a', '[a', 'a\\']) {
    expect(() => new Exclusions([pattern])).toThrow(/^Cannot exclude "/);
  }
});

test('a pattern of many stars costs no more than the product of the lengths', () => {
  const pattern = new Exclusions([`${'*a'.repeat(100)}b`, `${'**/a/'.repeat(100)}b`]);
  const before = process.cpuUsage();
  expect(pattern.excludesFile('a'.repeat(255))).toBe(false);
  expect(pattern.excludesFile(Array(500).fill('a').join('/'))).toBe(false);
  expect(process.cpuUsage(before).user).toBeLessThan(2_000_000);
});
