import { join } from 'node:path';
import type { RootDatabase } from 'lmdb';
import type { Digest } from '../../../core/digest.ts';
import { FiletrackerError } from '../../../core/errors.ts';
import { FileGuard } from '../../../fs/locks/file-guard.ts';
import { SharedCounter } from '../../../fs/shared-counter.ts';
import type { BlobPlacer } from '../../catalog.ts';
import type { EmbeddedFolders } from '../embedded-folders.ts';
import { IndexChanges, type PlacedRecord } from './changes.ts';
import { indexWriteError, type DamagedIndexError } from './failures.ts';
import { distrustIndex, indexDataFileName, inodeOfIndex } from './state.ts';
import { IndexTables, openIndexFile } from './tables.ts';
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

/** Questions to the blob store that are under way at once. */
const questionsAtOnce = 64;

/**
 * The LMDB file that indexes journal and blobs: each method that changes it is one transaction.
 *
 * Invariant: the rows are what comes of applying all records up to `totals` in their order, less the blobs
 * that were collected. `apply` runs in the same way when a change is made, rolled forward and rebuilt.
 */
export class IndexDatabase extends IndexTables {
  readonly #changes: IndexChanges;
  readonly #commits: SharedCounter | undefined;
  readonly #folder: string;
  readonly #inode: number | undefined;

  /** Keeps others from opening the index while it is changed: see `openBesideOthers`. */
  #guard: FileGuard | undefined;
  #damage: DamagedIndexError | undefined;
  /**
   * Called once if a damaged row is met in an index that was opened as shared. It is rebuilt by the next process that
   * leads, so this one may close it but has nothing more to do with it.
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

  /**
   * Of an index that no other process has open. `readOnly` changes nothing, and fails where there is no index; else one
   * is made.
   */
  static open(folder: string, options: { readOnly?: boolean } = {}): IndexDatabase {
    return new IndexDatabase(folder, openIndexFile(folder, options), undefined);
  }

  /** To read the index of a store that may be in use. */
  static async openToRead(folder: string): Promise<IndexDatabase> {
    const root = await openBesideOthers(folder, { readOnly: true });
    return new IndexDatabase(folder, root, undefined);
  }

  /** For a process that serves the store, with the counter by which such processes tell each other of changes. */
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
   * Differs from what it was where any process has changed the index since; a change is counted before anyone
   * is told of it. Undefined where the index was not opened as shared.
   */
  get commitCount(): number | undefined {
    return this.#commits?.value;
  }

  /**
   * Whether what is open here is the index of the store. Not so where another process has made it anew, because it was
   * removed or nothing vouched for it: what is open here never changes any more then.
   */
  get isInPlace(): boolean {
    return this.#inode !== undefined && inodeOfIndex(this.#folder) === this.#inode;
  }

  /** Whether a damaged row was met. */
  get isDamaged(): boolean {
    return this.#damage !== undefined;
  }

  override noteDamage(error: DamagedIndexError): void {
    if (this.isDamaged || this.#commits === undefined) return;
    this.#damage = error;
    // Another process may have rebuilt it meanwhile: what is damaged is the old one, which this one still has open.
    if (this.isInPlace) distrustIndex(this.#folder);
    this.onDamage?.(error);
  }

  /** What this process has applied last. */
  get totals(): Readonly<IndexTotals> {
    return this.#changes.totals;
  }

  /**
   * Whether the index is certain to be what this process has applied: after a write that failed, that nothing of it was
   * taken.
   */
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
   * Makes this process the one that applies: takes over where the last one stopped. That one may have died within a
   * commit. To begin a write makes LMDB settle what it left, so that what is read next is its last commit; and as it
   * may not have come to count that commit, others are told to look again.
   */
  takeOver(): void {
    this.forgetDeadReaders();
    this.root.transactionSync(() => undefined);
    this.#commits?.increment();
    this.root.resetReadTxn();
    this.#changes.startOver();
  }

  /** Counts what an index of an older release does not tell; one pass over its blobs, at its first opening alone. */
  completeTotals(): void {
    if (this.totals.uniqueLogicalBytes !== undefined) return;
    let uniqueLogicalBytes = 0;
    for (const { value } of this.blobs.getRange({}))
      uniqueLogicalBytes += this.decode(logicalSizeOfBlobRow, value);
    this.#transaction(() => this.#changes.complete(uniqueLogicalBytes));
  }

  /** Frees the places of readers whose process died, which would keep old pages from being used again. */
  forgetDeadReaders(): void {
    this.root.readerCheck();
  }

  /** Applies records in their order, in one transaction; `end` is the journal's end after them. */
  apply(records: readonly PlacedRecord[], end: { segment: number; offset: number }): void {
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
   * Forgets removals of before `beforeMs` whose older puts are gone with their segments. Looks at no more than
   * `limit` names, after `after`; gives the last of them, or undefined at the end.
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

  /** Forgets a segment that holds nothing that is needed. */
  forgetSegment(number: number): void {
    this.#transaction(() => {
      this.segments.removeSync(segmentKey(number));
    });
  }

  /**
   * The last step of a rebuild. Blobs whose content no record carried are marked as damaged where an entry
   * names them. Unnamed ones of the blob store are forgotten if it has them no more, because the journal does
   * not tell what was collected; those that are there wait for collection again. Gives the digests of the damaged.
   */
  async settleRebuild(placer: Pick<BlobPlacer, 'size'>): Promise<Digest[]> {
    const lost: Digest[] = [];
    const unnamed: { digest: Digest; row: BlobRow }[] = [];
    for (const { key, value } of this.blobs.getRange({})) {
      const row = this.decode(decodeBlobRow, value);
      const digest = this.decode(decodeDigestKey, key);
      if (row.references === 0 && row.place.kind !== 'journal') unnamed.push({ digest, row });
      else if (row.place.kind === 'lost') lost.push(digest);
    }
    const dropped: { digest: Digest; row: BlobRow }[] = [];
    for (let at = 0; at < unnamed.length; at += questionsAtOnce) {
      const asked = unnamed.slice(at, at + questionsAtOnce).map(async ({ digest, row }) => {
        const there = row.place.kind === 'object' && (await placer.size(row.place.key)) !== undefined;
        if (!there) dropped.push({ digest, row });
      });
      await Promise.all(asked);
    }
    this.#transaction(() => {
      for (const { digest, row } of dropped) this.#changes.dropBlob(digest, row);
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
    // A look-up made later in this turn must see the change too.
    this.root.resetReadTxn();
  }

  /**
   * Where the write of its meta page has failed, LMDB refuses every later call in this process, reads too
   * (MDB_PANIC), and only a new process can go on: so this one ends, as it would of a bug. Nothing is lost: what the
   * index has not taken is in the journal.
   */
  #endIfUnusable(): void {
    try {
      this.root.resetReadTxn();
      this.state.get(totalsKey);
    } catch (cause) {
      const text = 'Cannot use the index of the catalog any more: a write to it has failed for good';
      setImmediate(() => {
        throw new FiletrackerError('unavailable', text, { cause });
      });
    }
  }
}

/**
 * Opens the file of an index while nobody changes it. LMDB puts the number of the last commit, which all processes
 * share, to what it has read of the file a moment before, without a lock (`mdb_env_open2`): a commit made in between is
 * not seen by anybody any more, and the next one is made upon the state before it, so that it is lost.
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
