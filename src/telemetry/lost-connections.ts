import { closeSync, openSync, readFileSync } from 'node:fs';
import type { Logger } from 'pino';
import { systemClock, type Clock } from '../core/clock.ts';
import { errnoOf } from '../core/errors.ts';
import type { RequestObserver } from '../server/observer.ts';

const logIntervalMs = 60_000;
const outOfDescriptors: ReadonlySet<string | undefined> = new Set(['EMFILE', 'ENFILE']);

/**
 * Connections that the supervisor passed to this process and that it never received, because it may open no more files:
 * the system closes them without a report. They are counted, and logged at most once a minute.
 */
export class LostConnections {
  readonly #logger: Logger;
  readonly #observer: Pick<RequestObserver, 'refusedConnection'>;
  readonly #clock: Clock;
  /** Read in advance, because it cannot be opened either when no file can. */
  readonly #limit = readLimit();
  #unlogged = 0;
  #loggedMs = Number.NEGATIVE_INFINITY;

  constructor(
    logger: Logger,
    observer: Pick<RequestObserver, 'refusedConnection'>,
    clock: Clock = systemClock,
  ) {
    this.#logger = logger;
    this.#observer = observer;
    this.#clock = clock;
  }

  /** Must be called immediately, to rule out other reasons. */
  note(): void {
    if (!isOutOfDescriptors()) return;
    this.#observer.refusedConnection('', 0, 'too many open files');
    this.#unlogged += 1;
    const nowMs = this.#clock.nowMs();
    if (nowMs - this.#loggedMs < logIntervalMs) return;
    const limits = { limit: this.#limit, connections: this.#unlogged };
    this.#logger.warn(
      limits,
      'connections were closed without a response: this process may open no more files; raise ulimit -n (systemd: LimitNOFILE=) or lower --connections-max',
    );
    this.#loggedMs = nowMs;
    this.#unlogged = 0;
  }
}

function isOutOfDescriptors(): boolean {
  try {
    closeSync(openSync('/dev/null', 'r'));
    return false;
  } catch (error) {
    return outOfDescriptors.has(errnoOf(error));
  }
}

function readLimit(): number | undefined {
  try {
    const [, soft] = /^Max open files\s+(\d+)/m.exec(readFileSync('/proc/self/limits', 'utf8')) ?? [];
    return soft === undefined ? undefined : Number(soft);
  } catch {
    return undefined;
  }
}
