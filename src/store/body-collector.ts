import type { Readable } from 'node:stream';
import { bufferedBodyMaxBytes } from '../core/limits.ts';
import { readPieces } from '../streams/body-reader.ts';
import { bodyChunks, GatheredBytes, joined, type Chunks } from '../streams/chunks.ts';
import type { CollectingOptions } from '../streams/passing-body.ts';
import { freeNow } from '../streams/freed-memory.ts';
import { checkWhole } from './body-verifier.ts';
import type { MemoryBudget } from '../core/memory-budget.ts';

export interface CollectedBody {
  /** All of it; or, if it is too large or memory is short, what was collected and then the rest, in one iteration. */
  readonly received: GatheredBytes | Chunks;
  /**
   * Frees the memory and ends reading. `isUnused` says that nothing uses the bytes any more, no thread either, so that the
   * memory need not wait for the garbage collector. Idempotent.
   */
  readonly release: (isUnused?: boolean) => Promise<void>;
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

/** Part of a body that must have come before memory for all of it is taken: headers alone take none. */
const partBeforeBuffer = 1 / 4;

/**
 * A body of announced size on its way into one buffer.
 *
 * Invariant: `#heldBytes` of the budget are taken, and `#pieces` and `#buffer` need no more.
 */
class AnnouncedBody {
  readonly #sizeBytes: number;
  readonly #budget: MemoryBudget;
  readonly #freesPieces: boolean;
  #pieces: Buffer[] = [];
  #buffer: Buffer | undefined;
  #receivedBytes = 0;
  #heldBytes = 0;

  constructor(sizeBytes: number, { budget, freesPieces }: CollectingOptions) {
    this.#sizeBytes = sizeBytes;
    this.#budget = budget;
    this.#freesPieces = freesPieces;
  }

  get receivedBytes(): number {
    return this.#receivedBytes;
  }

  get parts(): readonly Buffer[] {
    return this.#buffer === undefined ? this.#pieces : [this.#buffer.subarray(0, this.#receivedBytes)];
  }

  /** Returns false, and leaves the piece, if memory is short. @throws FiletrackerError `size-mismatch`. */
  take(piece: Buffer): boolean {
    const receivedBytes = this.#receivedBytes + piece.length;
    if (receivedBytes > this.#sizeBytes) checkWhole(receivedBytes, this.#sizeBytes);
    const isFirst = this.#receivedBytes === 0;
    if (this.#buffer === undefined && !isFirst && receivedBytes >= this.#sizeBytes * partBeforeBuffer) {
      if (!this.#joinPieces()) return false;
    }
    if (this.#buffer !== undefined) {
      piece.copy(this.#buffer, this.#receivedBytes);
      if (this.#freesPieces) freeNow(piece);
    } else {
      if (!this.#budget.tryTake(piece.length)) return false;
      this.#heldBytes += piece.length;
      this.#pieces.push(piece);
    }
    this.#receivedBytes = receivedBytes;
    return true;
  }

  #joinPieces(): boolean {
    if (!this.#takeWhole()) return false;
    const buffer = Buffer.allocUnsafeSlow(this.#sizeBytes);
    let copiedBytes = 0;
    for (const piece of this.#pieces) {
      copiedBytes += piece.copy(buffer, copiedBytes);
      if (this.#freesPieces) freeNow(piece);
    }
    this.release();
    this.#buffer = buffer;
    this.#heldBytes = this.#sizeBytes;
    return true;
  }

  /** A large body may come slowly, and must leave memory to small ones. */
  #takeWhole(): boolean {
    const isLarge = this.#sizeBytes > bufferedBodyMaxBytes;
    return isLarge ? this.#budget.tryTakeSpare(this.#sizeBytes) : this.#budget.tryTake(this.#sizeBytes);
  }

  /** Gives the memory back. Idempotent. */
  release(isUnused = false): void {
    if (isUnused && this.#buffer !== undefined) freeNow(this.#buffer);
    this.#budget.giveBack(this.#heldBytes);
    this.#heldBytes = 0;
    this.#pieces = [];
    this.#buffer = undefined;
  }
}

/**
 * Collects a body of announced size in one buffer, if the budget has enough for it. What it returns otherwise is not
 * compared with the announced size yet.
 * @throws FiletrackerError `truncated-body`, `size-mismatch`; as `bodyChunks`.
 */
export async function collectAnnounced(
  source: Readable,
  announcedSize: number,
  options: CollectingOptions,
): Promise<CollectedBody> {
  const { signal } = options;
  const body = new AnnouncedBody(announcedSize, options);
  const ignore = (): void => undefined;
  let left: Buffer | undefined;
  async function* resumed(next: Buffer): AsyncGenerator<Buffer> {
    const collected = joined(body.parts);
    body.release();
    if (collected.length > 0) yield collected;
    yield next;
    yield* bodyChunks(source, signal);
  }
  try {
    await readPieces(source, (piece) => body.take(piece) || ((left = piece), false), signal);
    if (left === undefined) {
      checkWhole(body.receivedBytes, announcedSize);
      const received = new GatheredBytes(body.parts);
      return { received, release: async (isUnused) => Promise.resolve(body.release(isUnused)) };
    }
  } catch (error) {
    body.release();
    throw error;
  }
  // Nothing else listens for errors until the rest is read.
  source.on('error', ignore);
  const rest = resumed(left);
  async function release(): Promise<void> {
    body.release();
    source.off('error', ignore);
    // Not awaited: a body that was refused may stand still, and its sender waits for the response.
    void rest.return(undefined);
  }
  return { received: rest, release };
}
