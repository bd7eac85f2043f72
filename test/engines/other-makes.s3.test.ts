import { describe, expect, it, onTestFinished } from 'vitest';
import { S3BlobStore } from '../../src/blobs/s3/s3-blob-store.ts';
import { MemoryCatalog } from '../support/doubles/memory-catalog.ts';
import { digestOf } from '../../src/core/digest.ts';
import { parseFileName } from '../../src/core/file-name.ts';
import { collected, noise } from '../support/contents.ts';
import { composed } from '../support/file-stores.ts';
import { present } from '../support/present.ts';
import { content, placedIn, setting, stagedIn } from '../support/proxied-s3.ts';
import { flipped, type S3Request } from '../support/s3-proxy.ts';
import { openFile } from '../../src/store/get.ts';

// What S3 servers of other makes do, or one that is unwell.

const mib = 1024 * 1024;

const ofObject = ({ path }: S3Request): boolean => path.split('/').length > 3;

describe('readiness', () => {
  it.each([
    ['GET', 403],
    ['GET', 500],
    ['PUT', 403],
    ['PUT', 500],
    ['DELETE', 500],
  ])('%s of objects answered with %d shows though lists are answered', async (method, status) => {
    const { proxy, blobs } = await setting();
    proxy.twist = (request) => (request.method === method && ofObject(request) ? { status } : undefined);
    await expect(blobs.probe()).rejects.toMatchObject({ code: 'unavailable' });
    proxy.twist = () => undefined;
    await blobs.probe();
  });

  it('writes anew after a failure of anything, and else not at each probe', async () => {
    const { proxy, blobs } = await setting();
    const writes = (): number => proxy.requests.filter(({ method }) => method === 'PUT').length;
    await Promise.all([blobs.probe(), blobs.probe()]);
    await blobs.probe();
    expect(writes()).toBe(1);
    const key = await placedIn(blobs);
    proxy.twist = ({ method }) => (method === 'GET' ? { status: 500 } : undefined);
    await expect(blobs.open(key)).rejects.toMatchObject({ code: 'unavailable' });
    proxy.twist = () => undefined;
    await blobs.probe();
    expect(writes()).toBe(3);
  });

  it('what a probe left behind is swept', async () => {
    const { proxy, blobs } = await setting();
    proxy.twist = ({ method }) => (method === 'DELETE' ? { status: 500 } : undefined);
    await expect(blobs.probe()).rejects.toMatchObject({ code: 'unavailable' });
    proxy.twist = () => undefined;
    expect(await blobs.sweepStaged(Date.now() + 60_000)).toBe(0);
    expect(proxy.requests.findLast(({ method }) => method === 'DELETE')?.path).toContain('/probe/');
  });
});

describe('answers without Content-Length', () => {
  it('are read to the size that was stored', async () => {
    const { proxy, blobs } = await setting();
    const key = await placedIn(blobs);
    proxy.twist = () => ({ withoutHeader: 'content-length' });
    const whole = present(await blobs.open(key, { storedSize: content.length }));
    expect((await collected(whole)).equals(content)).toBe(true);
    const range = { start: 10, length: 20 };
    const part = present(await blobs.open(key, { range, storedSize: content.length }));
    expect((await collected(part)).equals(content.subarray(10, 30))).toBe(true);
    expect(await blobs.size(key)).toBe(content.length);
  });

  it('fail where they end early', async () => {
    const { proxy, blobs } = await setting();
    const key = await placedIn(blobs);
    proxy.twist = () => ({ withoutHeader: 'content-length' });
    const stream = present(await blobs.open(key, { storedSize: content.length + 1 }));
    await expect(collected(stream)).rejects.toMatchObject({ code: 'damaged-blob' });
  });

  it('do not make a placed upload look empty', async () => {
    const { proxy, blobs } = await setting({ placedElsewhere: true });
    proxy.twist = ({ method }) => (method === 'HEAD' ? { withoutHeader: 'content-length' } : undefined);
    expect(await blobs.size(await placedIn(blobs))).toBe(content.length);
  });
});

