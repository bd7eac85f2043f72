import { describe, expect, it, onTestFinished } from 'vitest';
import { S3BlobStore } from '../../src/blobs/s3/s3-blob-store.ts';
import { collected, noise } from '../support/contents.ts';
import { present } from '../support/present.ts';
import { content, place, placedIn, setting, stagedIn } from '../support/proxied-s3.ts';
import type { S3Request } from '../support/s3-proxy.ts';

// What the protocol leaves open, or servers do otherwise than it says: nothing may rest on one server's way.

const mib = 1024 * 1024;

async function expectContent(blobs: S3BlobStore, key: string): Promise<void> {
  expect((await collected(present(await blobs.open(key)))).equals(content)).toBe(true);
}

const completes = ({ method, query }: S3Request): boolean => method === 'POST' && query.has('uploadId');
const lists = ({ query }: S3Request): boolean => query.has('list-type');

/** Answers the first such request in some way, and leaves the others alone. */
function once<Answer>(
  matches: (request: S3Request) => boolean,
  answer: Answer,
): (request: S3Request) => Answer | undefined {
  let done = false;
  return (request) => {
    if (done || !matches(request)) return undefined;
    done = true;
    return answer;
  };
}

it('a bucket that is not there is never taken for one whose objects are gone', async () => {
  const { blobs } = await setting({ bucket: 'filetracker-no-such-bucket' });
  const key = 'a'.repeat(32);
  const missing = { code: 'unavailable', message: expect.stringContaining('there is no such bucket') };
  await expect(blobs.size(key)).rejects.toMatchObject(missing);
  await expect(blobs.open(key)).rejects.toMatchObject(missing);
  await expect(blobs.probe()).rejects.toMatchObject(missing);
  await expect(blobs.remove([key])).rejects.toMatchObject(missing);
  await expect(collectedKeys(blobs)).rejects.toMatchObject(missing);
  await expect(placedIn(blobs)).rejects.toMatchObject(missing);
});

async function collectedKeys(blobs: S3BlobStore): Promise<string[]> {
  const keys: string[] = [];
  for await (const { key } of blobs.list()) keys.push(key);
  return keys;
}

describe('reading', () => {
  it('cuts a range out of a whole content, where a server gives that', async () => {
    const { proxy, blobs } = await setting();
    const key = await placedIn(blobs);
    proxy.twist = () => ({ status: 200, content });
    for (const [start, length] of [
      [0, 10],
      [70_000, 100_000],
      [299_990, 500],
    ] as const) {
      const stream = await blobs.open(key, { range: { start, length }, storedSize: content.length });
      const bytes = await collected(present(stream));
      expect(bytes.equals(content.subarray(start, start + length))).toBe(true);
    }
  });

  it('does not believe that an object is gone, if a second question says otherwise', async () => {
    const { proxy, blobs } = await setting();
    const key = await placedIn(blobs);
    proxy.twist = ({ method }) => (method === 'GET' ? { status: 404 } : undefined);
    await expect(blobs.open(key)).rejects.toMatchObject({ code: 'unavailable', retryable: true });
  });
});

