import { rmSync } from 'node:fs';
import { rm, stat, writeFile } from 'node:fs/promises';
import { dirname } from 'node:path';
import { freeBytes, isFull } from './folders.ts';

/** Between two looks whether there is room to keep. */
const fillPauseMs = 5_000;

/** The disk must have so many times the reserve free before it is taken: it shall not fill the disk itself. */
const roomFactor = 4;

/**
 * Space on a disk that is kept for what makes room there: without it a full disk takes no removal, and stays full. It
 * is a file of zeros, which is removed when its space is needed and written again when there is room.
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

  /** Gives back what was kept there before if the disk is full, as whoever opens this is about to write. */
  static async open(path: string, sizeBytes: number): Promise<SpaceReserve> {
    const kept = await stat(path).catch(() => undefined);
    if (kept !== undefined && isFull(path)) await rm(path, { force: true });
    return new SpaceReserve(path, sizeBytes);
  }

  /** Takes the space in the background, if there is plenty. Looks now and then only, so that it may be called often. */
  fill(): void {
    if (this.#held || this.#filling !== undefined || performance.now() < this.#nextFillMs) return;
    this.#nextFillMs = performance.now() + fillPauseMs;
    this.#filling = this.#take()
      // What cannot be kept is missing when it is needed, and that is told then.
      .catch(() => rm(this.#path, { force: true }).catch(() => undefined))
      .finally(() => {
        this.#filling = undefined;
      });
  }

  /** Gives the space back to the disk, for the caller to use at once; false where none was kept. */
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
    // Of a file that a loss of power has left without its blocks only the size is right.
    if (kept === undefined || kept.blocks * 512 < this.#sizeBytes) {
      if (freeBytes(dirname(this.#path)) < roomFactor * this.#sizeBytes) return;
      await writeFile(this.#path, Buffer.alloc(this.#sizeBytes));
    }
    this.#held = true;
  }
}
