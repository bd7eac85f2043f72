import { Readable } from 'node:stream';
import { FiletrackerError } from '../../core/errors.ts';
import type { BlobReadOptions, ByteRange } from '../blob-store.ts';
import { boundedChunks } from '../../streams/content-meter.ts';

// What an answer to a read must hold, and what is made of it where a server gives more than it was asked for.

/** Bytes that an answer must have; undefined where only the server knows. */
export function expectedSize({ range, storedSize }: BlobReadOptions): number | undefined {
  if (storedSize === undefined) return undefined;
  return range === undefined ? storedSize : Math.min(range.length, storedSize - range.start);
}

export function shortBlob(actual: number, expected: number): FiletrackerError {
  return new FiletrackerError('damaged-blob', 'Cannot read a blob: its size is not what was stored', {
    details: { actual, expected },
  });
}

/** Passes so many bytes on, and fails where there are more or fewer. */
export function counted(body: Readable, sizeBytes: number): Readable {
  const wrongSize = (actual: number): FiletrackerError => shortBlob(actual, sizeBytes);
  const chunks = boundedChunks(body, {
    sizeMaxBytes: sizeBytes,
    excess: () => wrongSize(sizeBytes + 1),
    sizeMinBytes: sizeBytes,
    shortage: wrongSize,
  });
  return streamOver(body, chunks);
}

/** The bytes of a range out of a whole content, for servers that give the whole where a part was asked for. */
export function cutOut(whole: Readable, range: ByteRange): Readable {
  return streamOver(whole, chunksOf(whole, range));
}

async function* chunksOf(whole: Readable, { start, length }: ByteRange): AsyncGenerator<Uint8Array> {
  const end = start + length;
  let at = 0;
  for await (const chunk of whole as AsyncIterable<Uint8Array>) {
    const wanted = chunk.subarray(Math.max(0, start - at), Math.max(0, end - at));
    at += chunk.length;
    if (wanted.length > 0) yield wanted;
    // The rest is not waited for: leaving the loop hangs up.
    if (at >= end) return;
  }
}

function streamOver(body: Readable, chunks: AsyncIterable<Uint8Array>): Readable {
  const stream = Readable.from(chunks, { objectMode: false });
  // A stream that is given up before it is read never comes to iterate what it would have read from.
  stream.once('close', () => body.destroy());
  return stream;
}
