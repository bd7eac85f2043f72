import { gzipSync } from 'node:zlib';
import { describe, expect, it } from 'vitest';
import { asyncPieces, collected, noise, prose } from '../../test/support/contents.ts';
import { gunzipBytes, gunzipChunks, gunzipToSize, type DecodingBounds } from './gzip-decoder.ts';

const unbounded: DecodingBounds = { sizeMaxBytes: Number.MAX_SAFE_INTEGER };
const text = prose(5_000);
const member = gzipSync(text);
const otherText = prose(3_000, 'other');
const otherMember = gzipSync(otherText);

function flipped(bytes: Buffer, index: number): Buffer {
  const copy = Buffer.from(bytes);
  copy[index] = (copy[index] ?? 0) ^ 0xff;
  return copy;
}

const sound: readonly (readonly [string, Buffer, Buffer])[] = [
  ['one member', member, text],
  ['several members as one content', Buffer.concat([member, otherMember]), Buffer.concat([text, otherText])],
  ['empty content', gzipSync(Buffer.alloc(0)), Buffer.alloc(0)],
  ['content of megabytes', gzipSync(prose(3_000_000)), prose(3_000_000)],
  [
    'a small member after a large one',
    gzipSync(prose(300_000)).length > 0 ? Buffer.concat([gzipSync(prose(300_000)), member]) : member,
    Buffer.concat([prose(300_000), text]),
  ],
];

const broken: readonly (readonly [string, Buffer])[] = [
  ['an empty body', Buffer.alloc(0)],
  ['a body cut short', member.subarray(0, -1)],
  ['a body cut in its data', member.subarray(0, 100)],
  ['a body cut in its header', member.subarray(0, 5)],
  ['a second member cut short', Buffer.concat([member, otherMember.subarray(0, -5)])],
  ['a wrong checksum', flipped(member, member.length - 6)],
  ['a wrong size', flipped(member, member.length - 1)],
  ['damaged data', flipped(member, 200)],
  ['no gzip at all', text],
  ['garbage after the last member', Buffer.concat([member, Buffer.from('garbage')])],
  ['one zero after the last member', Buffer.concat([member, Buffer.alloc(1)])],
  ['many zeros after the last member', Buffer.concat([member, Buffer.alloc(400_000)])],
  ['zeros between members', Buffer.concat([member, Buffer.alloc(3), otherMember])],
  ['the first byte of a member after the last', Buffer.concat([member, otherMember.subarray(0, 1)])],
  ['a large body cut short', gzipSync(noise(200_000)).subarray(0, -4)],
];

describe('gunzipChunks()', () => {
  for (const pieceSizeBytes of [7, 1_000, 65_536]) {
    it.each(sound)(`decodes %s in pieces of ${pieceSizeBytes} bytes`, async (_case, body, content) => {
      const decoded = await collected(gunzipChunks(asyncPieces(body, pieceSizeBytes), unbounded));
      expect(decoded.equals(content)).toBe(true);
    });

    it.each(broken)(`refuses %s in pieces of ${pieceSizeBytes} bytes`, async (_case, body) => {
      await expect(
        collected(gunzipChunks(asyncPieces(body, pieceSizeBytes), unbounded)),
      ).rejects.toMatchObject({
        code: 'corrupt-encoding',
      });
    });
  }

  it('stops at the largest size', async () => {
    const bomb = gzipSync(Buffer.alloc(50_000_000));
    const decoding = gunzipChunks(asyncPieces(bomb, 1_000), { sizeMaxBytes: 1_000_000 });
    await expect(collected(decoding)).rejects.toMatchObject({ code: 'too-large' });
  });

  it('holds the ratio only against large output', async () => {
    const zeros = gzipSync(Buffer.alloc(2_000_000));
    const bounds = { sizeMaxBytes: 1e9, ratioMax: 50 };
    await expect(
      collected(gunzipChunks(asyncPieces(zeros, 1_000), { ...bounds, ratioFreeBytes: 1_000_000 })),
    ).rejects.toMatchObject({ code: 'too-large' });
    const decoded = await collected(
      gunzipChunks(asyncPieces(zeros, 1_000), { ...bounds, ratioFreeBytes: 2_000_000 }),
    );
    expect(decoded.length).toBe(2_000_000);
  });

  it('passes on the failure of its source', async () => {
    const failure = new Error('the peer went away');
    const source = async function* (): AsyncGenerator<Buffer> {
      yield member.subarray(0, 100);
      throw failure;
    };
    await expect(collected(gunzipChunks(source(), unbounded))).rejects.toBe(failure);
  });

  it('lets its source go when the reader gives up', async () => {
    let released = false;
    const source = async function* (): AsyncGenerator<Buffer> {
      try {
        for (;;) yield gzipSync(noise(100_000));
      } finally {
        released = true;
      }
    };
    for await (const piece of gunzipChunks(source(), unbounded)) {
      expect(piece.length).toBeGreaterThan(0);
      break;
    }
    await new Promise((resolve) => setTimeout(resolve, 20));
    expect(released).toBe(true);
  });
});

describe('gunzipBytes()', () => {
  it.each(sound)('decodes %s', async (_case, body, content) => {
    expect((await gunzipBytes(body, unbounded)).equals(content)).toBe(true);
  });

  it.each(broken)('refuses %s', async (_case, body) => {
    await expect((async () => await gunzipBytes(body, unbounded))()).rejects.toMatchObject({
      code: 'corrupt-encoding',
    });
  });

  it.each([1_000, 1_000_000])('stops at %d bytes', async (sizeMaxBytes) => {
    const bomb = gzipSync(Buffer.alloc(10_000_000));
    await expect((async () => await gunzipBytes(bomb, { sizeMaxBytes }))()).rejects.toMatchObject({
      code: 'too-large',
    });
  });

  it('decodes a small body at once, and one that lies about its size all the same', async () => {
    expect(Buffer.isBuffer(gunzipBytes(member, unbounded))).toBe(true);
    const lying = Buffer.concat([gzipSync(Buffer.alloc(1_000_000)), gzipSync(Buffer.from('x'))]);
    expect((await gunzipBytes(lying, unbounded)).length).toBe(1_000_001);
  });
});

describe('gunzipToSize()', () => {
  it.each(sound)('decodes %s to its exact size, and to no other', async (_, bytes, content) => {
    expect((await gunzipToSize(bytes, content.length, unbounded))?.equals(content)).toBe(true);
    for (const sizeBytes of [content.length + 1, content.length + 100_000, content.length - 1]) {
      if (sizeBytes >= 0) expect(await gunzipToSize(bytes, sizeBytes, unbounded)).toBeUndefined();
    }
  });

  it.each(broken)('leaves %s to gunzipChunks', async (_, bytes) => {
    for (const sizeBytes of [0, text.length, text.length + otherText.length]) {
      expect(await gunzipToSize(bytes, sizeBytes, unbounded)).toBeUndefined();
    }
  });

  it('decodes nothing beyond the bounds', async () => {
    const zeros = Buffer.alloc(100_000);
    const bounds = { sizeMaxBytes: 1_000_000, ratioMax: 100, ratioFreeBytes: 50_000 };
    expect(await gunzipToSize(gzipSync(zeros), zeros.length, bounds)).toBeUndefined();
    expect(await gunzipToSize(gzipSync(zeros), zeros.length, { sizeMaxBytes: 99_999 })).toBeUndefined();
    expect(await gunzipToSize(gzipSync(zeros), zeros.length, unbounded)).toHaveLength(100_000);
  });
});
