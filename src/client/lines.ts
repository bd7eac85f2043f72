import { isUtf8 } from 'node:buffer';
import { cannot } from '../core/errors.ts';
import type { Chunks } from '../streams/chunks.ts';

/** Longest line of a list: a name escaped for JSON, and numbers. */
const lineMaxBytes = 64 * 1024;
const lineFeed = 0x0a;

/**
 * Cuts a list into lines, without their ends. A line ends at a line feed only, or at the given byte (0 as for
 * `find -print0`); all else belongs to it, also blanks and a byte order mark.
 * @throws FiletrackerError `protocol` for a line that is too long or not UTF-8.
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
      throw cannot('protocol', 'read the list', 'a line of it is too long');
    }
  }
  if (restBytes > 0) yield textOf(rest);
}

function textOf(parts: readonly Uint8Array[]): string {
  const bytes = Buffer.concat(parts);
  if (isUtf8(bytes)) return bytes.toString();
  throw cannot('protocol', 'read the list', `the line "${bytes.toString()}" is not UTF-8`);
}
