import { describe, expect, it } from 'vitest';
import { parseFileName } from '../core/file-name.ts';
import { QuotaBook, type UsageChange } from './quotas.ts';

const change = (name: string, files: number, logicalBytes: number): UsageChange => ({
  name: parseFileName(name),
  files,
  logicalBytes,
});

describe('QuotaBook', () => {
  it('counts below its prefixes by whole components', () => {
    const book = new QuotaBook([
      { prefix: '/p', filesMax: undefined, logicalBytesMax: undefined },
      { prefix: '/', filesMax: undefined, logicalBytesMax: undefined },
    ]);
    book.add(change('/p/a', 1, 10));
    book.add(change('/pq', 1, 100));
    book.add(change('/p', 1, 1000));
    expect(book.usages).toMatchObject([
      { files: 2, logicalBytes: 1010 },
      { files: 3, logicalBytes: 1110 },
    ]);
  });

  it('admits no more than fits with what is admitted already', () => {
    const book = new QuotaBook([{ prefix: '/p', filesMax: 2, logicalBytesMax: 100 }]);
    const one = change('/p/1', 1, 60);
    expect(book.admit(one)).toBeUndefined();
    expect(book.admit(change('/p/2', 1, 60))).toMatch(/100 bytes/);
    book.made(one);
    const two = change('/p/2', 1, 40);
    expect(book.admit(two)).toBeUndefined();
    expect(book.admit(change('/p/3', 1, 0))).toMatch(/2 files/);
    book.givenUp(two);
    expect(book.admit(change('/p/3', 1, 0))).toBeUndefined();
    expect(book.admit(change('/elsewhere', 1, 1000))).toBeUndefined();
  });

  it('lets a file shrink where the quota is exceeded already', () => {
    const book = new QuotaBook([{ prefix: '/', filesMax: 1, logicalBytesMax: 10 }]);
    book.add(change('/a', 5, 500));
    expect(book.admit(change('/a', 0, -100))).toBeUndefined();
    expect(book.admit(change('/a', 0, 1))).toBeDefined();
  });
});
