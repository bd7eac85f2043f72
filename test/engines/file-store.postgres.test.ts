import { describeFileStore } from '../contracts/file-store.contract.ts';
import { sharedFolderFileStore } from '../support/scale-out-stores.ts';

describeFileStore('FileStore over PostgreSQL and a shared folder', sharedFolderFileStore);
