/** Memory that many users share. A user that gets none takes another way. */
export class MemoryBudget {
  readonly #totalBytes: number;
  #freeBytes: number;

  constructor(totalBytes: number) {
    this.#totalBytes = totalBytes;
    this.#freeBytes = totalBytes;
  }

  tryTake(bytes: number): boolean {
    if (bytes > this.#freeBytes) return false;
    this.#freeBytes -= bytes;
    return true;
  }

  /** As `tryTake`, but leaves half of all memory to other users: for memory that is kept long and can be done without. */
  tryTakeSpare(bytes: number): boolean {
    return this.#freeBytes - bytes >= this.#totalBytes / 2 && this.tryTake(bytes);
  }

  giveBack(bytes: number): void {
    this.#freeBytes += bytes;
  }
}
