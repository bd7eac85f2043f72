import { once } from 'node:events';
import { appendFile, readdir, rm } from 'node:fs/promises';
import { createServer } from 'node:http';
import { join } from 'node:path';
import { PassThrough } from 'node:stream';
import { pino } from 'pino';
import { beforeEach, describe, expect, it, onTestFinished } from 'vitest';
import { connectOldServer } from '../../src/runtime/old-server.ts';
import { openStore } from '../../src/runtime/open-store.ts';
import { parseFileName, type FileName } from '../../src/core/file-name.ts';
import { backupStore } from '../../src/maintenance/backup/backup.ts';
import { ImportingFileStore, type OldServer } from '../../src/store/import/importing-file-store.ts';
import { restoreStore } from '../../src/maintenance/backup/restore.ts';
import { systemClock } from '../../src/core/clock.ts';
import { freeSpaceAgeMaxMs } from '../../src/core/limits.ts';
import type { FileStore } from '../../src/store/file-store.ts';
import { UploadGate } from '../../src/store/upload-gate.ts';
import { collected, noise, prose } from '../support/contents.ts';
import { openTestServer, type TestServer } from '../support/test-server.ts';
import { temporaryFolder } from '../support/temporary-folder.ts';
import { openFile } from '../../src/store/get.ts';
import { statOf } from '../support/file-stores.ts';

let old: TestServer;
let oldServer: OldServer;
let inner: FileStore;
let store: ImportingFileStore;
let folder: string;
let fetches: number;

const name = (text: string): FileName => parseFileName(text);

async function put(path: string, version: number, bytes: Buffer): Promise<unknown> {
  const intent = { name: name(path), version, claims: {} };
  await store.beforePut(intent);
  return store.put(intent, { source: bytes, encoding: 'identity' });
}

async function read(path: string): Promise<Buffer | undefined> {
  const file = await openFile(store, name(path), { form: 'identity' });
  if (file === undefined) return undefined;
  return Buffer.isBuffer(file.body) ? file.body : collected(file.body);
}

async function names(directory = '/', options = {}): Promise<string[]> {
  const all: string[] = [];
  for await (const batch of store.listNames(directory, options)) all.push(...batch);
  return all;
}

type LegacyAnswer = string | { readonly cut: string } | undefined;