describe('uploads', () => {
  it('are swept where a server lists those of one key or of the whole bucket alone', async () => {
    const { proxy, blobs, bucket } = await setting({ placedElsewhere: true });
    await stagedIn(blobs);
    proxy.twist = ({ query }) => {
      const prefix = query.get('prefix');
      if (!query.has('uploads') || prefix === null || /[0-9a-f]{32}$/.test(prefix)) return undefined;
      const empty =
        '<ListMultipartUploadsResult><IsTruncated>false</IsTruncated></ListMultipartUploadsResult>';
      return { body: () => Buffer.from(empty) };
    };
    const later = await S3BlobStore.open(bucket);
    onTestFinished(() => later.close());
    expect(await later.sweepStaged(Date.now() + 60_000)).toBe(1);
    expect(await later.sweepStaged(Date.now() + 60_000)).toBe(0);
  });

  it('that the server has dropped are worth another try', async () => {
    const { proxy, blobs } = await setting({ placedElsewhere: true });
    proxy.twist = ({ query }) =>
      query.has('partNumber') ? { status: 404, code: 'NoSuchUpload' } : undefined;
    await expect(stagedIn(blobs)).rejects.toMatchObject({ code: 'unavailable', retryable: true });
  });

  it('that are too large for the server are told to be', async () => {
    const { proxy, blobs } = await setting();
    proxy.twist = ({ method }) => (method === 'PUT' ? { status: 400, code: 'EntityTooLarge' } : undefined);
    await expect(placedIn(blobs)).rejects.toMatchObject({ code: 'too-large' });
  });

  it('go out in parts that follow from the announced size', async () => {
    const { proxy, blobs } = await setting();
    const upload = await blobs.stage({ announcedSize: 100 * 1024 * mib });
    await upload.write(noise(12 * mib, 'announced'));
    expect(await upload.seal()).toBe(12 * mib);
    const parts = proxy.requests.filter(({ query }) => query.has('partNumber'));
    expect(parts.map(({ headers }) => Number(headers['content-length']) / mib)).toEqual([11, 1]);
    await upload.discard();
  });
});

it('a whole content that differs in one bit never comes to its end, and is marked', async () => {
  const { proxy, blobs } = await setting();
  const catalog = new MemoryCatalog(blobs);
  const parts = composed(catalog, blobs, {}, async () => undefined);
  onTestFinished(() => parts.close());
  const small = noise(20_000, 'small');
  for (const [name, bytes] of [
    ['/large', content],
    ['/small', small],
  ] as const) {
    await parts.store.put(
      { name: parseFileName(name), version: 1, claims: {} },
      { source: bytes, encoding: 'identity' },
    );
  }
  proxy.twist = ({ method }) => (method === 'GET' ? { body: flipped } : undefined);
  const file = present(await openFile(parts.store, parseFileName('/large'), { form: 'stored' }));
  let arrived = 0;
  const read = async (): Promise<void> => {
    for await (const piece of file.body as AsyncIterable<Buffer>) arrived += piece.length;
  };
  await expect(read()).rejects.toMatchObject({ code: 'damaged-blob' });
  expect(arrived).toBeLessThan(content.length);
  expect((await catalog.findBlob(digestOf(content)))?.damaged).toBe(true);
  await expect(openFile(parts.store, parseFileName('/small'), { form: 'stored' })).rejects.toMatchObject({
    code: 'damaged-blob',
  });
});

it('addresses for others name the endpoint that they reach', async () => {
  const { blobs } = await setting({ publicEndpoint: 'https://files.example.org' });
  const key = await placedIn(blobs);
  expect(await blobs.presign(key, 60)).toMatch(/^https:\/\/files\.example\.org\/[^?]+\?.*X-Amz-Signature=/);
});
