// Writing a download to a file.
import { open } from 'node:fs/promises';
import type { FileHandle } from 'node:fs/promises';
import { errnoOf } from '../../core/errors.ts';
import type { Chunks } from '../../streams/chunks.ts';

/** Thrown if the local disk fails, and not the server. */
export class SinkError extends Error {
  constructor(cause: unknown) {
    super('Cannot write the file', { cause });
  }
}

/**
 * Bytes per write: to pass a write to another thread costs as much as writing a small piece, and more bytes than this do
 * not fit into the processor's cache.
 */
const writeSizeBytes = 512 * 1024;
/** Bytes to free at once on a full disk, so that there is space for the next pieces too. */
export const freeStepBytes = 16 * 1024 * 1024;

/**
 * Appends pieces to a file; the next ones may arrive during a write.
 * @param freeDisk frees bytes on a full disk and returns how many.
 * @throws SinkError with the system's error as its cause; the errors of `source`.
 */
export async function writeChunks(
  path: string,
  source: Chunks,
  freeDisk?: (bytes: number) => Promise<number>,
): Promise<void> {
  const handle = await asSink(open(path, 'a', 0o666));
  let writing: Promise<void> = Promise.resolve();
  let pieces: Uint8Array[] = [];
  let gatheredBytes = 0;
  const flush = async (): Promise<void> => {
    await writing;
    writing = asSink(writeAll(handle, pieces, freeDisk));
    // Awaited by the next flush, or at the end.
    writing.catch(ignoreFailure);
    pieces = [];
    gatheredBytes = 0;
  };
  try {
    for await (const piece of source) {
      pieces.push(piece);
      gatheredBytes += piece.length;
      if (gatheredBytes >= writeSizeBytes) await flush();
    }
  } finally {
    // Pieces that arrived before a failure are written all the same: the next download resumes after them.
    await flush().then(() => writing, ignoreFailure);
    await writing.catch(ignoreFailure);
    await handle.close();
  }
  await writing;
}

/** `await writing` throws the failure. */
function ignoreFailure(): void {
  // Nothing to do.
}

/** Writes all of the pieces, in as many system calls as it takes. */
export async function writeAll(
  handle: FileHandle,
  pieces: readonly Uint8Array[],
  freeDisk?: (bytes: number) => Promise<number>,
): Promise<void> {
  let left = pieces.filter((piece) => piece.length > 0);
  while (left.length > 0) {
    try {
      left = after(left, (await handle.writev(left)).bytesWritten);
    } catch (error) {
      if (errnoOf(error) !== 'ENOSPC' || freeDisk === undefined) throw error;
      if ((await freeDisk(freeStepBytes)) === 0) throw error;
    }
  }
}

/** The pieces without their first bytes. */
function after(pieces: readonly Uint8Array[], bytes: number): Uint8Array[] {
  let skip = bytes;
  return pieces.flatMap((piece) => {
    const rest = piece.subarray(Math.min(skip, piece.length));
    skip -= piece.length - rest.length;
    return rest.length > 0 ? [rest] : [];
  });
}

async function asSink<T>(work: Promise<T>): Promise<T> {
  try {
    return await work;
  } catch (error) {
    throw new SinkError(error);
  }
}
