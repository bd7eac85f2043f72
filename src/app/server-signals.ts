import type { Log } from './log.ts';
import type { Supervisor } from './supervisor.ts';

/** What `untilStop` resolves to when another process has taken over. */
export const takeoverReason = 'take-over';

/**
 * The signals to a server that change how it goes on. They are taken from before the first work on: by default they end a
 * process, be it in the middle of taking an old folder over. What can't be done before there are workers is done then.
 */
export class ServerSignals {
  readonly #log: Log;
  #supervisor: Supervisor | undefined;
  #stop: ((reason: string) => void) | undefined;
  #endPause: (() => void) | undefined;
  #reloadMissed = false;
  #takeOverMissed = false;

  constructor(log: Log) {
    this.#log = log;
    process.on('SIGHUP', () => this.#reload());
    process.on('SIGUSR2', () => this.#takeOver());
  }

  /**
   * Resolves when this process shall stop: at a signal, or when another has taken over. A further signal ends a `pause`,
   * and kills if there is none.
   */
  untilStop(supervisor: Supervisor): Promise<string> {
    this.#supervisor = supervisor;
    if (this.#reloadMissed) supervisor.reloadWorkers();
    return new Promise((resolve) => {
      this.#stop = resolve;
      let stopping = false;
      const stop = (signal: NodeJS.Signals): void => {
        if (this.#endPause !== undefined) {
          this.#endPause();
          return;
        }
        if (stopping) {
          this.#log.logger.fatal(`stopped at once by a second ${signal}`);
          this.#log.close();
          supervisor.killWorkers();
          process.exit(1);
        }
        stopping = true;
        resolve(signal);
      };
      process.on('SIGTERM', stop).on('SIGINT', stop);
      if (this.#takeOverMissed) this.#takeOver();
    });
  }

  /** Resolves after a time, or at the next signal to stop. */
  async pause(timeMs: number): Promise<void> {
    await new Promise<void>((resolve) => {
      const timer = setTimeout(resolve, timeMs);
      this.#endPause = () => {
        clearTimeout(timer);
        resolve();
      };
    });
    this.#endPause = undefined;
  }

  #reload(): void {
    this.#log.reopen();
    this.#log.logger.info('log opened anew');
    if (this.#supervisor === undefined) this.#reloadMissed = true;
    else this.#supervisor.reloadWorkers();
  }

  #takeOver(): void {
    if (this.#supervisor === undefined) {
      this.#takeOverMissed = true;
      return;
    }
    void this.#supervisor.takeOver().then((done) => {
      if (done) this.#stop?.(takeoverReason);
    });
  }
}
