import { join } from 'node:path';
import type { RootDatabase } from 'lmdb';
import type { Digest } from '../../../core/digest.ts';
import { cannot } from '../../../core/errors.ts';
import { FileGuard } from '../../../fs/locks/file-guard.ts';
import { SharedCounter } from '../../../fs/shared-counter.ts';
import type { BlobPlacer } from '../../catalog.ts';
import type { PlacedRecord, RecordPosition } from '../../journal/record.ts';
import { IndexChanges } from './changes.ts';
import { indexWriteError, type DamagedIndexError } from './failures.ts';
import {
  decodeBlobRow,
  decodeDigestKey,
  decodeRemovalRow,
  logicalSizeOfBlobRow,
  segmentKey,
  totalsKey,
  type BlobRow,
  type IndexTotals,
} from './rows.ts';
import { distrustIndex, indexDataFileName, inodeOfIndex } from './state.ts';
import { IndexTables, openIndexFile } from './tables.ts';

/** The folders of the embedded catalog, below that of the store. */
export interface EmbeddedFolders {
  readonly journal: string;
  readonly catalog: string;
}

/** Concurrent look-ups in the blob store. */
const lookUpsAtOnce = 64;

interface FoundBlob {
  readonly digest: Digest;
  readonly row: BlobRow;
}

/**
 * The LMDB file that indexes journal and blobs: each method that changes it is one transaction.
 *
 * Invariant: the rows are the result of all records up to `totals`, applied in order, less the blobs that were
 * collected. `apply` works the same when a change is made, rolled forward and rebuilt.
 */
export class IndexDatabase extends IndexTables {
  readonly #changes: IndexChanges;
  readonly #commits: SharedCounter | undefined;
  readonly #folder: string;
  readonly #inode: number | undefined;
  /** Keeps others from opening the index during a change: see `openBesideOthers`. */
  #guard: FileGuard | undefined;
  #damage: DamagedIndexError | undefined;
  /**
   * Called once if a damaged row is read in a shared index. The next process that leads rebuilds it, so this process may
   * only close it.
   */
  onDamage: ((error: DamagedIndexError) => void) | undefined;

  private constructor(
    folder: string,
    root: RootDatabase<Buffer, Buffer>,
    commits: SharedCounter | undefined,
  ) {
    super(root);
    this.#changes = new IndexChanges(this);
    this.#commits = commits;
    this.#folder = folder;
    this.#inode = inodeOfIndex(folder);
  }

  /** Opens or creates an index that no other process has open; `readOnly` changes nothing, and fails if there is none. */
  static open(folder: string, options: { readOnly?: boolean } = {}): IndexDatabase {
    return new IndexDatabase(folder, openIndexFile(folder, options), undefined);
  }

  /** Opens the index of a store that may be in use, to read it. */
  static async openToRead(folder: string): Promise<IndexDatabase> {
    const root = await openBesideOthers(folder, { readOnly: true });
    return new IndexDatabase(folder, root, undefined);
  }

  /** Opens the index for a process that serves the store, with the counter of commits that such processes share. */
  static async openShared(folders: EmbeddedFolders): Promise<IndexDatabase> {
    const commits = await SharedCounter.open(join(folders.journal, 'commits'));
    const root = await openBesideOthers(folders.catalog, {});
    const index = new IndexDatabase(folders.catalog, root, commits);
    try {
      index.#guard = await FileGuard.open(join(folders.catalog, indexDataFileName));
    } catch (error) {
      await index.close();
      throw error;
    }
    return index;
  }

  /**
   * Changes with every change of the index by any process, before the change is acknowledged. `undefined` if the index is
   * not shared.
   */
  get commitCount(): number | undefined {
    return this.#commits?.value;
  }

  /**
   * Whether the open file is the index of the store. False once another process has created a new one, because this one was
   * removed or not trusted: then this one never changes any more.
   */
  get isInPlace(): boolean {
    return this.#inode !== undefined && inodeOfIndex(this.#folder) === this.#inode;
  }

  /** Whether a damaged row was read. */
  get isDamaged(): boolean {
    return this.#damage !== undefined;
  }

  override noteDamage(error: DamagedIndexError): void {
    if (this.isDamaged || this.#commits === undefined) return;
    this.#damage = error;
    // If another process has rebuilt the index meanwhile, the damage is in the old file, which is still open here.
    if (this.isInPlace) distrustIndex(this.#folder);
    this.onDamage?.(error);
  }

  /** The totals after the last change by this process. */
  get totals(): Readonly<IndexTotals> {
    return this.#changes.totals;
  }

  isKnownDirectory(path: string): boolean {
    return this.#changes.isKnownDirectory(path);
  }

  /** Whether the index is what this process has applied: after a failed write, that none of it was taken. */
  get isAsApplied(): boolean {
    try {
      this.root.resetReadTxn();
      const { segment, offset } = this.readTotals();
      return segment === this.totals.segment && offset === this.totals.offset;
    } catch {
      return false;
    }
  }

  /**
   * Makes this process the one that applies records. Its predecessor may have died during a commit: beginning a write makes
   * LMDB complete or discard what it left, so that the next read returns its last commit. It may not have counted that commit, so other
   * processes are made to look again.
   */
  takeOver(): void {
    this.forgetDeadReaders();
    this.root.transactionSync(() => undefined);
    this.#commits?.increment();
    this.root.resetReadTxn();
    this.#changes.startOver();
  }

  /** Adds the sum that an index of an older release lacks: one pass over its blobs, at its first opening only. */
  completeTotals(): void {
    if (this.totals.uniqueLogicalBytes !== undefined) return;
    let uniqueLogicalBytes = 0;
    for (const { value } of this.blobs.getRange({}))
      uniqueLogicalBytes += this.decode(logicalSizeOfBlobRow, value);
    this.#transaction(() => this.#changes.complete(uniqueLogicalBytes));
  }

  /** Frees the places of readers whose process died, which would keep old pages in use. */
  forgetDeadReaders(): void {
    this.root.readerCheck();
  }

  /** Applies records in order, in one transaction; `end` is the end of the journal after them. */
  apply(records: readonly PlacedRecord[], end: RecordPosition): void {
    this.#transaction(() => {
      for (const placed of records) this.#changes.apply(placed);
      this.#changes.reach(end);
    });
  }

