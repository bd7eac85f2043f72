import { randomBytes } from 'node:crypto';
import { close } from 'node:fs';
import { open, unlink, type FileHandle } from 'node:fs/promises';
import { join } from 'node:path';
import { rateHoldersMax } from '../core/limits.ts';
import { loadSystemCalls } from '../fs/native.ts';

/** Cells before the table: two seeds, padded to a cache line. */
const headerCells = 16;
/** Candidate places per holder; each takes two cells. */
const waysPerSet = 4;
const setCount = rateHoldersMax / waysPerSet;
const cellsPerSet = 2 * waysPerSet;
const cellSizeBytes = 4;

/** Attempts to take a place that other processes take at the same time. */
const attemptsMax = 4;

/** One request per interval; as many at once as fit into the burst. */
export interface RateRule {
  readonly intervalUs: number;
  readonly burstUs: number;
}

/**
 * The rates of many holders, in memory that several processes may share: a rate holds for all of them together, and a
 * check takes about a tenth of a microsecond and no message.
 *
 * Each holder has two cells: a mark, which is a hash of the name, and the moment up to which the holder's share is used,
 * in microseconds modulo 2^32. Each admitted request advances it by an interval; it may be at most a burst ahead. A
 * moment in the past, or further ahead (the number has wrapped around after an hour), counts as now, so that an idle
 * holder can lose its place without effect.
 *
 * Invariant: a moment changes only by an atomic exchange of the value that was read. If more than four busy holders fall
 * into one set, the one nearest to idle loses its place and starts again. The hash has a secret seed, so that no client
 * can choose a name that collides with another's.
 */
export class RateTable {
  static readonly sizeBytes = (headerCells + setCount * cellsPerSet) * cellSizeBytes;

  readonly #cells: Int32Array;
  readonly #seed: number;
  readonly #otherSeed: number;

  /** @param memory at least `sizeBytes`, as `initialBytes` made it. */
  constructor(memory: ArrayBuffer) {
    this.#cells = new Int32Array(memory, 0, RateTable.sizeBytes / cellSizeBytes);
    this.#seed = this.#cells[0] ?? 0;
    this.#otherSeed = this.#cells[1] ?? 0;
  }

  /** The content of a new table: zeros after a seed of 8 random bytes. */
  static initialBytes(seeds: Uint8Array): Uint8Array<ArrayBuffer> {
    const bytes = new Uint8Array(RateTable.sizeBytes);
    bytes.set(seeds.subarray(0, 2 * cellSizeBytes));
    return bytes;
  }

  /** Admits one request and returns 0, or returns the microseconds after which the holder may send one. */
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

  /** The cell of a holder's moment, which is found or taken. */
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
      // Other processes may take it again and again; sharing a place once does no harm.
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

/** The environment variable that passes the descriptor of the shared table to a worker. */
export const ratesVariable = 'FILETRACKER_RATES';

/**
 * Creates the memory of the table that the workers of one supervisor share: a file without a name, of which nothing is
 * left however they end. Its blocks are allocated here (see fs/native.ts). @throws system errors.
 */
export async function makeSharedRates(folder: string): Promise<FileHandle> {
  const path = join(folder, `rates-${randomBytes(8).toString('hex')}`);
  const file = await open(path, 'wx+', 0o600);
  try {
    await unlink(path);
    await file.writeFile(RateTable.initialBytes(randomBytes(8)));
    return file;
  } catch (error) {
    await file.close();
    throw error;
  }
}

/** The table that the supervisor of this process made; `undefined` if it made none. */
export async function sharedRates(): Promise<RateTable | undefined> {
  const descriptor = Number(process.env[ratesVariable] ?? Number.NaN);
  if (!Number.isSafeInteger(descriptor)) return undefined;
  const memory = (await loadSystemCalls()).map(descriptor, RateTable.sizeBytes);
  close(descriptor);
  return new RateTable(memory);
}
