import { truncate, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { expect, it } from 'vitest';
import {
  encodeSegmentHeader,
  makeSeed,
  segmentHeaderSizeBytes,
  segmentPath,
} from '../../src/catalog/journal/segment-header.ts';
import { LmdbCatalog, type LmdbCatalogOptions } from '../../src/catalog/lmdb/lmdb-catalog.ts';
import { name, putOf, RecordingPlacer } from '../support/catalogs.ts';
import { temporaryFolder } from '../support/temporary-folder.ts';

it('LmdbCatalog.open() drops a segment of which only a part of the header was written', async () => {
  const folder = await temporaryFolder();
  const journal = join(folder, 'journal');
  const options: LmdbCatalogOptions = {
    folders: { journal, catalog: join(folder, 'catalog') },
    placer: new RecordingPlacer(),
  };
  const first = await LmdbCatalog.open(options);
  await first.put(putOf('/a', 1, 'text'));
  await first.close();
  const header = encodeSegmentHeader({ number: 2, createdMs: 1, previousEnd: 1000, seed: makeSeed(2) });
  for (let size = 0; size < segmentHeaderSizeBytes; size += 1) {
    await writeFile(segmentPath(journal, 2), header);
    await truncate(segmentPath(journal, 2), size);
    const catalog = await LmdbCatalog.open(options);
    expect((await catalog.find(name('/a')))?.entry.version, `${size} bytes`).toBe(1);
    await catalog.close();
  }
});
