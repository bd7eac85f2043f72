import { onTestFinished } from 'vitest';
import { HttpServer } from '../../src/server/http-server.ts';
import { embeddedFileStore, memoryFileStore } from './file-stores.ts';

export interface ServedStore {
  readonly url: string;
  /** How many requests of each method were answered, and with which bodies. */
  readonly requests: { readonly method: string; readonly path: string; readonly status: number }[];
}

/** A server of ours over a fresh store, for the running test alone. */
export async function servedStore(kind: 'memory' | 'embedded' = 'memory'): Promise<ServedStore> {
  const parts = await (kind === 'memory' ? memoryFileStore() : embeddedFileStore());
  const requests: { method: string; path: string; status: number }[] = [];
  const server = await HttpServer.open({
    store: parts.store,
    listen: { host: '127.0.0.1', port: 0 },
    release: 'test',
    observer: {
      refusedConnection: () => undefined,
      answered: ({ request, response }) => {
        requests.push({
          method: request.method ?? '',
          path: request.url ?? '',
          status: response.statusCode,
        });
      },
    },
  });
  onTestFinished(async () => {
    await server.close();
    await parts.close();
  });
  return { url: server.url, requests };
}
