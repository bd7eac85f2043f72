import { readdir } from 'node:fs/promises';
import { join } from 'node:path';
import { pino } from 'pino';
import { expect, onTestFinished } from 'vitest';
import { openStore } from '../../src/runtime/open-store.ts';
import { HttpServer } from '../../src/server/http-server.ts';
import type { HttpServerOptions } from '../../src/server/options.ts';
import type { FileStore, OpenFile, ReadOptions, StoredFile } from '../../src/store/file-store.ts';
import { changed } from './changed-file-store.ts';
import { requestOnce, type RawAnswer, type RawRequest } from './raw-http.ts';
import { temporaryFolder } from './temporary-folder.ts';

export interface PutOptions {
  /** Seconds since 1970. */
  readonly version?: number;
  readonly headers?: Readonly<Record<string, string>>;
}

/** The query that names a version. */
export function versionQuery(version = 1_700_000_000): string {
  return `last_modified=${encodeURIComponent(new Date(version * 1000).toUTCString())}`;
}

/** A server on a free port over a fresh embedded store. */
export interface TestServer {
  readonly server: HttpServer;
  readonly store: FileStore;
  readonly folder: string;
  readonly port: number;
  request(request: RawRequest): Promise<RawAnswer>;
  put(name: string, body: Buffer | string, options?: PutOptions): Promise<RawAnswer>;
  /** Fails unless the store holds nothing at all: no entry, no blob, no file of an upload. */
  expectEmpty(): Promise<void>;
}

async function expectEmpty(store: FileStore, folder: string): Promise<void> {
  // What is given up is removed behind the answer; nobody waits for it but this test.
  await expect
    .poll(async () => {
      const { entries, blobs, unreferencedBlobs } = await store.stats();
      const files = await readdir(join(folder, 'blobs'), { recursive: true, withFileTypes: true });
      return {
        rows: entries + blobs + unreferencedBlobs,
        uploads: await readdir(join(folder, 'uploads')),
        files: files.filter((item) => item.isFile()).map((item) => item.name),
      };
    })
    .toEqual({ rows: 0, uploads: [], files: [] });
}

/** Opens a server; server and store are closed when the test is over. */
export async function openTestServer(options: Partial<HttpServerOptions> = {}): Promise<TestServer> {
  const folder = await temporaryFolder();
  const opened = await openStore(
    { folder, collectionGraceMs: 0, exclusive: true },
    pino({ level: 'silent' }),
  );
  const store = options.store ?? opened.files;
  const server = await HttpServer.open({
    listen: { host: '127.0.0.1', port: 0 },
    release: '0.0.0',
    ...options,
    store,
  });
  onTestFinished(async () => {
    await server.close({ timeoutMs: 0 });
    await opened.close();
  });
  const { port } = server.address;
  const request = (wanted: RawRequest): Promise<RawAnswer> => requestOnce(port, wanted);
  const put = (
    name: string,
    body: Buffer | string,
    { version, headers = {} }: PutOptions = {},
  ): Promise<RawAnswer> =>
    request({ method: 'PUT', target: `/files${name}?${versionQuery(version)}`, body, headers });
  return { server, store, folder, port, request, put, expectEmpty: () => expectEmpty(opened.files, folder) };
}

/** A store with some methods put in their place. */
export function overridden(store: FileStore, methods: Partial<FileStore>): FileStore {
  return changed(store, methods);
}

/** A store whose files are opened by `open`. */
export function openedBy(
  store: FileStore,
  open: (file: StoredFile, options: ReadOptions) => Promise<OpenFile | undefined>,
): FileStore {
  return changed(store, {
    lookUp: async (name) => {
      const file = await store.lookUp(name);
      return file && changed(file, { open: (options) => open(file, options) });
    },
  });
}
