import { describe, expect, it } from 'vitest';
import { parseFileName } from '../../src/core/file-name.ts';
import { noise } from '../support/contents.ts';
import { EmbeddedStore } from '../support/embedded-store.ts';
import { temporaryFolder } from '../support/temporary-folder.ts';

const segmentSizeBytes = 512 * 1024;

describe('the journal under a load of changes', () => {
  it.each([
    { shape: 'few names overwritten', names: 60, removesEvery: 0 },
    { shape: 'many names, some of them removed', names: 600, removesEvery: 3 },
  ])('takes at most 1.5 times what is live, and a segment: $shape', async ({ names, removesEvery }) => {
    const folder = await temporaryFolder();
    await using store = await EmbeddedStore.open(folder, { segmentSizeBytes });
    let most = 0;
    for (let round = 0; round < 60; round += 1) {
      const changes: Promise<unknown>[] = [];
      for (let index = 0; index < 40; index += 1) {
        const number = round * 40 + index;
        const path = `/name/${(number * 7919) % names}`;
        changes.push(store.put(path, number, noise(4000, `${number}`)));
        if (removesEvery > 0 && number % removesEvery === 0) {
          const name = parseFileName(`/name/${(number * 104_729) % names}`);
          changes.push(store.catalog.remove({ name, version: number }));
        }
      }
      await Promise.all(changes);
      const unnamed = await store.catalog.listUnreferenced(Date.now() + 1, 1000);
      await store.catalog.collect(unnamed, Date.now() + 1);
      // What lies in records; the zeros that are written ahead of them are at most 8 MiB, whatever the size of a
      // segment. Compaction runs beside the changes: it is given the time that a few syncs take.
      await expect
        .poll(async () => {
          const { journalBytes, journalLiveBytes } = await store.catalog.stats();
          most = Math.max(most, journalBytes / journalLiveBytes);
          return journalBytes - 1.5 * journalLiveBytes;
        })
        .toBeLessThanOrEqual(segmentSizeBytes);
    }
    // A bound that is never come near would prove nothing.
    expect(most).toBeGreaterThan(1.5);
  });
});
