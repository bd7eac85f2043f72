import { isUtf8 } from 'node:buffer';
import { readFileSync } from 'node:fs';
import { FiletrackerError } from '../core/errors.ts';

/** Node puts this in place of bytes of an argument that are not UTF-8. */
export const replacement = '\u{FFFD}';

/**
 * Refuses arguments that are not UTF-8: Node has changed them, so that the program would read, write or remove files of
 * other names. If the system does not show the bytes (Linux does), arguments are accepted as they are.
 * @throws FiletrackerError `invalid-argument`.
 */
export function refuseUnreadableWords(): void {
  if (!process.argv.some((word) => word.includes(replacement))) return;
  if (isUtf8(bytesOfArguments())) return;
  const shown = process.argv.filter((word) => word.includes(replacement)).map((word) => JSON.stringify(word));
  throw new FiletrackerError(
    'invalid-argument',
    `Cannot read the argument ${shown.join(', ')}: names and paths must be UTF-8; rename the file, or pass its folder`,
  );
}

function bytesOfArguments(): Buffer {
  try {
    return readFileSync('/proc/self/cmdline');
  } catch {
    return Buffer.alloc(0);
  }
}
