import { setTimeout as delay } from 'node:timers/promises';
import { SingleFlight } from '../../core/concurrency.ts';
import { cannot, messageOf, type FiletrackerError } from '../../core/errors.ts';
import { makeFolderDurably, privateFolderMode } from '../../fs/folders.ts';
import { IndexDatabase } from '../lmdb/index/database.ts';
import type { DamagedIndexError } from '../lmdb/index/failures.ts';
import { trustOfIndex } from '../lmdb/index/state.ts';
import { LmdbCatalog, type LmdbCatalogOptions } from '../lmdb/lmdb-catalog.ts';
import { JournalLock } from '../lmdb/writer/journal-lock.ts';
import { ChangeClient, ConnectionLost } from './change-client.ts';
import { ChangeServer, socketPathIn, type SocketPath } from './change-server.ts';

const electionPauseMs = 10;
const retryPauseMs = 1000;

export interface LeadershipOptions extends Omit<LmdbCatalogOptions, 'lock' | 'index'> {
  /**
   * Set for the first process of a server, which must lead: how long it waits for the lock, in milliseconds, so that the
   * processes of a killed server notice that it is gone. It does not follow another process.
   */
  readonly mustLeadWithinMs?: number | undefined;
  /** Called when this process becomes the leader, before it accepts changes of others; it then runs the background work. */
  readonly onLead?: ((catalog: LmdbCatalog) => Promise<void>) | undefined;
  /**
   * Called if only a new process can continue: this one has an index open that is damaged or was replaced, or could not
   * take up its duties as the leader and keeps others from it. By default the error ends the process.
   */
  readonly onUnusable?: ((error: unknown) => void) | undefined;
}

/**
 * The part of this process among those that share a store: it leads, or follows the leader.
 *
 * Invariant: the leader is the process that holds the lock of the journal, which the kernel releases when it dies.
 * Every other process is connected to the leader or looks for one: it tries to connect and to take the lock, in turn,
 * until one succeeds. A process has one index open for all its life.
 */
export class Leadership {
  readonly #options: LeadershipOptions;
  readonly #socketPath: SocketPath;
  readonly #closing = new AbortController();
  /** Changes of this process that are under way at the leader. */
  #changeCount = 0;
  #onIdle: (() => void) | undefined;
  #index: IndexDatabase | undefined;
  /** The catalog, once this process holds the lock. */
  #catalog: LmdbCatalog | undefined;
  #server: ChangeServer | undefined;
  #following: ChangeClient | undefined;
  readonly #election = new SingleFlight<void>();
  #ended = false;

  private constructor(options: LeadershipOptions, socketPath: SocketPath) {
    this.#options = options;
    this.#socketPath = socketPath;
  }

  /**
   * Resolves when there is a leader: this process or another.
   * @throws as `LmdbCatalog.open`; `store-locked` if this process must lead and another does.
   */
  static async join(options: LeadershipOptions): Promise<Leadership> {
    await makeFolderDurably(options.folders.journal, privateFolderMode);
    const socketPath = await socketPathIn(options.folders.journal);
    const leadership = new Leadership(options, socketPath);
    try {
      await leadership.#elect();
    } catch (error) {
      await socketPath[Symbol.asyncDispose]();
      throw error;
    }
    return leadership;
  }

