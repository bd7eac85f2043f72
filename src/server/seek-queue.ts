import type { Readable } from 'node:stream';
import { cannot } from '../core/errors.ts';
import { seeksMax, seeksWaitingMax } from '../core/limits.ts';
import type { Connection } from './connections/connection.ts';

/**
 * Admits seeks: decompressing a blob up to the start of a range, which takes a second per GiB and sends nothing.
 *
 * Invariant: at most `seeksMax` run at once, one per sender, so that threads are left for everything else. The others
 * wait, and senders take turns. At most `seeksWaitingMax` of one sender wait.
 */
export class SeekQueue {
  readonly #running = new Set<string>();
  /** By sender, in the order of their turns. */
  readonly #waiting = new Map<string, (() => void)[]>();

  /** Resolves when a seek may begin, to a function that ends it. @throws FiletrackerError `rate-limited`. */
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
      const state = `${seeksWaitingMax} ranges of compressed files are already in progress for this token or address`;
      throw cannot('rate-limited', 'get a part of the file', `${state}; retry`);
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
      // Its next seek comes after those of all other senders.
      if (waiting.length > 0) this.#waiting.set(sender, waiting);
      this.#running.add(sender);
      begin();
    }
  }
}

/** Resolves when a stream has its first bytes, or is over; destroys it if the client disconnects before. */
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
