import { basename } from 'node:path';
import type { S3BlobStore } from '../../blobs/s3/s3-blob-store.ts';
import type { PlacedBlob } from '../../catalog/catalog.ts';
import type { LmdbReader } from '../../catalog/lmdb/index/lmdb-reader.ts';
import { FiletrackerError } from '../../core/errors.ts';
import { stagedLifetimeMs } from '../../core/limits.ts';
import { checkStoredBytes } from '../../store/integrity.ts';
import type { ContentPlace, Strays, WantedContent } from './content-place.ts';
import type { Quarantine } from './quarantine.ts';

export interface BucketContentsOptions {
  /** What is younger stays: a server that was killed a moment ago may be heard by the object store only now. */
  readonly strayAgeMs?: number | undefined;
  /** Whether contents are given up though the bucket looks like that of another store. */
  readonly acceptLoss?: boolean | undefined;
}

interface Stray {
  readonly key: string;
  readonly storedSize: number;
  readonly modifiedMs: number;
}

interface Survey {
  /** How many objects the catalog names. */
  readonly expected: number;
  /** How many of them are there. */
  readonly named: number;
  readonly strays: readonly Stray[];
}

/** Digits of a key that 8 bytes hold. */
const firstKeyDigits = 16;

/**
 * Contents as objects of a bucket. A key says nothing of its content: which objects nothing names is found by
 * comparing the bucket's list with the catalog, and bytes that were lost from sight are looked for among these, by
 * their size and then by their digest. What is bad is moved within the bucket, to `<prefix>quarantine/<time>/`.
 */
export class BucketContents implements ContentPlace {
  readonly blobs: S3BlobStore;
  readonly #options: BucketContentsOptions;
  #survey: Promise<Survey> | undefined;

  constructor(blobs: S3BlobStore, options: BucketContentsOptions = {}) {
    this.blobs = blobs;
    this.#options = options;
  }

  checkKey(key: string): void {
    if (this.blobs.isKey(key)) return;
    throw new FiletrackerError(
      'invalid-argument',
      'Cannot recover this store with the contents of a bucket: it has them in its folder',
    );
  }

  async findSoundBytes(wanted: WantedContent, reader: LmdbReader): Promise<PlacedBlob | undefined> {
    const { digest, encoding, storedSize, key: own } = wanted;
    const { strays } = await this.#look(reader);
    const others = strays.filter((stray) => stray.storedSize === storedSize).map(({ key }) => key);
    for (const key of own === undefined ? others : [own, ...others]) {
      const verdict = await checkStoredBytes(key, { digest, encoding }, this.blobs);
      if (verdict.kind !== 'sound') continue;
      return { digest, encoding, key, logicalSize: verdict.logicalSize, storedSize: verdict.storedSize };
    }
    return undefined;
  }

  async findStrays(reader: LmdbReader): Promise<Strays> {
    const { strays, named } = await this.#look(reader);
    const oldestMs = this.#oldestMs();
    const found = strays.filter(({ modifiedMs }) => modifiedMs < oldestMs).map(({ key }) => key);
    if (found.length <= named || this.#options.acceptLoss === true) return { found, notes: [] };
    const note =
      `The bucket holds ${found.length} objects that nothing names, and ${named} that the catalog names: the former ` +
      'stay where they are. If this is the right folder for the bucket, and no newer one, --accept-loss moves them away';
    return { found: [], notes: [note] };
  }

  setKeyAside(key: string, quarantine: Quarantine): Promise<void> {
    return this.setStrayAside(key, quarantine);
  }

  async setStrayAside(stray: string, quarantine: Quarantine): Promise<void> {
    // The folder tells of what is in the bucket under the same time.
    await quarantine.pathFor('report.txt');
    await this.blobs.setAside(stray, basename(quarantine.folder ?? ''));
  }

  async findUploads(): Promise<readonly string[]> {
    return this.blobs.staged(this.#oldestMs());
  }

  async removeUploads(): Promise<void> {
    await this.blobs.sweepStaged(this.#oldestMs());
  }

  #oldestMs(): number {
    return Date.now() - (this.#options.strayAgeMs ?? stagedLifetimeMs);
  }

  close(): Promise<void> {
    return this.blobs.close();
  }

  /** Compares the bucket with the catalog, once: nothing changes either meanwhile. */
  #look(reader: LmdbReader): Promise<Survey> {
    this.#survey ??= this.#compare(reader);
    return this.#survey;
  }

  async #compare(reader: LmdbReader): Promise<Survey> {
    const named = await NamedKeys.read(reader);
    const strays: Stray[] = [];
    let objects = 0;
    for await (const { key, storedSize, modifiedMs } of this.blobs.list()) {
      objects += 1;
      if (!named.has(key)) strays.push({ key, storedSize, modifiedMs });
    }
    return { expected: named.count, named: objects - strays.length, strays };
  }

  /**
   * Sees to it that not every content is marked as damaged because the address is that of another place.
   * @throws FiletrackerError `corrupt-store` where the catalog names objects and there is none at all.
   */
  async checkAddress(reader: LmdbReader): Promise<void> {
    const { expected, named, strays } = await this.#look(reader);
    if (expected === 0 || named + strays.length > 0 || this.#options.acceptLoss === true) return;
    throw nothingThere(expected);
  }
}

export function nothingThere(contents: number): FiletrackerError {
  return new FiletrackerError(
    'corrupt-store',
    `Cannot recover this store: of the ${contents} contents that the catalog places there nothing is where it was ` +
      'told to look for them; correct the address, or give --accept-loss to mark all of them as lost',
  );
}

/**
 * The keys that a catalog names, 8 bytes for each: their first digits, sorted. Keys are random, so that two with the
 * same beginning are not met in practice; if they were, an object that nothing names would stay.
 */
class NamedKeys {
  readonly #beginnings: BigUint64Array;

  private constructor(beginnings: BigUint64Array) {
    this.#beginnings = beginnings;
  }

  static async read(reader: LmdbReader): Promise<NamedKeys> {
    let beginnings = new BigUint64Array(1024);
    let count = 0;
    for await (const batch of reader.listBlobs()) {
      for (const { location } of batch) {
        if (location.kind !== 'object') continue;
        if (count === beginnings.length) {
          const larger = new BigUint64Array(2 * count);
          larger.set(beginnings);
          beginnings = larger;
        }
        beginnings[count] = beginningOf(location.key);
        count += 1;
      }
    }
    return new NamedKeys(beginnings.subarray(0, count).sort());
  }

  get count(): number {
    return this.#beginnings.length;
  }

  has(key: string): boolean {
    const wanted = beginningOf(key);
    let from = 0;
    let to = this.#beginnings.length;
    while (from < to) {
      const middle = (from + to) >>> 1;
      if ((this.#beginnings[middle] ?? wanted) < wanted) from = middle + 1;
      else to = middle;
    }
    return this.#beginnings[from] === wanted;
  }
}

function beginningOf(key: string): bigint {
  return BigInt(`0x${key.slice(0, firstKeyDigits)}`);
}