/** A server of the old kind with these answers; what is `cut` says that twice as much would come. */
async function startLegacyServer(answerTo: (path: string) => LegacyAnswer): Promise<number> {
  const server = createServer((request, response) => {
    const path = request.url ?? '';
    const answer = path === '/version/' ? '{"protocol_versions":[2]}' : answerTo(path);
    if (answer === undefined) {
      response.writeHead(404).end();
      return;
    }
    response.setHeader('Last-Modified', 'Mon, 01 Jan 2024 00:00:00 GMT');
    if (typeof answer === 'string') {
      response.end(answer);
      return;
    }
    response.setHeader('Content-Length', answer.cut.length * 2);
    response.flushHeaders();
    if (request.method === 'HEAD') response.end();
    else response.write(answer.cut, () => response.destroy());
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  onTestFinished(() => {
    server.closeAllConnections();
    server.close();
  });
  const address = server.address();
  return typeof address === 'object' && address !== null ? address.port : 0;
}

function openImporting(from: OldServer, uploads = UploadGate.open()): Promise<ImportingFileStore> {
  return ImportingFileStore.open({
    store: inner,
    oldServer: from,
    uploads,
    folder: join(folder, 'fallback'),
  });
}

beforeEach(async () => {
  old = await openTestServer();
  folder = await temporaryFolder();
  const settings = { folder, collectionGraceMs: 0, exclusive: true };
  const opened = await openStore(settings, pino({ level: 'silent' }));
  inner = opened.files;
  const connected = connectOldServer(`http://127.0.0.1:${old.port}`);
  fetches = 0;
  oldServer = {
    ...connected,
    open: (path, signal) => {
      fetches += 1;
      return connected.open(path, signal);
    },
  };
  store = await openImporting(oldServer);
  onTestFinished(async () => {
    await opened.close();
    connected.close();
  });
});

describe('ImportingFileStore', () => {
  it('fetches a missing file once for any number of requests, and keeps it with its version', async () => {
    const bytes = noise(300_000);
    await old.put('/a/file', bytes, { version: 1_600_000_000 });
    const answers = await Promise.all(Array.from({ length: 20 }, () => read('/a/file')));
    for (const answer of answers) expect(answer?.equals(bytes)).toBe(true);
    expect(fetches).toBe(1);
    expect((await statOf(inner, name('/a/file')))?.version).toBe(1_600_000_000);
    expect(await read('/absent')).toBeUndefined();
    expect((await statOf(store, name('/a/file')))?.logicalSize).toBe(300_000);
  });

  it('fetches once for two processes', async () => {
    await old.put('/file', prose(500), { version: 5 });
    const other = await openImporting(oldServer);
    await Promise.all([statOf(store, name('/file')), statOf(other, name('/file'))]);
    expect(fetches).toBe(1);
  });

  it('shows both in lists', async () => {
    for (const path of ['/d/1', '/d/3', '/e']) await old.put(path, prose(50, path), { version: 100 });
    await put('/d/2', 200, prose(50));
    await put('/d/3', 300, prose(50));
    expect(await names()).toEqual(['/d/1', '/d/2', '/d/3', '/e']);
    expect(await names('/d/', { after: name('/d/1'), limit: 1 })).toEqual(['/d/2']);
    expect(await names('/', { upTo: 150 })).toEqual(['/d/1', '/e']);
    expect(await names('/nowhere/')).toEqual([]);
    expect(await store.kindOfDirectory('/d/')).toBe('directory');
    expect(await store.kindOfDirectory('/nowhere/')).toBe('absent');
  });

  it('leaves invalid names out of lists, and reports each once', async () => {
    const long = 'x'.repeat(256);
    const list = ['a\tb', 'good', long, '//c', 'd/../e', 'sub/good'].map((line) => `${line}\n`).join('');
    const port = await startLegacyServer((path) => (path.startsWith('/list/') ? list : undefined));
    const told: string[] = [];
    const legacy = connectOldServer(`http://127.0.0.1:${port}`, (path) => told.push(path));
    onTestFinished(() => legacy.close());
    store = await openImporting(legacy);
    await put('/mine', 5, prose(10));
    expect(await names()).toEqual(['/good', '/mine', '/sub/good']);
    expect(await names()).toHaveLength(3);
    expect(told).toEqual(['/a\tb', `/${long}`, '///c', '/d/../e']);
  });

  it('names the file that keeps a list of entries from being returned', async () => {
    const port = await startLegacyServer((path) => {
      if (path.startsWith('/list/')) return 'cut\n';
      return path.startsWith('/files/cut') ? { cut: 'half of it' } : undefined;
    });
    const legacy = connectOldServer(`http://127.0.0.1:${port}`);
    onTestFinished(() => legacy.close());
    store = await openImporting(legacy);
    const list = async (): Promise<unknown> => {
      for await (const batch of store.listEntries('/')) return batch;
      return [];
    };
    await expect(list()).rejects.toMatchObject({
      code: 'unavailable',
      message: expect.stringContaining(
        'Cannot get "/cut": the server that files are imported from',
      ) as string,
    });
    // Once it is stored anew, or removed, the list is there.
    await put('/cut', 1_900_000_000, prose(10));
    expect(await list()).toMatchObject([{ name: '/cut' }]);
  });

  it('does not let the old server undo a deletion, here or after a restart', async () => {
    await old.put('/gone', prose(50), { version: 100 });
    await old.put('/kept', prose(50), { version: 100 });
    await read('/gone');
    expect(await store.remove({ name: name('/gone'), version: 100 })).toEqual({
      version: 100,
      removed: true,
    });
    expect(await store.remove({ name: name('/kept'), version: 99 })).toEqual({
      version: 100,
      removed: false,
    });
    expect(await store.remove({ name: name('/never'), version: 99 })).toBeUndefined();
    expect(await read('/gone')).toBeUndefined();
    expect(await names()).toEqual(['/kept']);
    await appendFile(join(folder, 'fallback', 'deletions.jsonl'), '["/cut sh');
    const restarted = await openImporting(oldServer);
    expect(await statOf(restarted, name('/gone'))).toBeUndefined();
    expect(await restarted.remove({ name: name('/kept'), version: 100 })).toMatchObject({ removed: true });
    expect(await read('/kept')).toBeUndefined();
    await put('/gone', 101, prose(60));
    expect(await read('/gone')).toEqual(prose(60));
  });

  it('does not let the old server undo a deletion after the store was restored from a backup', async () => {
    for (const path of ['/gone', '/kept']) await old.put(path, prose(50), { version: 100 });
    await store.remove({ name: name('/gone'), version: 100 });
    const backup = await temporaryFolder();
    const restored = await temporaryFolder();
    await backupStore(folder, backup);
    await restoreStore(backup, restored);
    const settings = { folder: restored, collectionGraceMs: 0, exclusive: true };
    const opened = await openStore(settings, pino({ level: 'silent' }));
    onTestFinished(() => opened.close());
    const again = await ImportingFileStore.open({
      store: opened.files,
      oldServer,
      uploads: UploadGate.open(),
      folder: join(restored, 'fallback'),
    });
    expect(await statOf(again, name('/gone'))).toBeUndefined();
    expect(await statOf(again, name('/kept'))).toMatchObject({ version: 100 });
    // When the old server is not asked any more, the record of them goes, and from the backup too.
    await rm(join(folder, 'fallback'), { recursive: true });
    await backupStore(folder, backup);
    expect(await readdir(join(backup, 'fallback'))).toEqual([]);
  });

  it('undoes an import that a deletion has overtaken', async () => {
    await old.put('/file', prose(50), { version: 100 });
    const slow: OldServer = {
      ...oldServer,
      open: async (path, signal) => {
        const found = await oldServer.open(path, signal);
        await store.remove({ name: name('/file'), version: 100 });
        return found;
      },
    };
    const slower = await openImporting(slow);
    expect(await statOf(slower, name('/file'))).toBeUndefined();
    expect(await statOf(inner, name('/file'))).toBeUndefined();
  });

  it('keeps an older version that is put after a deletion has overtaken an import', async () => {
    await old.put('/file', prose(50), { version: 100 });
    let putting: Promise<unknown> | undefined;
    const slow: OldServer = {
      ...oldServer,
      open: async (path, signal) => {
        const found = await oldServer.open(path, signal);
        await store.remove({ name: name('/file'), version: 100 });
        putting = put('/file', 50, prose(50, 'older'));
        return found;
      },
    };
    const slower = await openImporting(slow);
    await statOf(slower, name('/file'));
    expect(await putting).toMatchObject({ version: 50, stored: true });
    expect((await read('/file'))?.equals(prose(50, 'older'))).toBe(true);
  });

  it('keeps to the bounds on uploads and on free space of the store below', async () => {
    await old.put('/file', noise(50_000), { version: 100 });
    let freeBytes = 1000;
    const uploads = new UploadGate({
      uploadsMax: 2,
      freeSpaceMinBytes: 0,
      freeSpace: () => Promise.resolve(freeBytes),
      clock: { nowMs: () => (freeBytes += 1) * freeSpaceAgeMaxMs },
    });
    const bounded = await openImporting(oldServer, uploads);
    await expect(statOf(bounded, name('/file'))).rejects.toMatchObject({
      code: 'no-space',
      message: expect.stringMatching(/^Cannot get "\/file": it cannot be imported/),
    });
    expect(await statOf(inner, name('/file'))).toBeUndefined();
    freeBytes = 1_000_000;
    const held = Array.from({ length: 2 }, () => new PassThrough());
    const puts = held.map((source, at) => {
      const intent = { name: name(`/held/${at}`), version: 1, claims: {} };
      const request = { name: intent.name, sender: `sender ${at}`, announcedSize: undefined };
      return uploads.run(request, (signal) =>
        inner.put(intent, { source, encoding: 'identity' }, { signal }),
      );
    });
    await expect.poll(() => uploads.uploadCount).toBe(2);
    await expect(statOf(bounded, name('/file'))).rejects.toMatchObject({ code: 'busy', retryable: true });
    for (const source of held) source.end('x');
    await Promise.all(puts);
    expect((await statOf(bounded, name('/file')))?.version).toBe(100);
  });

  it('lets the newest version win over both', async () => {
    await old.put('/file', prose(50, 'old'), { version: 100 });
    expect(await put('/file', 50, prose(50, 'older'))).toMatchObject({ version: 100, stored: false });
    expect(await read('/file')).toEqual(prose(50, 'old'));
    expect(await put('/file', 150, prose(50, 'newer'))).toMatchObject({ version: 150, stored: true });
    await old.put('/other', prose(50, 'old'), { version: 100 });
    const absent = {
      name: name('/other'),
      version: 200,
      claims: {},
      precondition: { kind: 'absent' },
    } as const;
    await store.beforePut(absent);
    await expect(store.put(absent, { source: prose(5), encoding: 'identity' })).rejects.toMatchObject({
      code: 'precondition-failed',
    });
  });

  it('keeps no upload slot while a put waits for the old server', async () => {
    const waits: ((version: undefined) => void)[] = [];
    const slow: OldServer = { ...oldServer, version: () => new Promise((resolve) => waits.push(resolve)) };
    const uploads = new UploadGate({
      uploadsMax: 1,
      freeSpaceMinBytes: 0,
      freeSpace: () => Promise.resolve(undefined),
      clock: systemClock,
    });
    await put('/here', 1, prose(50));
    const server = await openTestServer({ store: await openImporting(slow, uploads), uploads });
    for (const size of [100, 200_000]) {
      const waiting = server.put(`/waiting/${size}`, noise(size));
      await expect.poll(() => waits.length).toBe(1);
      expect((await server.put('/here', noise(size), { version: size })).status).toBe(200);
      expect(uploads.uploadCount).toBe(0);
      waits.pop()?.(undefined);
      expect((await waiting).status).toBe(200);
    }
  });

  it('reports errors of the old server as such', async () => {
    await old.server.close({ timeoutMs: 0 });
    await put('/here', 1, prose(50)).catch(() => undefined);
    await expect(read('/there')).rejects.toMatchObject({ code: 'unavailable', retryable: true });
    // Its address is for the log, not for who asked.
    await expect(read('/there')).rejects.toMatchObject({
      message: 'Cannot get "/there": the server that files are imported from cannot be reached',
      cause: { message: expect.stringContaining('127.0.0.1') as string },
    });
  });
});
