import { cp, mkdtemp, readFile, rm, stat, truncate, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { recordSizeBytes } from '../../src/catalog/journal/record.ts';
import {
  seedsFileName,
  segmentHeaderSizeBytes,
  segmentPath,
} from '../../src/catalog/journal/segment-header.ts';
import type { PlacedRecord } from '../../src/catalog/journal/record.ts';
import { scanSegment } from '../../src/catalog/journal/segment.ts';
import { LmdbCatalog } from '../../src/catalog/lmdb/lmdb-catalog.ts';
import { name, namesOf, putOf, RecordingPlacer } from '../support/catalogs.ts';

describe('a damaged journal', () => {
  let folder: string;
  let journal: string;
  beforeEach(async () => {
    folder = await mkdtemp(join(tmpdir(), 'filetracker-'));
    journal = join(folder, 'journal');
  });
  afterEach(() => rm(folder, { recursive: true }));

  const openIn = (at: string, more = {}): Promise<LmdbCatalog> =>
    LmdbCatalog.open({
      folders: { journal: join(at, 'journal'), catalog: join(at, 'catalog') },
      placer: new RecordingPlacer(),
      ...more,
    });

  /** Five files, each its own group, and where their records lie. */
  async function fiveFiles(): Promise<PlacedRecord[]> {
    const catalog = await openIn(folder);
    for (const path of ['/1', '/2', '/3', '/4', '/5'])
      await catalog.put(putOf(path, 1, `content of ${path}`));
    await catalog.close();
    const records: PlacedRecord[] = [];
    for await (const batch of scanSegment(journal, 1)) records.push(...batch);
    expect(records).toHaveLength(5);
    return records;
  }

  async function copyOf(part: 'journal' | 'store'): Promise<string> {
    const copy = await mkdtemp(join(folder, 'copy-'));
    await cp(journal, join(copy, 'journal'), { recursive: true });
    if (part === 'store') await cp(join(folder, 'catalog'), join(copy, 'catalog'), { recursive: true });
    return copy;
  }

  it('loses only the last record, wherever within it the file is cut', { timeout: 300_000 }, async () => {
    const records = await fiveFiles();
    const last = records.at(-1);
    const start = last?.offset ?? 0;
    const { size } = await stat(segmentPath(journal, 1));
    expect(size).toBe(start + (last ? recordSizeBytes(last.record) : 0));
    for (let cut = start; cut < size; cut++) {
      const copy = await copyOf('journal');
      await truncate(segmentPath(join(copy, 'journal'), 1), cut);
      const catalog = await openIn(copy);
      expect(await namesOf(catalog)).toEqual(['/1', '/2', '/3', '/4']);
      await catalog.put(putOf('/6', 1, 'after the cut'));
      await catalog.close();
      await rm(join(copy, 'catalog'), { recursive: true });
      const again = await openIn(copy);
      expect(await namesOf(again)).toEqual(['/1', '/2', '/3', '/4', '/6']);
      await again.close();
      await rm(copy, { recursive: true });
    }
  });

  it('is told from a torn write, refused, and salvaged but for what is damaged', async () => {
    const records = await fiveFiles();
    const third = records[2]?.offset ?? 0;
    const copy = await copyOf('journal');
    const path = segmentPath(join(copy, 'journal'), 1);
    const bytes = await readFile(path);
    bytes[third + 50] = (bytes[third + 50] ?? 0) ^ 1;
    await writeFile(path, bytes);
    await expect(openIn(copy)).rejects.toMatchObject({ code: 'corrupt-store' });
    const catalog = await openIn(copy, { rebuild: true, salvage: true });
    expect(catalog.replay.damaged).toEqual([{ segment: 1, start: third, end: records[3]?.offset }]);
    expect(await namesOf(catalog)).toEqual(['/1', '/2', '/4', '/5']);
    await catalog.close();
  });

  it('is damaged, not torn, if its header and the copy of its random numbers are lost', async () => {
    await fiveFiles();
    const copy = await copyOf('journal');
    const path = segmentPath(join(copy, 'journal'), 1);
    const bytes = await readFile(path);
    await writeFile(path, bytes.fill(0xaa, 0, segmentHeaderSizeBytes));
    await rm(join(copy, 'journal', seedsFileName));
    await expect(openIn(copy)).rejects.toMatchObject({ code: 'corrupt-store' });
    const catalog = await openIn(copy, { rebuild: true, salvage: true });
    expect(catalog.replay.damaged).toEqual([{ segment: 1, start: 64, end: bytes.length }]);
    await catalog.close();
  });

  it('is refused where it ends before what the index holds', async () => {
    const records = await fiveFiles();
    const copy = await copyOf('store');
    await truncate(segmentPath(join(copy, 'journal'), 1), records[3]?.offset);
    await expect(openIn(copy)).rejects.toMatchObject({ code: 'corrupt-store' });
  });

  it('is never opened by two at once', async () => {
    const catalog = await openIn(folder);
    await expect(openIn(folder)).rejects.toMatchObject({ code: 'store-locked' });
    await catalog.close();
    await (await openIn(folder)).close();
  });

  it('answers a read of inline bytes that the disk has changed with damaged-blob', async () => {
    const records = await fiveFiles();
    const path = segmentPath(journal, 1);
    const bytes = await readFile(path);
    const at = (records[1]?.offset ?? 0) + 80 + '/2'.length;
    bytes[at] = (bytes[at] ?? 0) ^ 1;
    await writeFile(path, bytes);
    const catalog = await openIn(folder);
    const found = await catalog.find(name('/2'));
    if (found?.location.kind !== 'inline') throw new Error('it must lie in the journal');
    await expect(found.location.read()).rejects.toMatchObject({ code: 'damaged-blob' });
    await catalog.close();
  });
});
