import { describe, expect, it } from 'vitest';
import { parseFileName } from '../core/file-name.ts';
import { Capacity, type Quota, type UsageChange } from './quotas.ts';

const change = (name: string, files: number, logicalBytes: number, storedBytes = 0): UsageChange => ({
  name: parseFileName(name),
  files,
  logicalBytes,
  storedBytes,
});
const within = (...quotas: Quota[]): Capacity => new Capacity({ storedBytesMax: undefined, quotas });
const stored = { bytes: 0 };

describe('Capacity', () => {
  it('counts below its prefixes by whole components', () => {
    const capacity = within(
      { prefix: '/p', filesMax: undefined, logicalBytesMax: undefined },
      { prefix: '/', filesMax: undefined, logicalBytesMax: undefined },
    );
    capacity.add(change('/p/a', 1, 10));
    capacity.add(change('/pq', 1, 100));
    capacity.add(change('/p', 1, 1000));
    expect(capacity.usages).toMatchObject([
      { files: 2, logicalBytes: 1010 },
      { files: 3, logicalBytes: 1110 },
    ]);
  });

  it('admits no more than fits with the changes admitted already', () => {
    const capacity = within({ prefix: '/p', filesMax: 2, logicalBytesMax: 100 });
    const one = change('/p/1', 1, 60);
    expect(capacity.admit(one, stored)).toBeUndefined();
    expect(capacity.admit(change('/p/2', 1, 60), stored)).toMatch(/100 bytes/);
    capacity.made(one);
    const two = change('/p/2', 1, 40);
    expect(capacity.admit(two, stored)).toBeUndefined();
    expect(capacity.admit(change('/p/3', 1, 0), stored)).toMatch(/2 files/);
    capacity.givenUp(two);
    expect(capacity.admit(change('/p/3', 1, 0), stored)).toBeUndefined();
    expect(capacity.admit(change('/elsewhere', 1, 1000), stored)).toBeUndefined();
  });

  it('lets a file shrink if the quota is exceeded already', () => {
    const capacity = within({ prefix: '/', filesMax: 1, logicalBytesMax: 10 });
    capacity.add(change('/a', 5, 500));
    expect(capacity.admit(change('/a', 0, -100), stored)).toBeUndefined();
    expect(capacity.admit(change('/a', 0, 1), stored)).toBeDefined();
  });

  it('counts stored bytes with those admitted already, and at least the bytes offered', () => {
    const capacity = new Capacity({ storedBytesMax: 100, quotas: [] });
    const one = change('/1', 1, 60, 60);
    expect(capacity.admit(one, stored)).toBeUndefined();
    expect(capacity.admit(change('/2', 1, 60, 60), stored)).toMatch(/100 bytes/);
    expect(capacity.admit(change('/2', 1, 60), { bytes: 0, offered: 60 })).toMatch(/100 bytes/);
    capacity.givenUp(one);
    expect(capacity.admit(change('/2', 1, 60, 60), stored)).toBeUndefined();
  });
});
