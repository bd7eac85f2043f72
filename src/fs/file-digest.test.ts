import { createReadStream } from 'node:fs';
import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { expect, test } from 'vitest';
import { collected, noise } from '../../test/support/contents.ts';
import { temporaryFolder } from '../../test/support/temporary-folder.ts';
import { digestOf } from '../core/digest.ts';
import { digestingPieces, digestInThread, type FileDigest } from './file-digest.ts';

const pieceSizeBytes = 10_000;

test.each([0, 1, 9_999, 10_000, 10_001, 123_456])(
  'digestingPieces() reads and measures %i bytes',
  async (size) => {
    const path = join(await temporaryFolder(), 'file');
    const bytes = noise(size);
    await writeFile(path, bytes);
    let measure: FileDigest | undefined;
    const options = { pieceSizeBytes, sizeMaxBytes: size };
    const pieces = digestingPieces(path, { ...options, onEnd: (end) => (measure = end) });
    expect((await collected(pieces)).equals(bytes)).toBe(true);
    expect(measure).toEqual({ digest: digestOf(bytes), sizeBytes: size });
    let passed = 0;
    const alone = await digestInThread(path, { ...options, onPassed: (count) => (passed += count) });
    expect(alone).toEqual(measure);
    expect(passed).toBe(size - (size % pieceSizeBytes));
  },
);

test('digestingPieces() fails as reading the file fails', async () => {
  const path = join(await temporaryFolder(), 'missing');
  const reading = digestInThread(path, { pieceSizeBytes, sizeMaxBytes: 5 });
  await expect(reading).rejects.toMatchObject({ code: 'ENOENT' });
});

test('digestingPieces() does not follow a file that grows without end', async () => {
  const path = join(await temporaryFolder(), 'file');
  await writeFile(path, noise(100_000));
  const { sizeBytes } = await digestInThread(path, { pieceSizeBytes, sizeMaxBytes: 25_000 });
  expect(sizeBytes).toBe(30_000);
});

test('digestingPieces() ends when it is aborted, though more pieces have come than were taken', async () => {
  const path = join(await temporaryFolder(), 'file');
  await writeFile(path, noise(400_000));
  const stop = new AbortController();
  let taken = 0;
  const reading = async (): Promise<void> => {
    const options = { pieceSizeBytes, sizeMaxBytes: 400_000, signal: stop.signal, onEnd: () => undefined };
    for await (const piece of digestingPieces(path, options)) {
      taken += piece.length > 0 ? 1 : 0;
      // Those that are read ahead come meanwhile.
      if (taken === 1) await delay(300);
      stop.abort(new Error('enough'));
    }
  };
  await expect(reading()).rejects.toThrow('enough');
  expect(taken).toBe(1);
});

test('digestingPieces() ends when it is aborted or given up', async () => {
  const path = join(await temporaryFolder(), 'file');
  await writeFile(path, noise(1_000_000));
  const stop = new AbortController();
  const options = { pieceSizeBytes, sizeMaxBytes: 1_000_000, signal: stop.signal, onEnd: () => undefined };
  const read = async (): Promise<void> => {
    for await (const piece of digestingPieces(path, options))
      if (piece.length > 0) stop.abort(new Error('enough'));
  };
  await expect(read()).rejects.toThrow('enough');
  for await (const piece of digestingPieces(path, { ...options, signal: undefined })) {
    expect(piece.length).toBe(pieceSizeBytes);
    break;
  }
});

test('digestInThread() takes nothing from files that others read meanwhile', async () => {
  const folder = await temporaryFolder();
  const large = join(folder, 'large');
  const small = join(folder, 'small');
  await writeFile(large, Buffer.alloc(100_000, 'x'));
  await writeFile(small, Buffer.alloc(3000, 'y'));
  const done = new AbortController();
  const digesting = async (): Promise<void> => {
    for (let count = 0; count < 15; count++) {
      const digest = await digestInThread(large, { pieceSizeBytes: 1024 * 1024, sizeMaxBytes: 100_000 });
      expect(digest.sizeBytes).toBe(100_000);
    }
  };
  const readers = Array.from({ length: 6 }, async () => {
    while (!done.signal.aborted) {
      let sizeBytes = 0;
      for await (const piece of createReadStream(small) as AsyncIterable<Buffer>) sizeBytes += piece.length;
      expect(sizeBytes).toBe(3000);
    }
  });
  await Promise.all(Array.from({ length: 4 }, digesting));
  done.abort();
  await Promise.all(readers);
});
