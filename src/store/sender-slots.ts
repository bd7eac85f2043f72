import { FiletrackerError } from '../core/errors.ts';

export interface SenderSlotsOptions {
  /** What the slots are for, in the plural: "uploads". */
  readonly what: string;
  /** Slots in all. */
  readonly max: number;
  /** Slots of one sender; `undefined` for a fair share. */
  readonly senderMax?: number | undefined;
}

/**
 * Counts what is in progress, in all and for each sender (a token or an address).
 *
 * Invariant: at most `max` slots are taken, and no sender has more than its share. A fair share is as many slots as are
 * free: a sender alone gets half of all, each of two a third, each of n an n+1st. So there is always a slot for the next
 * sender, and none is held back for senders that are not there.
 */
export class SenderSlots {
  readonly #options: SenderSlotsOptions;
  readonly #taken = new Map<string, number>();
  #count = 0;

  constructor(options: SenderSlotsOptions) {
    this.#options = options;
  }

  /** Slots that are taken. */
  get count(): number {
    return this.#count;
  }

  /**
   * @param action Completes "Cannot …" in errors.
   * @throws FiletrackerError `busy` if all slots are taken, `rate-limited` if the sender has its share.
   */
  check(action: string, sender: string): void {
    const { what, max, senderMax } = this.#options;
    if (this.#count >= max) {
      throw new FiletrackerError('busy', `Cannot ${action}: ${max} ${what} are in progress; try again`);
    }
    const own = this.#taken.get(sender) ?? 0;
    if (own === 0 || own < (senderMax ?? max - this.#count)) return;
    throw new FiletrackerError(
      'rate-limited',
      `Cannot ${action}: ${own} ${what} of this token or address are in progress, and the others are reserved for other clients; try again when one has ended`,
    );
  }

  /** @throws as `check`. */
  take(action: string, sender: string): void {
    this.check(action, sender);
    this.#count += 1;
    this.#taken.set(sender, (this.#taken.get(sender) ?? 0) + 1);
  }

  release(sender: string): void {
    this.#count -= 1;
    const left = (this.#taken.get(sender) ?? 0) - 1;
    if (left > 0) this.#taken.set(sender, left);
    else this.#taken.delete(sender);
  }
}
