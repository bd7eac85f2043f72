import { onTestFinished } from 'vitest';
import { S3BlobStore, type S3BlobStoreOptions } from '../../src/blobs/s3/s3-blob-store.ts';
import { digestOf } from '../../src/core/digest.ts';
import { noise } from './contents.ts';
import { freshBucket, s3Endpoint } from './engines.ts';
import { present } from './present.ts';
import { S3Proxy } from './s3-proxy.ts';

export const content = noise(300_000, 'behind a proxy');
const placement = { digest: digestOf(content), encoding: 'identity' } as const;

/** A store in a bucket of its own, behind a proxy that can behave otherwise than the server does. */
export async function setting(options: Partial<S3BlobStoreOptions> = {}) {
  const proxy = await S3Proxy.open(s3Endpoint());
  const bucket = { ...freshBucket(), endpoint: proxy.url, timeoutMs: 5_000, ...options };
  const blobs = await S3BlobStore.open(bucket);
  onTestFinished(() => blobs.close());
  return { proxy, blobs, bucket };
}

export async function stagedIn(blobs: S3BlobStore, bytes = content): Promise<string> {
  const upload = await blobs.stage();
  await upload.write(Buffer.from(bytes));
  await upload.seal();
  return upload.stagedId;
}

export async function place(blobs: S3BlobStore, stagedId: string): Promise<string> {
  return present((await blobs.place([{ stagedId, ...placement }]))[0]);
}

export async function placedIn(blobs: S3BlobStore, bytes = content): Promise<string> {
  return place(blobs, await stagedIn(blobs, bytes));
}
