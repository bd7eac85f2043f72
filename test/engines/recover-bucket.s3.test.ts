import { GetObjectCommand, PutObjectCommand, S3Client } from '@aws-sdk/client-s3';
import { mkdir, readFile, rm } from 'node:fs/promises';
import { basename, join } from 'node:path';
import { beforeEach, describe, expect, it, onTestFinished } from 'vitest';
import { S3BlobStore } from '../../src/blobs/s3/s3-blob-store.ts';
import { compareIndexes } from '../../src/catalog/lmdb/index/comparison.ts';
import { LmdbCatalog } from '../../src/catalog/lmdb/lmdb-catalog.ts';
import { digestOf } from '../../src/core/digest.ts';
import { BucketBlobs, type BucketBlobsOptions } from '../../src/maintenance/recovery/bucket-blobs.ts';
import type { RecoverFolderOptions } from '../../src/maintenance/recovery/recover-folder.ts';
import { noise, prose } from '../support/contents.ts';
import { s3Credentials } from '../support/engine-names.ts';
import { freshBucket } from '../support/engines.ts';
import { composed, put, read, type FileStoreParts } from '../support/file-stores.ts';
import { present } from '../support/present.ts';
import { Program } from '../support/program.ts';
import { temporaryFolder } from '../support/temporary-folder.ts';
import { recoverFolder, type FolderReport } from '../support/recovery.ts';

// Recovery of a store with an embedded catalog and its contents in a bucket.

const files = new Map<string, Buffer>([
  ['/small', prose(300, 'small')],
  ...[0, 1, 2, 3].map((index) => [`/large/${index}`, noise(40_000 + index, `large ${index}`)] as const),
  ['/again', noise(40_000, 'large 0')],
]);

let folder: string;
let bucket: ReturnType<typeof freshBucket>;

beforeEach(async () => {
  folder = join(await temporaryFolder(), 'store');
  await mkdir(folder);
  bucket = freshBucket();
  const parts = await opened();
  for (const [name, bytes] of files) await put(parts.store, name, 5, bytes);
  await parts.close();
});

async function opened(): Promise<FileStoreParts & { readonly blobs: S3BlobStore }> {
  const blobs = await S3BlobStore.open(bucket);
  const folders = { journal: join(folder, 'journal'), catalog: join(folder, 'catalog') };
  const catalog = await LmdbCatalog.open({ folders, placer: blobs });
  return { ...composed(catalog, blobs, {}, async () => undefined), blobs };
}

async function recover(
  options: Partial<RecoverFolderOptions> & BucketBlobsOptions & { readonly prefix?: string } = {},
): Promise<FolderReport> {
  const { orphanAgeMs = -60_000, acceptLoss, prefix = bucket.prefix, ...rest } = options;
  const blobs = await S3BlobStore.open({ ...bucket, prefix, placedElsewhere: true });
  const place = new BucketBlobs(blobs, { orphanAgeMs, acceptLoss });
  try {
    return await recoverFolder(folder, { compare: compareIndexes, place, ...rest });
  } finally {
    await place[Symbol.asyncDispose]();
  }
}

async function keysAt(prefix = bucket.prefix): Promise<string[]> {
  const blobs = await S3BlobStore.open({ ...bucket, prefix });
  onTestFinished(() => blobs.close());
  const keys: string[] = [];
  for await (const { key } of blobs.list()) keys.push(key);
  return keys.sort();
}

async function keyOf({ catalog }: FileStoreParts, name: string): Promise<string> {
  const found = await catalog.findBlob(digestOf(present(files.get(name))));
  if (found?.location.kind !== 'object') throw new Error('It is not in the bucket');
  return found.location.key;
}

/** Does something with the store behind the back of its catalog. */
async function behind<Result>(
  step: (parts: FileStoreParts & { readonly blobs: S3BlobStore }) => Promise<Result>,
): Promise<Result> {
  const parts = await opened();
  try {
    return await step(parts);
  } finally {
    await parts.close();
  }
}

async function placeStray(blobs: S3BlobStore, bytes: Buffer): Promise<string> {
  const upload = await blobs.stage();
  const { stagedId } = upload;
  await upload.write(Buffer.from(bytes));
  await upload.seal();
  return present((await blobs.place([{ stagedId, digest: digestOf(bytes), encoding: 'identity' }]))[0]);
}

async function checkFiles(lost: readonly string[] = []): Promise<void> {
  const parts = await opened();
  for (const [name, bytes] of files) {
    const reading = read(parts.store, name);
    if (lost.includes(name)) await expect(reading, name).rejects.toMatchObject({ code: 'damaged-blob' });
    else expect((await reading)?.equals(bytes), name).toBe(true);
  }
  await parts.close();
}

const actionsOf = ({ actions }: FolderReport): string[] => actions.map(({ action }) => action);

