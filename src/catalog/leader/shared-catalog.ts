import { setTimeout as delay } from 'node:timers/promises';
import type { Digest } from '../../core/digest.ts';
import { FiletrackerError, messageOf } from '../../core/errors.ts';
import type { FileName } from '../../core/file-name.ts';
import { makeFolderDurably, privateFolderMode } from '../../fs/folders.ts';
import type {
  BlobPin,
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
} from '../catalog.ts';
import { IndexDatabase } from '../lmdb/index/database.ts';
import type { DamagedIndexError } from '../lmdb/index/failures.ts';
import { trustOfIndex } from '../lmdb/index/state.ts';
import { JournalLock } from '../lmdb/writer/journal-lock.ts';
import { LmdbCatalog, type LmdbCatalogOptions } from '../lmdb/lmdb-catalog.ts';
import { LmdbReader } from '../lmdb/index/lmdb-reader.ts';
import { ChangeClient, ConnectionLost } from './change-client.ts';
import { ChangeServer } from './change-server.ts';
import { carryOut, type ChangeAnswers, type ChangeRequest } from './frames.ts';
import { socketPathIn, type SocketPath } from './socket-path.ts';

const electionPauseMs = 10;

export interface SharedCatalogOptions extends Omit<LmdbCatalogOptions, 'lock' | 'index' | 'onDamagedIndex'> {
  /**
   * Whether this process is the first of the store and so must lead: it waits for the lock for so many milliseconds,
   * in which the processes of a server that was killed notice that, and refuses to follow another.
   */
  readonly mustLeadWithinMs?: number | undefined;
  /**
   * Called when this process becomes the one that makes the changes, before it takes those of others; background
   * work is its duty from then on.
   */
  readonly onLead?: ((catalog: LmdbCatalog) => Promise<void>) | undefined;
  /**
   * Called where only a new process can go on: this one has an index open that is damaged or not the store's any more, or
   * could not take up its duties as the leader and keeps others from it. Unless given, the process ends of the error.
   */
  readonly onUnusable?: ((error: unknown) => void) | undefined;
}

/**
 * The embedded catalog for several processes: all read LMDB and the journal themselves, one of them, the leader,
 * makes the changes of all.
 *
 * Invariant: the leader is the process that holds the lock of the journal, which the kernel takes from it when it
 * dies. Every other is connected to the leader or looking for one: it tries to connect and to take the lock,
 * in turn, until one succeeds. A change whose answer was lost with its leader is asked for again, with what stood under
 * the name before it, so that it is not made a second time over what others have changed since.
 */
export class SharedCatalog implements Catalog {
  readonly #options: SharedCatalogOptions;
  readonly #socketPath: SocketPath;
  readonly #closing = new AbortController();
  #reader: LmdbReader | undefined;
  #index: IndexDatabase | undefined;
  #leading: { catalog: LmdbCatalog; server: ChangeServer } | undefined;
  #following: ChangeClient | undefined;
  #election: Promise<void> | undefined;
  readonly #underWay = new Set<Promise<unknown>>();
  #closed = false;

  private constructor(options: SharedCatalogOptions, socketPath: SocketPath) {
    this.#options = options;
    this.#socketPath = socketPath;
  }

  /**
   * Resolves when there is a leader, be it this process or another.
   * @throws as `LmdbCatalog.open`; `store-locked` where this process must lead and another does.
   */
  static async open(options: SharedCatalogOptions): Promise<SharedCatalog> {
    await makeFolderDurably(options.folders.journal, privateFolderMode);
    const socketPath = await socketPathIn(options.folders.journal);
    const catalog = new SharedCatalog(options, socketPath);
    try {
      await catalog.#elect();
    } catch (error) {
      await socketPath[Symbol.asyncDispose]();
      throw error;
    }
    return catalog;
  }

  get leads(): boolean {
    return this.#leading !== undefined;
  }

  get capabilities(): CatalogCapabilities {
    return this.#read().capabilities;
  }

  find(name: FileName): Promise<LocatedEntry | undefined> {
    return this.#read().find(name);
  }

  findBlob(digest: Digest): Promise<BlobRecord | undefined> {
    return this.#read().findBlob(digest);
  }

  kindOfDirectory(directory: string): Promise<'directory' | 'file' | 'absent'> {
    return this.#read().kindOfDirectory(directory);
  }

  listNames(directory: string, options?: ListOptions): AsyncIterable<readonly FileName[]> {
    return this.#read().listNames(directory, options);
  }

  listEntries(directory: string, options?: ListOptions): AsyncIterable<readonly Entry[]> {
    return this.#read().listEntries(directory, options);
  }

  listBlobs(options?: { after?: Digest; signal?: AbortSignal }): AsyncIterable<readonly BlobRecord[]> {
    return this.#read().listBlobs(options);
  }

  listUnreferenced(beforeMs: number, limit: number): Promise<readonly Digest[]> {
    return this.#read().listUnreferenced(beforeMs, limit);
  }

