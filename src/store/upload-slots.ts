import { FiletrackerError } from '../core/errors.ts';
import type { FileName } from '../core/file-name.ts';

export interface UploadSlotsOptions {
  /** Puts under way at once. */
  readonly uploadsMax: number;
  /** Of one sender; undefined for no more than are left free for others. */
  readonly senderUploadsMax?: number | undefined;
}

/**
 * Counts the puts under way, and those of each sender.
 *
 * Invariant: at most `uploadsMax` are taken, and no sender has more than his part. Unless that is given, it is as
 * many as are free: one alone gets half, each of two a third, each of n an n+1st. So there is room for whoever comes
 * next, and nobody is held back for the sake of senders who are not there.
 */
export class UploadSlots {
  readonly #options: UploadSlotsOptions;
  readonly #taken = new Map<string, number>();
  #count = 0;

  constructor(options: UploadSlotsOptions) {
    this.#options = options;
  }

  get count(): number {
    return this.#count;
  }

  /** @throws FiletrackerError `busy` where all are taken, `rate-limited` where the sender has his part. */
  check(name: FileName, sender: string | undefined): void {
    const { uploadsMax, senderUploadsMax } = this.#options;
    if (this.#count >= uploadsMax) {
      throw new FiletrackerError(
        'busy',
        `Cannot store "${name}": ${uploadsMax} uploads are under way already, try again`,
      );
    }
    const own = sender === undefined ? 0 : (this.#taken.get(sender) ?? 0);
    if (own === 0 || own < (senderUploadsMax ?? uploadsMax - this.#count)) return;
    throw new FiletrackerError(
      'rate-limited',
      `Cannot store "${name}": ${own} uploads of the same token or address are under way already, and the rest is for others; try again when one of them has ended`,
    );
  }

  /** @throws as `check`. */
  take(name: FileName, sender: string | undefined): void {
    this.check(name, sender);
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
