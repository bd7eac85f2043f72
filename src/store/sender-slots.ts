import { FiletrackerError } from '../core/errors.ts';

export interface SenderSlotsOptions {
  /** What the slots are for, in words and many: "uploads". */
  readonly what: string;
  /** How many may be under way at once. */
  readonly max: number;
  /** Of one sender; undefined for no more than are left free for others. */
  readonly senderMax?: number | undefined;
}

/**
 * Counts what is under way, and that of each sender.
 *
 * Invariant: at most `max` are taken, and no sender has more than its part. Unless that is given, it is as
 * many as are free: one alone gets half, each of two a third, each of n an n+1st. So there is room for whoever comes
 * next, and nobody is held back for the sake of senders who are not there.
 */
export class SenderSlots {
  readonly #options: SenderSlotsOptions;
  readonly #taken = new Map<string, number>();
  #count = 0;

  constructor(options: SenderSlotsOptions) {
    this.#options = options;
  }

  get count(): number {
    return this.#count;
  }

  /**
   * @param action Completes "Cannot …" in errors.
   * @throws FiletrackerError `busy` where all are taken, `rate-limited` where the sender has its part.
   */
  check(action: string, sender: string | undefined): void {
    const { what, max, senderMax } = this.#options;
    if (this.#count >= max) {
      throw new FiletrackerError('busy', `Cannot ${action}: ${max} ${what} are under way already, try again`);
    }
    const own = sender === undefined ? 0 : (this.#taken.get(sender) ?? 0);
    if (own === 0 || own < (senderMax ?? max - this.#count)) return;
    throw new FiletrackerError(
      'rate-limited',
      `Cannot ${action}: ${own} ${what} of the same token or address are under way already, and the rest is for others; try again when one of them has ended`,
    );
  }

  /** @throws as `check`. */
  take(action: string, sender: string | undefined): void {
    this.check(action, sender);
    this.#count += 1;
    if (sender !== undefined) this.#taken.set(sender, (this.#taken.get(sender) ?? 0) + 1);
  }

  /** Gives back what was taken for the sender. */
  release(sender: string | undefined): void {
    this.#count -= 1;
    if (sender === undefined) return;
    const left = (this.#taken.get(sender) ?? 0) - 1;
    if (left > 0) this.#taken.set(sender, left);
    else this.#taken.delete(sender);
  }
}
