// What all programs print, and how they end. Results go to the standard output; all else to the error output.
import { errnoOf, isFiletrackerError, localMessageOf, messageOf, type ErrorCode } from '../core/errors.ts';
import { asShown } from './shown-text.ts';

/** Exit codes of every program; the README lists them. */
export const exitCodes = { ok: 0, failure: 1, usage: 2, notFound: 3, refused: 4, unreachable: 5 } as const;

export type StopSignal = 'SIGINT' | 'SIGTERM';

/** The exit code of a program that a signal has stopped, as shells have it: 128 and the number of the signal. */
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
};

/** Where it is the server that says so: of a disk of this machine they are plain failures. */
const serverCodes: Readonly<Partial<Record<ErrorCode, number>>> = {
  'no-space': exitCodes.refused,
  'read-only': exitCodes.refused,
  busy: exitCodes.unreachable,
  unavailable: exitCodes.unreachable,
};

/** The exit code that an error ends a program with. */
export function exitCodeOf(error: unknown): number {
  if (!isFiletrackerError(error)) return exitCodes.failure;
  const byServer = error.details.status === undefined ? undefined : serverCodes[error.code];
  return byServer ?? codes[error.code] ?? exitCodes.failure;
}

/**
 * Deals with output that can't be written any more. Where its reader has seen enough (`| head`) and closed the pipe, that
 * is no mistake, and nobody is left to tell: a command that only prints ends quietly, as `onlyPrints` says; one that
 * changes something goes on, so that what it does is done whole and its exit code is true. Else, as on a full disk, what was
 * printed is not whole: that is a failure, told in one line. Not for the server, which goes on whoever reads what it prints.
 */
export function endWithReader(program: string, onlyPrints: () => boolean = () => false): void {
  for (const stream of [process.stdout, process.stderr]) {
    let readerGone = false;
    stream.on('error', (error) => {
      const errno = errnoOf(error);
      readerGone ||= errno === 'EPIPE';
      if (readerGone && !onlyPrints()) return;
      if (readerGone) process.exit(exitCodes.ok);
      const state =
        errno === 'ENOSPC' ? 'the disk is full' : `the system answered with ${errno ?? messageOf(error)}`;
      if (stream === process.stdout) tell(`${program}: Cannot write to the standard output: ${state}`);
      process.exit(exitCodes.failure);
    });
  }
}

/** Prints a line of results. */
export function printLine(line: string): void {
  process.stdout.write(`${line}\n`);
}

/** Prints one JSON object a line, for programs to read. */
export function printJson(value: unknown): void {
  printLine(JSON.stringify(value));
}

/** Tells people something that is no result. */
export function tell(line: string): void {
  process.stderr.write(`${line}\n`);
}

/** Tells what went wrong, in one line; a bug is told with its stack. */
export function tellError(program: string, error: unknown): void {
  const isOurs = isFiletrackerError(error) || !(error instanceof Error);
  // A text of ours is one line, and may hold the name of a file.
  const text = isOurs ? asShown(localMessageOf(error)) : error.stack;
  tell(`${program}: ${text ?? messageOf(error)}`);
}

/** Width for help texts: they are made for 80 columns, and read badly when much wider. */
export const helpWidth = 80;
