import { request } from 'node:http';
import { expect, it, onTestFinished } from 'vitest';
import { S3BlobStore } from '../../src/blobs/s3/s3-blob-store.ts';
import { parseFileName } from '../../src/core/file-name.ts';
import { noise } from '../support/contents.ts';
import { requestOnce } from '../support/raw-http.ts';
import { sharedPlace, type SharedPlace } from '../support/scale-out-servers.ts';
import { versionQuery } from '../support/test-server.ts';

const mib = 1024 * 1024;
const bytes = noise(20 * mib, 'several parts');
const target = `/files/large?${versionQuery(1_700_000_000)}`;

async function unfinished({ blobs }: SharedPlace): Promise<number> {
  return (await blobs.staged(Number.MAX_SAFE_INTEGER)).length;
}

/** Sends all but the last byte of a body, and waits until parts of it are in the bucket. */
async function beginUpload(place: SharedPlace, port: number): Promise<void> {
  const headers = { 'Content-Length': bytes.length };
  const upload = request({ host: '127.0.0.1', port, method: 'PUT', path: target, headers });
  upload.on('error', () => undefined);
  onTestFinished(() => void upload.destroy());
  upload.write(bytes.subarray(0, -1));
  await expect.poll(() => unfinished(place), { timeout: 60_000 }).toBe(1);
}

it(
  'a server that is killed within an upload leaves no file, and what another server can end and send anew',
  { timeout: 300_000 },
  async () => {
    const place = await sharedPlace();
    const [first, second] = await Promise.all([place.server(), place.server()]);
    await beginUpload(place, first.port);
    first.kill();
    await first.program.ended();

    expect((await requestOnce(second.port, { target: '/files/large' })).status).toBe(404);
    const put = await requestOnce(second.port, { method: 'PUT', target, body: bytes });
    expect(put.status).toBe(200);
    const got = await requestOnce(second.port, { target: '/files/large' });
    expect(got.body.equals(bytes)).toBe(true);
    // What was sent by the one that is gone: another one ends it when it is old.
    expect(await unfinished(place)).toBe(1);
    expect(await place.blobs.sweepStaged(Date.now() + 60_000)).toBe(1);
    expect(await unfinished(place)).toBe(0);
    expect((await place.catalog.find(parseFileName('/large')))?.entry.version).toBe(1_700_000_000);
    let objects = 0;
    for await (const _ of place.blobs.list()) objects += 1;
    expect(objects).toBe(1);
  },
);

it(
  'an upload that is swept while it goes on is refused as a passing fault',
  { timeout: 300_000 },
  async () => {
    const place = await sharedPlace();
    const upload = await place.blobs.stage();
    await upload.write(Buffer.from(bytes.subarray(0, 9 * mib)));
    await expect.poll(() => unfinished(place), { timeout: 60_000 }).toBe(1);
    const other = await S3BlobStore.open(place.bucket);
    onTestFinished(() => other.close());
    expect(await other.sweepStaged(Date.now() + 60_000)).toBe(1);
    const rest = async (): Promise<void> => {
      await upload.write(Buffer.from(bytes.subarray(9 * mib)));
      await upload.seal();
    };
    await expect(rest()).rejects.toMatchObject({ code: 'unavailable', retryable: true });
    await upload.discard();
  },
);
