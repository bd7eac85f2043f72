import { CommanderError } from 'commander';
import { exitCodeOf, exitCodes, tellError } from './output.ts';
import { refuseUnreadableWords } from './unreadable-words.ts';

/**
 * Runs a program, whose result is the exit code of the process: what `main` throws is told, to `onFailure` too.
 * Help and the version end here as well, and mistakes in the flags; commander has printed what there is to say.
 */
export async function runToEnd(
  program: string,
  main: () => Promise<void>,
  onFailure?: (error: unknown) => void,
): Promise<void> {
  try {
    refuseUnreadableWords();
    await main();
  } catch (error) {
    if (error instanceof CommanderError) {
      process.exitCode = error.exitCode === 0 ? exitCodes.ok : exitCodes.usage;
      return;
    }
    tellError(program, error);
    onFailure?.(error);
    process.exitCode = exitCodeOf(error);
  }
}
