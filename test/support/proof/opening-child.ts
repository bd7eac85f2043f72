// A program that opens the index of a store and closes it again, over and over, as workers do that are started while
// another changes it.
import { IndexDatabase } from '../../../src/catalog/lmdb/index/database.ts';
import type { EmbeddedFolders } from '../../../src/catalog/lmdb/index/database.ts';

export interface OpeningOrder {
  readonly folders: EmbeddedFolders;
  readonly timeMs: number;
}

const { folders, timeMs } = JSON.parse(process.argv[2] ?? '') as OpeningOrder;
const endMs = performance.now() + timeMs;
for (let opened = 0; performance.now() < endMs; opened += 1) {
  const index =
    opened % 2 === 0
      ? await IndexDatabase.openShared(folders)
      : await IndexDatabase.openToRead(folders.catalog);
  await index.close();
}
