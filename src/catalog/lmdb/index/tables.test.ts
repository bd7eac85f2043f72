import { describe, expect, it, onTestFinished } from 'vitest';
import { digestOf } from '../../../core/digest.ts';
import { parseFileName } from '../../../core/file-name.ts';
import { temporaryFolder } from '../../../../test/support/temporary-folder.ts';
import type { PlacedRecord } from '../../journal/record.ts';
import { IndexDatabase } from './database.ts';

function putAt(path: string, offset: number): PlacedRecord {
  const bytes = Buffer.from(path);
  return {
    segment: 1,
    offset,
    length: 128,
    record: {
      type: 'put',
      timeMs: 1,
      name: parseFileName(path),
      version: 1,
      digest: digestOf(bytes),
      encoding: 'identity',
      logicalSize: bytes.length,
      storedSize: bytes.length,
      content: { kind: 'inline', bytes },
      damaged: false,
    },
  };
}

describe('firstBelow()', () => {
  it('returns the first name of each directory, also of one that a change has just made', async () => {
    const index = IndexDatabase.open(await temporaryFolder());
    onTestFinished(() => index.close());
    expect(index.firstBelow('/a/')).toBeUndefined();
    const names = ['/a!', '/a.txt', '/a/b', '/a/c', '/a0', '/b/ä', '/z'];
    index.apply(
      names.map((name, at) => putAt(name, 64 + at * 128)),
      { segment: 1, offset: 1024 },
    );
    expect(index.firstBelow('/a/')).toBe('/a/b');
    expect(index.firstBelow('/a!/')).toBeUndefined();
    expect(index.firstBelow('/b/')).toBe('/b/ä');
    expect(index.firstBelow('/z/')).toBeUndefined();
    expect(index.firstBelow('/a/b/')).toBeUndefined();
    expect(index.firstBelow('/')).toBe('/a!');
    index.apply([putAt('/z/first', 2048)], { segment: 1, offset: 2176 });
    expect(index.firstBelow('/z/')).toBe('/z/first');
  });
});
