import { open } from 'node:fs/promises';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { temporaryFolder } from '../../test/support/temporary-folder.ts';
import { loadSystemCalls } from '../fs/native.ts';
import { RateTable } from './rate-table.ts';

const seeds = Buffer.from('12345678');
const tenASecond = { intervalUs: 100_000, burstUs: 1_000_000 };

function newTable(): RateTable {
  return new RateTable(RateTable.initialBytes(seeds).buffer);
}

function takenAt(nowMs: number, table: RateTable, holder: string, tries = 50): number {
  let count = 0;
  for (let index = 0; index < tries; index += 1) if (table.take(holder, nowMs, tenASecond) === 0) count += 1;
  return count;
}

describe('RateTable', () => {
  it('says how long to wait', () => {
    const table = newTable();
    expect(takenAt(0, table, 'a')).toBe(10);
    expect(table.take('a', 0, tenASecond)).toBe(100_000);
    expect(table.take('a', 60, tenASecond)).toBe(40_000);
    expect(table.take('a', 100, tenASecond)).toBe(0);
  });

  it('is one for all who map the same file', async () => {
    const file = await open(join(await temporaryFolder(), 'rates'), 'wx+');
    await file.writeFile(RateTable.initialBytes(seeds));
    const one = new RateTable((await loadSystemCalls()).map(file.fd, RateTable.sizeBytes));
    const other = new RateTable((await loadSystemCalls()).map(file.fd, RateTable.sizeBytes));
    await file.close();
    expect(takenAt(5, one, 'a', 7)).toBe(7);
    expect(takenAt(5, other, 'a')).toBe(3);
    expect(takenAt(5, other, 'b')).toBe(10);
    expect(takenAt(5, one, 'b')).toBe(0);
  });

  it('knows the time at any moment, and gives who comes back after an hour what is his', () => {
    for (const startMs of [0, 1_700_000_000_000, 2 ** 32 / 1000 - 0.5, 2 ** 31 / 1000 - 0.5]) {
      const table = newTable();
      expect(takenAt(startMs, table, 'a')).toBe(10);
      expect(takenAt(startMs + 500, table, 'a')).toBe(5);
      for (const hours of [1, 1.2, 1.5, 24, 1000]) {
        expect(takenAt(startMs + hours * 3_600_000, table, 'a')).toBe(10);
      }
    }
  });

  it('is no worse for a clock that is set back', () => {
    const table = newTable();
    takenAt(10_000, table, 'a');
    expect(takenAt(2000, table, 'a')).toBe(10);
  });

  it('keeps thousands apart', () => {
    const table = newTable();
    const holders = Array.from({ length: 4000 }, (_, index) => `[192.0.2.${index}]`);
    const first = holders.map((holder) => takenAt(0, table, holder, 12));
    expect(new Set(first)).toEqual(new Set([10]));
    // A set holds four; those few who are a fifth in theirs may push one another out.
    const again = holders.filter((holder) => takenAt(0, table, holder, 1) === 0);
    expect(again.length).toBeGreaterThan(3950);
  });

  it('gives the places of those who are idle to others first', () => {
    const table = newTable();
    takenAt(0, table, 'busy');
    for (let index = 0; index < 100_000; index += 1) table.take(`once${index}`, 0, tenASecond);
    const start = performance.now();
    takenAt(2000, table, 'busy');
    for (let index = 0; index < 100_000; index += 1) table.take(`twice${index % 3000}`, 2000, tenASecond);
    expect(takenAt(2000, table, 'busy')).toBe(0);
    // It is asked with every request; a tenth of a microsecond, where nothing else runs.
    expect(performance.now() - start).toBeLessThan(2000);
  });
});
