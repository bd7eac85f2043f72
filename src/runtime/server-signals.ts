import type { Log } from '../telemetry/log.ts';
import type { Supervisor } from './supervisor.ts';

/** The reason that `untilStop` resolves to when another process has taken over. */
export const takeoverReason = 'take-over';

/**
 * Handles the signals to a server. HUP and USR2 are handled before any other work begins, because by default they would
 * end the process, even while it adopts an old folder. Their actions wait until there are workers.
 */
export class ServerSignals {
  readonly #log: Log;
  #supervisor: Supervisor | undefined;
  #stop: ((reason: string) => void) | undefined;
  #endPause: (() => void) | undefined;
  #stopSignal: NodeJS.Signals | undefined;
  #reloadMissed = false;
  #takeOverMissed = false;

  constructor(log: Log) {
    this.#log = log;
    process.on('SIGHUP', () => this.#reload());
    process.on('SIGUSR2', () => this.#takeOver());
  }

  /**
   * Handles the signals to stop, which end the process by default. Called before the first worker starts: a worker serves
   * as soon as it is ready, and a serving server stops in order. `untilStop` reports a signal that came before it.
   */
  takeStops(): void {
    const stop = (signal: NodeJS.Signals): void => {
      if (this.#endPause !== undefined) {
        this.#endPause();
        return;
      }
      if (this.#stopSignal !== undefined) {
        this.#log.logger.fatal(`stopped at once by a second ${signal}`);
        this.#log.close();
        this.#supervisor?.killWorkers();
        process.exit(1);
      }
      this.#stopSignal = signal;
      this.#stop?.(signal);
    };
    process.on('SIGTERM', stop).on('SIGINT', stop);
  }

  /**
   * Resolves when this process must stop: at a signal, or when another has taken over. A further signal ends a `pause`,
   * or kills the workers if there is none.
   */
  untilStop(supervisor: Supervisor): Promise<string> {
    this.#supervisor = supervisor;
    if (this.#reloadMissed) supervisor.reloadWorkers();
    return new Promise((resolve) => {
      this.#stop = resolve;
      if (this.#stopSignal !== undefined) resolve(this.#stopSignal);
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
    this.#log.logger.info('log reopened');
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
