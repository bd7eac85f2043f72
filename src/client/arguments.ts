// Checks of what callers pass, who may be programs without types.
import { Readable } from 'node:stream';
import { FiletrackerError } from '../core/errors.ts';
import { checkVersion } from '../core/file-version.ts';
import type { FileVersion } from '../core/file-version.ts';
import type { Chunks } from '../streams/chunks.ts';

/** @throws FiletrackerError `invalid-argument` for what is no path. */
export function requirePath(path: unknown): void {
  if (typeof path === 'string' && path !== '' && !path.includes('\0')) return;
  const shown = typeof path === 'string' ? JSON.stringify(path) : kindOf(path);
  throw new FiletrackerError(
    'invalid-argument',
    `Cannot use ${shown} as a path: it must be text without NUL`,
  );
}

/** @throws FiletrackerError `invalid-version`. */
export function cutoffOf({ cutoff }: { readonly cutoff?: FileVersion | undefined }): FileVersion | undefined {
  return cutoff === undefined ? undefined : checkVersion(cutoff);
}

function kindOf(value: unknown): string {
  return value === null ? 'null' : typeof value;
}

function isPieces(source: unknown): source is AsyncIterable<unknown> {
  if (typeof source !== 'object' || source === null || ArrayBuffer.isView(source)) return false;
  return Symbol.asyncIterator in source || Symbol.iterator in source;
}

/**
 * The bytes that a caller gives: pieces of bytes, or of text, which is UTF-8.
 * @throws FiletrackerError `invalid-argument`, also while they come.
 */
export function piecesOf(source: unknown): Chunks {
  if (isPieces(source)) return checkedPieces(source);
  throw new FiletrackerError(
    'invalid-argument',
    `Cannot put ${kindOf(source)}: it must be a stream, or give its pieces one by one`,
  );
}

async function* checkedPieces(source: AsyncIterable<unknown>): AsyncGenerator<Uint8Array> {
  for await (const piece of source) {
    if (typeof piece === 'string') yield Buffer.from(piece);
    else if (piece instanceof Uint8Array) yield piece;
    else {
      if (source instanceof Readable) source.destroy();
      throw new FiletrackerError(
        'invalid-argument',
        `Cannot put a piece that is ${kindOf(piece)}: it must be bytes or text`,
      );
    }
  }
}