  /** Forgets collected blobs. */
  forgetBlobs(digests: readonly Digest[]): void {
    this.#transaction(() => {
      for (const digest of digests) {
        const row = this.blob(digest);
        if (row) this.#changes.dropBlob(digest, row);
      }
    });
  }

  /**
   * Forgets removals from before `beforeMs` whose older puts are gone with their segments. Looks at no more than `limit`
   * names, after `after`; returns the last of them, or `undefined` at the end.
   */
  forgetRemovals(
    beforeMs: number,
    oldestSegment: number,
    limit: number,
    after: Buffer | undefined,
  ): Buffer | undefined {
    const start = after && Buffer.concat([after, Buffer.alloc(1)]);
    const found = [...this.removals.getRange({ ...(start && { start }), limit })];
    const old = found.filter(({ value }) => {
      const { timeMs, origin } = this.decode(decodeRemovalRow, value);
      return timeMs < beforeMs && origin < oldestSegment;
    });
    if (old.length > 0) this.#transaction(() => old.forEach(({ key }) => this.#changes.forgetRemoval(key)));
    return found.length < limit ? undefined : found.at(-1)?.key;
  }

  /** Forgets a segment without live records. */
  forgetSegment(number: number): void {
    this.#transaction(() => {
      this.segments.removeSync(segmentKey(number));
    });
  }

  /**
   * The last step of a rebuild. Blobs whose bytes are in no record are marked as damaged if an entry names them.
   * Unreferenced blobs of the blob store are forgotten if their bytes are gone, because the journal does not record what
   * was collected; the others wait for collection again. Returns the digests of the damaged.
   */
  async settleRebuild(placer: Pick<BlobPlacer, 'size'>): Promise<Digest[]> {
    const lost: Digest[] = [];
    const unreferenced: FoundBlob[] = [];
    for (const { key, value } of this.blobs.getRange({})) {
      const row = this.decode(decodeBlobRow, value);
      const digest = this.decode(decodeDigestKey, key);
      if (row.references === 0 && row.place.kind !== 'journal') unreferenced.push({ digest, row });
      else if (row.place.kind === 'lost') lost.push(digest);
    }
    const gone: FoundBlob[] = [];
    for (let at = 0; at < unreferenced.length; at += lookUpsAtOnce) {
      const lookUps = unreferenced.slice(at, at + lookUpsAtOnce).map(async (found) => {
        const { place } = found.row;
        const size = place.kind === 'object' ? await placer.size(place.key) : undefined;
        if (size === undefined) gone.push(found);
      });
      await Promise.all(lookUps);
    }
    this.#transaction(() => {
      for (const { digest, row } of gone) this.#changes.dropBlob(digest, row);
      for (const digest of lost) {
        const row = this.blob(digest);
        if (row) this.#changes.putBlob(digest, { ...row, damaged: true });
      }
    });
    return lost;
  }

  override async close(): Promise<void> {
    await super.close();
    this.#guard?.close();
    this.#guard = undefined;
  }

  #transaction(change: () => void): void {
    const before = { ...this.#changes.totals };
    const commit = (): void =>
      this.root.transactionSync(() => {
        change();
        this.#changes.writeSums();
      });
    try {
      if (this.#guard === undefined) commit();
      else this.#guard.run('shared', commit);
    } catch (error) {
      this.#changes.discard(before);
      this.#endIfUnusable();
      throw indexWriteError(error);
    } finally {
      this.#commits?.increment();
    }
    // A look-up later in this turn must see the change too.
    this.root.resetReadTxn();
  }

  /**
   * Ends the process if LMDB is unusable. After a failed write of its meta page, LMDB refuses every later call in this
   * process, reads too (MDB_PANIC); only a new process can continue. Nothing is lost: what the index lacks is in the
   * journal.
   */
  #endIfUnusable(): void {
    try {
      this.root.resetReadTxn();
      this.state.get(totalsKey);
    } catch (cause) {
      setImmediate(() => {
        throw cannot('unavailable', 'use the index of the catalog', 'a write to it failed permanently', {
          cause,
        });
      });
    }
  }
}

/**
 * Opens the file of an index while no process changes it. LMDB sets the number of the last commit, which all processes
 * share, to what it read from the file a moment before, without a lock (`mdb_env_open2`): a commit in between becomes
 * invisible to all, and the next one is based on the state before it, so that it is lost.
 */
async function openBesideOthers(
  folder: string,
  options: { readOnly?: boolean },
): Promise<RootDatabase<Buffer, Buffer>> {
  const guard = await FileGuard.open(join(folder, indexDataFileName));
  if (guard === undefined) return openIndexFile(folder, options);
  try {
    return guard.run('exclusive', () => openIndexFile(folder, options));
  } finally {
    guard.close();
  }
}
