import { FiletrackerError } from '../../core/errors.ts';

/** So many at the same time; the others wait in the order in which they came. */
export class Slots {
  readonly #count: number;
  #free: number;
  readonly #waiting: { readonly wanted: number; readonly enter: () => void }[] = [];

  constructor(count: number) {
    this.#count = count;
    this.#free = count;
  }

  /**
   * Takes slots, all of them where more are wanted than there are. Resolves to what gives them back; calling that
   * again does nothing. @throws FiletrackerError `aborted`.
   */
  async take(signal?: AbortSignal, count = 1): Promise<() => void> {
    const wanted = Math.min(count, this.#count);
    if (this.#waiting.length === 0 && this.#free >= wanted) this.#free -= wanted;
    else await this.#wait(wanted, signal);
    let held = true;
    return () => {
      if (!held) return;
      held = false;
      this.#free += wanted;
      this.#admit();
    };
  }

  #admit(): void {
    for (
      let [next] = this.#waiting;
      next !== undefined && this.#free >= next.wanted;
      [next] = this.#waiting
    ) {
      this.#waiting.shift();
      this.#free -= next.wanted;
      next.enter();
    }
  }

  #wait(wanted: number, signal: AbortSignal | undefined): Promise<void> {
    return new Promise((resolve, reject) => {
      const enter = (): void => {
        signal?.removeEventListener('abort', leave);
        resolve();
      };
      const waiting = { wanted, enter };
      const leave = (): void => {
        const at = this.#waiting.indexOf(waiting);
        if (at !== -1) this.#waiting.splice(at, 1);
        // Who came later and wants less may have waited for this one alone.
        this.#admit();
        reject(new FiletrackerError('aborted', 'Cannot write an upload: it was aborted'));
      };
      signal?.addEventListener('abort', leave, { once: true });
      this.#waiting.push(waiting);
      if (signal?.aborted === true) leave();
    });
  }
}
