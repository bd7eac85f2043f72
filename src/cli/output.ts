// Output and exit codes of all programs. Results go to the standard output; everything else to the error output.
import { fromLocalError } from '../client/local-errors.ts';
import { errnoOf, isFiletrackerError, localMessageOf, messageOf, type ErrorCode } from '../core/errors.ts';
import { asShown, withoutSecrets } from '../core/shown-text.ts';

/** Exit codes of every program; docs/CLIENT.md and `filetracker --help` list them. */
export const exitCodes = { ok: 0, failure: 1, usage: 2, notFound: 3, refused: 4, unreachable: 5 } as const;

export type StopSignal = 'SIGINT' | 'SIGTERM';

/** The exit code of a program that a signal has stopped, as in shells: 128 plus the number of the signal. */
export function exitCodeOfSignal(signal: StopSignal): number {
  return signal === 'SIGINT' ? 130 : 143;
}

const codes: Readonly<Partial<Record<ErrorCode, number>>> = {
  'invalid-argument': exitCodes.usage,
  'invalid-name': exitCodes.usage,
  'invalid-version': exitCodes.usage,
  'not-found': exitCodes.notFound,
  'not-a-directory': exitCodes.notFound,
  unauthorized: exitCodes.refused,
  forbidden: exitCodes.refused,
  'name-conflict': exitCodes.refused,
  'precondition-failed': exitCodes.refused,
  removed: exitCodes.refused,
  'too-large': exitCodes.refused,
  'quota-exceeded': exitCodes.refused,
  'rate-limited': exitCodes.refused,
  unreachable: exitCodes.unreachable,
  timeout: exitCodes.unreachable,
  protocol: exitCodes.unreachable,
};

/** Codes of errors that a server reports; for a disk of this machine they are plain failures. */
const serverCodes: Readonly<Partial<Record<ErrorCode, number>>> = {
  'no-space': exitCodes.refused,
  'read-only': exitCodes.refused,
  busy: exitCodes.unreachable,
  unavailable: exitCodes.unreachable,
};

/** The exit code of a program that fails with this error. */
export function exitCodeOf(error: unknown): number {
  if (!isFiletrackerError(error)) return exitCodes.failure;
  const byServer = error.details.status === undefined ? undefined : serverCodes[error.code];
  return byServer ?? codes[error.code] ?? exitCodes.failure;
}

export interface OutputOptions {
  /** Whether the program's work is done when the reader of its output is gone. */
  readonly onlyPrints?: () => boolean;
  /** Whether the program is a server, which continues even if it cannot print. */
  readonly serves?: () => boolean;
}

/**
 * Handles output that cannot be written. A reader that closes the pipe (`| head`) is no error: a command that only prints
 * (`onlyPrints`) ends quietly; a command that changes something continues, so that its work is complete and its exit
 * code is true. Any other failure, such as a full disk, is reported in one line.
 */
export function endWithReader(program: string, { onlyPrints, serves }: OutputOptions = {}): void {
  for (const stream of [process.stdout, process.stderr]) {
    let readerGone = false;
    stream.on('error', (error) => {
      const errno = errnoOf(error);
      readerGone ||= errno === 'EPIPE';
      if (serves?.() === true) return;
      if (readerGone && onlyPrints?.() !== true) return;
      if (readerGone) process.exit(exitCodes.ok);
      const state =
        errno === 'ENOSPC' ? 'the disk is full' : `the system reports ${errno ?? messageOf(error)}`;
      if (stream === process.stdout) tell(`${program}: Cannot write to the standard output: ${state}`);
      process.exit(exitCodes.failure);
    });
  }
}

/** Prints a line of results. */
export function printLine(line: string): void {
  process.stdout.write(`${line}\n`);
}

/** Prints a result that may contain line breaks, for programs that read until NUL. */
export function printNull(text: string): void {
  process.stdout.write(`${text}\0`);
}

/** Prints one JSON object on a line. */
export function printJson(value: unknown): void {
  printLine(JSON.stringify(value));
}

/** Prints a message for people, which is not a result. */
export function tell(line: string): void {
  process.stderr.write(`${line}\n`);
}

/** If set, a bug is reported with its stack. */
const debugVariable = 'FILETRACKER_DEBUG';

/** Reports an error in one line. */
export function tellError(program: string, error: unknown): void {
  const told = fromLocalError(error, 'continue');
  const isOurs = isFiletrackerError(told) || !(told instanceof Error);
  // A text may contain the name of a file, or an address that was passed as one.
  tell(`${program}: ${withoutSecrets(asShown(isOurs ? localMessageOf(told) : bugText(told)))}`);
  if (!isOurs && process.env[debugVariable] !== undefined) tell(withoutSecrets(told.stack ?? ''));
}

function bugText(error: Error): string {
  const what = `${error.name}: ${error.message}`.slice(0, 500);
  return `Cannot continue: internal error (${what}); please report it, with the output under ${debugVariable}=1`;
}