describe('putting parts together', () => {
  it.each([
    ['answered with 200 and an error', { status: 200, code: 'InternalError' }],
    ['answered with 500', { status: 500, code: 'InternalError' }],
    ['done, and answered with 500', { status: 500, code: 'InternalError', passed: true }],
    ['done, and the repetition refused', { status: 400, code: 'InvalidRequest', passed: true }],
    ['done, and answered with nothing', { status: 200, passed: true }],
  ])('%s once: the object is there', async (_, answer) => {
    const { proxy, blobs } = await setting({ placedElsewhere: true });
    const stagedId = await stagedIn(blobs);
    proxy.twist = once(completes, answer);
    await expectContent(blobs, await place(blobs, stagedId));
  });

  it('answered with 200 and an error each time is no success', async () => {
    const { proxy, blobs } = await setting({ placedElsewhere: true });
    const stagedId = await stagedIn(blobs);
    proxy.twist = (request) => (completes(request) ? { status: 200, code: 'InternalError' } : undefined);
    await expect(place(blobs, stagedId)).rejects.toMatchObject({ code: 'unavailable', retryable: true });
    expect(await collectedKeys(blobs)).toEqual([]);
    proxy.twist = () => undefined;
    await expectContent(blobs, await place(blobs, stagedId));
  });

  it('by another process ends, though a server tells where a list that is at its end would go on', async () => {
    const { proxy, blobs, bucket } = await setting({ placedElsewhere: true });
    const stagedId = await stagedIn(blobs);
    const marker = '<IsTruncated>false</IsTruncated><NextPartNumberMarker>1</NextPartNumberMarker>';
    const asked = ({ method, query }: S3Request): boolean => method === 'GET' && query.has('uploadId');
    proxy.twist = (request) => (asked(request) ? { body: (bytes) => withMarker(bytes, marker) } : undefined);
    const other = await S3BlobStore.open(bucket);
    onTestFinished(() => other.close());
    await expectContent(other, await place(other, stagedId));
    expect(proxy.requests.filter(asked)).toHaveLength(1);
  });

  it('by another process fails in time, in words of ours, where its parts cannot be listed', async () => {
    const { proxy, blobs, bucket } = await setting({ placedElsewhere: true });
    const stagedId = await stagedIn(blobs);
    proxy.twist = ({ method, query }) =>
      method === 'GET' && query.has('uploadId') ? { status: 503, code: 'SlowDown' } : undefined;
    const other = await S3BlobStore.open(bucket);
    onTestFinished(() => other.close());
    await expect(place(other, stagedId)).rejects.toMatchObject({ code: 'unavailable', retryable: true });
  });
});

function withMarker(bytes: Buffer, marker: string): Buffer {
  const text = bytes
    .toString()
    .replace(/<IsTruncated>.*?<\/IsTruncated>/, '')
    .replace(/<NextPartNumberMarker>.*?<\/NextPartNumberMarker>/, '');
  return Buffer.from(text.replace('</ListPartsResult>', `${marker}</ListPartsResult>`));
}

describe('lists', () => {
  /** A list of three objects, one a page. */
  const keys = ['1', '2', '3'].map((digit) => digit.repeat(32));
  const page = (prefix: string, after: string | null, more: string): Buffer => {
    const at = keys.findIndex((key) => after === null || `${prefix}${key}` > after);
    const key = keys[at] ?? '';
    const time = '<LastModified>2026-01-01T00:00:00Z</LastModified>';
    const found = `<Contents><Key>${prefix}${key}</Key><Size>1</Size>${time}</Contents>`;
    const isLast = at === keys.length - 1;
    const end = isLast ? '<IsTruncated>false</IsTruncated>' : more;
    return Buffer.from(`<ListBucketResult>${found}${end}</ListBucketResult>`);
  };

  it('go on behind the last key, where a server gives no token', async () => {
    const { proxy, blobs } = await setting();
    proxy.twist = ({ query }) => ({
      body: () =>
        page(query.get('prefix') ?? '', query.get('start-after'), '<IsTruncated>true</IsTruncated>'),
    });
    expect(await collectedKeys(blobs)).toEqual(keys);
  });

  it('go on by a token, where a server does not say that there is more', async () => {
    const { proxy, blobs } = await setting();
    proxy.twist = ({ query }) => {
      const prefix = query.get('prefix') ?? '';
      const after = query.get('continuation-token');
      const place = keys.find((key) => after === null || `${prefix}${key}` > after) ?? '';
      const more = `<NextContinuationToken>${prefix}${place}</NextContinuationToken>`;
      return { body: () => page(prefix, after, more) };
    };
    expect(await collectedKeys(blobs)).toEqual(keys);
  });

  it('that stand still are no whole ones', async () => {
    const { proxy, blobs } = await setting();
    // As a server does that knows the first version of lists alone.
    proxy.twist = ({ query }) => ({
      body: () => page(query.get('prefix') ?? '', null, '<IsTruncated>true</IsTruncated>'),
    });
    await expect(collectedKeys(blobs)).rejects.toMatchObject({ code: 'io' });
  });

  it('without times make nothing look old', async () => {
    const { proxy, blobs, bucket } = await setting({ placedElsewhere: true });
    await placedIn(blobs);
    await stagedIn(blobs);
    const times = /<(LastModified|Initiated)>.*?<\/\1>/g;
    proxy.twist = (request) =>
      lists(request) || request.query.has('uploads')
        ? { body: (bytes) => Buffer.from(bytes.toString().replaceAll(times, '')) }
        : undefined;
    const other = await S3BlobStore.open(bucket);
    onTestFinished(() => other.close());
    expect(await other.sweepStaged(Date.now() - 3_600_000)).toBe(0);
    for await (const { modifiedMs } of other.list()) {
      expect(modifiedMs).toBeGreaterThan(Date.now() - 3_600_000);
    }
    expect(await other.sweepStaged(Number.MAX_SAFE_INTEGER)).toBe(1);
  });
});