describe('recoverFolder() with blobs in a bucket', () => {
  it('finds nothing to do in an intact store, and changes nothing', async () => {
    const before = await keysAt();
    for (const full of [false, true]) {
      const report = await recover({ full });
      expect(report).toMatchObject({ actionCount: 0, damagedFileCount: 0, notes: [], entries: 6 });
    }
    expect(await keysAt()).toEqual(before);
    await checkFiles();
  });

  it('rebuilds the catalog from the journal', async () => {
    await rm(join(folder, 'catalog'), { recursive: true });
    expect(actionsOf(await recover({ dryRun: true }))).toEqual(['rebuild-catalog']);
    expect(actionsOf(await recover())).toEqual(['rebuild-catalog']);
    expect((await recover({ full: true })).actions).toEqual([]);
    await checkFiles();
  });

  it('marks missing and damaged blobs, moves damaged bytes aside, and accepts intact ones again', async () => {
    const wrong = noise(40_001, 'other bytes of that size');
    const [gone, changed] = await behind(async (parts) => {
      const keys = [await keyOf(parts, '/large/0'), await keyOf(parts, '/large/1')] as const;
      await parts.blobs.remove([keys[0]]);
      await overwrite(keys[1], wrong);
      return keys;
    });
    const quick = await recover({ dryRun: true });
    expect(actionsOf(quick)).toEqual(['mark-damaged']);
    const report = await recover({ full: true });
    expect(actionsOf(report).sort()).toEqual(['mark-damaged', 'mark-damaged', 'quarantine-blob']);
    expect(report.damagedFiles.map(({ name }) => name)).toEqual(['/again', '/large/0', '/large/1']);
    const quarantine = present(report.quarantine);
    expect(await readFile(join(quarantine, 'report.txt'), 'utf8')).toContain(changed);
    expect((await recover({ full: true })).actions).toEqual([]);
    await checkFiles(['/again', '/large/0', '/large/1']);
    expect(await keysAt()).not.toContain(changed);
    expect((await aside(quarantine, changed)).equals(wrong)).toBe(true);

    // Under the key that was named, or under any other.
    await behind(async ({ blobs }) => {
      await overwrite(gone, present(files.get('/large/0')));
      await placeStray(blobs, present(files.get('/large/1')));
    });
    expect(actionsOf(await recover())).toEqual(['mend-blob', 'mend-blob']);
    expect((await recover({ full: true })).actions).toEqual([]);
    await checkFiles();
  });

  it('moves orphans within the bucket, and aborts uploads', async () => {
    const bytes = noise(9 * 1024 * 1024, 'stray');
    const stray = await behind(({ blobs }) => placeStray(blobs, bytes));
    const staging = await S3BlobStore.open({ ...bucket, placedElsewhere: true });
    onTestFinished(() => staging.close());
    const upload = await staging.stage();
    await upload.write(noise(20_000, 'unfinished'));
    await upload.seal();
    expect((await recover({ orphanAgeMs: 3_600_000 })).actions).toEqual([]);
    const report = await recover();
    expect(actionsOf(report)).toEqual(['quarantine-stray', 'remove-upload']);
    expect(report.actions.map(({ target }) => target)).toEqual([stray, upload.stagedId]);
    expect((await aside(present(report.quarantine), stray)).equals(bytes)).toBe(true);
    expect((await recover()).actions).toEqual([]);
    await checkFiles();
  });

  it('leaves the objects of another store alone', async () => {
    const before = await keysAt();
    folder = join(folder, '../other');
    const parts = await opened();
    await put(parts.store, '/a', 1, Buffer.from('a'));
    await parts.close();
    const report = await recover();
    expect(report).toMatchObject({ actions: [], notes: [expect.stringContaining('--accept-loss')] });
    expect(await keysAt()).toEqual(before);
    expect(actionsOf(await recover({ acceptLoss: true }))).toHaveLength(before.length);
    expect(await keysAt()).toEqual([]);
  });

  it('marks nothing if there is no object at all, or if the blobs are elsewhere', async () => {
    await expect(recover({ prefix: 'nowhere/' })).rejects.toMatchObject({ code: 'corrupt-store' });
    await expect(recoverFolder(folder, { compare: compareIndexes })).rejects.toThrow(
      'it has them in a bucket',
    );
    await checkFiles();
    expect((await recover({ prefix: 'nowhere/', acceptLoss: true })).damagedFileCount).toBe(5);
    expect(actionsOf(await recover())).toEqual(Array.from({ length: 4 }, () => 'mend-blob'));
    await checkFiles();
  });

  it('is what the program does with DIR,s3://…', async () => {
    await behind(async (parts) => parts.blobs.remove([await keyOf(parts, '/large/2')]));
    const program = (...args: string[]) =>
      new Program('filetracker-recover', {
        args: [`${folder},s3://${bucket.bucket}/${bucket.prefix}`, '--s3-endpoint', bucket.endpoint, ...args],
        environment: {
          AWS_ACCESS_KEY_ID: s3Credentials.accessKeyId,
          AWS_SECRET_ACCESS_KEY: s3Credentials.secretAccessKey,
          NODE_NO_WARNINGS: '1',
        },
      }).ended();
    const looked = await program('--dry-run', '--json');
    expect(looked.code).toBe(1);
    expect(JSON.parse(looked.output)).toMatchObject({ dryRun: true, actionCount: 1, damagedFileCount: 1 });
    const mended = await program('-f');
    expect(mended).toMatchObject({ code: 1, output: expect.stringContaining('/large/2@5') });
    expect(await program('-f')).toMatchObject({ output: expect.stringContaining('nothing to do') });
    await checkFiles(['/large/2']);
  });
});

async function withClient<Result>(step: (client: S3Client) => Promise<Result>): Promise<Result> {
  const { endpoint, credentials } = bucket;
  const client = new S3Client({ endpoint, credentials, region: 'us-east-1', forcePathStyle: true });
  try {
    return await step(client);
  } finally {
    client.destroy();
  }
}

/** What the quarantine of a recovery holds in the bucket. */
function aside(quarantineFolder: string, key: string): Promise<Buffer> {
  const Key = `${bucket.prefix}quarantine/${basename(quarantineFolder)}/${key}`;
  return withClient(async (client) => {
    const { Body } = await client.send(new GetObjectCommand({ Bucket: bucket.bucket, Key }));
    return Buffer.from(await present(Body).transformToByteArray());
  });
}

async function overwrite(key: string, bytes: Buffer): Promise<void> {
  const Key = `${bucket.prefix}blobs/${key}`;
  await withClient((client) =>
    client.send(new PutObjectCommand({ Bucket: bucket.bucket, Key, Body: bytes })),
  );
}
