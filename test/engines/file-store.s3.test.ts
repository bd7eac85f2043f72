import { describeFileStore } from '../contracts/file-store.contract.ts';
import { embeddedWithBucketFileStore } from '../support/scale-out-stores.ts';

describeFileStore('FileStore over LMDB and S3', embeddedWithBucketFileStore);
