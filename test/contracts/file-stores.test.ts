import { embeddedFileStore, memoryFileStore } from '../support/file-stores.ts';
import { describeFileStore } from './file-store.contract.ts';

describeFileStore('FileStore in memory', memoryFileStore);
describeFileStore('FileStore on disk', embeddedFileStore);