  stats(): Promise<CatalogStats> {
    return this.#read().stats();
  }

  timeMs(): Promise<number> {
    return this.#read().timeMs();
  }

  put(change: PutChange): Promise<PutOutcome> {
    if (this.#leading !== undefined) return this.#leading.catalog.put(change);
    return this.#putAtLeader(change);
  }

  remove(change: RemoveChange): Promise<RemoveOutcome> {
    if (this.#leading !== undefined) return this.#leading.catalog.remove(change);
    return this.#removeAtLeader(change);
  }

  async collect(digests: readonly Digest[], beforeMs: number): Promise<readonly BlobRecord[]> {
    return (await this.#ask({ method: 'collect', digests, beforeMs })).answer;
  }

  async pin(digest: Digest): Promise<BlobPin | undefined> {
    const { answer: pinned, client } = await this.#ask({ method: 'pin', digest });
    if (client === undefined) return this.#leading?.catalog.pin(digest);
    if (!pinned) return undefined;
    let held = true;
    const release = async (): Promise<void> => {
      if (!held) return;
      held = false;
      // With the connection that pinned it, the pin itself is gone.
      await client.request({ method: 'release', digest }).catch((error: unknown) => {
        if (!(error instanceof ConnectionLost)) throw error;
      });
    };
    const blob = await this.findBlob(digest);
    if (blob !== undefined) return { blob, release };
    await release();
    return undefined;
  }

  async markDamaged(digest: Digest, damaged: boolean): Promise<void> {
    await this.#ask({ method: 'mark', digest, damaged });
  }

  async addBlobs(blobs: readonly PlacedBlob[]): Promise<void> {
    await this.#ask({ method: 'add', blobs });
  }

  async probe(): Promise<void> {
    await this.#ask({ method: 'probe' });
  }

  async close(): Promise<void> {
    this.#closed = true;
    await Promise.allSettled(this.#underWay);
    this.#closing.abort();
    await this.#election?.catch(() => undefined);
    this.#following?.close();
    const leading = this.#leading;
    await leading?.server.close();
    if (leading === undefined) {
      await this.#reader?.close();
      await this.#index?.close();
    } else {
      await leading.catalog.close();
    }
    this.#reader = undefined;
    this.#index = undefined;
    await this.#socketPath[Symbol.asyncDispose]();
  }

  #read(): LmdbReader {
    if (this.#reader !== undefined) return this.#reader;
    throw new FiletrackerError('unavailable', 'Cannot read the catalog: it is closed');
  }

  async #putAtLeader(change: PutChange): Promise<PutOutcome> {
    const stoodBefore = this.#read().standing(change.name);
    const again = { method: 'put', change: { ...change, stoodBefore } } as const;
    return (await this.#ask({ method: 'put', change }, again)).answer;
  }

  async #removeAtLeader(change: RemoveChange): Promise<RemoveOutcome> {
    const stoodBefore = this.#read().standing(change.name);
    const again = { method: 'remove', change: { ...change, stoodBefore } } as const;
    return (await this.#ask({ method: 'remove', change }, again)).answer;
  }

  /**
   * Asks the leader, and the next one if that is lost, as long as it takes to find one. `again` is what those are asked
   * who come after one that may have carried it out.
   */
  async #ask<Method extends ChangeRequest['method']>(
    request: Extract<ChangeRequest, { method: Method }>,
    again = request,
  ): Promise<Answered<Method>> {
    if (this.#closed) {
      throw new FiletrackerError('unavailable', 'Cannot change the catalog: it is closed');
    }
    const asking = this.#askUntilAnswered(request, again);
    this.#underWay.add(asking);
    try {
      return await asking;
    } finally {
      this.#underWay.delete(asking);
    }
  }

  async #askUntilAnswered<Method extends ChangeRequest['method']>(
    first: Extract<ChangeRequest, { method: Method }>,
    again: Extract<ChangeRequest, { method: Method }>,
  ): Promise<Answered<Method>> {
    for (let request = first; ; request = again) {
      await this.#election;
      if (this.#leading !== undefined) {
        const answer = await askHere(this.#leading.catalog, request);
        return { answer: answer as ChangeAnswers[Method], client: undefined };
      }
      const client = this.#following;
      if (client === undefined) {
        throw new FiletrackerError(
          'unavailable',
          'Cannot change the store: no process leads it at the moment',
        );
      }
      try {
        return { answer: await client.request(request), client };
      } catch (error) {
        if (!(error instanceof ConnectionLost)) throw error;
        await client.ended;
      }
    }
  }

  #elect(): Promise<void> {
    this.#election ??= this.#findLeader().finally(() => {
      this.#election = undefined;
    });
    return this.#election;
  }

