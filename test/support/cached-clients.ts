import { mkdirSync, readdirSync, statSync, utimesSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { onTestFinished } from 'vitest';
import { Client } from '../../src/client/client.ts';
import type { ClientOptions } from '../../src/client/client-options.ts';
import { servedStore, type ServedStore } from './client-server.ts';
import { temporaryFolder } from './temporary-folder.ts';

/** A server, a folder to work in and a cache. */
export interface Setting {
  readonly served: ServedStore;
  readonly folder: string;
  readonly cacheDir: string;
  readonly open: (options?: ClientOptions) => Client;
  /** Stores bytes on the server alone. */
  readonly store: (name: string, bytes: Buffer) => Promise<void>;
  readonly bodies: (name: string) => number;
}

export async function setting(): Promise<Setting> {
  const served = await servedStore();
  const folder = await temporaryFolder();
  const cacheDir = join(folder, 'cache');
  const open = (options: ClientOptions = {}): Client => {
    const client = new Client({ remoteUrl: served.url, cacheDir, cacheMinFree: 0, ...options });
    onTestFinished(() => client.close());
    return client;
  };
  const store = async (name: string, bytes: Buffer): Promise<void> => {
    const path = join(folder, 'to-store');
    writeFileSync(path, bytes);
    utimesSync(path, 100, 100);
    await open({ cacheDir: undefined }).putFile(name, path);
  };
  const bodies = (name: string): number =>
    served.requests.filter(({ method, path, status }) => {
      return method === 'GET' && status < 300 && path === `/files${name}`;
    }).length;
  return { served, folder, cacheDir, open, store, bodies };
}

/** Bytes of all files in a folder, in blocks as the disk counts them. */
export function usedBytes(folder: string): number {
  let total = 0;
  for (const item of readdirSync(folder, { recursive: true, withFileTypes: true })) {
    const attributes = statSync(join(item.parentPath, item.name), { throwIfNoEntry: false });
    if (attributes?.isFile() === true && item.name !== 'space') total += attributes.blocks * 512;
  }
  return total;
}

/** A folder as the Python client leaves it: `files/<name>` with the version as time, `locks/<name>`. */
export function pythonCache(folder: string, files: Readonly<Record<string, Buffer>>): void {
  for (const [name, bytes] of Object.entries(files)) {
    for (const kind of ['files', 'locks']) mkdirSync(join(folder, kind, name, '..'), { recursive: true });
    writeFileSync(join(folder, 'files', name), bytes);
    utimesSync(join(folder, 'files', name), 50, 50);
    writeFileSync(join(folder, 'locks', name), '');
  }
}
