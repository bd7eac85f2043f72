import { systemClock, type Clock } from '../core/clock.ts';
import type { FileName } from '../core/file-name.ts';
import type { PutResult } from './file-store.ts';
import { FreeSpace } from './free-space.ts';
import { SenderSlots } from './sender-slots.ts';

export interface UploadGateOptions {
  /** Puts in progress at once. */
  readonly uploadsMax: number;
  /** Of one sender; `undefined` for a fair share. */
  readonly senderUploadsMax?: number | undefined;
  /** Bytes that stay free on the disk of the store. */
  readonly freeSpaceMinBytes: number;
  /** Free bytes of the disk of the store; `undefined` if unknown. */
  readonly freeSpace: () => Promise<number | undefined>;
  readonly clock: Clock;
}

/** A put that asks for admission. */
export interface UploadRequest {
  readonly name: FileName;
  /** The token or address that the put counts for. */
  readonly sender: string;
  /** Bytes of the body, if announced. */
  readonly announcedSize: number | undefined;
  readonly signal?: AbortSignal | undefined;
}

/** A put in the store. `signal` aborts it. */
type Put = (signal: AbortSignal | undefined) => Promise<PutResult>;

/**
 * Refuses puts for which there is no capacity, before anything of them is read: too many at once, or too little space
 * on the disk. Reads and removals pass it by.
 *
 * Invariant: a put that runs has a slot, and what it announced is counted against the free space.
 */
export class UploadGate {
  /** Successful puts by outcome. */
  readonly putCounts = { new: 0, deduplicated: 0, superseded: 0 };
  readonly #slots: SenderSlots;
  readonly #space: FreeSpace;

  constructor(options: UploadGateOptions) {
    const { uploadsMax, senderUploadsMax, freeSpaceMinBytes, freeSpace, clock } = options;
    this.#slots = new SenderSlots({ what: 'uploads', max: uploadsMax, senderMax: senderUploadsMax });
    this.#space = new FreeSpace({ minBytes: freeSpaceMinBytes, ask: freeSpace, clock });
  }

  /** A gate that admits every put. */
  static open(): UploadGate {
    return new UploadGate({
      uploadsMax: Infinity,
      freeSpaceMinBytes: 0,
      freeSpace: () => Promise.resolve(undefined),
      clock: systemClock,
    });
  }

  /** Puts in progress. */
  get uploadCount(): number {
    return this.#slots.count;
  }

  /** Free bytes of the disk at the last look. */
  get freeBytes(): number | undefined {
    return this.#space.bytes;
  }

  /** @throws FiletrackerError `busy`, `rate-limited`, `no-space` if `run` would refuse the put now. */
  async check({ name, sender, announcedSize }: UploadRequest): Promise<void> {
    this.#slots.check(`store "${name}"`, sender);
    await this.#space.refresh();
    this.#space.check(announcedSize ?? 0, name);
  }

  /** Runs a put. @throws FiletrackerError `busy`, `rate-limited`, `no-space`; what `put` throws. */
  async run(request: UploadRequest, put: Put): Promise<PutResult> {
    // Taken before the disk is asked: the slot must not be given away twice in that time.
    this.#slots.take(`store "${request.name}"`, request.sender);
    try {
      return await this.#runInSlot(request, put);
    } finally {
      this.#slots.release(request.sender);
    }
  }

  async #runInSlot({ name, announcedSize, signal }: UploadRequest, put: Put): Promise<PutResult> {
    const asking = this.#space.refresh();
    if (asking !== undefined) await asking;
    this.#space.take(announcedSize ?? 0, name);
    try {
      const result =
        announcedSize === undefined ? await this.#space.watch(name, signal, put) : await put(signal);
      this.count(result);
      return result;
    } finally {
      this.#space.giveBack(announcedSize ?? 0);
    }
  }

  /** Counts a put that was carried out without its body. */
  count(result: PutResult): void {
    const outcome = !result.stored ? 'superseded' : result.deduplicated ? 'deduplicated' : 'new';
    this.putCounts[outcome] += 1;
  }
}