it('an upload that goes on is not swept, though a server says that all were begun long ago', async () => {
  const { proxy, blobs, bucket } = await setting({ placedElsewhere: true });
  const stagedId = await stagedIn(blobs);
  const begun = '<Initiated>2010-11-10T20:48:33.000Z</Initiated>';
  proxy.twist = ({ query }) =>
    query.has('uploads')
      ? { body: (bytes) => Buffer.from(bytes.toString().replaceAll(/<Initiated>.*?<\/Initiated>/g, begun)) }
      : undefined;
  const other = await S3BlobStore.open(bucket);
  onTestFinished(() => other.close());
  expect(await other.sweepStaged(Date.now() - 3_600_000)).toBe(0);
  expect(await other.staged(Date.now() + 60_000)).toEqual([stagedId]);
  expect(await other.sweepStaged(Date.now() + 60_000)).toBe(1);
});

describe('requests', () => {
  it('say how long they are, and do not wait to be told to go on', async () => {
    const { proxy, blobs } = await setting({ placedElsewhere: true });
    const key = await placedIn(blobs, noise(12 * mib, 'large'));
    await blobs.probe();
    await blobs.remove([key]);
    const withBody = proxy.requests.filter(({ method }) => method === 'PUT' || method === 'POST');
    expect(withBody.length).toBeGreaterThan(4);
    for (const { headers } of proxy.requests) {
      expect(headers).not.toHaveProperty('expect');
      expect(headers).not.toHaveProperty('transfer-encoding');
    }
    for (const { headers } of withBody) expect(headers).toHaveProperty('content-length');
  });

  it('carry nothing that only some servers know', async () => {
    const { proxy, blobs } = await setting({ placedElsewhere: true });
    const key = await placedIn(blobs);
    await expectContent(blobs, key);
    await blobs.remove([key]);
    const unknown = /^(x-amz-(?!date$|content-sha256$|user-agent$)|if-|content-md5)/;
    for (const { headers } of proxy.requests) {
      expect(Object.keys(headers).filter((name) => unknown.test(name))).toEqual([]);
    }
  });

  it('and addresses are signed by the clock of the server, where it is another', async () => {
    const { proxy, blobs } = await setting();
    const theirs = new Date(Date.now() + 3_600_000);
    const headers = { Date: theirs.toUTCString() };
    proxy.twist = once(() => true, { status: 403, code: 'RequestTimeTooSkewed', headers });
    const rest = proxy.twist;
    proxy.twist = (request) => rest(request) ?? { status: 200, headers };
    await placedIn(blobs);
    const address = new URL(await blobs.presign('a'.repeat(32), 60));
    const [, day = '', hour = ''] =
      /^(\d{8})T(\d{2})/.exec(address.searchParams.get('X-Amz-Date') ?? '') ?? [];
    expect(`${day}T${hour}`).toBe(theirs.toISOString().replaceAll('-', '').slice(0, 11));
  });

  it('name the bucket in the host, for servers that want it there', async () => {
    const { blobs, bucket } = await setting({
      addressing: 'virtual-host',
      endpoint: 'https://s3.example.org',
    });
    const { host } = new URL(await blobs.presign('a'.repeat(32), 60));
    expect(host).toBe(`${bucket.bucket}.s3.example.org`);
  });
});
