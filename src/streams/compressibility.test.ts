import { deflateRawSync, gzipSync } from 'node:zlib';
import { describe, expect, it } from 'vitest';
import { noise, prose } from '../../test/support/contents.ts';
import { compressionPays } from './compressibility.ts';

const repeatedNoise = Buffer.concat(Array.from({ length: 20 }, () => noise(1_500)));
const samplesOfWords = Buffer.from(
  Uint16Array.from({ length: 20_000 }, (_, index) => 30_000 + 2_000 * Math.sin(index / 40)).buffer,
);

describe('compressionPays()', () => {
  it.each([
    ['text', prose(10_000)],
    ['a little text', prose(700)],
    ['base64', Buffer.from(noise(10_000).toString('base64'))],
    ['zeros', Buffer.alloc(10_000)],
    ['a piece of noise again and again', repeatedNoise],
    ['samples of 16 bits', samplesOfWords],
    ['text that begins like bzip2', Buffer.concat([Buffer.from('BZh'), prose(5_000)])],
    ['an archive that begins with noise', Buffer.concat([noise(40_000), prose(100_000)])],
    ['next to nothing', noise(100)],
  ])('is true for %s', (_case, content) => {
    expect(compressionPays(content)).toBe(true);
  });

  it.each([
    ['noise', noise(10_000)],
    ['a little noise', noise(512)],
    ['much noise', noise(500_000)],
    ['gzip', gzipSync(prose(100_000))],
    ['deflated data', deflateRawSync(prose(300_000))],
    ['a JPEG', Buffer.concat([Buffer.from('ffd8ffe0', 'hex'), noise(20_000)])],
  ])('is false for %s', (_case, content) => {
    expect(compressionPays(content)).toBe(false);
  });
});
