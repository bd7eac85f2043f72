import type { CommanderError } from 'commander';
import { endWithReader, exitCodeOf, exitCodes, tellError, type OutputOptions } from './output.ts';
import { refuseUnreadableWords } from './unreadable-words.ts';

export interface RunOptions extends OutputOptions {
  /** Called with the error that ends the program, after it was printed. */
  readonly onFailure?: (error: unknown) => void;
}

/**
 * Runs a program to its exit code. Every failure ends here, in one line and never a stack: errors of `main`, uncaught
 * errors, and output that cannot be written.
 */
export async function runToEnd(
  program: string,
  main: () => Promise<void>,
  { onFailure, ...output }: RunOptions = {},
): Promise<void> {
  endWithReader(program, output);
  reportUncaught(program, onFailure);
  try {
    refuseUnreadableWords();
    await main();
  } catch (error) {
    // Help, the version and wrong flags end here too; commander has printed them.
    if (isCommanderError(error)) {
      process.exitCode = error.exitCode === 0 ? exitCodes.ok : exitCodes.usage;
      return;
    }
    tellError(program, error);
    onFailure?.(error);
    process.exitCode = exitCodeOf(error);
  }
}

/** Checks the name, because a plain `get` does not load commander. */
function isCommanderError(error: unknown): error is CommanderError {
  return error instanceof Error && error.name === 'CommanderError';
}

/** Ends the process on an error that nothing catches, unless a part of the program has a handler of its own. */
function reportUncaught(program: string, onFailure: RunOptions['onFailure']): void {
  process.on('uncaughtException', (error) => {
    if (process.listenerCount('uncaughtException') > 1) return;
    tellError(program, error);
    onFailure?.(error);
    process.exit(exitCodeOf(error));
  });
}
