import { cp, mkdir, open, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { afterEach, describe, expect, it, vi } from 'vitest';
import { IndexDatabase } from '../../src/catalog/lmdb/index/database.ts';
import { parseFileName } from '../../src/core/file-name.ts';
import { contentOf } from '../support/proof/history.ts';
import { EmbeddedStore } from '../support/embedded-store.ts';
import { temporaryFolder } from '../support/temporary-folder.ts';

// A change is durable in the journal before the index takes it. Where the index cannot, its sender is told that it was
// not made, and so it must not be made later: not when the index can be written again, and not at the next start.

/** Longer than the pause in which an index that could not be written is not tried again. */
const untilTriedAgainMs = 600;
const contents = [contentOf('2000-small'), contentOf('90000-large')];

function failIndexOnce(): void {
  vi.spyOn(IndexDatabase.prototype, 'apply').mockImplementationOnce(() => {
    throw new Error('the index cannot be written');
  });
}

/** A write that wipes a record out: of zeros, and shorter than those that fill a segment ahead of its end. */
function wipes(bytes: Buffer): boolean {
  return bytes.length < 100_000 && bytes.every((byte) => byte === 0);
}

/** Lets what wipes the journal fail, and where `truncation` the cutting of it too, until the mocks are restored. */
async function failWiping(folder: string, truncation: boolean): Promise<void> {
  const file = await open(join(folder, 'any'), 'w');
  const files = Object.getPrototypeOf(file) as {
    write(this: void, bytes: Buffer, ...rest: readonly number[]): Promise<unknown>;
    truncate(size: number): Promise<void>;
  };
  await file.close();
  const failure = Object.assign(new Error('EIO: i/o error'), { code: 'EIO' });
  const { write } = files;
  vi.spyOn(files, 'write').mockImplementation(function (this: unknown, bytes, ...rest) {
    return wipes(bytes) ? Promise.reject(failure) : Reflect.apply(write, this, [bytes, ...rest]);
  });
  if (truncation) vi.spyOn(files, 'truncate').mockRejectedValueOnce(failure);
}

/** What a process finds that goes on after a kill at this moment, with the index made anew. */
async function afterKill(store: EmbeddedStore): Promise<EmbeddedStore> {
  const folder = join(await temporaryFolder(), 'copy');
  await mkdir(folder);
  for (const part of ['journal', 'blobs', 'uploads']) {
    await cp(join(store.folder, part), join(folder, part), {
      recursive: true,
      filter: (path) => !path.endsWith('.sock'),
    });
  }
  await rm(join(folder, 'journal', 'lock'), { force: true });
  return EmbeddedStore.open(folder);
}

async function isStored(store: EmbeddedStore, path: string, content: Buffer): Promise<boolean> {
  const found = await store.read(path);
  return Buffer.isBuffer(found) && found.equals(content);
}

afterEach(() => {
  vi.restoreAllMocks();
});

describe('a change that the index could not take', () => {
  it.each(contents)('is not made when the index can be written again (%#)', async (content) => {
    await using store = await EmbeddedStore.open(join(await temporaryFolder(), 'store'));
    await store.put('/kept', 1, Buffer.from('kept'));
    await store.put('/removed', 1, Buffer.from('removed'));
    failIndexOnce();
    const refused = await Promise.allSettled([
      store.put('/refused', 1, content),
      store.put('/kept', 2, content),
      store.catalog.remove({ name: parseFileName('/removed'), version: 1 }),
    ]);
    const codes = refused.map((one) =>
      one.status === 'rejected' ? (one.reason as { code: string }).code : 'made',
    );
    expect(codes).toContain('unavailable');
    await delay(untilTriedAgainMs);
    await store.put('/later', 1, Buffer.from('later'));
    for (const [at, path] of ['/refused', '/kept', '/removed'].entries()) {
      if (codes[at] === 'made') continue;
      expect(await isStored(store, path, path === '/refused' ? content : Buffer.from(path.slice(1)))).toBe(
        path !== '/refused',
      );
    }
    await using next = await afterKill(store);
    expect(await isStored(next, '/later', Buffer.from('later'))).toBe(true);
    for (const path of ['/refused', '/kept', '/removed']) {
      const name = parseFileName(path);
      expect((await next.catalog.find(name))?.entry).toEqual((await store.catalog.find(name))?.entry);
    }
  });

  it('is not made at the next start, and can be made again', async () => {
    const folder = join(await temporaryFolder(), 'store');
    for (const content of contents) {
      await using store = await EmbeddedStore.open(folder);
      failIndexOnce();
      await expect(store.put('/a', 1, content)).rejects.toMatchObject({ code: 'unavailable' });
      {
        await using next = await afterKill(store);
        expect(await next.catalog.find(parseFileName('/a'))).toBeUndefined();
      }
      await delay(untilTriedAgainMs);
      await store.put('/a', 1, content);
      expect(await isStored(store, '/a', content)).toBe(true);
      await store.catalog.remove({ name: parseFileName('/a'), version: 1 });
    }
  });

  it.each([
    { truncation: false, told: 'Cannot change the catalog: its index cannot be written' },
    { truncation: true, told: expect.stringContaining('Cannot determine whether the change was made') },
  ])('is not made by what follows where wiping it out fails, %o', async ({ truncation, told }) => {
    await using store = await EmbeddedStore.open(join(await temporaryFolder(), 'store'));
    await store.put('/before', 1, Buffer.from('before'));
    failIndexOnce();
    await failWiping(store.folder, truncation);
    const refused = store.put('/a', 1, contentOf('2000-small'));
    await expect(refused).rejects.toMatchObject({ code: 'unavailable', message: told });
    vi.restoreAllMocks();
    await delay(untilTriedAgainMs);
    await store.put('/after', 1, Buffer.from('after'));
    expect(await store.catalog.find(parseFileName('/a'))).toBeUndefined();
    await using next = await afterKill(store);
    expect(await next.catalog.find(parseFileName('/a'))).toBeUndefined();
    expect(await isStored(next, '/after', Buffer.from('after'))).toBe(true);
  });
});
