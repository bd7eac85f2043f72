import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, it, onTestFinished } from 'vitest';
import { Client } from '../../src/client/client.ts';
import { digestOf } from '../../src/core/digest.ts';
import { noise, prose } from '../support/contents.ts';
import { s3Endpoint } from '../support/engines.ts';
import { requestOnce } from '../support/raw-http.ts';
import { flipped, S3Proxy } from '../support/s3-proxy.ts';
import { sharedPlace } from '../support/scale-out-servers.ts';
import { temporaryFolder } from '../support/temporary-folder.ts';
import { versionQuery } from '../support/test-server.ts';

/** It starts several programs, on a machine that may be busy. */
const slow = { timeout: 300_000 };

it(
  '--redirect-downloads sends readers of large contents to the object store, and no others',
  slow,
  async () => {
    const place = await sharedPlace();
    const { port } = await place.server({ args: ['--redirect-downloads'] });
    const files = {
      small: Buffer.from('small'),
      plain: noise(100_000, 'plain'),
      packed: prose(400_000, 'packed'),
    };
    for (const [name, body] of Object.entries(files)) {
      const target = `/files/${name}?${versionQuery(1_700_000_000)}`;
      expect((await requestOnce(port, { method: 'PUT', target, body })).status).toBe(200);
    }
    const get = (name: string, headers: Record<string, string> = {}) =>
      requestOnce(port, { target: `/files/${name}`, headers });

    expect(await get('small')).toMatchObject({ status: 200, body: files.small });
    const plain = await get('plain');
    expect(plain.status).toBe(307);
    expect(plain.headers.get('sha256-checksum')).toBe(digestOf(files.plain));
    expect(plain.headers.get('last-modified')).toBe(new Date(1_700_000_000_000).toUTCString());
    const there = await fetch(plain.headers.get('location') ?? '');
    expect(Buffer.from(await there.arrayBuffer()).equals(files.plain)).toBe(true);

    // What lies there packed goes there only for those who take it so; the label makes fetch unpack it.
    const packed = await get('packed', { 'Accept-Encoding': 'gzip' });
    expect(packed.status).toBe(307);
    const unpacked = await fetch(packed.headers.get('location') ?? '');
    expect(unpacked.headers.get('content-encoding')).toBe('gzip');
    expect(Buffer.from(await unpacked.arrayBuffer()).equals(files.packed)).toBe(true);
    expect(await get('packed')).toMatchObject({ status: 200, body: files.packed });
    expect(await get('plain', { Range: 'bytes=5-9' })).toMatchObject({
      status: 206,
      body: files.plain.subarray(5, 10),
    });
  },
);

describe('our client where downloads are redirected', () => {
  const version = 1_700_000_000;
  const contents = { '/plain': noise(300_000, 'plain'), '/packed': prose(900_000, 'packed') };

  async function setting() {
    const place = await sharedPlace();
    const proxy = await S3Proxy.open(s3Endpoint());
    const { port } = await place.server({ s3Endpoint: proxy.url, args: ['--redirect-downloads'] });
    const folder = await temporaryFolder();
    const retries = { retriesMax: 3, firstPauseMs: 5, longestPauseMs: 20 };
    const remoteUrl = `http://127.0.0.1:${port}`;
    const client = new Client({ remoteUrl, cacheDir: join(folder, 'cache'), cacheMinFree: 0, retries });
    onTestFinished(() => client.close());
    for (const [name, body] of Object.entries(contents)) {
      const target = `/files${name}?${versionQuery(version)}`;
      expect((await requestOnce(port, { method: 'PUT', target, body })).status).toBe(200);
    }
    proxy.requests.length = 0;
    return { place, proxy, client, target: join(folder, 'out') };
  }

  it('gets contents with the versions that they have here', async () => {
    const { client, proxy, target } = await setting();
    for (const [name, body] of Object.entries(contents)) {
      expect(await client.getFile(name, target)).toMatchObject({ version, digest: digestOf(body) });
      expect(readFileSync(target).equals(body)).toBe(true);
    }
    expect(proxy.requests.map(({ query }) => query.has('X-Amz-Signature'))).toEqual([true, true]);
  });

  it('unpacks what comes without a label', async () => {
    const { client, proxy, target } = await setting();
    proxy.twist = () => ({ withoutHeader: 'content-encoding' });
    expect(await client.getFile('/packed', target)).toMatchObject({ version });
    expect(readFileSync(target).equals(contents['/packed'])).toBe(true);
  });

  it('refuses what differs in one bit, and keeps nothing of it', async () => {
    const { client, proxy, target } = await setting();
    proxy.twist = () => ({ body: flipped });
    await expect(client.getFile('/plain', target)).rejects.toMatchObject({ code: 'digest-mismatch' });
    proxy.twist = () => undefined;
    await client.getFile('/plain', target);
    expect(readFileSync(target).equals(contents['/plain'])).toBe(true);
  });

  it('gets from the server what the object store does not give', async () => {
    const { client, proxy, target } = await setting();
    proxy.twist = ({ query }) => (query.has('X-Amz-Signature') ? { status: 403 } : undefined);
    expect(await client.getFile('/packed', target)).toMatchObject({ version });
    expect(readFileSync(target).equals(contents['/packed'])).toBe(true);
    expect(proxy.requests.map(({ query }) => query.has('X-Amz-Signature'))).toEqual([true, false]);
  });

  it('objects say themselves in which encoding they lie', async () => {
    const { place } = await setting();
    const encodings: (string | null)[] = [];
    for await (const { key } of place.blobs.list()) {
      const { headers } = await fetch(await place.blobs.presign(key, 60));
      encodings.push(headers.get('content-encoding'));
    }
    expect(new Set(encodings)).toEqual(new Set([null, 'gzip']));
  });
});
