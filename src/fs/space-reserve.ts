import { rmSync } from 'node:fs';
import { rm, stat, writeFile } from 'node:fs/promises';
import { dirname } from 'node:path';
import { freeBytes, isFull } from './folders.ts';

/** Between two checks for free space. */
const fillPauseMs = 5_000;

/** The disk must have this many times the reserve free before it is taken, so that the reserve does not fill it. */
const roomFactor = 4;

/**
 * Reserved disk space for operations that free space: without it, a full disk accepts no removal, and stays full. It
 * is a file of zeros, which is removed when its space is needed and written again when there is space.
 */
export class SpaceReserve {
  readonly #path: string;
  readonly #sizeBytes: number;
  #held = false;
  #filling: Promise<void> | undefined;
  #nextFillMs = Number.NEGATIVE_INFINITY;

  private constructor(path: string, sizeBytes: number) {
    this.#path = path;
    this.#sizeBytes = sizeBytes;
  }

  /** Releases an earlier reserve if the disk is full, because the opener is about to write. */
  static async open(path: string, sizeBytes: number): Promise<SpaceReserve> {
    const kept = await stat(path).catch(() => undefined);
    if (kept !== undefined && isFull(path)) await rm(path, { force: true });
    return new SpaceReserve(path, sizeBytes);
  }

  /** Takes the space in the background, if there is plenty. Cheap: it checks only now and then. */
  fill(): void {
    if (this.#held || this.#filling !== undefined || performance.now() < this.#nextFillMs) return;
    this.#nextFillMs = performance.now() + fillPauseMs;
    this.#filling = this.#take()
      // A reserve that cannot be taken is missing when it is needed, and that failure is reported.
      .catch(() => rm(this.#path, { force: true }).catch(() => undefined))
      .finally(() => {
        this.#filling = undefined;
      });
  }

  /** Releases the space for the caller to use at once; false if there was none. */
  release(): boolean {
    if (!this.#held) return false;
    this.#held = false;
    this.#nextFillMs = performance.now() + fillPauseMs;
    try {
      rmSync(this.#path, { force: true });
      return true;
    } catch {
      return false;
    }
  }

  /** Resolves when nothing is being written. */
  async idle(): Promise<void> {
    await this.#filling;
  }

  async #take(): Promise<void> {
    const kept = await stat(this.#path).catch(() => undefined);
    // After a power loss, a file may have its size but not its blocks.
    if (kept === undefined || kept.blocks * 512 < this.#sizeBytes) {
      if (freeBytes(dirname(this.#path)) < roomFactor * this.#sizeBytes) return;
      await writeFile(this.#path, Buffer.alloc(this.#sizeBytes));
    }
    this.#held = true;
  }
}
