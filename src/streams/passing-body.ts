import type { Readable } from 'node:stream';
import type { MemoryBudget } from '../core/memory-budget.ts';
import { bodyBlocks } from './body-reader.ts';
import { freeNow } from './freed-memory.ts';
import { smallPieces, type PiecesOptions } from './gzip-decoder.ts';

/** How a body is received whose pieces are copied to larger memory. */
export interface CollectingOptions {
  readonly budget: MemoryBudget;
  /** Whether nothing else uses the pieces of the stream, so that their memory may be freed. */
  readonly freesPieces: boolean;
  readonly signal: AbortSignal | undefined;
}

/** Bytes that pass in the pieces in which they come, before blocks are filled: a bad body is refused early. */
const bytesBeforeBlocks = 1024 * 1024;
/** Blocks take a third of the time that small pieces take, each of which is written and decoded in a thread. */
const blockSizeBytes = 512 * 1024;
/** Blocks being filled, written and decoded, and those that they unpack to. */
const blocksHeld = 6;

/**
 * A large body on its way through the store: in blocks, if the budget has memory to spare when the first piece comes.
 *
 * Invariant: blocks are used only while their memory is taken.
 */
export class PassingBody {
  readonly #budget: MemoryBudget;
  readonly #steps: AsyncGenerator<Buffer>;
  #first: Promise<IteratorResult<Buffer, unknown>> | undefined;
  #heldBytes = 0;
  #passedBytes = 0;
  #fillsBlocks = false;

  constructor(source: Readable, options: CollectingOptions) {
    this.#budget = options.budget;
    this.#steps = bodyBlocks(source, { ...options, blockSize: (piece) => this.#blockSize(piece) });
  }

  /** Waits for the first piece and takes memory: a sender of headers alone gets none. @throws as `bodyChunks`. */
  async begin(): Promise<void> {
    this.#first = this.#steps.next();
    if ((await this.#first).done === true) return;
    const neededBytes = blocksHeld * blockSizeBytes;
    if (this.#budget.tryTakeSpare(neededBytes)) this.#heldBytes = neededBytes;
  }

  /**
   * The pieces. A block must be decoded when the piece after it is asked for; `written` then waits until it is written, and
   * returns whether its memory may be freed.
   */
  async *chunks(written: () => Promise<boolean>): AsyncGenerator<Buffer> {
    for (;;) {
      const step = await (this.#first ?? this.#steps.next());
      this.#first = undefined;
      if (step.done === true) return;
      yield step.value;
      // The decoder accepts a smaller block, and then asks for the next, before it has decoded it.
      const isDecoded = this.#fillsBlocks && step.value.length === blockSizeBytes;
      if (isDecoded && (await written())) freeNow(step.value);
    }
  }

  #blockSize(piece: Buffer): number | undefined {
    this.#passedBytes += piece.length;
    this.#fillsBlocks = this.#heldBytes > 0 && this.#passedBytes > bytesBeforeBlocks;
    return this.#fillsBlocks ? blockSizeBytes : undefined;
  }

  /** How to decode the body; known after `begin`. */
  get decodedPieces(): PiecesOptions {
    return this.#heldBytes > 0 ? { sizeBytes: blockSizeBytes, ahead: 1 } : smallPieces;
  }

  /** Frees the memory. Does not wait for a piece that may never come. Idempotent. */
  release(): void {
    this.#budget.giveBack(this.#heldBytes);
    this.#heldBytes = 0;
    void this.#steps.return(undefined);
  }
}
