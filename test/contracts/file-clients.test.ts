import { join } from 'node:path';
import { onTestFinished } from 'vitest';
import { Client } from '../../src/client/client.ts';
import { MemoryClient } from '../../src/client/memory-client.ts';
import { servedStore } from '../support/client-server.ts';
import { temporaryFolder } from '../support/temporary-folder.ts';
import { describeFileClient } from './file-client.contract.ts';

describeFileClient('FileClient in memory', async () =>
  Promise.resolve({ client: new MemoryClient(), caches: true }),
);

describeFileClient('FileClient with server and cache', async () => {
  const { url } = await servedStore();
  const cacheDir = join(await temporaryFolder(), 'cache');
  const client = new Client({ remoteUrl: url, cacheDir, cacheMinFree: 0 });
  onTestFinished(() => client.close());
  return { client, caches: true };
});

describeFileClient('FileClient with a server alone', async () => {
  const { url } = await servedStore();
  const client = new Client({ remoteUrl: url });
  onTestFinished(() => client.close());
  return { client, caches: false };
});
