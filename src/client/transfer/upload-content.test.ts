import { appendFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { gunzipSync } from 'node:zlib';
import { expect, test } from 'vitest';
import { collected, noise, prose } from '../../../test/support/contents.ts';
import { temporaryFolder } from '../../../test/support/temporary-folder.ts';
import { digestOf } from '../../core/digest.ts';
import { decodingRatioMax } from '../../core/limits.ts';
import type { TransferProgress } from './download.ts';
import type { UploadContent } from '../http/remote-store.ts';
import { prepareUpload, sourceFile } from './upload-content.ts';

async function file(...parts: readonly Buffer[]): Promise<string> {
  const path = join(await temporaryFolder(), 'file');
  writeFileSync(path, Buffer.concat(parts));
  return path;
}

async function bytesOf({ bytes }: UploadContent): Promise<Buffer> {
  return Buffer.isBuffer(bytes) ? bytes : await collected(bytes());
}

test('a large text is compressed during each try if the server streams', async () => {
  const text = prose(3_000_000);
  const reported: TransferProgress[] = [];
  const options = {
    compress: true,
    streams: true,
    onProgress: (progress: TransferProgress) => reported.push(progress),
  };
  await using prepared = await prepareUpload(sourceFile(await file(text)), options);
  const { content } = prepared;
  expect(content).toMatchObject({
    digest: digestOf(text),
    size: text.length,
    encoding: 'gzip',
    transferSize: undefined,
  });
  expect(reported.every(({ phase }) => phase === 'reading')).toBe(true);
  for (let tries = 0; tries < 2; tries += 1) {
    expect(gunzipSync(await bytesOf(content)).equals(text)).toBe(true);
    expect(reported.at(-1)).toEqual({ phase: 'sending', done: text.length, total: text.length });
  }
});

test.each([true, false])(
  'zeros are not compressed beyond the ratio that servers accept (streams: %j)',
  async (streams) => {
    const zeros = Buffer.alloc(8_000_000);
    await using prepared = await prepareUpload(sourceFile(await file(zeros)), { compress: true, streams });
    const { content, plain } = prepared;
    expect(content.encoding).toBe('gzip');
    const bytes = await bytesOf(content);
    expect(gunzipSync(bytes).equals(zeros)).toBe(true);
    expect(zeros.length / bytes.length).toBeLessThan(decodingRatioMax);
    expect(zeros.length / bytes.length).toBeGreaterThan(100);
    expect(plain).toMatchObject({
      encoding: 'identity',
      digest: digestOf(zeros),
      transferSize: zeros.length,
    });
  },
);

test('a large text has a length if the server needs one', async () => {
  const text = prose(3_000_000);
  await using prepared = await prepareUpload(sourceFile(await file(text)), {
    compress: true,
    streams: false,
  });
  const bytes = await bytesOf(prepared.content);
  expect(prepared.content).toMatchObject({ encoding: 'gzip', transferSize: bytes.length });
  expect(gunzipSync(bytes).equals(text)).toBe(true);
});

test.each([true, false])(
  'a file that only starts like text is sent uncompressed (streams: %s)',
  async (streams) => {
    const path = await file(prose(100_000), noise(6_000_000));
    await using prepared = await prepareUpload(sourceFile(path), { compress: true, streams });
    expect(prepared.content).toMatchObject({ encoding: 'identity', transferSize: 6_100_000 });
  },
);

test('a file that grows during its upload is an error', async () => {
  const path = await file(prose(3_000_000));
  await using prepared = await prepareUpload(sourceFile(path), { compress: true, streams: true });
  appendFileSync(path, 'more');
  await expect(bytesOf(prepared.content)).rejects.toMatchObject({ code: 'changed-during-upload' });
});
