import type { Encoding } from '../core/blob.ts';
import { blocksOf, type Chunks } from '../streams/chunks.ts';
import { beginsCompressed, compressionPays } from '../streams/compressibility.ts';
import { gzipBytes, gzipChunks } from '../streams/gzip-encoder.ts';

// How a plain content is put into the form in which it is stored.

/** Content in its stored form. */
export interface EncodedContent<Bytes> {
  readonly encoding: Encoding;
  readonly bytes: Bytes;
}

/** Below this size the 18 bytes that gzip adds eat up what it saves. */
const compressedSizeMinBytes = 64;
/** How much memory an encoding content may take, and what it is spent on. */
export interface EncodingRoom {
  /** What is looked at, compressed and written at a time. */
  readonly blockSizeBytes: number;
  /** Blocks of noise after which a content is taken for noise: an archive may begin with a picture. */
  readonly lookedAtBlocks: number;
  readonly blocksInFlight: number;
}

/** About a megabyte: all cores compress. */
export const wideRoom: EncodingRoom = { blockSizeBytes: 128 * 1024, lookedAtBlocks: 4, blocksInFlight: 4 };
export const wideRoomBytes = 1024 * 1024;
/** About 100 KiB, for when there are many: a third of the speed, and noise is decided on at once. */
export const tightRoom: EncodingRoom = { blockSizeBytes: 32 * 1024, lookedAtBlocks: 1, blocksInFlight: 1 };

/** The smaller of the two forms of a content in memory. Blocks for 0.1 ms at the most. */
export function encodeBytes(
  content: Buffer,
  level: number,
): EncodedContent<Buffer> | Promise<EncodedContent<Buffer>> {
  const plain = { encoding: 'identity', bytes: content } as const;
  if (content.length < compressedSizeMinBytes || !compressionPays(content)) return plain;
  const compressed = gzipBytes(content, { level });
  if (compressed instanceof Promise) return compressed.then((bytes) => smaller(plain, bytes));
  return smaller(plain, compressed);
}

function smaller(plain: EncodedContent<Buffer>, compressed: Buffer): EncodedContent<Buffer> {
  return compressed.length < plain.bytes.length ? { encoding: 'gzip', bytes: compressed } : plain;
}

/**
 * The stored form of a content that passes, decided before the first byte comes out: as it is if it begins
 * like a compressed file or its first blocks are noise one and all, else gzip, block by block as far as it pays.
 */
export async function encodeChunks(
  content: Chunks,
  level: number,
  room: EncodingRoom,
): Promise<EncodedContent<Chunks>> {
  const { blockSizeBytes, blocksInFlight, lookedAtBlocks } = room;
  const blocks = blocksOf(content, blockSizeBytes);
  const first: Buffer[] = [];
  let pays = false;
  while (!pays && first.length < lookedAtBlocks) {
    const block = await blocks.next();
    if (block.done === true) break;
    first.push(block.value);
    pays = compressionPays(block.value);
    if (!pays && first.length === 1 && beginsCompressed(block.value)) break;
  }
  const whole = startingWith(first, blocks);
  if (!pays) return { encoding: 'identity', bytes: whole };
  return { encoding: 'gzip', bytes: gzipChunks(whole, { level, blockSizeBytes, blocksInFlight }) };
}

/** Empties `first` as it goes, so that what has been passed on does not stay in memory. */
async function* startingWith(first: Buffer[], rest: AsyncIterable<Buffer>): AsyncGenerator<Buffer> {
  for (let block = first.shift(); block !== undefined; block = first.shift()) yield block;
  yield* rest;
}
