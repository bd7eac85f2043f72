import { existsSync, readdirSync, readFileSync, rmSync, statSync, symlinkSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { Readable } from 'node:stream';
import { expect, onTestFinished, test } from 'vitest';
import { temporaryFolder } from '../../../test/support/temporary-folder.ts';
import { writeChunks } from './sink.ts';
import { setVersion } from '../cache/materialize.ts';
import { PartialFile } from './partial-file.ts';

async function beside(target: string): Promise<PartialFile> {
  const partial = await PartialFile.beside(target);
  onTestFinished(() => partial[Symbol.dispose]());
  return partial;
}

test('an abandoned partial file is removed, and one in use stays', async () => {
  const folder = await temporaryFolder();
  const target = join(folder, 'target');
  const [first, second, third] = [await beside(target), await beside(target), await beside(target)];
  for (const partial of [first, second, third]) {
    expect(dirname(partial.path)).toBe(folder);
    writeFileSync(partial.path, 'some of it');
  }
  expect(new Set([first.path, second.path, third.path]).size).toBe(3);
  second[Symbol.dispose]();
  first.publish(target);
  expect(readdirSync(folder)).toHaveLength(2);
  // Leftovers of a killed process: no process holds their locks.
  writeFileSync(first.path, 'left behind');
  writeFileSync(second.path, 'left behind');
  const next = await beside(target);
  expect(readFileSync(next.path, 'utf8')).toBe('');
  expect(readFileSync(third.path, 'utf8')).toBe('some of it');
  expect(readdirSync(folder)).toHaveLength(3);
  next[Symbol.dispose]();
  third[Symbol.dispose]();
  expect(readdirSync(folder)).toEqual(['target']);
  expect(readFileSync(target, 'utf8')).toBe('some of it');
});

test('a partial file of another target stays', async () => {
  const folder = await temporaryFolder();
  const other = await beside(join(folder, 'other'));
  other[Symbol.dispose]();
  writeFileSync(other.path, 'left behind');
  await beside(join(folder, 'target'));
  expect(existsSync(other.path)).toBe(true);
});

test('a partial file is written by its descriptor when another user puts a link in its place', async () => {
  const folder = await temporaryFolder();
  const precious = join(folder, 'precious');
  writeFileSync(precious, 'precious');
  const partial = await beside(join(folder, 'target'));
  rmSync(partial.path);
  symlinkSync(precious, partial.path);
  await writeChunks(partial.ownPath, Readable.from([Buffer.from('content')]));
  setVersion(partial.ownPath, 100);
  expect(readFileSync(precious, 'utf8')).toBe('precious');
  expect(statSync(precious).mtimeMs).not.toBe(100_000);
});
