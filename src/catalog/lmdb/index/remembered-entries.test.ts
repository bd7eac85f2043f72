import { describe, expect, it } from 'vitest';
import { digestOf } from '../../../core/digest.ts';
import { parseFileName } from '../../../core/file-name.ts';
import type { LocatedEntry } from '../../catalog.ts';
import { RememberedEntries } from './remembered-entries.ts';

const name = parseFileName('/a');

function found(version: number): Promise<LocatedEntry> {
  const digest = digestOf(Buffer.from(String(version)));
  const entry = { name, version, digest, logicalSize: 1, storedSize: 1, encoding: 'identity' } as const;
  return Promise.resolve({ entry, location: { kind: 'object', key: 'k' }, damaged: false });
}

describe('RememberedEntries', () => {
  it('returns what was found until the index changes', async () => {
    const remembered = new RememberedEntries();
    expect(remembered.isCurrent(7)).toBe(false);
    remembered.remember(name, found(1));
    expect(remembered.isCurrent(7)).toBe(true);
    expect((await remembered.get(name))?.entry.version).toBe(1);
    expect(remembered.isCurrent(8)).toBe(false);
    expect(remembered.get(name)).toBeUndefined();
  });

  it('remembers nothing if the changes of the index are not counted', () => {
    const remembered = new RememberedEntries();
    expect(remembered.isCurrent(undefined)).toBe(false);
    remembered.remember(name, found(1));
    expect(remembered.isCurrent(undefined)).toBe(false);
    expect(remembered.get(name)).toBeUndefined();
  });

  it('is bounded in names and in their length', () => {
    const remembered = new RememberedEntries();
    remembered.isCurrent(1);
    for (let index = 0; index < 20_000; index += 1) remembered.remember(parseFileName(`/${index}`), found(1));
    expect(remembered.get(parseFileName('/0'))).toBeUndefined();
    expect(remembered.get(parseFileName('/19999'))).toBeDefined();
    const long = parseFileName(`/${'x'.repeat(200)}/${'x'.repeat(200)}/${'x'.repeat(200)}`);
    remembered.remember(long, found(1));
    expect(remembered.get(long)).toBeUndefined();
  });
});
