import { appendFile, cp, rename, rm, stat, truncate } from 'node:fs/promises';
import { join } from 'node:path';
import { beforeEach, describe, expect, it } from 'vitest';
import { segmentPath } from '../../catalog/journal/segment-header.ts';
import { scanSegment } from '../../catalog/journal/segment.ts';
import { noise } from '../../../test/support/contents.ts';
import { EmbeddedStore } from '../../../test/support/embedded-store.ts';
import { temporaryFolder } from '../../../test/support/temporary-folder.ts';
import type { StoredSnapshot } from './backup-layout.ts';
import { isContinuedBy } from './snapshot-segments.ts';

let journal: string;
let snapshot: StoredSnapshot;
let compacted: string;

/** A journal of which a snapshot was taken when compaction had removed its second segment. */
beforeEach(async () => {
  const root = await temporaryFolder();
  journal = join(root, 'store', 'journal');
  const store = await EmbeddedStore.open(join(root, 'store'), { segmentSizeBytes: 16 * 1024 });
  for (let at = 0; at < 12; at += 1) await store.put(`/${at}`, 1, noise(3000, `${at}`));
  await store.close();
  const folder = join(root, 'snapshot');
  await cp(journal, folder, { recursive: true });
  const { size: offset } = await stat(segmentPath(folder, 3));
  snapshot = { format: 1, timeMs: 0, folder, segments: [1, 3], end: { segment: 3, offset } };
  compacted = join(root, 'compacted');
  await rename(segmentPath(folder, 2), compacted);
  await rm(segmentPath(journal, 2));
});

describe('isContinuedBy()', () => {
  it('takes the same journal for gone on, whatever space was filled ahead or cut off in either', async () => {
    expect(await isContinuedBy(snapshot, journal)).toBe(true);
    for (const folder of [journal, snapshot.folder]) {
      await appendFile(segmentPath(folder, 1), Buffer.alloc(200_000));
      expect(await isContinuedBy(snapshot, journal)).toBe(true);
    }
  });

  it('does not where a record is missing from a segment, or more', async () => {
    const last = await lastRecordOf(1);
    await truncate(segmentPath(journal, 1), last);
    expect(await isContinuedBy(snapshot, journal)).toBe(false);
    await truncate(segmentPath(snapshot.folder, 1), last);
    expect(await isContinuedBy(snapshot, journal)).toBe(true);
    await truncate(segmentPath(journal, 3), await lastRecordOf(3));
    expect(await isContinuedBy(snapshot, journal)).toBe(false);
    await rm(segmentPath(journal, 3));
    expect(await isContinuedBy(snapshot, journal)).toBe(false);
  });

  it('does not where a sealed segment has more records, or one that was compacted away is back', async () => {
    await truncate(segmentPath(snapshot.folder, 1), await lastRecordOf(1));
    expect(await isContinuedBy(snapshot, journal)).toBe(false);
    const { folder } = snapshot;
    await cp(segmentPath(journal, 1), segmentPath(folder, 1));
    expect(await isContinuedBy(snapshot, journal)).toBe(true);
    await cp(compacted, segmentPath(journal, 2));
    expect(await isContinuedBy(snapshot, journal)).toBe(false);
  });
});

async function lastRecordOf(segment: number): Promise<number> {
  let last = 0;
  for await (const batch of scanSegment(journal, segment)) last = batch.at(-1)?.offset ?? last;
  return last;
}
