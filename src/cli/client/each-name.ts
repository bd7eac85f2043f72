import { isFiletrackerError } from '../../core/errors.ts';
import { exitCodes, tellError } from '../output.ts';
import { programName } from './context.ts';

/**
 * Works on one name after another. One that is not there keeps no other from its turn: it is told, and the exit code
 * of the program says so at the end.
 */
export async function forEachName(
  names: readonly string[],
  work: (name: string) => Promise<void>,
): Promise<void> {
  for (const name of names) {
    try {
      await work(name);
    } catch (error) {
      if (!isFiletrackerError(error, 'not-found')) throw error;
      tellError(programName, error);
      process.exitCode = exitCodes.notFound;
    }
  }
}
