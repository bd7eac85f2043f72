import type { Readable } from 'node:stream';
import { FiletrackerError } from '../../core/errors.ts';
import { streamOver } from '../../streams/chunks.ts';
import { boundedChunks } from '../../streams/content-meter.ts';
import type { BlobReadOptions, ByteRange } from '../blob-store.ts';

/**
 * The stream of a response that has begun, checked against the requested range. `whole` says that the response is the
 * whole object: some servers ignore a range.
 */
export function bodyFor(
  body: Readable,
  length: number | undefined,
  { options, whole }: { readonly options: BlobReadOptions; readonly whole: boolean },
): Readable {
  const { range, storedSize } = options;
  const expected =
    storedSize === undefined || range === undefined || whole
      ? storedSize
      : Math.min(range.length, storedSize - range.start);
  if (expected !== undefined && length !== undefined && length !== expected) {
    body.destroy();
    throw shortBlob(length, expected);
  }
  // Node checks a body against its announced length, but not one without.
  const checked = length === undefined && expected !== undefined ? counted(body, expected) : body;
  return whole && range !== undefined ? streamOver(checked, partOf(checked, range)) : checked;
}

export function shortBlob(actual: number, expected: number): FiletrackerError {
  return new FiletrackerError('damaged-blob', 'Cannot read a blob: its size differs from the stored size', {
    details: { actual, expected },
  });
}

/** Fails if there are more or fewer bytes. */
function counted(body: Readable, sizeBytes: number): Readable {
  const chunks = boundedChunks(body, {
    sizeMaxBytes: sizeBytes,
    excess: () => shortBlob(sizeBytes + 1, sizeBytes),
    sizeMinBytes: sizeBytes,
    shortage: (actual) => shortBlob(actual, sizeBytes),
  });
  return streamOver(body, chunks);
}

async function* partOf(whole: Readable, { start, length }: ByteRange): AsyncGenerator<Uint8Array> {
  const end = start + length;
  let at = 0;
  for await (const chunk of whole as AsyncIterable<Uint8Array>) {
    const wanted = chunk.subarray(Math.max(0, start - at), Math.max(0, end - at));
    at += chunk.length;
    if (wanted.length > 0) yield wanted;
    // Leaving the loop closes the connection instead of reading the rest.
    if (at >= end) return;
  }
}
