import { randomInt } from 'node:crypto';
import { open } from 'node:fs/promises';
import { fromSystemError } from '../core/errors.ts';
import { loadSystemCalls } from './native.ts';

const counterSizeBytes = 4;
const valueLimit = 2 ** 31 - 1;

/**
 * A number that the processes of a machine share through a mapped file: a read takes nanoseconds and no system call.
 * Only changes have a meaning: it starts anywhere, and wraps around.
 *
 * Invariant: an increment before a message was sent is visible to the receiver of the message. The file has its
 * blocks on the disk (it is written before it is mapped), so that a full disk cannot fail a later access.
 */
export class SharedCounter {
  readonly #cell: Int32Array;

  private constructor(cell: Int32Array) {
    this.#cell = cell;
  }

  /** Creates the file if it is missing. @throws FiletrackerError of the disk. */
  static async open(path: string): Promise<SharedCounter> {
    try {
      const file = await open(path, 'a+');
      try {
        if ((await file.stat()).size < counterSizeBytes) await beginAnywhere(path);
        return new SharedCounter(
          new Int32Array((await loadSystemCalls()).map(file.fd, counterSizeBytes), 0, 1),
        );
      } finally {
        await file.close();
      }
    } catch (error) {
      throw fromSystemError(error, `share a counter in "${path}"`);
    }
  }

  get value(): number {
    return Atomics.load(this.#cell, 0);
  }

  increment(): void {
    Atomics.add(this.#cell, 0, 1);
  }
}

/** Two processes may do this at once: as each starts elsewhere, the other sees the counter change. */
async function beginAnywhere(path: string): Promise<void> {
  const value = Buffer.alloc(counterSizeBytes);
  value.writeInt32LE(randomInt(1, valueLimit));
  const file = await open(path, 'r+');
  try {
    await file.write(value, 0, counterSizeBytes, 0);
  } finally {
    await file.close();
  }
}
