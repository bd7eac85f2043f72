import { existsSync } from 'node:fs';
import { mkdir, writeFile } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { expect, it, vi } from 'vitest';
import { temporaryFolder } from '../support/temporary-folder.ts';
import { digestOf } from '../../src/core/digest.ts';
import { DiskBlobStore } from '../../src/blobs/disk/disk-blob-store.ts';

const keys = ['fails', 'is slow'].map((text) => digestOf(Buffer.from(text)));
const [failing = '', slow = ''] = keys;

// A disk on which one removal fails at once and another takes its time.
vi.mock(import('node:fs/promises'), async (importOriginal) => {
  const original = await importOriginal();
  const unlink = async (path: Parameters<typeof original.unlink>[0]): Promise<void> => {
    if (String(path).endsWith(failing)) throw Object.assign(new Error('EIO: i/o error'), { code: 'EIO' });
    if (String(path).endsWith(slow)) await delay(100);
    await original.unlink(path);
  };
  return { ...original, unlink };
});

it('DiskBlobStore.remove() has ended with all when it rejects, so that it takes nothing that is placed after it', async () => {
  const folder = await temporaryFolder();
  const pathOf = (key: string): string => join(folder, 'blobs', key.slice(0, 2), key);
  const store = await DiskBlobStore.open(folder);
  for (const key of keys) {
    await mkdir(dirname(pathOf(key)), { recursive: true });
    await writeFile(pathOf(key), 'unnamed');
  }
  await expect(store.remove(keys)).rejects.toMatchObject({ code: 'io' });
  const upload = await store.stage();
  await upload.write(Buffer.from('is slow'));
  await upload.seal();
  await store.place([
    { stagedId: upload.stagedId, digest: digestOf(Buffer.from('is slow')), encoding: 'identity' },
  ]);
  await delay(200);
  expect(existsSync(pathOf(slow))).toBe(true);
});
