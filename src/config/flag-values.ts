import { FiletrackerError, isFiletrackerError } from '../core/errors.ts';
import { parseDurationMs, parseSizeBytes } from '../core/quantities.ts';

/** @throws FiletrackerError `invalid-argument`. */
export function refuseFlag(flag: string, value: string, state: string): never {
  throw new FiletrackerError('invalid-argument', `Cannot use ${flag} "${value}": ${state}`);
}

/** Reads a value, and names the flag in what is wrong with it. */
function readNamed<Value>(flag: string, text: string, read: (text: string) => Value): Value {
  try {
    return read(text);
  } catch (error) {
    if (!isFiletrackerError(error)) throw error;
    throw new FiletrackerError(
      'invalid-argument',
      error.message.replace('Cannot use', `Cannot use ${flag}`),
      {
        cause: error,
      },
    );
  }
}

function requireExact(flag: string, text: string, value: number): number {
  return Number.isSafeInteger(value) ? value : refuseFlag(flag, text, 'it is beyond every bound');
}

/** Reads `1G512M`, or 0. In bytes. @throws FiletrackerError `invalid-argument`. */
export function readSizeFlag(flag: string, text: string): number {
  return requireExact(flag, text, text === '0' ? 0 : readNamed(flag, text, parseSizeBytes));
}

/** Reads `1h30m`, or 0. In milliseconds. @throws FiletrackerError `invalid-argument`. */
export function readDurationFlag(flag: string, text: string): number {
  return requireExact(flag, text, readNamed(flag, text, parseDurationMs));
}

/** A flag with nothing behind it is no flag that was left out: most often a variable of a script was empty. */
export function givenFlag(flag: string, text: string | undefined): string | undefined {
  return text === '' ? refuseFlag(flag, '', 'it is empty; name something, or leave the flag out') : text;
}

/** A variable that is set to nothing, or to blanks, counts as none. */
export function nonEmpty(text: string | undefined): string | undefined {
  return text === undefined || text.trim() === '' ? undefined : text;
}
