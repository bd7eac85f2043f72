import { rateHoldersMax } from '../core/limits.ts';

/** Cells before the table: two seeds, and room up to a cache line. */
const headerCells = 16;
/** Places that a holder may have; twice as many cells. */
const waysPerSet = 4;
const setCount = rateHoldersMax / waysPerSet;
const cellsPerSet = 2 * waysPerSet;
const cellSizeBytes = 4;

/** How often a place is looked for that others are taking at the same time. */
const attemptsMax = 4;

/** One of each so many microseconds, and so many microseconds' worth at once. */
export interface RateRule {
  readonly intervalUs: number;
  readonly burstUs: number;
}

/**
 * What a rate is kept of each of many holders, in memory that several processes may share: so a rate holds for all of
 * them together, and to ask takes about a tenth of a microsecond and no message.
 *
 * Of each holder there are two cells: a mark, which is a hash of his name, and the moment until which he has had
 * his part, in microseconds modulo 2^32. Each request that is let in moves it on by an interval, and it may not be
 * further ahead than a burst. A moment in the past, or one that is ahead by more than that (it is an hour ago, and
 * the number has wrapped around), is as good as now; so a holder who is idle can lose his place at no one's cost.
 *
 * Invariant: a holder's moment is only moved by an atomic exchange of the value that was looked at. Where more than
 * four holders that are busy fall into one set, the one nearest to being idle loses his place, and begins anew. The
 * hash has a seed that only the server knows, so that nobody can choose a name that collides with another's.
 */
export class RateTable {
  static readonly sizeBytes = (headerCells + setCount * cellsPerSet) * cellSizeBytes;

  readonly #cells: Int32Array;
  readonly #seed: number;
  readonly #otherSeed: number;

  /** @param memory of `sizeBytes` at least; zeros but for the 8 random bytes at its head. */
  constructor(memory: ArrayBuffer) {
    this.#cells = new Int32Array(memory, 0, RateTable.sizeBytes / cellSizeBytes);
    this.#seed = this.#cells[0] ?? 0;
    this.#otherSeed = this.#cells[1] ?? 0;
  }

  /** What a table begins with that is to be shared. */
  static initialBytes(seeds: Uint8Array): Uint8Array<ArrayBuffer> {
    const bytes = new Uint8Array(RateTable.sizeBytes);
    bytes.set(seeds.subarray(0, 2 * cellSizeBytes));
    return bytes;
  }

  /** Lets a holder have one now, and gives 0; or gives the microseconds after which he may have one. */
  take(holder: string, nowMs: number, rule: RateRule): number {
    const nowUs = Math.trunc(nowMs * 1000) | 0;
    const moment = this.#placeOf(holder, nowUs, rule);
    for (;;) {
      const before = Atomics.load(this.#cells, moment);
      const hadUs = aheadUs(before, nowUs, rule) + rule.intervalUs;
      if (hadUs > rule.burstUs) return hadUs - rule.burstUs;
      const next = (nowUs + hadUs) | 0;
      if (Atomics.compareExchange(this.#cells, moment, before, next) === before) return 0;
    }
  }

  /** The cell of a holder's moment; his own, or one that was given to him. */
  #placeOf(holder: string, nowUs: number, rule: RateRule): number {
    let hash = this.#seed;
    let other = this.#otherSeed;
    for (let index = 0; index < holder.length; index += 1) {
      const code = holder.charCodeAt(index);
      hash = Math.imul(hash ^ code, 0x5bd1e995);
      hash ^= hash >>> 15;
      other = Math.imul(other ^ code, 0x1b873593);
      other ^= other >>> 13;
    }
    const start = headerCells + (hash & (setCount - 1)) * cellsPerSet;
    const mark = mixed(other ^ Math.imul(hash, 0x9e3779b1)) | 1;
    for (let attempt = 0; ; attempt += 1) {
      const place = this.#find(start, mark);
      if (place !== undefined) return place;
      const worst = this.#mostIdle(start, nowUs, rule);
      const before = Atomics.load(this.#cells, worst - 1);
      const taken = Atomics.compareExchange(this.#cells, worst - 1, before, mark) === before;
      if (taken) Atomics.store(this.#cells, worst, nowUs);
      // Others may take it away again and again; to share a place for once is no harm.
      if (taken || attempt === attemptsMax) return worst;
    }
  }

  #find(start: number, mark: number): number | undefined {
    for (let cell = start; cell < start + cellsPerSet; cell += 2) {
      if (Atomics.load(this.#cells, cell) === mark) return cell + 1;
    }
    return undefined;
  }

  #mostIdle(start: number, nowUs: number, rule: RateRule): number {
    let found = start + 1;
    let leastUs = Number.POSITIVE_INFINITY;
    for (let cell = start; cell < start + cellsPerSet; cell += 2) {
      const isFree = Atomics.load(this.#cells, cell) === 0;
      const hadUs = isFree ? -1 : aheadUs(Atomics.load(this.#cells, cell + 1), nowUs, rule);
      if (hadUs >= leastUs) continue;
      leastUs = hadUs;
      found = cell + 1;
    }
    return found;
  }
}

function aheadUs(moment: number, nowUs: number, { burstUs }: RateRule): number {
  const ahead = (moment - nowUs) | 0;
  return ahead < 0 || ahead > burstUs ? 0 : ahead;
}

/** Every bit of the result depends on every bit of the number (the end of MurmurHash3). */
function mixed(number: number): number {
  let hash = number;
  hash = Math.imul(hash ^ (hash >>> 16), 0x85ebca6b);
  hash = Math.imul(hash ^ (hash >>> 13), 0xc2b2ae35);
  return hash ^ (hash >>> 16);
}
