import { FiletrackerError } from '../core/errors.ts';
import type { Chunks } from '../streams/chunks.ts';

/** Longest line of a list: a name escaped for JSON, and figures. */
const lineMaxBytes = 64 * 1024;

/** Cuts UTF-8 text into lines, without their ends. */
export async function* linesOf(source: Chunks): AsyncGenerator<string> {
  const decoder = new TextDecoder('utf-8');
  let rest = '';
  for await (const chunk of source) {
    const lines = (rest + decoder.decode(chunk, { stream: true })).split('\n');
    rest = lines.pop() ?? '';
    if (rest.length > lineMaxBytes) {
      throw new FiletrackerError('protocol', 'Cannot read the list: a line of it is too long');
    }
    yield* lines;
  }
  rest += decoder.decode();
  if (rest !== '') yield rest;
}
