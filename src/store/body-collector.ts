import { GatheredBytes, joined, type Chunks } from '../streams/chunks.ts';

/** Memory that many users share. A user that gets none takes another way. */
export class MemoryBudget {
  #freeBytes: number;

  constructor(totalBytes: number) {
    this.#freeBytes = totalBytes;
  }

  tryTake(bytes: number): boolean {
    if (bytes > this.#freeBytes) return false;
    this.#freeBytes -= bytes;
    return true;
  }

  giveBack(bytes: number): void {
    this.#freeBytes += bytes;
  }
}

export interface CollectedBody {
  /** All of it; or, if it is too large or memory is short, what was collected and then the rest, in one iteration. */
  readonly received: GatheredBytes | Chunks;
  /** Frees the memory and ends reading. Idempotent. */
  readonly release: () => Promise<void>;
}

/** Collects a body in memory as long as it has at most `sizeMaxBytes` and the budget has enough for it. */
export async function collectInMemory(
  source: Chunks,
  { sizeMaxBytes, budget }: { readonly sizeMaxBytes: number; readonly budget: MemoryBudget },
): Promise<CollectedBody> {
  let parts: Uint8Array[] = [];
  let heldBytes = 0;
  const iterator = source[Symbol.asyncIterator]();
  function giveBack(): void {
    budget.giveBack(heldBytes);
    heldBytes = 0;
    parts = [];
  }
  async function release(): Promise<void> {
    giveBack();
    await iterator.return?.();
  }
  /** All parts in one, and then none is held any more: a large upload must not keep a share of the budget. */
  async function* resumed(next: Uint8Array): AsyncGenerator<Uint8Array> {
    const collected = joined(parts);
    giveBack();
    if (collected.length > 0) yield collected;
    yield next;
    for (let step = await iterator.next(); step.done !== true; step = await iterator.next()) yield step.value;
  }
  try {
    for (;;) {
      const step = await iterator.next();
      if (step.done === true) return { received: new GatheredBytes(parts), release };
      const { length } = step.value;
      if (heldBytes + length > sizeMaxBytes || !budget.tryTake(length)) {
        return { received: resumed(step.value), release };
      }
      parts.push(step.value);
      heldBytes += length;
    }
  } catch (error) {
    await release();
    throw error;
  }
}
