import type { Readable } from 'node:stream';
import { FiletrackerError } from '../core/errors.ts';
import { seeksMax, seeksWaitingMax } from '../core/limits.ts';
import type { Connection } from './connections/connection.ts';

/**
 * Admits seeks: unpacking of a compressed content up to where a range begins, which costs a second for a GiB and
 * sends nothing.
 *
 * Invariant: at most `seeksMax` run at once, one of each sender, so that threads are left for everything else. The
 * others wait; senders take turns. At most `seeksWaitingMax` of one sender wait.
 */
export class SeekQueue {
  readonly #running = new Set<string>();
  /** By sender, the one whose turn is next first. */
  readonly #waiting = new Map<string, (() => void)[]>();

  /** Resolves when a seek may begin, to what ends it. @throws FiletrackerError `rate-limited`. */
  async enter(sender: string): Promise<() => void> {
    if (this.#running.size < seeksMax && !this.#running.has(sender)) this.#running.add(sender);
    else await this.#wait(sender);
    return () => {
      this.#running.delete(sender);
      this.#admit();
    };
  }

  #wait(sender: string): Promise<void> {
    const waiting = this.#waiting.get(sender) ?? [];
    if (waiting.length >= seeksWaitingMax) {
      throw new FiletrackerError(
        'rate-limited',
        `Cannot get a part of the file: ${seeksWaitingMax} parts of compressed files are being sought for the same token or address already; try again`,
      );
    }
    this.#waiting.set(sender, waiting);
    return new Promise((resolve) => {
      waiting.push(resolve);
    });
  }

  #admit(): void {
    for (const [sender, waiting] of this.#waiting) {
      if (this.#running.size >= seeksMax) return;
      if (this.#running.has(sender)) continue;
      this.#waiting.delete(sender);
      const begin = waiting.shift();
      if (begin === undefined) continue;
      // Behind all others, if there are more.
      if (waiting.length > 0) this.#waiting.set(sender, waiting);
      this.#running.add(sender);
      begin();
    }
  }
}

/** Resolves when the first bytes of a stream are there, or it is over; destroys it if the client goes away before. */
export function untilReadable(body: Readable, { socket }: Connection): Promise<void> {
  return new Promise((resolve) => {
    function over(): void {
      body.off('readable', over).off('error', over).off('close', over);
      socket.off('close', gone);
      resolve();
    }
    function gone(): void {
      body.destroy();
    }
    body.once('readable', over).once('error', over).once('close', over);
    socket.once('close', gone);
    if (socket.destroyed) gone();
  });
}
