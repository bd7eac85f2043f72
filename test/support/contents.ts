import { createHash } from 'node:crypto';

/** Bytes that don't compress, the same for the same seed. */
export function noise(sizeBytes: number, seed = 'noise'): Buffer {
  const blocks: Buffer[] = [];
  for (let index = 0; index * 64 < sizeBytes; index += 1) {
    blocks.push(createHash('sha512').update(`${seed} ${index}`).digest());
  }
  return Buffer.concat(blocks).subarray(0, sizeBytes);
}

/** Text that compresses about three to one, the same for the same seed. */
export function prose(sizeBytes: number, seed = 'prose'): Buffer {
  const words = ['catalog', 'blob', 'digest', 'version', 'entry', 'store', 'cache', 'journal', 'segment'];
  const source = noise(Math.ceil(sizeBytes / 4) + 1, seed);
  let text = '';
  for (let index = 0; text.length < sizeBytes; index += 1) {
    const byte = source[index] ?? 0;
    text += `${words[byte % words.length]} ${byte}${byte % 7 === 0 ? '\n' : ' '}`;
  }
  return Buffer.from(text.slice(0, sizeBytes));
}

/** Cuts bytes into pieces of the given size. */
export function* pieces(bytes: Buffer, pieceSizeBytes: number): Generator<Buffer> {
  for (let start = 0; start < bytes.length; start += pieceSizeBytes) {
    yield bytes.subarray(start, start + pieceSizeBytes);
  }
}

export async function* asyncPieces(bytes: Buffer, pieceSizeBytes: number): AsyncGenerator<Buffer> {
  yield* pieces(bytes, pieceSizeBytes);
}

export async function collected(source: AsyncIterable<Uint8Array>): Promise<Buffer> {
  const parts: Uint8Array[] = [];
  for await (const part of source) parts.push(part);
  return Buffer.concat(parts);
}
