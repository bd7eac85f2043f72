import { closeSync, fstatSync, futimesSync, openSync } from 'node:fs';
import { join } from 'node:path';
import { expect, it } from 'vitest';
import { temporaryFolder } from '../../test/support/temporary-folder.ts';
import { microsecondsOf, timeInSeconds } from './time-stamps.ts';

const seconds = [1, 1_234_567_890, 1_700_000_000, 2 ** 31 - 1];

it('a file keeps the second and the microseconds that it was given', async () => {
  const descriptor = openSync(join(await temporaryFolder(), 'file'), 'w');
  for (const second of seconds) {
    for (let microseconds = 0; microseconds < 1_000_000; microseconds += 997) {
      futimesSync(descriptor, 5, timeInSeconds(second, microseconds));
      const { mtimeMs } = fstatSync(descriptor);
      expect([Math.floor(mtimeMs / 1000), microsecondsOf(mtimeMs)]).toEqual([second, microseconds]);
    }
  }
  closeSync(descriptor);
});

it('nanoseconds beyond a whole microsecond do not count', () => {
  for (const second of seconds) {
    for (const microseconds of [0, 1, 123_456, 999_999]) {
      for (const nanoseconds of [0, 1, 250, 400]) {
        // As `stat` computes it of what is on the disk.
        const timeMs = second * 1000 + (microseconds * 1000 + nanoseconds) / 1_000_000;
        expect(microsecondsOf(timeMs)).toBe(microseconds);
      }
    }
  }
});

it('a time just before the next second stays in its own', () => {
  expect(microsecondsOf(1_700_000_000_999.9998)).toBe(999_999);
});