  async #findLeader(): Promise<void> {
    const { mustLeadWithinMs } = this.#options;
    const mustLead = mustLeadWithinMs !== undefined && this.#reader === undefined;
    const startedMs = performance.now();
    while (!this.#closing.signal.aborted) {
      const lock = await JournalLock.tryAcquire(this.#options.folders.journal);
      if (lock !== undefined) {
        const index = this.#index;
        if (index !== undefined && !(await this.#mayLeadWith(index))) {
          await lock.release();
          this.#giveUp(indexReplaced());
        }
        const onDamagedIndex = (error: DamagedIndexError): void => void this.#endWithDamage(error);
        const catalog = await LmdbCatalog.open({ ...this.#options, lock, index, onDamagedIndex });
        await this.#lead(catalog);
        return;
      }
      if (mustLead && performance.now() - startedMs > mustLeadWithinMs) {
        throw new FiletrackerError('store-locked', 'Cannot open the store: another process has it open');
      }
      const client = mustLead ? undefined : await ChangeClient.connect(this.#socketPath.path);
      if (client !== undefined && (await answers(client))) {
        await this.#follow(client);
        return;
      }
      await delay(electionPauseMs, undefined, { signal: this.#closing.signal }).catch(() => undefined);
    }
  }

  async #lead(catalog: LmdbCatalog): Promise<void> {
    const isFirst = this.#reader === undefined;
    this.#reader = catalog;
    this.#following = undefined;
    try {
      await this.#options.onLead?.(catalog);
      const server = await ChangeServer.listen(this.#socketPath.path, catalog, {
        onDisconnect: () => catalog.forgetDeadReaders(),
        onRebuild: () => catalog.giveUpIndex(),
      });
      this.#leading = { catalog, server };
    } catch (error) {
      if (!isFirst && !this.#closing.signal.aborted) this.#giveUp(error);
      await catalog.close();
      throw error;
    }
  }

  async #follow(client: ChangeClient): Promise<void> {
    try {
      // The leader has brought the index up to the journal before it listens, so it is there and sound.
      this.#index ??= await IndexDatabase.openShared(this.#options.folders);
      if (!this.#index.isInPlace) this.#giveUp(indexReplaced());
      this.#index.onDamage ??= (error) => void this.#endWithDamage(error);
    } catch (error) {
      client.close();
      throw error;
    }
    this.#reader ??= new LmdbReader(this.#index, this.#options.folders);
    this.#following = client;
    void client.ended.then(() => this.#lookForNext());
  }

  /** Whether this process may lead with the index that it has open: not one that is to be rebuilt. */
  async #mayLeadWith(index: IndexDatabase): Promise<boolean> {
    return index.isInPlace && (await trustOfIndex(this.#options.folders.catalog)) !== 'none';
  }

  #giveUp(error: unknown): never {
    this.#unusable(error);
    throw error;
  }

  #unusable(error: unknown): void {
    const { onUnusable = endProcess } = this.#options;
    onUnusable(error);
  }

  /**
   * Ends the use of a damaged index in this process and in the leader. The next leader finds that it is not trusted, and
   * rebuilds it; every other process has the old one open then, and ends too.
   */
  async #endWithDamage(error: DamagedIndexError): Promise<void> {
    this.#options.onBackgroundError?.(error);
    try {
      await this.#following?.request({ method: 'rebuild' });
    } catch {
      // The leader has ended by itself.
    }
    this.#unusable(error);
  }

  #lookForNext(): void {
    this.#following = undefined;
    if (this.#closing.signal.aborted) return;
    this.#elect().catch((error: unknown) => {
      // Without a leader this process can read but not change anything: it says so and tries again.
      this.#options.onBackgroundError?.(error);
      const pause = setTimeout(() => this.#lookForNext(), 1000);
      pause.unref();
    });
  }
}

interface Answered<Method extends ChangeRequest['method']> {
  readonly answer: ChangeAnswers[Method];
  /** Who answered; undefined where this process leads. */
  readonly client: ChangeClient | undefined;
}

function endProcess(error: unknown): void {
  setImmediate(() => {
    throw error;
  });
}

function indexReplaced(): FiletrackerError {
  return new FiletrackerError(
    'unavailable',
    'Cannot read the catalog any more: its index was removed or replaced while the store was in use',
  );
}

/** In the leading process itself; a pin is taken by who keeps it. */
async function askHere(catalog: LmdbCatalog, request: ChangeRequest): Promise<unknown> {
  const { method } = request;
  return method === 'pin' || method === 'release' || method === 'rebuild' ? null : carryOut(catalog, request);
}

/** Whether the other end is a leader that works, not one that is going down. */
async function answers(client: ChangeClient): Promise<boolean> {
  try {
    await client.request({ method: 'release', digest: '' as Digest });
    return true;
  } catch (error) {
    client.close();
    if (error instanceof ConnectionLost) return false;
    throw new FiletrackerError('unavailable', `Cannot reach the leader of the store: ${messageOf(error)}`);
  }
}
