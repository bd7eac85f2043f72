import { readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { beforeEach, describe, expect, it } from 'vitest';
import type { PlacedRecord } from '../../src/catalog/journal/record.ts';
import { scanSegment } from '../../src/catalog/journal/segment.ts';
import { segmentPath } from '../../src/catalog/journal/segment-header.ts';
import { LmdbCatalog, type LmdbCatalogOptions } from '../../src/catalog/lmdb/lmdb-catalog.ts';
import { namesOf, putOf, RecordingPlacer, textOf } from '../support/catalogs.ts';
import { noise } from '../support/contents.ts';
import { forgedRemovals, makeOldStore, offsetsOf, putRecord } from '../support/old-journal.ts';
import { temporaryFolder } from '../support/temporary-folder.ts';

let folder: string;
let journal: string;

beforeEach(async () => {
  folder = join(await temporaryFolder(), 'store');
  journal = join(folder, 'journal');
});

function open(more: Partial<LmdbCatalogOptions> = {}): Promise<LmdbCatalog> {
  return LmdbCatalog.open({
    folders: { journal, catalog: join(folder, 'catalog') },
    placer: new RecordingPlacer(),
    ...more,
  });
}

async function recordsOf(segment: number): Promise<PlacedRecord[]> {
  const records: PlacedRecord[] = [];
  for await (const batch of scanSegment(journal, segment)) records.push(...batch);
  return records;
}

/** Destroys so many bytes of a segment, as a bad sector does. */
async function destroy(segment: number, offset: number, length: number): Promise<void> {
  const path = segmentPath(journal, segment);
  const bytes = await readFile(path);
  await writeFile(path, bytes.fill(0xff, offset, offset + length));
}

const salvage = { rebuild: true, salvage: true };

describe('a record that is hidden in the content of a stored file', () => {
  it('is not applied when the header of the file is damaged', async () => {
    const first = await open();
    await first.put(putOf('/secret', 1, 'keep me'));
    const bytes = forgedRemovals('/secret', 1);
    const content = { kind: 'inline', bytes } as const;
    await first.put(putOf('/trap', 1, 'trap', { storedSize: bytes.length, content }));
    await first.put(putOf('/after', 1, 'after'));
    await first.close();
    const trap = (await recordsOf(1))[1];
    await destroy(1, trap?.offset ?? 0, 80);
    await expect(open({ rebuild: true })).rejects.toMatchObject({ code: 'corrupt-store' });
    const recovered = await open(salvage);
    expect(await namesOf(recovered)).toEqual(['/after', '/secret']);
    expect(await textOf(recovered, '/secret')).toBe('keep me');
    await recovered.close();
  });

  it('is not applied after a torn write', async () => {
    const first = await open();
    await first.put(putOf('/secret', 1, 'keep me'));
    const bytes = forgedRemovals('/secret', 1);
    const content = { kind: 'inline', bytes } as const;
    await first.put(putOf('/trap', 1, 'trap', { storedSize: bytes.length, content }));
    await first.close();
    const trap = (await recordsOf(1)).at(-1);
    await destroy(1, trap?.offset ?? 0, 80);
    const started = await open({ rebuild: true });
    expect(await namesOf(started)).toEqual(['/secret']);
    await started.close();
  });

  it('is not applied from a segment of format 1, and what stands further behind is read', async () => {
    const later = Array.from({ length: 8 }, (_, at) => putRecord(`/later-${at}`, 1, noise(4000, `${at}`)));
    const records = [
      putRecord('/secret', 1, Buffer.from('keep me')),
      putRecord('/trap', 1, forgedRemovals('/secret', 1)),
      ...later,
    ];
    await makeOldStore(folder, records);
    await destroy(1, offsetsOf(records)[1] ?? 0, 80);
    await expect(open()).rejects.toMatchObject({ code: 'corrupt-store' });
    const recovered = await open(salvage);
    const names = await namesOf(recovered);
    expect(names).toContain('/secret');
    expect(names).not.toContain('/trap');
    expect(names).toEqual(expect.arrayContaining(['/later-5', '/later-6', '/later-7']));
    expect(recovered.replay.damaged).toMatchObject([{ segment: 1, start: offsetsOf(records)[1] }]);
    await recovered.close();
  });

  it('is not applied from a segment of format 1 that ends in a torn write', async () => {
    const records = [
      putRecord('/secret', 1, Buffer.from('keep me')),
      putRecord('/trap', 1, forgedRemovals('/secret', 1)),
    ];
    await makeOldStore(folder, records);
    await destroy(1, offsetsOf(records)[1] ?? 0, 80);
    const recovered = await open(salvage);
    expect(await namesOf(recovered)).toEqual(['/secret']);
    await recovered.close();
  });

  it('costs nothing where the header tells how long the record is: the next one is read', async () => {
    const records = ['/a', '/b', '/c'].map((path) => putRecord(path, 1, Buffer.from(`content of ${path}`)));
    await makeOldStore(folder, records);
    await destroy(1, (offsetsOf(records)[1] ?? 0) + 84, 4);
    const recovered = await open(salvage);
    expect(await namesOf(recovered)).toEqual(['/a', '/c']);
    await recovered.close();
  });
});
