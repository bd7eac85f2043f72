import { existsSync } from 'node:fs';
import { readdir, readlink, rm, writeFile } from 'node:fs/promises';
import { crc32 } from 'node:zlib';
import { expect, it, onTestFinished } from 'vitest';
import { temporaryFolder } from '../../../test/support/temporary-folder.ts';
import { SegmentReader } from './segment-reader.ts';
import { segmentPath } from './segment-header.ts';

const bytes = Buffer.from('what was written');

/** Files below a folder that this process has open and that have no name any more. */
async function openedAndRemoved(folder: string): Promise<readonly string[]> {
  const links = (await readdir('/proc/self/fd')).map((descriptor) =>
    readlink(`/proc/self/fd/${descriptor}`).catch(() => ''),
  );
  return (await Promise.all(links)).filter((path) => path.startsWith(folder) && path.endsWith(' (deleted)'));
}

it.runIf(existsSync('/proc/self/fd'))(
  'SegmentReader keeps no segment open that compaction has removed, once it opens another',
  async () => {
    const folder = await temporaryFolder();
    const reader = new SegmentReader(folder);
    onTestFinished(() => reader.close());
    const read = (segment: number): Promise<Buffer | undefined> =>
      reader.read(segment, 0, bytes.length, crc32(bytes));
    for (const segment of [1, 2, 3]) await writeFile(segmentPath(folder, segment), bytes);
    expect([await read(1), await read(2)]).toEqual([bytes, bytes]);
    await rm(segmentPath(folder, 1));
    expect(await read(1)).toEqual(bytes);
    expect(await openedAndRemoved(folder)).toHaveLength(1);
    expect(await read(3)).toEqual(bytes);
    await expect.poll(() => openedAndRemoved(folder)).toEqual([]);
    expect([await read(1), await read(2)]).toEqual([undefined, bytes]);
  },
);
