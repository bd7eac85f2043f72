import { readFileSync, rmSync } from 'node:fs';
import { createServer, type RequestListener, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import { join } from 'node:path';
import { gzipSync } from 'node:zlib';
import { expect, onTestFinished, test } from 'vitest';
import { Client } from '../../src/client/client.ts';
import type { ClientOptions } from '../../src/client/client-options.ts';
import type { Encoding } from '../../src/core/blob.ts';
import { digestOf } from '../../src/core/digest.ts';
import { formatDate } from '../../src/protocol/dates.ts';
import { etagOf } from '../../src/protocol/etags.ts';
import { noise, prose } from '../support/contents.ts';
import { temporaryFolder } from '../support/temporary-folder.ts';

// The client against a server that sends readers to an object store, which knows nothing of files.

const quick = { retries: { retriesMax: 3, firstPauseMs: 5, longestPauseMs: 20 }, stallTimeoutMs: 2000 };
const version = 1_600_000_000;

async function listening(listener: RequestListener): Promise<number> {
  const server = createServer(listener);
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  onTestFinished(() => {
    server.closeAllConnections();
    server.close();
  });
  return (server.address() as AddressInfo).port;
}

/** What the object store does with one request, given the bytes that it holds. */
type ObjectAnswer = (response: ServerResponse, stored: Buffer) => void;

/** As an object store would: its own date, its own tag. */
const sound: ObjectAnswer = (response, stored) => {
  const lastModified = new Date().toUTCString();
  response.writeHead(200, { 'Last-Modified': lastModified, ETag: '"0123"', 'Content-Length': stored.length });
  response.end(stored);
};

interface Setting {
  readonly client: Client;
  readonly target: string;
  /** Range headers of the requests that the server got, and how often the object store was asked. */
  readonly ranges: (string | undefined)[];
  objectRequests: number;
}

async function setting(
  content: Buffer,
  encoding: Encoding,
  answer: ObjectAnswer,
  options: ClientOptions = {},
): Promise<Setting> {
  const stored = encoding === 'gzip' ? gzipSync(content) : content;
  const folder = await temporaryFolder();
  const objectPort = await listening((_request, response) => {
    asked.objectRequests += 1;
    answer(response, stored);
  });
  const described = {
    'Last-Modified': formatDate(version),
    'Logical-Size': content.length,
    'SHA256-Checksum': digestOf(content),
  };
  const port = await listening(({ url, headers }, response) => {
    if (url?.startsWith('/version') === true) {
      response.end(JSON.stringify({ protocol_versions: [2], features: [] }));
      return;
    }
    asked.ranges.push(headers.range);
    const [, first] = /^bytes=(\d+)-$/.exec(headers.range ?? '') ?? [];
    if (first === undefined) {
      const Location = `http://127.0.0.1:${objectPort}/bucket/blobs/0a?X-Amz-Signature=1`;
      const ETag = etagOf(digestOf(content), encoding);
      response.writeHead(307, { ...described, ETag, Location, 'Content-Length': 0 }).end();
      return;
    }
    const rest = content.subarray(Number(first));
    const contentRange = `bytes ${first}-${content.length - 1}/${content.length}`;
    response.writeHead(206, {
      ...described,
      'Content-Range': contentRange,
      'Content-Length': rest.length,
    });
    response.end(rest);
  });
  const cacheDir = join(folder, 'cache');
  const remoteUrl = `http://127.0.0.1:${port}`;
  const client = new Client({ remoteUrl, cacheDir, cacheMinFree: 0, ...quick, ...options });
  onTestFinished(() => client.close());
  const asked: Setting = { client, target: join(folder, 'out'), ranges: [], objectRequests: 0 };
  return asked;
}

const plain = noise(300_000, 'plain');
const packed = prose(400_000, 'packed');
const caches: ClientOptions[] = [{}, { cacheDir: undefined }];

test.each(caches)('a direct download has the version that the server names (%o)', async (options) => {
  const { client, target, ranges } = await setting(plain, 'identity', sound, options);
  const got = await client.getFile('/a', target);
  expect(got).toMatchObject({ version, size: plain.length, digest: digestOf(plain) });
  expect(readFileSync(target).equals(plain)).toBe(true);
  expect(ranges).toEqual([undefined]);
});

test.each(caches)('a packed object is unpacked though it is not labelled (%o)', async (options) => {
  const { client, target } = await setting(packed, 'gzip', sound, options);
  expect(await client.getFile('/a', target)).toMatchObject({ version, size: packed.length });
  expect(readFileSync(target).equals(packed)).toBe(true);
});

test.each(caches)('a direct download that differs in one bit is refused (%o)', async (options) => {
  const flipped: ObjectAnswer = (response, stored) => {
    const wrong = Buffer.from(stored);
    wrong.writeUInt8(wrong.readUInt8(1000) ^ 1, 1000);
    sound(response, wrong);
  };
  const { client, target } = await setting(plain, 'identity', flipped, options);
  await expect(client.getFile('/a', target)).rejects.toMatchObject({ code: 'digest-mismatch' });
  expect(() => readFileSync(target)).toThrow();
});

const failures: readonly [string, ObjectAnswer][] = [
  ['refuses', (response) => void response.writeHead(403).end('<Error/>')],
  ['has lost it', (response) => void response.writeHead(404).end('<Error/>')],
  ['fails', (response) => void response.writeHead(503).end()],
  ['says nothing', () => undefined],
  ['hangs up', (response) => void response.destroy()],
  ['is silent in mid-body', (response, stored) => cut(response, stored)],
  ['is cut in mid-body', (response, stored) => cut(response, stored, () => response.destroy())],
];

function cut(response: ServerResponse, stored: Buffer, then?: () => void): void {
  response.writeHead(200, { 'Content-Length': stored.length });
  // What was written shall arrive before the connection goes.
  response.write(stored.subarray(0, 20_000), () => then && setTimeout(then, 20));
}

for (const options of caches) {
  test.each(failures)(
    `where the object store %s, the server gives the bytes (${JSON.stringify(options)})`,
    async (_, answer) => {
      for (const [content, encoding] of [
        [plain, 'identity'],
        [packed, 'gzip'],
      ] as const) {
        const asked = await setting(content, encoding, answer, options);
        expect(await asked.client.getFile('/a', asked.target)).toMatchObject({
          version,
          size: content.length,
        });
        expect(readFileSync(asked.target).equals(content)).toBe(true);
        expect(asked.objectRequests).toBe(1);
        expect(asked.ranges.length).toBe(2);
        rmSync(asked.target);
      }
    },
  );
}

test('a small body that fails elsewhere comes from the server, larger because unpacked', async () => {
  const content = Buffer.alloc(200_000, 'abcdefghijklmnop');
  const hangUp: ObjectAnswer = (response, stored) => {
    response.writeHead(200, { 'Content-Length': stored.length });
    response.write(stored.subarray(0, 100), () => setTimeout(() => response.destroy(), 20));
  };
  const { client, target } = await setting(content, 'gzip', hangUp);
  expect(await client.getFile('/a', target)).toMatchObject({ version, size: content.length });
  expect(readFileSync(target).equals(content)).toBe(true);
});
