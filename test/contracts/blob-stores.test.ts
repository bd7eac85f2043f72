import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { DiskBlobStore } from '../../src/blobs/disk/disk-blob-store.ts';
import { MemoryBlobStore } from '../support/doubles/memory-blob-store.ts';
import { describeBlobStore } from './blob-store.contract.ts';

describeBlobStore('MemoryBlobStore', async () => ({
  store: new MemoryBlobStore(),
  dispose: async () => undefined,
}));

for (const uniqueKeys of [false, true]) {
  describeBlobStore(`DiskBlobStore${uniqueKeys ? ' with unique keys' : ''}`, async () => {
    const folder = await mkdtemp(join(tmpdir(), 'filetracker-blobs-'));
    return {
      store: await DiskBlobStore.open(folder, { uniqueKeys }),
      reopen: () => DiskBlobStore.open(folder, { uniqueKeys }),
      dispose: () => rm(folder, { recursive: true, force: true }),
    };
  });
}
