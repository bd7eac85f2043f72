import { constants, writeSync } from 'node:fs';
import { cp, mkdir, open, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { afterEach, describe, expect, it, vi } from 'vitest';
import { IndexDatabase } from '../../src/catalog/lmdb/index/database.ts';
import { digestOf } from '../../src/core/digest.ts';
import { parseFileName } from '../../src/core/file-name.ts';
import { contentOf } from '../support/proof/history.ts';
import { EmbeddedStore } from '../support/embedded-store.ts';
import { temporaryFolder } from '../support/temporary-folder.ts';

// The journal may hold a change of which the index does not know: one that the index could not take, or one whose
// write has failed and could not be taken back. What such a change names must not be collected as unnamed.

/** Longer than the pause in which an index that could not be written is not tried again. */
const untilTriedAgainMs = 600;
const later = Number.MAX_SAFE_INTEGER;
const contents = [
  { where: 'in the journal', content: contentOf('2000-small') },
  { where: 'in the blob store', content: contentOf('90000-large') },
];

/** A store with a content that no entry names, and that a put may still name. */
async function storeWithUnnamed(content: Buffer): Promise<EmbeddedStore> {
  const store = await EmbeddedStore.open(join(await temporaryFolder(), 'store'));
  await store.put('/before', 1, content);
  await store.catalog.remove({ name: parseFileName('/before'), version: 1 });
  return store;
}

async function isRead(store: EmbeddedStore, content: Buffer): Promise<boolean> {
  const found = await store.read('/after');
  return Buffer.isBuffer(found) && found.equals(content);
}

/** A put of a content that is stored already, as the server makes it: the record does not carry the content. */
async function putStored(store: EmbeddedStore, path: string, content: Buffer): Promise<unknown> {
  const digest = digestOf(content);
  const blob = await store.catalog.findBlob(digest);
  if (blob === undefined) return undefined;
  const { logicalSize, storedSize, encoding } = blob;
  const change = { name: parseFileName(path), version: 1, digest, logicalSize, storedSize, encoding };
  return store.catalog.put({ ...change, content: { kind: 'stored' } });
}

/** How the journal uses an open file. */
interface JournalFile {
  readonly fd: number;
  write(bytes: Buffer, at: number, size: number, position: number): Promise<unknown>;
  truncate(size: number): Promise<void>;
}

/** Lets the next write of the journal be carried out and fail, and then its removal fail too. */
async function failJournalOnce(folder: string): Promise<void> {
  const file = await open(join(folder, 'any'), constants.O_CREAT | constants.O_RDWR);
  const files = Object.getPrototypeOf(file) as JournalFile;
  await file.close();
  const failure = Object.assign(new Error('EIO: i/o error'), { code: 'EIO' });
  vi.spyOn(files, 'write').mockImplementationOnce(function (this: JournalFile, bytes, at, size, position) {
    writeSync(this.fd, bytes, at, size, position);
    return Promise.reject(failure);
  });
  vi.spyOn(files, 'truncate').mockRejectedValueOnce(failure);
}

afterEach(() => {
  vi.restoreAllMocks();
});

describe('what is collected', () => {
  it.each(contents)(
    'is not what a change names that the index could not take, $where',
    async ({ content }) => {
      await using store = await storeWithUnnamed(content);
      vi.spyOn(IndexDatabase.prototype, 'apply').mockImplementationOnce(() => {
        throw new Error('the index cannot be written');
      });
      // As after a write of LMDB's that failed and may have been carried out.
      vi.spyOn(IndexDatabase.prototype, 'isAsApplied', 'get').mockReturnValueOnce(false);
      await expect(putStored(store, '/after', content)).rejects.toMatchObject({ code: 'unavailable' });
      await store.catalog.collect([digestOf(content)], later).catch(() => []);
      await delay(untilTriedAgainMs);
      await store.put('/other', 1, Buffer.from('brings the index up to the journal'));
      expect(await store.catalog.find(parseFileName('/after'))).toBeDefined();
      expect(await isRead(store, content)).toBe(true);
    },
  );

  it.each(contents)('is not what a change names that may yet be read back, $where', async ({ content }) => {
    await using store = await storeWithUnnamed(content);
    await failJournalOnce(store.folder);
    await expect(putStored(store, '/after', content)).rejects.toMatchObject({ code: 'unavailable' });
    await store.catalog.collect([digestOf(content)], later).catch(() => []);
    // What a process that goes on after a kill at this moment finds; the index of a copy is made anew.
    const folder = join(await temporaryFolder(), 'copy');
    await mkdir(folder);
    for (const part of ['journal', 'blobs', 'uploads']) {
      await cp(join(store.folder, part), join(folder, part), {
        recursive: true,
        filter: (path) => !path.endsWith('.sock'),
      });
    }
    await rm(join(folder, 'journal', 'lock'), { force: true });
    await using next = await EmbeddedStore.open(folder);
    const found = await next.catalog.find(parseFileName('/after'));
    if (found !== undefined) expect(await isRead(next, content)).toBe(true);
  });
});
