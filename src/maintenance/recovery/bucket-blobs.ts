import { basename } from 'node:path';
import type { S3BlobStore } from '../../blobs/s3/s3-blob-store.ts';
import type { FoundBlob } from '../../blobs/blob-store.ts';
import type { PlacedBlob } from '../../catalog/catalog.ts';
import type { LmdbReader } from '../../catalog/lmdb/index/lmdb-reader.ts';
import type { BlobDescription } from '../../core/blob.ts';
import { cannot } from '../../core/errors.ts';
import { stagedLifetimeMs } from '../../core/limits.ts';
import { intactBlobAt, type BlobPlace, type Orphans } from './blob-place.ts';
import type { Quarantine } from './quarantine.ts';

export interface BucketBlobsOptions {
  /** Younger orphans and uploads stay: requests of a killed server may still reach the object store. */
  readonly orphanAgeMs?: number | undefined;
  /** Give up blobs even if the bucket looks like that of another store. */
  readonly acceptLoss?: boolean | undefined;
}

interface BucketSurvey {
  /** Objects that the catalog names. */
  readonly expected: number;
  /** Those of them that exist. */
  readonly named: number;
  readonly orphans: readonly FoundBlob[];
}

/**
 * Blobs as objects of a bucket. A key says nothing about its content: comparing the bucket's list with the catalog finds
 * the orphans, and lost bytes are looked for among these, by size and then by digest. What is damaged is moved within
 * the bucket, to `<prefix>quarantine/<time>/`.
 */
export class BucketBlobs implements BlobPlace {
  readonly blobs: S3BlobStore;
  readonly #acceptLoss: boolean;
  readonly #oldestMs: number;
  #survey: Promise<BucketSurvey> | undefined;

  constructor(blobs: S3BlobStore, options: BucketBlobsOptions = {}) {
    this.blobs = blobs;
    this.#acceptLoss = options.acceptLoss === true;
    this.#oldestMs = Date.now() - (options.orphanAgeMs ?? stagedLifetimeMs);
  }

  checkKey(key: string): void {
    if (this.blobs.isKey(key)) return;
    const state = 'it has them in its folder';
    throw cannot('invalid-argument', 'recover this store with the blobs of a bucket', state);
  }

  async checkAddress(reader: LmdbReader): Promise<void> {
    const { expected, named, orphans } = await this.#look(reader);
    if (named + orphans.length === 0) refuseEmptyPlace(expected, this.#acceptLoss);
  }

  async findIntact(
    wanted: BlobDescription,
    ownKey: string | undefined,
    reader: LmdbReader,
  ): Promise<PlacedBlob | undefined> {
    const { orphans } = await this.#look(reader);
    const others = orphans.filter(({ storedSize }) => storedSize === wanted.storedSize).map(({ key }) => key);
    for (const key of ownKey === undefined ? others : [ownKey, ...others]) {
      const blob = await intactBlobAt(key, wanted, this.blobs);
      if (blob !== undefined) return blob;
    }
    return undefined;
  }

  async findOrphans(reader: LmdbReader): Promise<Orphans> {
    const { orphans, named } = await this.#look(reader);
    const found = orphans.filter(({ modifiedMs }) => modifiedMs < this.#oldestMs).map(({ key }) => key);
    if (!looksLikeOthers(found.length, named, this.#acceptLoss)) return { found, notes: [] };
    const note =
      `The bucket holds ${found.length} objects that the catalog does not name, and ${named} that it names. The former ` +
      'were not moved. If this is the right folder for the bucket, and not an older one, --accept-loss moves them away';
    return { found: [], notes: [note] };
  }

  quarantineKey(key: string, quarantine: Quarantine): Promise<void> {
    return this.quarantineOrphan(key, quarantine);
  }

  async quarantineOrphan(orphan: string, quarantine: Quarantine): Promise<void> {
    // The folder of the same time reports what is in the bucket's quarantine.
    await quarantine.pathFor('report.txt');
    await this.blobs.setAside(orphan, basename(quarantine.folder ?? ''));
  }

  async findUploads(): Promise<readonly string[]> {
    return this.blobs.staged(this.#oldestMs);
  }

  async removeUploads(): Promise<void> {
    await this.blobs.sweepStaged(this.#oldestMs);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.blobs.close();
  }

  /** Compares the bucket with the catalog, once: neither changes meanwhile. */
  #look(reader: LmdbReader): Promise<BucketSurvey> {
    this.#survey ??= this.#compare(reader);
    return this.#survey;
  }

  async #compare(reader: LmdbReader): Promise<BucketSurvey> {
    const keys = await NamedKeys.read(reader);
    const orphans: FoundBlob[] = [];
    let objects = 0;
    for await (const found of this.blobs.list()) {
      objects += 1;
      if (!keys.has(found.key)) orphans.push(found);
    }
    return { expected: keys.count, named: objects - orphans.length, orphans };
  }
}

/** Whether more objects are orphans than not, as if they were those of another store: then they stay. */
export function looksLikeOthers(orphans: number, named: number, acceptLoss: boolean | undefined): boolean {
  return orphans > named && acceptLoss !== true;
}

/**
 * Keeps a wrong address from marking every blob as damaged. Call it if nothing at all is stored at the address.
 * @throws FiletrackerError `corrupt-store` if the catalog expects blobs there.
 */
export function refuseEmptyPlace(expected: number, acceptLoss: boolean | undefined): void {
  if (expected === 0 || acceptLoss === true) return;
  const state =
    `none of the ${expected} blobs that the catalog names exists at their address; correct the address, or use ` +
    '--accept-loss to mark all of them as lost';
  throw cannot('corrupt-store', 'recover this store', state);
}

/** Digits of a key that 8 bytes hold. */
const firstKeyDigits = 16;

/**
 * The keys that a catalog names, 8 bytes each: their first digits, sorted. Keys are random, so two with the same
 * beginning do not occur in practice; if they did, an orphan would stay.
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
