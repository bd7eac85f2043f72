import type { BlobDescription } from '../../../src/core/blob.ts';
import { systemClock, type Clock } from '../../../src/core/clock.ts';
import type { Digest } from '../../../src/core/digest.ts';
import { FiletrackerError } from '../../../src/core/errors.ts';
import type { FileName } from '../../../src/core/file-name.ts';
import { inlineSizeMaxBytes, listBatchNames } from '../../../src/core/limits.ts';
import type {
  BlobLocation,
  BlobPin,
  BlobPlacer,
  BlobRecord,
  Catalog,
  CatalogCapabilities,
  CatalogStats,
  Entry,
  ListOptions,
  LocatedEntry,
  PlacedBlob,
  PutChange,
  PutOutcome,
  RemoveChange,
  RemoveOutcome,
} from '../../../src/catalog/catalog.ts';
import {
  conflictingName,
  corrects,
  refusalOfPut,
  refusalOfRemove,
  type Removal,
  type StoredVersion,
} from '../../../src/catalog/decisions.ts';

/** `location` is where the bytes are. */
interface MemoryBlob extends BlobRecord {
  references: number;
  unreferencedSinceMs: number;
  damaged: boolean;
  pins: number;
}

/**
 * A catalog in memory: the model that the others are tested against, and a store for tests. Nothing is durable.
 *
 * Invariant: changes run one after the other (`#sequence`), so what a change has seen holds until it is done;
 * `references` of a blob is the number of entries with its digest.
 */
export class MemoryCatalog implements Catalog {
  readonly capabilities: CatalogCapabilities = { inlineSizeMaxBytes };
  readonly #entries = new Map<FileName, StoredVersion>();
  readonly #blobs = new Map<Digest, MemoryBlob>();
  readonly #removals = new Map<FileName, Removal>();
  readonly #placer: BlobPlacer;
  readonly #clock: Clock;
  #sequence: Promise<unknown> = Promise.resolve();
  #closed = false;

  constructor(placer: BlobPlacer, options: { clock?: Clock } = {}) {
    this.#placer = placer;
    this.#clock = options.clock ?? systemClock;
  }

  async find(name: FileName): Promise<LocatedEntry | undefined> {
    const stored = this.#entries.get(name);
    const blob = stored && this.#blobs.get(stored.digest);
    if (stored === undefined || blob === undefined) return undefined;
    return { entry: entryOf(name, stored, blob), location: blob.location, damaged: blob.damaged };
  }

  async findBlob(digest: Digest): Promise<BlobRecord | undefined> {
    const blob = this.#blobs.get(digest);
    return blob && recordOf(blob);
  }

