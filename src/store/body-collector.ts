import { GatheredBytes, joined, type Chunks } from '../streams/chunks.ts';

/** Memory that may be taken by many users together: who gets none takes another way. */
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

/** A body as far as it was collected. */
export type CollectedBody =
  | { readonly kind: 'whole'; readonly bytes: GatheredBytes }
  /** It is too large, or memory is short: what was collected, and then the rest, in one iteration. */
  | { readonly kind: 'too-large'; readonly chunks: Chunks };

/**
 * Collects a body in memory, for as long as it is at most `sizeMaxBytes` and the budget has room, and calls
 * `use` with it. What was taken from the budget is given back when `use` has come to its end, or has taken
 * the bytes over.
 */
export async function withCollectedBody<Result>(
  source: Chunks,
  limits: { readonly sizeMaxBytes: number; readonly budget: MemoryBudget },
  use: (body: CollectedBody) => Promise<Result>,
): Promise<Result> {
  const held = new HeldParts(limits.budget);
  const iterator = source[Symbol.asyncIterator]();
  try {
    for (;;) {
      const step = await iterator.next();
      if (step.done === true) return await use({ kind: 'whole', bytes: new GatheredBytes(held.parts) });
      const fits = held.sizeBytes + step.value.length <= limits.sizeMaxBytes;
      if (fits && held.tryAdd(step.value)) continue;
      return await use({ kind: 'too-large', chunks: resumed(held, step.value, iterator) });
    }
  } finally {
    held.release();
    await iterator.return?.();
  }
}

/** Pieces and what they take of the budget. */
class HeldParts {
  readonly #budget: MemoryBudget;
  parts: Uint8Array[] = [];
  sizeBytes = 0;

  constructor(budget: MemoryBudget) {
    this.#budget = budget;
  }

  tryAdd(part: Uint8Array): boolean {
    if (!this.#budget.tryTake(part.length)) return false;
    this.parts.push(part);
    this.sizeBytes += part.length;
    return true;
  }

  release(): void {
    this.#budget.giveBack(this.sizeBytes);
    this.parts = [];
    this.sizeBytes = 0;
  }
}

/** All pieces in one, and then nothing is held any more: a large upload must not keep a share of the budget. */
async function* resumed(
  held: HeldParts,
  next: Uint8Array,
  rest: AsyncIterator<Uint8Array>,
): AsyncGenerator<Uint8Array> {
  const collected = joined(held.parts);
  held.release();
  if (collected.length > 0) yield collected;
  yield next;
  for (let step = await rest.next(); step.done !== true; step = await rest.next()) yield step.value;
}
