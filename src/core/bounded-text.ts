import { errorTextSizeMaxBytes } from './limits.ts';

const ellipsis = '...';

function isInsideCharacter(byte: number | undefined): boolean {
  return byte !== undefined && byte >> 6 === 0b10;
}

function beginningOf(text: string, sizeBytes: number): string {
  const bytes = Buffer.from(text.slice(0, sizeBytes));
  let end = Math.min(sizeBytes, bytes.length);
  while (isInsideCharacter(bytes[end])) end -= 1;
  return bytes.toString('utf8', 0, end);
}

function endOf(text: string, sizeBytes: number): string {
  const bytes = Buffer.from(text.slice(-sizeBytes));
  let start = Math.max(0, bytes.length - sizeBytes);
  while (isInsideCharacter(bytes[start])) start += 1;
  return bytes.toString('utf8', start);
}

/**
 * A text of an error, of at most 1 KiB in UTF-8, whatever the values that it was made of. The middle of a longer one is
 * left out: the action is at the beginning, what to do at the end.
 */
export function boundedText(text: string): string {
  const sizeMaxBytes = errorTextSizeMaxBytes;
  // A unit of UTF-16 takes three bytes at most.
  if (text.length * 3 <= sizeMaxBytes) return text;
  if (text.length <= sizeMaxBytes && Buffer.byteLength(text) <= sizeMaxBytes) return text;
  const partSizeBytes = Math.floor((sizeMaxBytes - ellipsis.length) / 2);
  return beginningOf(text, partSizeBytes) + ellipsis + endOf(text, partSizeBytes);
}