  /** The index, for look-ups in this process. */
  get index(): IndexDatabase {
    if (this.#index !== undefined) return this.#index;
    throw cannot('unavailable', 'read the catalog', 'no process leads it');
  }

  /** The catalog if this process leads. */
  get leading(): LmdbCatalog | undefined {
    return this.#server === undefined ? undefined : this.#catalog;
  }

  /**
   * Makes a change: in this process if it leads, else at the leader, and at the next one if that is lost, as long as it
   * takes to find one. `again` is true once a lost leader may have made the change.
   */
  async change<Result>(
    here: (catalog: LmdbCatalog, again: boolean) => Promise<Result>,
    there: (client: ChangeClient, again: boolean) => Promise<Result>,
  ): Promise<Result> {
    if (this.#ended) throw cannot('unavailable', 'change the catalog', 'it is closed');
    this.#changeCount += 1;
    try {
      return await this.#changeAtLeader(here, there);
    } finally {
      this.#changeCount -= 1;
      if (this.#changeCount === 0) this.#onIdle?.();
    }
  }

  async #changeAtLeader<Result>(
    here: (catalog: LmdbCatalog, again: boolean) => Promise<Result>,
    there: (client: ChangeClient, again: boolean) => Promise<Result>,
  ): Promise<Result> {
    for (let again = false; ; again = true) {
      if (this.#election.running !== undefined) await this.#election.running;
      if (this.leading !== undefined) return here(this.leading, again);
      const client = this.#following;
      if (client === undefined) {
        throw cannot('unavailable', 'change the store', 'no process leads it at the moment; retry');
      }
      try {
        return await there(client, again);
      } catch (error) {
        if (!(error instanceof ConnectionLost)) throw error;
        await client.ended;
      }
    }
  }

  /** Waits for changes under way, refuses new ones, and ends leading or following. */
  async end(): Promise<void> {
    this.#ended = true;
    if (this.#changeCount > 0) {
      await new Promise<void>((resolve) => {
        this.#onIdle = resolve;
      });
    }
    this.#closing.abort();
    await this.#election.running?.catch(() => undefined);
    this.#following?.close();
    await this.#server?.close();
  }

  /** Closes the catalog or the index, after `end`. */
  async close(): Promise<void> {
    if (this.#catalog === undefined) await this.#index?.close();
    else await this.#catalog.close();
    await this.#socketPath[Symbol.asyncDispose]();
  }

  #elect(): Promise<void> {
    return this.#election.run(() => this.#findLeader());
  }

  async #findLeader(): Promise<void> {
    const { mustLeadWithinMs, folders } = this.#options;
    const mustLead = mustLeadWithinMs !== undefined && this.#index === undefined;
    const startedMs = performance.now();
    while (!this.#closing.signal.aborted) {
      const lock = await JournalLock.tryAcquire(folders.journal);
      if (lock !== undefined) {
        await this.#lead(lock);
        return;
      }
      if (mustLead && performance.now() - startedMs > mustLeadWithinMs) {
        throw cannot('store-locked', 'open the store', 'another process has it open');
      }
      const client = mustLead ? undefined : await ChangeClient.connect(this.#socketPath.path);
      if (client !== undefined && (await responds(client))) {
        await this.#follow(client);
        // That leader may have ended meanwhile.
        if (this.#following !== undefined) return;
        continue;
      }
      await delay(electionPauseMs, undefined, { signal: this.#closing.signal }).catch(() => undefined);
    }
  }

  async #lead(lock: JournalLock): Promise<void> {
    const index = this.#index;
    if (index !== undefined && !(await this.#mayLeadWith(index))) {
      await lock.release();
      this.#giveUp(indexReplaced());
    }
    const catalog = await LmdbCatalog.open({ ...this.#options, lock, index });
    this.#useIndex(catalog.index);
    this.#following = undefined;
    this.#catalog = catalog;
    try {
      await this.#options.onLead?.(catalog);
      this.#server = await ChangeServer.listen(this.#socketPath.path, catalog, {
        onDisconnect: () => catalog.index.forgetDeadReaders(),
        onRebuild: () => catalog.giveUpIndex(),
      });
    } catch (error) {
      if (index !== undefined && !this.#closing.signal.aborted) this.#giveUp(error);
      await catalog.close();
      throw error;
    }
  }

  async #follow(client: ChangeClient): Promise<void> {
    try {
      // The leader has brought the index up to the journal before it listens, so it exists and is intact.
      this.#useIndex(this.#index ?? (await IndexDatabase.openShared(this.#options.folders)));
      if (!this.index.isInPlace) this.#giveUp(indexReplaced());
    } catch (error) {
      client.close();
      throw error;
    }
    this.#following = client;
    void client.ended.then(() => this.#loseLeader(client));
  }

  /** A leader that ends while the election that found it is under way must not leave this process without one. */
  #loseLeader(client: ChangeClient): void {
    if (this.#following === client) this.#following = undefined;
    const { running } = this.#election;
    if (running === undefined) {
      this.#lookForNext();
      return;
    }
    const lookAfterwards = (): void => {
      if (this.#following === undefined && this.leading === undefined) this.#lookForNext();
    };
    // If it fails, who began it reports that or tries again.
    running.then(lookAfterwards, () => undefined);
  }

  #useIndex(index: IndexDatabase): void {
    this.#index = index;
    index.onDamage ??= (error) => void this.#endWithDamage(error);
  }

  /** Whether this process may lead with its index: not if the index must be rebuilt. */
  async #mayLeadWith(index: IndexDatabase): Promise<boolean> {
    return index.isInPlace && (await trustOfIndex(this.#options.folders.catalog)) !== 'none';
  }

  #giveUp(error: unknown): never {
    this.#reportUnusable(error);
    throw error;
  }

  #reportUnusable(error: unknown): void {
    const { onUnusable = endProcess } = this.#options;
    onUnusable(error);
  }

  /**
   * Ends the use of a damaged index in this process and in the leader. The next leader does not trust it, and rebuilds it;
   * every other process has the old one open then, and ends too.
   */
  async #endWithDamage(error: DamagedIndexError): Promise<void> {
    this.#options.onBackgroundError?.(error);
    try {
      await this.#following?.request({ method: 'rebuild' });
    } catch {
      // The leader has ended by itself.
    }
    this.#reportUnusable(error);
  }

  #lookForNext(): void {
    this.#following = undefined;
    if (this.#closing.signal.aborted) return;
    this.#elect().catch((error: unknown) => {
      // Without a leader this process can read but not change anything: it reports that and tries again.
      this.#options.onBackgroundError?.(error);
      setTimeout(() => this.#lookForNext(), retryPauseMs).unref();
    });
  }
}

function endProcess(error: unknown): void {
  setImmediate(() => {
    throw error;
  });
}

function indexReplaced(): FiletrackerError {
  const state = 'its index was removed or replaced while the store was in use';
  return cannot('unavailable', 'read the catalog', state);
}

/** Whether the peer is a leader at work, not one that is shutting down. */
async function responds(client: ChangeClient): Promise<boolean> {
  try {
    await client.greet();
    return true;
  } catch (error) {
    client.close();
    if (error instanceof ConnectionLost) return false;
    throw cannot('unavailable', 'reach the leader of the store', messageOf(error));
  }
}
