import { fork, type ChildProcess } from 'node:child_process';
import { builtProgram } from './child-program.ts';
import type { CheckAnswer, CheckRequest } from './check-child.ts';

/** Checks stores in another process, which is started again where a damaged store has ended it. */
export class StoreChecker implements Disposable {
  readonly #program: string;
  readonly #histories: readonly string[];
  #child: ChildProcess | undefined;

  private constructor(program: string, histories: readonly string[]) {
    this.#program = program;
    this.#histories = histories;
  }

  static async start(...histories: readonly string[]): Promise<StoreChecker> {
    return new StoreChecker(await builtProgram('./check-child.ts'), histories);
  }

  /** What is wrong with a store, or undefined. `sequence` is the moment at which it was cut off. */
  check(folder: string, sequence: number = Number.MAX_SAFE_INTEGER): Promise<string | undefined> {
    const child = (this.#child ??= fork(this.#program, this.#histories, { stdio: 'ignore' }));
    return new Promise((resolve) => {
      const answered = (answer: CheckAnswer): void => {
        child.off('exit', ended);
        resolve(answer.problem ?? undefined);
      };
      const ended = (code: number | null, signal: NodeJS.Signals | null): void => {
        this.#child = undefined;
        resolve(`the process that opened the store ended with ${signal ?? code}`);
      };
      child.once('message', answered).once('exit', ended);
      child.send({ folder, sequence } satisfies CheckRequest);
    });
  }

  [Symbol.dispose](): void {
    this.#child?.kill('SIGKILL');
  }
}
