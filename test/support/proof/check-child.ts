// Checks stores that it is told of, one after the other. A program of its own, as the damage that a missing sync
// leaves in the index may end the process that reads it.
import { readHistory } from './history.ts';
import { checkStore } from './store-check.ts';

export interface CheckRequest {
  readonly folder: string;
  readonly sequence: number;
}

/** What is wrong; null where nothing is. */
export interface CheckAnswer {
  readonly problem: string | null;
}

process.on('message', (request: CheckRequest) => {
  void check(request).then((answer) => process.send?.(answer));
});

async function check({ folder, sequence }: CheckRequest): Promise<CheckAnswer> {
  try {
    // Read anew each time, as a history may grow from one crash to the next.
    const attempts = readHistory(...process.argv.slice(2));
    await checkStore(folder, attempts, sequence);
    return { problem: null };
  } catch (error) {
    const cause = error instanceof Error && error.cause instanceof Error ? ` (${error.cause.message})` : '';
    return { problem: `${String(error)}${cause}` };
  }
}
