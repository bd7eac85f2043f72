import { isUtf8 } from 'node:buffer';
import { FiletrackerError } from '../core/errors.ts';
import type { Chunks } from '../streams/chunks.ts';

/** Longest line of a list: a name escaped for JSON, and figures. */
const lineMaxBytes = 64 * 1024;
const lineFeed = 0x0a;

/**
 * Cuts a list into lines, without their ends. A line ends at a line feed and nowhere else, or at another byte that is
 * given (0 as with `find -print0`); all else is part of it, also blanks and a byte order mark.
 * @throws FiletrackerError `protocol` for a line that is too long, or is not UTF-8.
 */
export async function* linesOf(source: Chunks, endByte = lineFeed): AsyncGenerator<string> {
  let rest: Uint8Array[] = [];
  let restBytes = 0;
  for await (const chunk of source) {
    let begin = 0;
    for (let end = chunk.indexOf(endByte); end !== -1; end = chunk.indexOf(endByte, begin)) {
      yield textOf([...rest, chunk.subarray(begin, end)]);
      rest = [];
      restBytes = 0;
      begin = end + 1;
    }
    rest.push(chunk.subarray(begin));
    restBytes += chunk.length - begin;
    if (restBytes > lineMaxBytes) {
      throw new FiletrackerError('protocol', 'Cannot read the list: a line of it is too long');
    }
  }
  if (restBytes > 0) yield textOf(rest);
}

function textOf(parts: readonly Uint8Array[]): string {
  const bytes = Buffer.concat(parts);
  if (isUtf8(bytes)) return bytes.toString();
  throw new FiletrackerError('protocol', `Cannot read the list: the line "${bytes.toString()}" is not UTF-8`);
}
