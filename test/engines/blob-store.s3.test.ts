import { S3BlobStore } from '../../src/blobs/s3/s3-blob-store.ts';
import { describeBlobStore } from '../contracts/blob-store.contract.ts';
import { freshBucket } from '../support/engines.ts';

for (const placedElsewhere of [false, true]) {
  describeBlobStore(
    `S3BlobStore, ${placedElsewhere ? 'placed by another process' : 'placed by the same'}`,
    async () => {
      const options = { ...freshBucket(), placedElsewhere };
      return {
        store: await S3BlobStore.open(options),
        reopen: () => S3BlobStore.open(options),
        dispose: async () => undefined,
      };
    },
  );
}