  async kindOfDirectory(directory: string): Promise<'directory' | 'file' | 'absent'> {
    if (this.#entries.has(directory.slice(0, -1) as FileName)) return 'file';
    return this.#firstBelow(directory) === undefined ? 'absent' : 'directory';
  }

  async *listNames(directory: string, options: ListOptions = {}): AsyncIterable<readonly FileName[]> {
    for await (const batch of this.listEntries(directory, options)) yield batch.map((entry) => entry.name);
  }

  async *listEntries(directory: string, options: ListOptions = {}): AsyncIterable<readonly Entry[]> {
    const { after, upTo, limit = Infinity } = options;
    const entries: Entry[] = [];
    for (const [name, stored] of this.#entries) {
      const blob = this.#blobs.get(stored.digest);
      if (!name.startsWith(directory) || blob === undefined) continue;
      if (upTo !== undefined && stored.version > upTo) continue;
      if (after !== undefined && compareUtf8(name, after) <= 0) continue;
      entries.push(entryOf(name, stored, blob));
    }
    entries.sort((one, other) => compareUtf8(one.name, other.name));
    yield* batches(entries.slice(0, limit), options.signal);
  }

  async *listBlobs(
    options: { after?: Digest; signal?: AbortSignal } = {},
  ): AsyncIterable<readonly BlobRecord[]> {
    const { after } = options;
    const blobs = [...this.#blobs.values()].filter(({ digest }) => after === undefined || digest > after);
    blobs.sort((one, other) => compareUtf8(one.digest, other.digest));
    yield* batches(blobs.map(recordOf), options.signal);
  }

  async listUnreferenced(beforeMs: number, limit: number): Promise<readonly Digest[]> {
    return [...this.#blobs]
      .filter(([, blob]) => blob.references === 0 && blob.unreferencedSinceMs < beforeMs)
      .sort(([, one], [, other]) => one.unreferencedSinceMs - other.unreferencedSinceMs)
      .slice(0, limit)
      .map(([digest]) => digest);
  }

  async stats(): Promise<CatalogStats> {
    const blobs = [...this.#blobs.values()];
    const sum = (numbers: number[]): number => numbers.reduce((total, number) => total + number, 0);
    return {
      entries: this.#entries.size,
      blobs: blobs.length,
      logicalBytes: sum(blobs.map((blob) => blob.logicalSize * blob.references)),
      uniqueLogicalBytes: sum(blobs.map((blob) => blob.logicalSize)),
      storedBytes: sum(blobs.map((blob) => blob.storedSize)),
      unreferencedBlobs: blobs.filter((blob) => blob.references === 0).length,
      journalBytes: 0,
      journalLiveBytes: 0,
    };
  }

  async timeMs(): Promise<number> {
    return this.#clock.nowMs();
  }

  async put(change: PutChange): Promise<PutOutcome> {
    return this.#inSequence(async () => {
      const current = this.#entries.get(change.name);
      const refusal = refusalOfPut(current, change, this.#removals.get(change.name));
      if (refusal) return refusal;
      const other = conflictingName(
        change.name,
        (ancestor) => this.#entries.has(ancestor),
        (directory) => this.#firstBelow(directory),
      );
      if (other !== undefined) return { kind: 'name-conflict', other };
      const known = this.#blobs.get(change.digest);
      const deduplicated = known !== undefined && !known.damaged;
      if (!deduplicated) {
        const location = await this.#place(change);
        if (location === undefined) return { kind: 'content-missing' };
        this.#setBlob({ ...change, damaged: false }, location);
        const old = known?.location;
        const isReplaced = !(
          location.kind === 'object' &&
          old?.kind === 'object' &&
          location.key === old.key
        );
        if (old?.kind === 'object' && isReplaced) await this.#placer.remove([old.key]);
      }
      this.#point(change.name, { version: change.version, digest: change.digest });
      const object =
        deduplicated && known.location.kind === 'object'
          ? { key: known.location.key, storedSize: known.storedSize }
          : undefined;
      return { kind: 'stored', version: change.version, deduplicated, object };
    });
  }

  async remove(change: RemoveChange): Promise<RemoveOutcome> {
    return this.#inSequence(async () => {
      const current = this.#entries.get(change.name);
      const refusal = refusalOfRemove(current, change);
      if (refusal || current === undefined) return refusal ?? { kind: 'absent' };
      this.#point(change.name, undefined);
      this.#removals.set(change.name, { version: current.version, timeMs: this.#clock.nowMs() });
      return { kind: 'removed', version: current.version };
    });
  }

  async collect(digests: readonly Digest[], beforeMs: number): Promise<readonly BlobRecord[]> {
    return this.#inSequence(async () => {
      const collected: BlobRecord[] = [];
      for (const digest of digests) {
        const blob = this.#blobs.get(digest);
        if (!blob || blob.references > 0 || blob.pins > 0 || blob.unreferencedSinceMs >= beforeMs) continue;
        this.#blobs.delete(digest);
        collected.push(recordOf(blob));
      }
      await this.#placer.remove(
        collected.flatMap(({ location }) => (location.kind === 'object' ? [location.key] : [])),
      );
      return collected;
    });
  }

  async pin(digest: Digest): Promise<BlobPin | undefined> {
    return this.#inSequence(async () => {
      const blob = this.#blobs.get(digest);
      if (blob === undefined || blob.damaged) return undefined;
      blob.pins += 1;
      let held = true;
      const release = async (): Promise<void> => {
        if (held) blob.pins -= 1;
        held = false;
      };
      return { blob: recordOf(blob), release };
    });
  }

  async markDamaged(digest: Digest, damaged: boolean): Promise<void> {
    await this.#inSequence(async () => {
      const blob = this.#blobs.get(digest);
      if (blob) blob.damaged = damaged;
    });
  }

  async addBlobs(blobs: readonly PlacedBlob[]): Promise<void> {
    await this.#inSequence(async () => {
      for (const blob of blobs) {
        const known = this.#blobs.get(blob.digest);
        if (known !== undefined && !corrects(blob, known)) continue;
        this.#setBlob(blob, { kind: 'object', key: blob.key });
      }
    });
  }

  async probe(): Promise<void> {
    this.#checkOpen();
  }

  async close(): Promise<void> {
    this.#closed = true;
    await this.#sequence;
  }

  #checkOpen(): void {
    if (this.#closed) throw new FiletrackerError('unavailable', 'Cannot change the catalog: it is closed');
  }

  #inSequence<Result>(step: () => Promise<Result>): Promise<Result> {
    this.#checkOpen();
    const result = this.#sequence.then(step);
    this.#sequence = result.catch(() => undefined);
    return result;
  }

  /** Places the content of a put; `undefined` if it has none. */
  async #place({ content, digest, encoding }: PutChange): Promise<BlobLocation | undefined> {
    switch (content.kind) {
      case 'inline':
        return { kind: 'inline', read: async () => content.bytes };
      case 'staged': {
        const [key] = await this.#placer.place([{ stagedId: content.stagedId, digest, encoding }]);
        return key === undefined ? undefined : { kind: 'object', key };
      }
      case 'stored':
        return undefined;
    }
  }

  /** Adds a blob, or replaces its bytes and description. */
  #setBlob(blob: BlobDescription & { readonly damaged?: boolean | undefined }, location: BlobLocation): void {
    const { digest, encoding, logicalSize, storedSize, damaged = false } = blob;
    const {
      references = 0,
      unreferencedSinceMs = this.#clock.nowMs(),
      pins = 0,
    } = this.#blobs.get(digest) ?? {};
    const kept = { references, unreferencedSinceMs, pins };
    this.#blobs.set(digest, { digest, encoding, logicalSize, storedSize, damaged, location, ...kept });
  }

  /** Sets or removes the entry of a name, and keeps the counts. */
  #point(name: FileName, stored: StoredVersion | undefined): void {
    const before = this.#entries.get(name);
    if (stored === undefined) this.#entries.delete(name);
    else this.#entries.set(name, stored);
    this.#removals.delete(name);
    const added = stored && this.#blobs.get(stored.digest);
    if (added) added.references += 1;
    const left = before && this.#blobs.get(before.digest);
    if (left) {
      left.references -= 1;
      left.unreferencedSinceMs = this.#clock.nowMs();
    }
  }

  #firstBelow(directory: string): FileName | undefined {
    const below = [...this.#entries.keys()].filter((name) => name.startsWith(directory));
    return below.sort(compareUtf8)[0];
  }
}

function compareUtf8(one: string, other: string): number {
  return Buffer.compare(Buffer.from(one), Buffer.from(other));
}

function entryOf(name: FileName, stored: StoredVersion, blob: MemoryBlob): Entry {
  const { logicalSize, storedSize, encoding } = blob;
  return { name, version: stored.version, digest: stored.digest, logicalSize, storedSize, encoding };
}

function recordOf(blob: MemoryBlob): BlobRecord {
  const { digest, encoding, logicalSize, storedSize, location, references, damaged } = blob;
  return { digest, encoding, logicalSize, storedSize, references, damaged, location };
}

function* batches<Item>(items: readonly Item[], signal: AbortSignal | undefined): Iterable<readonly Item[]> {
  for (let start = 0; start < items.length; start += listBatchNames) {
    signal?.throwIfAborted();
    yield items.slice(start, start + listBatchNames);
  }
}
