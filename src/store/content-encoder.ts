import type { Encoding } from '../core/blob.ts';
import { blocksOf, type Chunks } from '../streams/chunks.ts';
import { beginsCompressed, compressionPays } from '../streams/compressibility.ts';
import { gzipBytes, gzipChunks } from '../streams/gzip-encoder.ts';

/** Content in its stored form. */
export interface EncodedContent<Bytes> {
  readonly encoding: Encoding;
  readonly bytes: Bytes;
}

/** Below this size the 18 bytes of the gzip format use up what compression saves. */
const compressedSizeMinBytes = 64;

/** Memory for encoding content as it arrives. */
export interface EncodingMemory {
  /** Bytes compressed and written at a time. */
  readonly blockSizeBytes: number;
  /** Blocks of noise after which content is stored plain: an archive may begin with a picture. */
  readonly sampledBlocks: number;
  readonly blocksInFlight: number;
}

/** About a megabyte: all cores compress. */
export const ampleMemory: EncodingMemory = {
  blockSizeBytes: 128 * 1024,
  sampledBlocks: 4,
  blocksInFlight: 4,
};
export const ampleMemoryBytes = 1024 * 1024;
/** About 100 KiB, if many uploads share the budget: a third of the speed, and one block decides. */
export const littleMemory: EncodingMemory = {
  blockSizeBytes: 32 * 1024,
  sampledBlocks: 1,
  blocksInFlight: 1,
};

/** The smaller of the two forms of content in memory. Takes at most 0.1 ms of the main thread. */
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
 * The stored form of content as it arrives, decided before the first byte is written: plain if it begins like a compressed
 * file or all of its first blocks are noise, else gzip, in which blocks of noise are stored plain.
 */
export async function encodeChunks(
  content: Chunks,
  level: number,
  memory: EncodingMemory,
): Promise<EncodedContent<Chunks>> {
  const { blockSizeBytes, blocksInFlight, sampledBlocks } = memory;
  const blocks = blocksOf(content, blockSizeBytes);
  const first: Buffer[] = [];
  let pays = false;
  while (!pays && first.length < sampledBlocks) {
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

/** Empties `first`, so that blocks that were passed on do not stay in memory. */
async function* startingWith(first: Buffer[], rest: AsyncIterable<Buffer>): AsyncGenerator<Buffer> {
  for (let block = first.shift(); block !== undefined; block = first.shift()) yield block;
  yield* rest;
}
