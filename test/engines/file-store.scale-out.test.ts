import { describeFileStore } from '../contracts/file-store.contract.ts';
import { scaleOutFileStore } from '../support/scale-out-stores.ts';

describeFileStore('FileStore over PostgreSQL and S3', scaleOutFileStore);
