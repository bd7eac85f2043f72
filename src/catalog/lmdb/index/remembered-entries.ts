import type { FileName } from '../../../core/file-name.ts';
import type { LocatedEntry } from '../../catalog.ts';

const namesMax = 16_384;
const nameLengthMax = 512;

/**
 * The results of look-ups since the index last changed, so that workers that read the same files repeatedly need not read
 * the index: 3 of the 20 microseconds of a small GET.
 *
 * Invariant: everything here was read after the change that set `commitCount` to its value.
 */
export class RememberedEntries {
  readonly #found = new Map<FileName, Promise<LocatedEntry>>();
  #commitCount: number | undefined;

  /** Whether the results are still current; if not, or if `commitCount` is unknown, they are dropped. */
  isCurrent(commitCount: number | undefined): boolean {
    if (commitCount !== undefined && commitCount === this.#commitCount) return true;
    this.#commitCount = commitCount;
    if (this.#found.size > 0) this.#found.clear();
    return false;
  }

  get(name: FileName): Promise<LocatedEntry> | undefined {
    return this.#found.get(name);
  }

  remember(name: FileName, found: Promise<LocatedEntry>): void {
    if (this.#commitCount === undefined || name.length > nameLengthMax) return;
    if (this.#found.size >= namesMax) this.#found.clear();
    this.#found.set(name, found);
  }
}
