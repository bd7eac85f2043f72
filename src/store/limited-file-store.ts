import type { FileName } from '../core/file-name.ts';
import type { Clock } from '../core/clock.ts';
import type {
  Entry,
  FileStatus,
  FileStore,
  ForecastOptions,
  ListOptions,
  OpenFile,
  PutBody,
  PutForecast,
  PutIntent,
  PutOptions,
  PutResult,
  ReadOptions,
  RemoveResult,
  StoreStats,
} from './file-store.ts';
import { FreeSpace } from './free-space.ts';
import { SenderSlots } from './sender-slots.ts';

export interface UploadLimits {
  /** Puts under way at once. */
  readonly uploadsMax: number;
  /** Of one sender; undefined for no more than are left free for others. */
  readonly senderUploadsMax?: number | undefined;
  /** Lists under way at once; of one sender no more than are left free for others. */
  readonly listsMax: number;
  /** Bytes that stay free on the disk of the store, whatever is put. */
  readonly freeSpaceMinBytes: number;
}

export interface LimitedFileStoreOptions {
  readonly limits: UploadLimits;
  /** Bytes that the disk of the store has left; undefined where nobody can tell. */
  readonly freeSpace: () => Promise<number | undefined>;
  readonly clock: Clock;
}

/**
 * A file store that refuses puts for which there is no room, before anything of them is read: too many at
 * once, or too little space on the disk. Lists are refused when too many run. Reading and removing are never refused,
 * as removing makes room.
 *
 * Invariant: only puts that have a slot, and were given room on the disk, are in the store below.
 */
export class LimitedFileStore implements FileStore {
  readonly #store: FileStore;
  /** Puts that were answered well, by what became of them. */
  readonly putCounts = { new: 0, deduplicated: 0, superseded: 0 };
  readonly #slots: SenderSlots;
  readonly #listSlots: SenderSlots;
  readonly #space: FreeSpace;

  constructor(store: FileStore, options: LimitedFileStoreOptions) {
    this.#store = store;
    const { limits, freeSpace, clock } = options;
    this.#slots = new SenderSlots({
      what: 'uploads',
      max: limits.uploadsMax,
      senderMax: limits.senderUploadsMax,
    });
    this.#listSlots = new SenderSlots({ what: 'lists', max: limits.listsMax });
    this.#space = new FreeSpace({ minBytes: limits.freeSpaceMinBytes, ask: freeSpace, clock });
  }

  /** Puts under way. */
  get uploadCount(): number {
    return this.#slots.count;
  }

  /** Lists under way. */
  get listCount(): number {
    return this.#listSlots.count;
  }

  /** Bytes that the disk had left when it was last asked. */
  get freeBytes(): number | undefined {
    return this.#space.bytes;
  }

  async put(intent: PutIntent, body: PutBody, options: PutOptions = {}): Promise<PutResult> {
    const { sender } = options;
    const { name } = intent;
    // Taken before the disk is asked: the slots must not be given away twice in that time.
    this.#slots.take(`store "${name}"`, sender);
    try {
      const asking = this.#space.refresh();
      if (asking !== undefined) await asking;
      const result = await this.#putInto(intent, body, options);
      this.#count(result);
      return result;
    } finally {
      this.#slots.release(sender);
    }
  }

  async #putInto(intent: PutIntent, body: PutBody, options: PutOptions): Promise<PutResult> {
    const { name } = intent;
    const announcedBytes = Buffer.isBuffer(body.source) ? body.source.length : body.announcedSize;
    const release = this.#space.take(announcedBytes ?? 0, name);
    try {
      if (announcedBytes !== undefined) return await this.#store.put(intent, body, options);
      return await this.#space.watch(name, (noRoom) => {
        const signal = options.signal === undefined ? noRoom : AbortSignal.any([options.signal, noRoom]);
        return this.#store.put(intent, body, { ...options, signal });
      });
    } finally {
      release();
    }
  }

  async forecast(intent: PutIntent, options: ForecastOptions): Promise<PutForecast> {
    const forecast = await this.#store.forecast(intent, options);
    if (forecast.kind === 'settled') {
      this.#count(forecast.result);
      return forecast;
    }
    this.#slots.check(`store "${intent.name}"`, options.sender);
    await this.#space.refresh();
    this.#space.check(options.announcedSize ?? 0, intent.name);
    return forecast;
  }

  directAddress(name: FileName, lifetimeSeconds: number): ReturnType<FileStore['directAddress']> {
    return this.#store.directAddress(name, lifetimeSeconds);
  }

  stat(name: FileName): Promise<FileStatus | undefined> {
    return this.#store.stat(name);
  }

  open(name: FileName, options: ReadOptions): Promise<OpenFile | undefined> {
    return this.#store.open(name, options);
  }

  remove(intent: Parameters<FileStore['remove']>[0]): Promise<RemoveResult | undefined> {
    return this.#store.remove(intent);
  }

  kindOfDirectory(directory: string): Promise<'directory' | 'file' | 'absent'> {
    return this.#store.kindOfDirectory(directory);
  }

  listNames(directory: string, options?: ListOptions): AsyncIterable<readonly FileName[]> {
    const list = this.#store.listNames(directory, options);
    return this.#listed(directory, list, options?.sender);
  }

  listEntries(directory: string, options?: ListOptions): AsyncIterable<readonly Entry[]> {
    const list = this.#store.listEntries(directory, options);
    return this.#listed(directory, list, options?.sender);
  }

  /** A list that holds a slot from its first batch until it ends or is given up. */
  async *#listed<Batch>(
    directory: string,
    list: AsyncIterable<Batch>,
    sender: string | undefined,
  ): AsyncGenerator<Batch, void, void> {
    this.#listSlots.take(`list "${directory}"`, sender);
    try {
      yield* list;
    } finally {
      this.#listSlots.release(sender);
    }
  }

  stats(): Promise<StoreStats> {
    return this.#store.stats();
  }

  probe(): Promise<void> {
    return this.#store.probe();
  }

  close(): Promise<void> {
    return this.#store.close();
  }

  #count(result: PutResult): void {
    const outcome = !result.stored ? 'superseded' : result.deduplicated ? 'deduplicated' : 'new';
    this.putCounts[outcome] += 1;
  }
}
