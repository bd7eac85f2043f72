import { closeSync, openSync, readFileSync } from 'node:fs';
import type { Logger } from 'pino';
import { systemClock, type Clock } from '../core/clock.ts';
import { errnoOf } from '../core/errors.ts';
import type { RequestObserver } from '../server/observer.ts';

const tellIntervalMs = 60_000;
const outOfDescriptors: ReadonlySet<string | undefined> = new Set(['EMFILE', 'ENFILE']);

/**
 * Connections that were dealt to this process and did not get here, because it may open no more files: the system closes
 * them, and says so to nobody. Counted, and told once a minute at the most.
 */
export class LostConnections {
  readonly #logger: Logger;
  readonly #observer: Pick<RequestObserver, 'refusedConnection'>;
  readonly #clock: Clock;
  /** Read before the need: where no file can be opened, that one can't be either. */
  readonly #limit = readLimit();
  #untold = 0;
  #toldMs = Number.NEGATIVE_INFINITY;

  constructor(
    logger: Logger,
    observer: Pick<RequestObserver, 'refusedConnection'>,
    clock: Clock = systemClock,
  ) {
    this.#logger = logger;
    this.#observer = observer;
    this.#clock = clock;
  }

  /** To be called at once: there may be other reasons. */
  note(): void {
    if (!isOutOfDescriptors()) return;
    this.#observer.refusedConnection('', 0, 'too many open files');
    this.#untold += 1;
    const nowMs = this.#clock.nowMs();
    if (nowMs - this.#toldMs < tellIntervalMs) return;
    const limits = { limit: this.#limit, connections: this.#untold };
    this.#logger.warn(
      limits,
      'connections were closed unanswered: this process may open no more files; raise ulimit -n (LimitNOFILE= of systemd), or lower --connections-max',
    );
    this.#toldMs = nowMs;
    this.#untold = 0;
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
