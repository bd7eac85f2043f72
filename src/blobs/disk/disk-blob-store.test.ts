import { existsSync } from 'node:fs';
import { mkdir, readdir, readFile, truncate, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { collected, noise } from '../../../test/support/contents.ts';
import { present } from '../../../test/support/present.ts';
import { temporaryFolder } from '../../../test/support/temporary-folder.ts';
import { digestOf } from '../../core/digest.ts';
import { DiskBlobStore } from './disk-blob-store.ts';

const content = noise(2_000_000);
const digest = digestOf(content);

async function placed(store: DiskBlobStore): Promise<string> {
  const upload = await store.stage();
  await upload.write(content);
  await upload.seal();
  const [key = ''] = await store.place([{ stagedId: upload.stagedId, digest, encoding: 'identity' }]);
  return key;
}

describe('DiskBlobStore', () => {
  it('lays blobs out as the format says', async () => {
    const folder = await temporaryFolder();
    const store = await DiskBlobStore.open(folder);
    await placed(store);
    const upload = await store.stage();
    await upload.write(Buffer.from('zipped'));
    await upload.seal();
    expect(await readdir(join(folder, 'uploads'))).toEqual([upload.stagedId]);
    await store.place([{ stagedId: upload.stagedId, digest: digestOf(Buffer.from('x')), encoding: 'gzip' }]);
    const path = join(folder, 'blobs', digest.slice(0, 2), digest);
    expect((await readFile(path)).equals(content)).toBe(true);
    const digestOfX = digestOf(Buffer.from('x'));
    expect(await readFile(join(folder, 'blobs', digestOfX.slice(0, 2), `${digestOfX}.gz`), 'utf8')).toBe(
      'zipped',
    );
    expect(await readdir(join(folder, 'uploads'))).toEqual([]);
  });

  it('takes nothing for a path that has not the form of a key', async () => {
    const folder = await temporaryFolder();
    const store = await DiskBlobStore.open(folder);
    await writeFile(join(folder, 'secret'), 'secret');
    const bad = ['../../secret', `../${digest}`, digest.toUpperCase(), `${digest}.xz`, '', digest.slice(1)];
    for (const key of bad) {
      await expect(store.open(key)).rejects.toMatchObject({ code: 'invalid-argument' });
      await expect(store.size(key)).rejects.toMatchObject({ code: 'invalid-argument' });
      await expect(store.discard(key)).rejects.toMatchObject({ code: 'invalid-argument' });
      const placement = {
        stagedId: '0'.repeat(24),
        digest: key as typeof digest,
        encoding: 'identity',
      } as const;
      await expect(store.place([placement])).rejects.toMatchObject({ code: 'invalid-argument' });
    }
    await expect((async () => await store.remove(['../../secret']))()).rejects.toMatchObject({
      code: 'invalid-argument',
    });
    expect(existsSync(join(folder, 'secret'))).toBe(true);
    expect(await readdir(folder)).toEqual(['blobs', 'secret', 'uploads']);
    expect(await readdir(join(folder, 'blobs'))).toEqual([]);
  });

  it('gives what is open though the blob is removed and its place taken', async () => {
    const store = await DiskBlobStore.open(await temporaryFolder());
    const key = await placed(store);
    const stream = await store.open(key);
    await store.remove([key]);
    expect((await collected(present(stream))).equals(content)).toBe(true);
  });

  it('fails with damaged-blob when the file becomes shorter while it is read', async () => {
    const folder = await temporaryFolder();
    const store = await DiskBlobStore.open(folder);
    const key = await placed(store);
    const stream = await store.open(key);
    let readBytes = 0;
    const reading = (async () => {
      for await (const chunk of present(stream)) {
        readBytes += (chunk as Buffer).length;
        await truncate(join(folder, 'blobs', digest.slice(0, 2), digest), 1_000_000);
      }
    })();
    await expect(reading).rejects.toMatchObject({ code: 'damaged-blob' });
    expect(readBytes).toBeLessThan(content.length);
  });

  it('closes its files when streams are given up', async () => {
    const store = await DiskBlobStore.open(await temporaryFolder());
    const key = await placed(store);
    const openFiles = async (): Promise<number> => (await readdir('/proc/self/fd')).length;
    const before = await openFiles();
    for (let round = 0; round < 20; round += 1) {
      const stream = await store.open(key);
      stream?.read();
      stream?.destroy();
      await new Promise((resolve) => stream?.once('close', resolve));
    }
    expect(await openFiles()).toBeLessThanOrEqual(before + 1);
  });

  it('sweeps nothing from the folder of uploads that no upload is named like', async () => {
    const folder = await temporaryFolder();
    const store = await DiskBlobStore.open(folder);
    const upload = await store.stage();
    await upload.write(content);
    await upload.seal();
    await writeFile(join(folder, 'uploads', 'holiday.jpg'), 'of a user who has a folder of this name');
    expect(await store.sweepStaged(Date.now() + 60_000)).toBe(1);
    expect(await readdir(join(folder, 'uploads'))).toEqual(['holiday.jpg']);
  });

  it('passes over what is not a blob when it lists', async () => {
    const folder = await temporaryFolder();
    const store = await DiskBlobStore.open(folder);
    await placed(store);
    await mkdir(join(folder, 'blobs', 'zz'));
    await writeFile(join(folder, 'blobs', digest.slice(0, 2), 'notes.txt'), '');
    await mkdir(join(folder, 'blobs', '00'), { recursive: true });
    await writeFile(join(folder, 'blobs', '00', `ff${digest.slice(2)}`), 'in the wrong folder');
    const keys = [];
    for await (const blob of store.list()) keys.push(blob.key);
    expect(keys).toEqual([digest]);
  });
});
